"""`resolute doctor`: what a run rests on, looked at before one is started, or after one went wrong."""

from __future__ import annotations

import json
import os
import shutil
import socket
from pathlib import Path
from typing import Annotated

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from launcher.cli.console import show_table
from launcher.cli.errors import FAILED
from launcher.cli.plan import Format
from launcher.doctor import Finding, Outcome, judge_file_system, judge_host, judge_unwritable
from launcher.executors.ray_temp_dir import temp_base
from launcher.file_system import look_at
from launcher.host_facts import gather_host
from launcher.paths import CheckpointName, RunPaths
from launcher.slurm.commands import call
from launcher.slurm.profile import Profile, load_profile
from launcher.slurm_settings import (
    Wishes,
    by_qos,
    judge_interface,
    judge_settings,
    parse_config,
    parse_partition,
    parse_qos,
)


def doctor(
    run_dir: Annotated[
        Path | None,
        typer.Argument(
            metavar="[RUN_DIR]", help="A run's directory, or where runs will lie; the profile's, or runs, when absent."
        ),
    ] = None,
    profile: Annotated[
        str | None, typer.Option(help="A site profile, to hold against how Slurm is set up here.")
    ] = None,
    output: Annotated[Format, typer.Option("--format", help="A table to read, or JSON.")] = Format.TABLE,
) -> None:
    """Check what a run rests on: file system, software, machine, Slurm. Exit code 1 if anything cannot work.

    Examples:

      resolute doctor /shared/runs

      resolute doctor --profile my-site.yaml --format json
    """
    site = load_profile(profile) if profile else None
    directory = run_dir or Path(site.run_root if site else "runs")
    findings = [
        *examine_directory(directory.absolute()),
        *judge_host(gather_host(ray_temp_dir=temp_base())),
        *(examine_slurm(site) if site or shutil.which("scontrol") else ()),
    ]
    if output is Format.JSON:
        typer.echo(json.dumps([vars(finding) for finding in findings], indent=1))
    else:
        show_table(Console(), findings_table(findings))
    if any(finding.outcome is Outcome.FAILED for finding in findings):
        raise typer.Exit(FAILED)


def examine_directory(directory: Path) -> list[Finding]:
    """The file system of `directory`, tried in the nearest folder above it that is there."""
    place = next(path for path in (directory, *directory.parents) if path.is_dir())
    try:
        facts = look_at(place)
    except OSError as error:
        return judge_unwritable(str(place), error.strerror or str(error))
    return judge_file_system(facts, newest_checkpoint_bytes=_newest_checkpoint_bytes(directory))


def examine_slurm(site: Profile | None) -> list[Finding]:
    """How Slurm is set up, and the profile's word on it."""
    findings = []
    if site and site.network_interface:
        interfaces = [name for _, name in socket.if_nameindex()]
        findings.append(judge_interface(site.network_interface, interfaces, in_job="SLURM_JOB_ID" in os.environ))
    answered, config = call("scontrol", "show", "config")
    if not answered:
        advice = "look on a login node, with Slurm's commands on the PATH"
        return [*findings, Finding("slurm", Outcome.WARNING, config.splitlines()[-1], advice)]
    settings, names = parse_config(config), site.partition.split(",") if site and site.partition else [None]
    partitions = [_partition(name) for name in names]
    wishes = Wishes(site.requeue, site.grace_s) if site else Wishes()
    return [
        *findings,
        *(finding for _, missing in partitions for finding in missing),
        *judge_settings(
            settings,
            [partition for partition, _ in partitions if partition],
            wishes,
            qos=_qos(site.qos) if site and site.qos and by_qos(settings) else {},
        ),
    ]


def _qos(name: str) -> dict[str, str]:
    """How jobs of a QOS are preempted; empty where Slurm's accounting does not answer."""
    form = "format=GraceTime,PreemptMode"
    answered, told = call("sacctmgr", "--noheader", "--parsable2", "show", "qos", f"name={name}", form)
    return parse_qos(told) if answered else {}


def _partition(name: str | None) -> tuple[dict[str, str], list[Finding]]:
    """How a partition is set up, the default one if none is named; and that it is missing, if it is."""
    answered, text = call("scontrol", "show", "partition", "--oneliner", *([name] if name else []))
    if not answered:
        advice = "mend partition in the profile; sinfo lists those there are"
        return {}, [Finding("partition", Outcome.FAILED, f"{name}: {text.splitlines()[-1]}", advice)]
    partitions = [parse_partition(line) for line in text.splitlines()]
    wanted = (each for each in partitions if name or each.get("Default") == "YES")
    return next(wanted, {}), []


def findings_table(findings: list[Finding]) -> Table:
    """A row for each."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("check", no_wrap=True)
    table.add_column("outcome", no_wrap=True)
    table.add_column("found", overflow="fold")
    table.add_column("what to do", overflow="fold")
    for finding in findings:
        table.add_row(finding.check, finding.outcome.value, finding.found, finding.advice)
    return table


def _newest_checkpoint_bytes(directory: Path) -> int:
    folder = RunPaths(directory).checkpoints
    names = [path for path in folder.iterdir() if CheckpointName.parse(path.name)] if folder.is_dir() else []
    return sum(file.stat().st_size for file in max(names).iterdir()) if names else 0
