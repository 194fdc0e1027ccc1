"""Keeps a Slurm for tests: starts its daemons, and leaves neither process nor file behind, however the tests end.

A program, `python -m tests.slurm.guardian OPTIONS`. stdin is a pipe that only the tests' process holds:
the cluster ends when the pipe does. A line on stdin is a request (JSON, a list of words), and each gets a line on
stdout; the first line tells that the cluster is up, and where.

Every process of the cluster descends from this one, daemons and jobs that have left their parents among them: this
process adopts orphans, and so does one per node. So a node's power cut is the end of a subtree, and nothing has to be
found by its name.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import pwd
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.slurm.slurm_conf import Layout, Options, files

_UP_WITHIN_S = 60.0
_ENDED_WITHIN_S = 20.0
_POLL_S = 0.05
_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36


class Guardian:
    """The daemons of one cluster, by name: munged, slurmctld, and one subtree per node."""

    def __init__(self, layout: Layout, options: Options):
        self._layout = layout
        self._options = options
        self._environment = {**os.environ, "SLURM_CONF": str(layout.conf)}
        self._nodes: dict[str, int] = {}
        self._daemons: dict[str, int] = {}

    def start(self) -> None:
        root = self._layout.root
        for folder in ("munge", "state", "run", "log", "spool", "dev"):
            (root / folder).mkdir(mode=0o755)
        for name, content in files(self._layout, self._options).items():
            (root / name).write_text(content)
        for number in range(self._options.gpus_per_node):
            _make_device(root / "dev" / f"nvidia{number}")
        self._start_munge()
        self._daemons["slurmctld"] = self._spawn("slurmctld", "-D", "-f", str(self._layout.conf))
        for node in self._layout.nodes:
            self.boot(node)
        self._await_nodes()

    def boot(self, node: str) -> None:
        """Start a node, if its daemon does not run: slurmd below a process that adopts whatever the node runs."""
        if node in self._nodes:
            if "slurmd" in [name for _, name in self.processes(node)]:
                return
            self.cut(node)
        (self._layout.root / "spool" / node).mkdir(exist_ok=True)
        pid = os.fork()
        if pid == 0:
            self._be_node(node)
        self._nodes[node] = self._daemons[f"slurmd.{node}"] = pid

    def _be_node(self, node: str) -> None:
        os.setsid()
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.close(sys.stdin.fileno())
        self._spawn("slurmd", "-D", "-N", node, "-f", str(self._layout.conf), log=f"slurmd.{node}.out")
        with contextlib.suppress(ChildProcessError):
            while True:
                os.wait()
        os._exit(0)

    def cut(self, node: str) -> None:
        """A power cut: everything on the node ends at once."""
        _kill(lambda: list(_family(self._nodes[node])))
        del self._nodes[node]

    def kill_slurmd(self, node: str) -> None:
        """End the node's daemon alone: its jobs go on, and nobody hears of them."""
        for pid in [pid for pid, name in self.processes(node) if name == "slurmd"]:
            os.kill(pid, signal.SIGKILL)

    def processes(self, node: str) -> list[tuple[int, str]]:
        """What runs on a node, its adopter aside: pid and command. Nothing after a power cut."""
        if node not in self._nodes:
            return []
        return [(pid, _name(pid)) for pid in _family(self._nodes[node]) if pid != self._nodes[node]]

    def end(self) -> None:
        _kill(lambda: [pid for pid in _family(os.getpid()) if pid != os.getpid()])
        for node in self._layout.nodes:
            _remove_cgroups(Path("/sys/fs/cgroup/freezer") / f"slurm_{node}")
        shutil.rmtree(self._layout.root)

    def _start_munge(self) -> None:
        folder = self._layout.root / "munge"
        key = folder / "key"
        key.touch(mode=0o600)
        key.write_bytes(os.urandom(128))
        names = {"socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        paths = [f"--{option}={folder / name}" for option, name in names.items()]
        self._daemons["munged"] = self._spawn("munged", "--foreground", "--force", f"--key-file={key}", *paths)
        self._await((folder / "socket").exists, "munged's socket")

    def _spawn(self, *command: str, log: str | None = None) -> int:
        path = self._layout.root / "log" / (log or f"{command[0]}.out")
        with path.open("ab") as output:
            daemon = subprocess.Popen(
                command,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=lambda: _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL),
            )
        return daemon.pid

    def _await_nodes(self) -> None:
        def idle() -> bool:
            command = ["sinfo", "--noheader", "--Node", "--partition=low", "--format=%T"]
            done = subprocess.run(command, env=self._environment, capture_output=True, text=True)
            return done.stdout.split() == ["idle"] * self._options.num_nodes

        self._await(idle, "idle nodes")

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + _UP_WITHIN_S
        while not condition():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what} did not come within {_UP_WITHIN_S:.0f} s")
            if select.select([sys.stdin], [], [], _POLL_S)[0]:
                raise InterruptedError("the tests have ended")
            for name, pid in self._daemons.items():
                if os.waitpid(pid, os.WNOHANG)[0]:
                    log = self._layout.root / "log" / f"{name}.out"
                    raise ChildProcessError(f"{name} has ended by itself: {log.read_text()}")


