"""What can happen to a run on Slurm.

Each is called when the run has trained some steps, returns when nothing more is to happen, and gives the run to be
judged: that one, or another beside it.
"""

from __future__ import annotations

import signal
from collections.abc import Callable

from tests.slurm.trial import Trial


def undisturbed(trial: Trial) -> Trial:
    return trial


def preempted(trial: Trial) -> Trial:
    trial.preempt()
    trial.await_stay(1)
    return trial


def preempted_ten_times(trial: Trial) -> Trial:
    for time in range(1, 11):
        before = len(trial.attempts)
        trial.preempt()
        trial.await_stay(time)
        trial.await_steps(5, after=before)
    return trial


def preempted_for_good(trial: Trial) -> Trial:
    trial.preempt()
    assert trial.await_end() == "PREEMPTED"
    trial.resume()
    trial.await_stay(0)
    return trial


def out_of_time(trial: Trial) -> Trial:
    for time in (1, 2, 3):
        before = len(trial.attempts)
        trial.watch_departure()
        trial.slurm.end_soon(trial.job_id, within_s=1)
        trial.await_stay(time)
        trial.slurm.run("scontrol", "update", f"JobId={trial.job_id}", "TimeLimit=10")
        trial.await_steps(5, after=before)
    return trial


def warned_of_the_limit(trial: Trial) -> Trial:
    trial.watch_departure()
    trial.slurm.end_soon(trial.job_id, within_s=70)
    trial.await_stay(1)
    trial.slurm.run("scontrol", "update", f"JobId={trial.job_id}", "TimeLimit=10")
    return trial


def requeued(trial: Trial) -> Trial:
    trial.watch_departure()
    trial.slurm.run("scontrol", "requeue", trial.job_id)
    trial.await_stay(1)
    return trial


def signalled(trial: Trial) -> Trial:
    trial.watch_departure()
    trial.slurm.run("scancel", "--signal=USR2", trial.job_id)
    trial.await_stay(1)
    return trial


def cancelled(trial: Trial) -> Trial:
    trial.watch_departure()
    trial.slurm.run("scancel", trial.job_id)
    assert trial.await_end() == "CANCELLED"
    assert trial.job["Restarts"] == "0"
    trial.resume()
    trial.await_stay(0)
    return trial


def driver_killed(trial: Trial) -> Trial:
    trial.driver().send_signal(signal.SIGKILL)
    return trial


def slurmd_killed(trial: Trial) -> Trial:
    """Its node's processes live on, and nobody but the run itself can end them."""
    trial.watch_departure()
    trial.slurm.ask("kill_slurmd", trial.slurm.nodes_of(trial.job_id)[0])
    trial.await_stay(1)
    return trial


def cut(number: int) -> Callable[[Trial], Trial]:
    """A power cut of the job's node of that number, of which Slurm learns as its daemon does not answer."""

    def disturb(trial: Trial) -> Trial:
        trial.watch_departure()
        trial.slurm.ask("cut", trial.slurm.nodes_of(trial.job_id)[number])
        trial.await_stay(1)
        return trial

    return disturb


def cut_and_gone_on_without(trial: Trial) -> Trial:
    """A power cut of the job's other node, which the job may do without."""
    trial.slurm.ask("cut", trial.slurm.nodes_of(trial.job_id)[1])
    trial.await_steps(10, after=1)
    assert [attempt.plan.world_size for attempt in trial.attempts] == [4, 2]
    return trial


def on_one_node_and_on_two_again(trial: Trial) -> Trial:
    slurm = trial.slurm
    taken = f"NodeName={','.join(slurm.nodes[1:])}"
    slurm.run("scontrol", "update", taken, "State=drain", "Reason=test")
    signalled(trial)
    trial.await_steps(10, after=1)
    slurm.run("scontrol", "update", taken, "State=resume")
    trial.watch_departure()
    slurm.run("scancel", "--signal=USR2", trial.job_id)
    trial.await_stay(2)
    assert [attempt.plan.world_size for attempt in trial.attempts[:2]] == [4, 2]
    return trial


def beside_an_older_one_that_is_killed(trial: Trial) -> Trial:
    other = _share(trial)
    trial.slurm.run("scancel", "--signal=KILL", trial.job_id)
    trial.await_end()
    return other


def beside_a_younger_one_that_is_cancelled(trial: Trial) -> Trial:
    other = _share(trial)
    trial.slurm.run("scancel", other.job_id)
    other.await_end()
    return trial


def beside_an_older_one_that_ends(trial: Trial) -> Trial:
    other = _share(trial)
    trial.await_end()
    assert other.job["JobState"] == "RUNNING"
    return other


def _share(trial: Trial) -> Trial:
    """Another run, which trains on the same nodes."""
    other = trial.beside()
    other.await_steps(10)
    return other
