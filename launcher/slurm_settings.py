"""How a cluster's Slurm is set up, judged against what slurm/README.md says works. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from launcher.doctor import Finding, Outcome

_KILL_WAIT_S = 30
_GRACE_S = 60


@dataclass(frozen=True)
class Wishes:
    """What a site profile asks of Slurm."""

    requeue: bool = True
    grace_s: float | None = None


def parse_config(text: str) -> dict[str, str]:
    """Of `scontrol show config`: lines of `Key = value`."""
    pairs = (line.split("=", 1) for line in text.splitlines() if "=" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def parse_partition(text: str) -> dict[str, str]:
    """Of `scontrol show partition --oneliner NAME`: words of `Key=value`."""
    return dict(re.findall(r"(\w+)=(\S*)", text))


def parse_qos(text: str) -> dict[str, str]:
    """Of `sacctmgr show qos` for one QOS with the format GraceTime,PreemptMode; empty if there is none of that name.

    Without a mode of its own a QOS has the cluster's.
    """
    grace, bar, mode = text.strip().partition("|")
    return {"GraceTime": grace, "PreemptMode": "" if mode == "cluster" else mode.upper()} if bar else {}


def by_qos(config: Mapping[str, str]) -> bool:
    """Whether a job's QOS, rather than its partition, tells how it is preempted, and with which grace."""
    return config.get("PreemptType") == "preempt/qos"


def judge_settings(
    config: Mapping[str, str], places: Sequence[Mapping[str, str]], wishes: Wishes, *, qos: Mapping[str, str]
) -> list[Finding]:
    """`places` are the partitions that jobs may go to, `qos` is what theirs says; empty if that is not known."""
    preemption = [qos] if by_qos(config) else places or [{}]
    judged = [finding for place in preemption for finding in _judge_preemption(config, place, wishes)]
    return [
        Finding("slurm", Outcome.OK, f"version {config.get('SLURM_VERSION', 'unknown')}"),
        _judge_proctrack(config.get("ProctrackType", "unknown")),
        _judge_kill_wait(config.get("KillWait", "")),
        *dict.fromkeys(judged),
        _judge_requeue(config.get("JobRequeue", ""), wishes),
    ]


def judge_interface(wanted: str, interfaces: Collection[str], *, in_job: bool) -> Finding:
    """`network_interface` of a profile, against those of this host; `in_job`: this is a node that a job runs on."""
    if wanted in interfaces:
        return Finding("network interface", Outcome.OK, wanted)
    found = f"{wanted} is not on this host, which has {', '.join(sorted(interfaces))}"
    if in_job:
        return Finding("network interface", Outcome.FAILED, found, "mend network_interface in the profile")
    advice = "nodes may have it: look there, with srun resolute doctor"
    return Finding("network interface", Outcome.WARNING, found, advice)


def _judge_proctrack(kind: str) -> Finding:
    advice = "set ProctrackType=proctrack/cgroup"
    match kind.removeprefix("proctrack/"):
        case "cgroup":
            return Finding("ProctrackType", Outcome.OK, kind)
        case "linuxproc":
            why = "not supported: it signals every descendant of a task, which ends a stop without a checkpoint"
            return Finding("ProctrackType", Outcome.FAILED, f"{kind}, {why}", advice)
        case "pgid":
            why = "processes of a killed job may outlive it by some seconds"
            return Finding("ProctrackType", Outcome.WARNING, f"{kind}: {why}", advice)
    return Finding("ProctrackType", Outcome.WARNING, f"{kind}: nobody has tried that", advice)


def _judge_kill_wait(text: str) -> Finding:
    seconds = _seconds(text)
    if seconds < _KILL_WAIT_S:
        advice = f"KillWait={_KILL_WAIT_S} or more: it is all that a job without grace has for its checkpoint"
        return Finding("KillWait", Outcome.WARNING, f"{seconds} s", advice)
    return Finding("KillWait", Outcome.OK, f"{seconds} s")


def _judge_preemption(config: Mapping[str, str], place: Mapping[str, str], wishes: Wishes) -> list[Finding]:
    modes = place.get("PreemptMode") or config.get("PreemptMode", "OFF")
    if config.get("PreemptType", "preempt/none") == "preempt/none" or modes == "OFF":
        return [Finding("PreemptMode", Outcome.OK, "jobs are not preempted")]
    grace = place.get("GraceTime")
    if grace is None and by_qos(config):
        advice = "it is the QOS's: name qos in the profile, or look at sacctmgr show qos format=Name,GraceTime"
        return [_judge_preempt_mode(modes), Finding("GraceTime", Outcome.WARNING, "not known", advice)]
    return [_judge_preempt_mode(modes), *([] if grace is None else [_judge_grace(_seconds(grace), wishes)])]


def _judge_preempt_mode(modes: str) -> Finding:
    if "REQUEUE" in modes:
        return Finding("PreemptMode", Outcome.OK, modes)
    if "CANCEL" in modes:
        advice = "PreemptMode=REQUEUE; else go on by hand where the grace was too short, with resolute resume"
    else:
        advice = "PreemptMode=REQUEUE: a suspended run keeps its memory, and its Ray may take its workers for dead"
    return Finding("PreemptMode", Outcome.WARNING, modes, advice)


def _judge_grace(grace_s: int, wishes: Wishes) -> Finding:
    found = f"{grace_s} s"
    if wishes.grace_s is not None and wishes.grace_s > grace_s:
        advice = (
            f"write grace_s: {grace_s} in the profile: runs count on longer than they have"
            if grace_s
            else ("delete grace_s from the profile: there is no grace")
        )
        return Finding("GraceTime", Outcome.WARNING, f"{found}, and the profile says {wishes.grace_s:g} s", advice)
    if grace_s == 0:
        advice = "give the partition or QOS a GraceTime; until then KillWait is all there is for a checkpoint"
        return Finding("GraceTime", Outcome.WARNING, found, advice)
    if grace_s < _GRACE_S and wishes.grace_s is None:
        return Finding(
            "GraceTime", Outcome.WARNING, found, f"write grace_s: {grace_s} in the profile, so that leases fit"
        )
    return Finding("GraceTime", Outcome.OK, found)


def _judge_requeue(setting: str, wishes: Wishes) -> Finding:
    if not wishes.requeue:
        advice = "jobs that are preempted or lose a node stay ended: resolute resume, or --chain at submission"
        return Finding("JobRequeue", Outcome.WARNING, "the profile forbids it (requeue: false)", advice)
    asked = "jobs ask for it (--requeue)"
    return Finding("JobRequeue", Outcome.OK, asked if setting == "0" else f"{setting}, and {asked}")


def _seconds(text: str) -> int:
    """Of "30 sec", "30" and "1-00:02:00"; 0 for anything else."""
    if clock := re.fullmatch(r"(?:(\d+)-)?(\d+):(\d+):(\d+)", text):
        days, hours, minutes, seconds = (int(part or 0) for part in clock.groups())
        return ((days * 24 + hours) * 60 + minutes) * 60 + seconds
    match = re.match(r"\d+", text)
    return int(match[0]) if match else 0
