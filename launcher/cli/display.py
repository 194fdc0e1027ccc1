"""A run on the terminal: a line per epoch, per transition and per phase boundary; a live bar where it is one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table

from launcher import events
from launcher.cli.console import say, show_table
from launcher.events import Event
from launcher.paths import RunPaths
from launcher.plan import Plan
from launcher.report import PhaseResult, Summary


class RunDisplay(AbstractContextManager["RunDisplay"]):
    """Shows events as they come. An epoch's line waits for its evaluation, which is the next event."""

    def __init__(self, plan: Plan, console: Console):
        self._plan = plan
        self._console = console
        self._trained: events.EpochTrained | None = None
        self._bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[resolution]} px  {task.fields[pace]:,.0f} images/s  loss {task.fields[loss]:.3f}"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task: TaskID | None = None

    def __enter__(self) -> RunDisplay:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._flush_epoch(None)
        self._bar.stop()

    def show(self, event: Event) -> None:
        """Print what a person wants to know of `event`."""
        match event:
            case events.Progress():
                self._show_progress(event)
                return
            case events.EpochTrained():
                self._hide_progress()
                self._trained = event
                return
            case events.SamplesReplaced():
                self._print(describe_replaced(event))
                return
            case events.Evaluated() if event.moment == "epoch_end":
                self._flush_epoch(event)
                return
        self._flush_epoch(None)
        line = describe(event)
        if line is not None:
            self._print(line)

    def _flush_epoch(self, evaluated: events.Evaluated | None) -> None:
        if self._trained is not None:
            self._print(describe_epoch(self._trained, evaluated, num_epochs=len(self._plan.rows)))
            self._trained = None

    def _show_progress(self, event: events.Progress) -> None:
        if not self._console.is_terminal:
            return
        if self._task is None:
            self._task = self._bar.add_task("", epoch="", resolution="", pace=0.0, loss=0.0)
        self._bar.update(
            self._task,
            completed=event.samples_done,
            total=event.num_samples,
            epoch=event.epoch,
            resolution=event.resolution,
            pace=event.images_per_s,
            loss=event.loss,
        )

    def _hide_progress(self) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
            self._task = None

    def _print(self, line: str) -> None:
        say(self._console, line)


def describe_epoch(trained: events.EpochTrained, evaluated: events.Evaluated | None, *, num_epochs: int) -> str:
    """One line: epoch 3/15  24 px  batch 256  lr 0.2  loss 1.234  top-1 56.7 %  3,456 images/s  12.3 s"""
    accuracy = f"top-1 {_percent(evaluated.top1)}" if evaluated else "top-1      -"
    return (
        f"epoch {trained.epoch:>{len(str(num_epochs))}}/{num_epochs}  {trained.resolution:>4} px  "
        f"batch {trained.global_batch:>5}  lr {trained.learning_rate:<8.4g}  loss {trained.loss:7.4f}  {accuracy}  "
        f"{trained.images_per_s:>8,.0f} images/s  {trained.seconds:6.1f} s"
    )


def describe_replaced(event: events.SamplesReplaced) -> str:
    """Two lines: how many, and the first of them."""
    samples = f"{event.samples} damaged sample" + ("s" if event.samples > 1 else "")
    return f"   epoch {event.epoch}, rank {event.rank}: others stand in for {samples}, as for\n   {event.damage[0]}"


def describe(event: Event) -> str | None:
    """The line for any other event; None if it has none."""
    match event:
        case events.AttemptStarted():
            return _describe_attempt(event)
        case events.WorkersReady():
            return f"training on {event.device} in {event.precision}"
        case events.DataStaged():
            return _describe_staged(event)
        case events.DataNotStaged():
            return f"warning: {event.source} is not staged on {event.host}, but read from where it lies: {event.reason}"
        case events.TransitionMade():
            return _describe_transition(event)
        case events.CheckpointSaved() if event.phase_boundary:
            return f"   kept for good: checkpoint {event.path} ({event.num_bytes / 1e6:,.1f} MB, {event.seconds:.2f} s)"
        case events.DiskWillBeFull():
            return f"warning: {event.warning}"
        case events.WorkerLost():
            return f"lost: {event.what}"
        case events.WorkersAwaited():
            return f"{event.missing}: waiting for up to {event.within_s:g} s"
        case events.StopRequested():
            return f"{event.reason}: stopping with a checkpoint, within seconds; once more ends at once, unsaved"
        case events.RunStopped():
            where = f"epoch {event.epoch}, sample {event.samples_done}"
            return f"stopped ({event.reason}) at {where}; everything is saved."
    return None