def _make_device(path: Path) -> None:
    """A GPU's device: another /dev/null. A plain file where devices may not be made; Slurm then counts it all the same,
    but leaves CUDA_VISIBLE_DEVICES empty."""
    try:
        os.mknod(path, 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    except PermissionError:
        path.touch()


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _family(root: int) -> Iterator[int]:
    """`root` and all that descends from it and lives; the dead are waited for by their parents."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                state, parent = Path(f"/proc/{name}/stat").read_text().rpartition(")")[2].split()[:2]
                if state not in "ZX":
                    children.setdefault(int(parent), []).append(int(name))
    waiting = [root] if any(root in family for family in children.values()) else []
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children.get(pid, [])


def _name(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


def _kill(list_pids: Callable[[], list[int]]) -> None:
    """Kill processes, and those that they start meanwhile."""
    deadline = time.monotonic() + _ENDED_WITHIN_S
    while pids := list_pids():
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        _reap()
        if time.monotonic() > deadline:
            raise TimeoutError(f"{[(pid, _name(pid)) for pid in pids]} would not end")
        time.sleep(_POLL_S)


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _remove_cgroups(folder: Path) -> None:
    """What slurmd had made; a cgroup is a directory that only rmdir removes, from the leaves up."""
    if folder.is_dir():
        for path in sorted((path for path in folder.rglob("*") if path.is_dir()), reverse=True):
            _remove_cgroup(path)
        _remove_cgroup(folder)


def _remove_cgroup(path: Path) -> None:
    """Once the kernel has let go of the last process, which it does some time after the process's death."""
    deadline = time.monotonic() + _ENDED_WITHIN_S
    while path.is_dir():
        try:
            path.rmdir()
        except FileNotFoundError:  # slurmd was quicker.
            return
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > deadline:
                raise
            time.sleep(_POLL_S)


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]


def main() -> None:
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # The pipe's end is what ends a cluster.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    options = Options(**json.loads(sys.argv[1]))
    root = Path(tempfile.mkdtemp(prefix="rs", dir="/tmp"))  # A socket's path must stay short.
    controller_port, *node_ports = _free_ports(1 + options.num_nodes)
    user = pwd.getpwuid(os.getuid()).pw_name
    host = socket.gethostname().partition(".")[0]
    layout = Layout(root, host, user, controller_port, tuple(node_ports))
    guardian = Guardian(layout, options)
    try:
        guardian.start()
        print(json.dumps({"root": str(root), "nodes": layout.nodes}), flush=True)
        for line in sys.stdin:
            verb, *arguments = json.loads(line)
            print(json.dumps(getattr(guardian, verb)(*arguments)), flush=True)
            _reap()
    finally:
        guardian.end()


if __name__ == "__main__":
    main()
