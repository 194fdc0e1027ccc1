"""The C core under AddressSanitizer and UndefinedBehaviorSanitizer, on damaged inputs; `make fuzz` finds its own."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SANITIZERS = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined"]
NUM_DAMAGED = 2000


def build(folder: Path) -> Path:
    """The fuzz target with a `main` that reads files. Skips where the compiler has no sanitizers."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("needs a C compiler: cc")
    trial = folder / "trial.c"
    trial.write_text("int main(void) { return 0; }\n")
    if subprocess.run([compiler, *SANITIZERS, str(trial), "-o", str(folder / "trial")], capture_output=True).returncode:
        pytest.skip("needs a C compiler with sanitizers: libasan and libubsan")
    core = [path for path in (ROOT / "ffcv_datasets/_decode").glob("*.c") if path.name not in ("module.c", "pool.c")]
    sources = [ROOT / "tests/fuzz/decode_fuzzer.c", ROOT / "tests/fuzz/replay.c", *core]
    options = ["-g", "-O1", "-std=gnu11", "-ffp-contract=off", *SANITIZERS, f"-I{ROOT / 'ffcv_datasets/_decode'}"]
    program = folder / "replay"
    command = [compiler, *options, *map(str, sources), "-ljpeg", "-lm", "-pthread", "-o", str(program)]
    subprocess.run(command, check=True)
    return program


def test_damaged_inputs_break_nothing(tmp_path: Path) -> None:
    program, inputs = build(tmp_path), tmp_path / "inputs"
    command = [sys.executable, str(ROOT / "tests/fuzz/seeds.py"), str(inputs), "--damaged", str(NUM_DAMAGED)]
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    done = subprocess.run([program, *sorted(inputs.iterdir())], capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > NUM_DAMAGED
    assert "runtime error" not in done.stderr
