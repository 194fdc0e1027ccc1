"""Python imports this by itself where its folder is on PYTHONPATH: a run's workers then leave traces of their work.

So the driver, the agent and Ray's processes are the product's own, started as the product starts them.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_WORKER = "launcher.executors.ray_worker"


class _AtImport(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != _WORKER:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        execute = spec.loader.exec_module

        def execute_traced(module: ModuleType) -> None:
            execute(module)
            from tests.slurm.traced_work import traced

            module.__dict__["work"] = traced(module.__dict__["work"])

        spec.loader.exec_module = execute_traced  # type: ignore[method-assign]
        return spec


sys.meta_path.insert(0, _AtImport())