def _describe_attempt(event: events.AttemptStarted) -> str:
    rejected = "".join(f"not used: {reason}\n" for reason in event.rejected_checkpoints)
    workers = f"{event.world_size} worker" + ("s" if event.world_size > 1 else "")
    resumed = ""
    if event.checkpoint:
        resumed = f", resuming at epoch {event.epoch}, sample {event.samples_done} ({event.checkpoint})"
    return f"{rejected}starting {workers}, {event.mode}{resumed} ..."


def _describe_staged(event: events.DataStaged) -> str:
    what = "is still staged" if event.reused else "is staged"
    return f"   {event.source} {what} on {event.host}: {_pace(event.num_bytes, event.seconds)}, {event.copy}"


def _pace(num_bytes: int, seconds: float) -> str:
    return f"{num_bytes / 1e6:,.1f} MB in {seconds:.1f} s ({num_bytes / 1e6 / seconds:,.0f} MB/s)"


def _describe_transition(event: events.TransitionMade) -> str:
    norms = "" if event.norm == "none" else f", norms {event.norm}"
    accuracies = ""
    if event.top1_before is not None:
        after = f" -> {_percent(event.top1_after)}" if event.top1_after is not None else ""
        accuracies = f", top-1 {_percent(event.top1_before)}{after}"
    return (
        f"-> {event.phase_name}: {event.resolution_before} -> {event.resolution_after} px, "
        f"batch {event.global_batch_before} -> {event.global_batch_after}, lr {event.learning_rate:.4g}"
        f"{norms}{accuracies} ({event.seconds + event.norm_seconds:.2f} s)"
    )


def show_summary(summary: Summary, *, root: Path, paths: RunPaths, console: Console) -> None:
    """Print the closing table, and where everything lies."""
    if summary.phases:
        show_table(console, _summary_table(summary))
    attempts = f" in {summary.attempts} attempts" if summary.attempts > 1 else ""
    seconds = {"start": summary.startup_s, "training": summary.train_s, "evaluation": summary.evaluation_s}
    parts = [f"{what} {spent:.1f} s" for what, spent in seconds.items()]
    say(console, f"{summary.total_s:.1f} s{attempts}: {', '.join(parts)}")
    if summary.staging_s:
        pace = _pace(summary.staged_bytes, summary.staging_s)
        say(console, f"data copied to nodes' disks, or found there: {pace}, part of the start")
    for what, path in (("model", paths.model), ("checkpoints", paths.checkpoints), ("events", paths.events)):
        if path.exists():
            say(console, f"{what:<12} {root / path.name}")


def _summary_table(summary: Summary) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, 1, 0, 0))
    table.add_column("phase", min_width=8, overflow="fold")
    for heading in ("epochs", "px", "global\nbatch", "images/s", "data\nwait", "time", "top-1", "top-5"):
        table.add_column(heading, justify="right", no_wrap=True)
    for phase in summary.phases:
        table.add_row(*_summary_row(phase))
    return table


def _summary_row(phase: PhaseResult) -> list[str]:
    return [
        phase.name,
        str(phase.epochs),
        " ".join(map(str, phase.resolutions)),
        str(phase.global_batch),
        f"{phase.images_per_s:,.0f}",
        f"{phase.data_wait_share:.0%}",
        f"{phase.train_s:.1f} s",
        _percent(phase.top1),
        _percent(phase.top5),
    ]


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:5.2f} %"
