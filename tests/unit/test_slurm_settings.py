"""How Slurm is set up, against what slurm/README.md says works."""

from __future__ import annotations

import pytest

from launcher.doctor import Finding, Outcome
from launcher.slurm_settings import Wishes, judge_interface, judge_settings, parse_config, parse_partition, parse_qos

CONFIG = """\
Configuration data as of 2026-03-14T09:26:53
JobRequeue              = 1
KillWait                = 30 sec
PreemptMode             = REQUEUE
PreemptType             = preempt/partition_prio
ProctrackType           = proctrack/cgroup
SLURM_VERSION           = 22.05.8
SlurmctldParameters     = preempt_send_user_signal,idle_on_node_suspend=1

Slurmctld(primary) at n1 is UP
"""
PARTITION = "PartitionName=low AllowGroups=ALL Default=NO GraceTime=120 Hidden=NO PreemptMode=REQUEUE State=UP"


def judge(
    wishes: Wishes | None = None, *, partition: str = PARTITION, qos: str = "", **changes: str
) -> dict[str, Finding]:
    config, partitions = parse_config(CONFIG) | changes, [parse_partition(partition)]
    findings = judge_settings(config, partitions, wishes or Wishes(), qos=parse_qos(qos))
    return {finding.check: finding for finding in findings}


def test_what_scontrol_says_is_read() -> None:
    assert parse_config(CONFIG)["SlurmctldParameters"] == "preempt_send_user_signal,idle_on_node_suspend=1"
    assert parse_partition(PARTITION)["GraceTime"] == "120"


def test_a_cluster_that_is_set_up_well_has_nothing_to_mend() -> None:
    findings = judge()
    assert {(finding.outcome, finding.advice) for finding in findings.values()} == {(Outcome.OK, "")}
    assert findings["slurm"].found == "version 22.05.8"
    assert findings["GraceTime"].found == "120 s"


@pytest.mark.parametrize(
    ("kind", "outcome"),
    [("cgroup", Outcome.OK), ("pgid", Outcome.WARNING), ("linuxproc", Outcome.FAILED), ("cray", Outcome.WARNING)],
)
def test_how_processes_are_tracked(kind: str, outcome: Outcome) -> None:
    assert judge(ProctrackType=f"proctrack/{kind}")["ProctrackType"].outcome is outcome


@pytest.mark.parametrize(("wait", "outcome"), [("29 sec", Outcome.WARNING), ("30 sec", Outcome.OK)])
def test_the_kill_may_not_come_too_soon(wait: str, outcome: Outcome) -> None:
    assert judge(KillWait=wait)["KillWait"].outcome is outcome


@pytest.mark.parametrize(
    ("mode", "outcome"),
    [
        ("REQUEUE", Outcome.OK),
        ("GANG,REQUEUE", Outcome.OK),
        ("CANCEL", Outcome.WARNING),
        ("GANG,SUSPEND", Outcome.WARNING),
        ("OFF", Outcome.OK),
    ],
)
def test_how_jobs_are_preempted(mode: str, outcome: Outcome) -> None:
    assert judge(partition=f"PreemptMode={mode} GraceTime=120")["PreemptMode"].outcome is outcome


def test_without_preemption_grace_is_nobodys_business() -> None:
    findings = judge(PreemptType="preempt/none", partition="PreemptMode=REQUEUE GraceTime=0")
    assert findings["PreemptMode"].found == "jobs are not preempted"
    assert "GraceTime" not in findings


def test_where_the_partition_is_not_known_nothing_is_said_of_its_grace() -> None:
    findings = judge(partition="")
    assert findings["PreemptMode"].found == "REQUEUE"
    assert "GraceTime" not in findings


@pytest.mark.parametrize(
    ("grace", "told", "outcome", "advice"),
    [
        (0, None, Outcome.WARNING, "give the partition or QOS a GraceTime"),
        (0, 30.0, Outcome.WARNING, "delete grace_s"),
        (20, None, Outcome.WARNING, "write grace_s: 20 in the profile, so that leases fit"),
        (20, 20.0, Outcome.OK, ""),
        (20, 60.0, Outcome.WARNING, "write grace_s: 20 in the profile: runs count on longer"),
        (60, None, Outcome.OK, ""),
    ],
)
def test_the_grace_and_what_the_profile_says_of_it(
    grace: int, told: float | None, outcome: Outcome, advice: str
) -> None:
    finding = judge(Wishes(grace_s=told), partition=f"PreemptMode=REQUEUE GraceTime={grace}")["GraceTime"]
    assert finding.outcome is outcome
    assert finding.advice.startswith(advice)


@pytest.mark.parametrize(
    ("qos", "told", "outcome", "found"),
    [
        ("00:02:00|cluster\n", 120.0, Outcome.OK, "120 s"),
        ("1-00:00:30|requeue\n", 120.0, Outcome.OK, "86430 s"),
        ("00:01:00|requeue\n", 120.0, Outcome.WARNING, "60 s, and the profile says 120 s"),
        ("", 120.0, Outcome.WARNING, "not known"),
    ],
)
def test_where_a_qos_tells_how_jobs_are_preempted_its_grace_counts(
    qos: str, told: float, outcome: Outcome, found: str
) -> None:
    finding = judge(
        Wishes(grace_s=told), partition="GraceTime=0 PreemptMode=REQUEUE", qos=qos, PreemptType="preempt/qos"
    )["GraceTime"]
    assert (finding.outcome, finding.found) == (outcome, found)
    assert "delete grace_s" not in finding.advice


def test_a_qos_without_a_mode_of_its_own_has_the_clusters() -> None:
    assert judge(qos="00:02:00|cluster", PreemptType="preempt/qos")["PreemptMode"].found == "REQUEUE"
    assert judge(qos="00:02:00|cancel", PreemptType="preempt/qos")["PreemptMode"].found == "CANCEL"


def test_of_several_partitions_each_is_judged_and_what_they_share_is_told_once() -> None:
    places = [parse_partition(f"PreemptMode=REQUEUE GraceTime={grace}") for grace in (120, 20)]
    findings = judge_settings(parse_config(CONFIG), places, Wishes(grace_s=60.0), qos={})
    told = [(each.check, each.found) for each in findings if each.check in ("PreemptMode", "GraceTime")]
    assert told == [
        ("PreemptMode", "REQUEUE"),
        ("GraceTime", "120 s"),
        ("GraceTime", "20 s, and the profile says 60 s"),
    ]


@pytest.mark.parametrize(
    ("requeue", "setting", "outcome"),
    [(True, "1", Outcome.OK), (True, "0", Outcome.OK), (False, "1", Outcome.WARNING)],
)
def test_jobs_are_to_be_queued_again(requeue: bool, setting: str, outcome: Outcome) -> None:
    assert judge(Wishes(requeue=requeue), JobRequeue=setting)["JobRequeue"].outcome is outcome


@pytest.mark.parametrize(
    ("wanted", "in_job", "outcome"),
    [("ib0", False, Outcome.OK), ("ib1", False, Outcome.WARNING), ("ib1", True, Outcome.FAILED)],
)
def test_an_interface_that_is_not_there_fails_on_a_node_and_is_doubtful_elsewhere(
    wanted: str, in_job: bool, outcome: Outcome
) -> None:
    assert judge_interface(wanted, ["lo", "ib0"], in_job=in_job).outcome is outcome
