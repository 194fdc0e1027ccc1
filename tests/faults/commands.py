"""A process that has imported all of `resolute`, and forks for each command: tenths of a second instead of several."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import TracebackType

_ROOT = Path(__file__).parents[2]
_TIMEOUT_S = 120.0


# Plain tuples cross the pipe: in the server this module is __main__, so that its classes are others than the caller's.
_Request = tuple[tuple[str, ...], str, dict[str, str], str]


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    out: str = field(repr=False)
    err: str


class Commands:
    """The caller's side: starts the process, and ends it on leaving."""

    def __init__(self) -> None:
        self._server, theirs = Pipe()
        command = [sys.executable, "-m", "tests.faults.commands", str(theirs.fileno())]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "120"}
        self._process = subprocess.Popen(command, cwd=_ROOT, env=environment, pass_fds=[theirs.fileno()])
        theirs.close()

    def resolute(
        self, *arguments: object, cwd: Path = _ROOT, environment: Mapping[str, str] | None = None, before: str = ""
    ) -> Ended:
        """Run `resolute ARGUMENTS` to its end; `before` is Python that its process executes first."""
        request: _Request = (tuple(map(str, arguments)), str(cwd), dict(environment or {}), before)
        self._server.send(request)
        assert self._server.poll(_TIMEOUT_S), (
            f"no end within {_TIMEOUT_S:g} s: resolute {' '.join(map(str, arguments))}"
        )
        return Ended(*self._server.recv())

    def __enter__(self) -> Commands:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self._process.wait(_TIMEOUT_S)


def _serve(caller: Connection) -> None:
    import launcher.cli.app
    import launcher.executors.single  # noqa: F401

    while True:
        try:
            request: _Request = caller.recv()
        except EOFError:
            return
        caller.send(_carry_out(*request))


def _carry_out(arguments: tuple[str, ...], cwd: str, environment: dict[str, str], before: str) -> tuple[int, str, str]:
    """This process starts no thread, so it may fork."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        child = os.fork()
        if child == 0:
            code = 70
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                os.chdir(cwd)
                os.environ.update(environment)
                code = _main(arguments, before)
                sys.stdout.flush()
                sys.stderr.flush()
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        texts = []
        for file in (out, err):
            file.seek(0)
            texts.append(file.read().decode())
    return os.waitstatus_to_exitcode(status), texts[0], texts[1]


def _main(arguments: tuple[str, ...], before: str) -> int:
    from launcher.cli import app

    sys.argv = ["resolute", *arguments]
    exec(before, {})
    try:
        app.main()
    except SystemExit as ending:
        return ending.code if isinstance(ending.code, int) else int(ending.code is not None)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


if __name__ == "__main__":
    _serve(Connection(int(sys.argv[1])))
