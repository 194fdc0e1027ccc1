"""`resolute doctor` on this machine: what is there is found, and the exit code says whether anything cannot work."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from launcher.host_facts import look_at_package
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
