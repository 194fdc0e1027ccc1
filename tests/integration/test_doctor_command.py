"""`resolute doctor` on this machine: what is there is found, and the exit code says whether anything cannot work."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from launcher.cli.doctor import examine_slurm
from launcher.doctor import Outcome
from launcher.host_facts import look_at_package
from launcher.slurm.profile import Profile
from tests.faults.commands import Commands, Ended
from tests.integration.toy import write_job

# Not every package anew, which takes half a minute.
QUICK = "from launcher import host_facts; host_facts._OPTIONAL = ('submitit',)"


def examine(*arguments: object, environment: dict[str, str] | None = None) -> Ended:
    with Commands() as commands:
        return commands.resolute("doctor", *arguments, environment=environment, before=QUICK)


def test_this_machine_has_what_its_tests_need(tmp_path: Path) -> None:
    done = examine(tmp_path / "runs" / "new", "--format", "json")
    assert done.code == 0, done
    found = {finding["check"]: finding for finding in json.loads(done.out)}
    assert found["rename"] == {"check": "rename", "outcome": "ok", "found": f"atomic in {tmp_path}", "advice": ""}
    assert {found[check]["outcome"] for check in ("torch", "torchvision", "submitit", "decoder", "python")} == {"ok"}
    assert os.listdir(tmp_path) == []


def test_a_run_directorys_newest_checkpoint_is_weighed(drawn: Path, tmp_path: Path) -> None:
    with Commands() as commands:
        done = commands.resolute("run", write_job(tmp_path, drawn), "--run-dir", tmp_path / "run")
        assert done.code == 0, done
        before = sorted(os.listdir(tmp_path / "run"))
        looked = commands.resolute("doctor", tmp_path / "run", before=QUICK)
    assert looked.code == 0, looked
    assert "a checkpoint takes 0.00 GB" in " ".join(looked.out.split())
    assert sorted(os.listdir(tmp_path / "run")) == before


def test_what_cannot_work_is_an_exit_code_of_1(tmp_path: Path) -> None:
    """The interface is only doubted on this host; within a job, which this claims to be, it fails."""
    site = tmp_path / "site.yaml"
    site.write_text("{cpus_per_node: 2, workers_per_node: 1, time_limit_minutes: 5, network_interface: ib7}")
    arguments = (tmp_path, "--profile", site, "--format", "json")
    bare = {"PATH": "/nowhere"}
    doubted, failed = (examine(*arguments, environment=bare | job) for job in ({}, {"SLURM_JOB_ID": "4711"}))
    assert (doubted.code, failed.code) == (0, 1), (doubted, failed)
    (finding,) = (each for each in json.loads(failed.out) if each["check"] == "network interface")
    assert finding["outcome"] == "failed"
    assert finding["found"].startswith("ib7 is not on this host, which has ")
    (slurm,) = (each for each in json.loads(doubted.out) if each["check"] == "slurm")
    assert (slurm["outcome"], slurm["advice"].split(",")[0]) == ("warning", "look on a login node")


_SCONTROL = """#!/bin/sh
case "$*" in
"show config") echo "PreemptType = preempt/qos"; echo "PreemptMode = REQUEUE" ;;
"show partition --oneliner gpu") echo "PartitionName=gpu GraceTime=0" ;;
*) echo "slurm_load_partitions error: Invalid partition name specified" >&2; exit 1 ;;
esac
"""
_SACCTMGR = """#!/bin/sh
echo "$@" | grep -q "name=preemptible format=GraceTime,PreemptMode" && echo "00:02:00|cluster"
"""


def test_each_of_several_partitions_is_looked_up_and_a_qos_has_its_own_grace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By stand-ins for Slurm's commands, which answer as their manuals say."""
    for name, text in (("scontrol", _SCONTROL), ("sacctmgr", _SACCTMGR)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    asked = {"partition": "gpu,gone", "qos": "preemptible", "grace_s": 120}
    site = Profile.model_validate({"cpus_per_node": 2, "gpus_per_node": 1, "time_limit_minutes": 5, **asked})
    findings = examine_slurm(site)
    (missing,) = (finding for finding in findings if finding.check == "partition")
    (grace,) = (finding for finding in findings if finding.check == "GraceTime")
    assert missing.found == "gone: slurm_load_partitions error: Invalid partition name specified"
    assert (grace.outcome, grace.found, grace.advice) == (Outcome.OK, "120 s", "")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("raise OSError('libfoo.so.1: cannot open')", "OSError: libfoo.so.1: cannot open"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "ended by signal 11"),
    ],
)
def test_a_package_that_is_broken_takes_only_its_own_process_along(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: str, error: str
) -> None:
    (tmp_path / "broken.py").write_text(code)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    package = look_at_package("broken")
    assert (package.version, package.error) == ("", error)
