"""The `resolute` command: assembles the subcommands, and turns errors into one sentence and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

import launcher
from launcher.cli import batch_size, bench, data, doctor, evaluate, fixres, plan, queue, race, run, schema, submit
from launcher.cli.errors import exit_code, explain
from launcher.printable import printable

app = typer.Typer(
    name="resolute",
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 failed, 2 wrong input, 3 stopped and resumable, 4 Ray did not come up, 5 disk full.",
)
app.command("run")(run.run)
app.command("resume")(run.resume)
app.command("submit")(submit.submit)
app.command("status")(queue.status)
app.command("logs")(queue.logs)
app.command("cancel")(queue.cancel)
app.command("evaluate")(evaluate.evaluate)
app.command("fixres")(fixres.fixres)
app.command("race")(race.race)
app.command("plan")(plan.plan)
app.command("batch-size")(batch_size.batch_size)
app.command("schema")(schema.schema)
app.command("doctor")(doctor.doctor)
app.add_typer(data.app, name="data")
app.add_typer(bench.app, name="bench")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"resolute {launcher.__version__}")
        raise typer.Exit


@app.callback()
def _resolute(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Train image models by progressive resizing, and never lose work.

    Examples:

      resolute plan imagenet-rn50-16 --workers 8

      resolute run my-job.yaml --mode ray --workers 2 --run-dir runs/first

      resolute resume runs/first
    """


def main() -> None:
    """Entry point of the console script and of `python -m launcher`."""
    try:
        app()
    except BrokenPipeError:  # as in `resolute plan JOB | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)
    except Exception as error:
        sentence = explain(error)
        if sentence is None:
            raise
        print(printable(sentence), file=sys.stderr)
        sys.exit(exit_code(error))
