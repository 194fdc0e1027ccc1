"""The Slurm that these tests run on: real, of several nodes, and gone without a trace."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.slurm.cluster import Cluster, running_slurm
from tests.slurm.slurm_conf import Options


def test_nodes_have_gpus_to_grant(slurm: Cluster) -> None:
    told = slurm.run("srun", "--nodes=3", "--gpus-per-node=2", "bash", "-c", "echo $SLURM_NODEID $SLURM_GPUS_ON_NODE")
    assert sorted(told.splitlines()) == ["0 2", "1 2", "2 2"]


def test_a_power_cut_ends_all_on_the_node_and_it_can_be_booted(slurm: Cluster) -> None:
    node = slurm.nodes[0]
    job = slurm.submit(f"--nodelist={node}", "--no-requeue", "--wrap=setsid sleep 600 & exec sleep 600")
    slurm.await_job(job, "RUNNING")
    slurm.wait(lambda: slurm.stray_processes(node), lambda names: str(names).count("sleep") == 2, "the job's processes")
    slurm.ask("cut", node)
    slurm.ask("boot", node)
    slurm.wait(lambda: slurm.stray_processes(node), lambda names: not names, "nothing but slurmd")


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda end: end.name)
def test_nothing_is_left_of_a_cluster_whose_tests_end_early(session_slurm: Cluster, end: signal.Signals) -> None:
    script = (
        "import os; from tests.slurm.cluster import *; from tests.slurm.slurm_conf import *\n"
        "with running_slurm(Options(num_nodes=1)) as cluster:\n"
        "    cluster.submit('--wrap=setsid sleep 600 & exec sleep 600')\n"
        "    look = lambda: cluster.stray_processes(cluster.nodes[0])\n"
        "    cluster.wait(look, lambda names: str(names).count('sleep') == 2, 'two processes')\n"
        f"    print(cluster.root, flush=True); os.kill(os.getpid(), {end.value}); input()\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, stdin=subprocess.PIPE)
    root = Path(done.stdout.strip())
    assert root.name.startswith("rs"), done.stderr
    session_slurm.wait(lambda: left_of(root), lambda left: not left, f"the end of {root}")


def test_a_cluster_that_cannot_start_leaves_nothing() -> None:
    before = set(Path("/tmp").glob("rs*"))
    with pytest.raises(AssertionError, match="did not start"), running_slurm(Options(proctrack="none")):
        pass
    assert set(Path("/tmp").glob("rs*")) <= before


def left_of(root: Path) -> list[str]:
    """Files and processes of a cluster."""
    words = [str(path) for path in (root,) if path.exists()]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"SLURM_CONF={root}/".encode() in (process / "environ").read_bytes():
                words.append(process.name)
        except OSError:
            continue
    return words
