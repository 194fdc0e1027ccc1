"""Bugs that would lose work, each planted into a copy of the product, and the test that has to catch it.

`make mutations`, or: python -m tests.faults.mutations [--only TEXT]

A mutation counts as caught if its test fails on the copy; the unchanged copy passes all of the tests named here.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
COPIED = ("ffcv_datasets", "jobs", "launcher", "tests", "pyproject.toml")
_TESTS_FAILED = 1
_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Mutation:
    """`old`, which stands once in `file`, becomes `new`; then `test` fails."""

    bug: str
    file: str
    old: str
    new: str
    test: str

    def apply(self, root: Path) -> None:
        """Plant the bug into the tree at `root`."""
        path = root / self.file
        path.write_text(self.mutated(path.read_text()))

    def mutated(self, source: str) -> str:
        count = source.count(self.old)
        assert count == 1, f"{self.bug}: the place to change stands {count} times in {self.file}"
        return source.replace(self.old, self.new)


class UncertainError(RuntimeError):
    """A test neither passed nor failed: it could not be run."""


@contextmanager
def copied_tree() -> Iterator[Path]:
    """A copy of all that tests need, without compiled Python."""
    with tempfile.TemporaryDirectory(prefix="mutations-") as folder:
        root = Path(folder)
        for name in COPIED:
            source = ROOT / name
            if source.is_dir():
                shutil.copytree(source, root / name, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, root / name)
        yield root


@contextmanager
def planted(mutation: Mutation, root: Path) -> Iterator[None]:
    """The bug is in the tree inside the context, and out of it afterwards."""
    path = root / mutation.file
    sound = path.read_text()
    mutation.apply(root)
    try:
        yield
    finally:
        path.write_text(sound)


def passes(tests: Sequence[str], root: Path) -> bool:
    """Whether all of the tests pass on the tree at `root`. Raises UncertainError if they cannot be run."""
    # Compiled Python is told apart by time and size, which a mutation may leave as they are.
    environment = {**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=_TIMEOUT_S)
    if done.returncode not in (0, _TESTS_FAILED) or "ERROR" in done.stdout:
        raise UncertainError(f"{' '.join(tests)}\n{done.stdout}{done.stderr}")
    return done.returncode == 0


def survivors(mutations: Sequence[Mutation]) -> list[Mutation]:
    """Those that their tests do not catch; prints a line for each as it goes."""
    surviving = []
    with copied_tree() as root:
        tests = sorted({mutation.test for mutation in mutations})
        assert passes(tests, root), "the tests fail without any bug"
        for mutation in mutations:
            began = time.monotonic()
            with planted(mutation, root):
                caught = not passes([mutation.test], root)
            verdict = "caught by" if caught else "NOT caught by"
            print(f"{mutation.bug:58}  {verdict} {mutation.test}  {time.monotonic() - began:.1f} s", flush=True)
            if not caught:
                surviving.append(mutation)
    return surviving


def main() -> int:
    from tests.faults.planted_bugs import MUTATIONS

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", default="", help="mutations whose bug or test contains this")
    options = parser.parse_args()
    chosen = [mutation for mutation in MUTATIONS if options.only in mutation.bug + mutation.test]
    surviving = survivors(chosen)
    print(f"\n{len(chosen) - len(surviving)} of {len(chosen)} caught")
    return 1 if surviving or not chosen else 0


if __name__ == "__main__":
    sys.exit(main())
