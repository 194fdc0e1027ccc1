"""The rooms: imports run downwards, heavy libraries stay in the files about them, pure modules start light."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The rooms of launcher/, from the top down. A room imports rooms of lower rows alone; a package is one room.
ROWS = (
    {"__main__"},
    {"cli"},
    {"slurm"},
    {"executors"},
    {"worker_process"},
    {"worker"},
    {"batch_trial", "rehearsal", "run_setup", "saving", "size_sweep"},
    {"trainer"},
    {"examination", "trained_model"},
    {"tasks", "training_feed"},
    {"augmentation", "batch_norm", "device_batches", "model_input", "replica"},
    {"checkpoint", "data_facts", "models", "run_directory", "training_state"},
    {"heartbeat", "host_facts", "listing", "slurm_settings", "staging"},
    {"disk_budget", "doctor", "event_log", "manifest", "report", "retention"},
    {"batch_cache", "batch_search", "fixres", "plots", "race"},
    {"allocator", "batch_size", "file_system", "memory", "node_copy"},
    {"attempts", "durable", "ownership", "signals", "watch"},
    {"coordinator"},
    {"paths"},
    {"planning"},
    {"plan"},
    {"sample_order", "schedules"},
    {"job_file"},
    {"decode_bench"},
    {"decode_loaders"},
    {"mistakes"},
    {"config", "events", "failpoints", "job_text"},
    {"job_inheritance", "printable"},
    {"__init__"},
)
ROW_OF = {room: row for row, rooms in enumerate(ROWS) for room in rooms}

# The only files that may import each library, anywhere in them.
OWNERS: dict[str, set[str]] = {
    "ray": {
        f"launcher/executors/{file}.py"
        for file in ("coordinator_actor", "ray_attempt", "ray_leader", "ray_nodes", "ray_worker")
    },
    "timm": {f"launcher/models/{file}.py" for file in ("from_timm", "optimizers")},
    "matplotlib": {"launcher/plots.py"},
    "submitit": {"launcher/slurm/sbatch.py"},
    # Its format is read and written here, and its loader stands in nobody's way: only who asks for it imports it.
    "ffcv": {f"ffcv_datasets/{file}.py" for file in ("ffcv_loader", "ffcv_operation")},
    "datasets": {"ffcv_datasets/huggingface_source.py"},
}

HEAVY = {"torch", "torchvision", "ray", "ffcv", "submitit", "datasets"}
LIGHT_MODULES = [
    "ffcv_datasets.beton",
    "ffcv_datasets.card",
    "ffcv_datasets.crop",
    "ffcv_datasets.levels",
    "ffcv_datasets.loader",
    "ffcv_datasets.philox",
    "ffcv_datasets.reading_cost",
    "ffcv_datasets.repack",
    "ffcv_datasets.sources",
    "ffcv_datasets.synthetic",
    "ffcv_datasets.verify",
    "ffcv_datasets.write",
    "launcher.attempts",
    "launcher.batch_size",
    "launcher.cli.app",
    "launcher.config",
    "launcher.coordinator",
    "launcher.disk_budget",
    "launcher.job_file",
    "launcher.job_inheritance",
    "launcher.manifest",
    "launcher.paths",
    "launcher.plan",
    "launcher.planning",
    "launcher.retention",
    "launcher.sample_order",
    "launcher.schedules",
    "launcher.watch",
]

SOURCES = sorted(path for package in ("launcher", "ffcv_datasets") for path in (ROOT / package).rglob("*.py"))


def module_name(source: Path) -> str:
    """Dotted name of a source file; a package's is that of its folder."""
    parts = source.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {module_name(source): source for source in SOURCES}


def imports(source: Path) -> Iterator[str]:
    """Dotted names of the modules that a file imports, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in MODULES else node.module for name in names)


def room(module: str) -> str:
    """The room of a module of launcher: its file, or the package inside launcher that it lies in."""
    return [*module.split("."), "__init__"][1]


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] == "launcher"])
def test_a_room_imports_only_rooms_below_it(module: str) -> None:
    here = room(module)
    assert here in ROW_OF, f"launcher/{here} has no row yet: give it one in ROWS"
    used = {room(name) for name in imports(MODULES[module]) if name.split(".")[0] == "launcher"}
    assert not sorted(other for other in used - {here} if ROW_OF.get(other, -1) <= ROW_OF[here])


def test_no_modules_import_each_other_in_a_circle() -> None:
    graph = {name: {used for used in imports(source) if used in MODULES} for name, source in MODULES.items()}
    assert set(TopologicalSorter(graph).static_order()) == set(MODULES)


@pytest.mark.parametrize("source", SOURCES, ids=lambda source: source.relative_to(ROOT).as_posix())
def test_each_library_is_imported_only_in_the_files_about_it(source: Path) -> None:
    here = source.relative_to(ROOT).as_posix()
    used = {name.split(".")[0] for name in imports(source)}
    assert not [library for library, owners in OWNERS.items() if library in used and here not in owners]
    if here.startswith("ffcv_datasets/"):
        assert not used & {"launcher", "torch"}
        assert "torchvision" not in used or here == "ffcv_datasets/torchvision_source.py"


@pytest.mark.parametrize("module", LIGHT_MODULES)
def test_module_imports_without_the_heavy_libraries(module: str) -> None:
    script = f"import sys, {module}; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert not HEAVY & set(run.stdout.split())
