"""What a signal means: the table of what Slurm 22.05 was seen to say at each."""

from __future__ import annotations

from datetime import datetime

import pytest

from launcher.slurm.job_view import (
    Cause,
    JobView,
    cause_of,
    is_out_of_reach,
    parse_job,
    parse_kill_wait,
    seconds_to_requeue,
)

NOW = datetime(2026, 11, 23, 16, 17, 0)


def answer(state: str, *, reason: str = "None", restarts: int = 0, preempted: str = "None", ends: str) -> str:
    """`scontrol show job -o`, shortened; times are minute:second of NOW's hour."""
    times = {"PreemptTime": preempted, "EndTime": ends}
    stamps = " ".join(f"{key}={'None' if at == 'None' else f'2026-11-23T16:{at}'}" for key, at in times.items())
    return (
        f"JobId=5 JobName=demo UserId=u(1000) JobState={state} Reason={reason} Dependency=(null) Requeue=1 "
        f"Restarts={restarts} BatchFlag=1 RunTime=00:01:00 TimeLimit=00:10:00 {stamps} Deadline=N/A Comment=/runs/x"
    )


ENDS_LATE = "59:00"


@pytest.mark.parametrize(
    ("said", "cause"),
    [
        (answer("RUNNING", preempted="16:59", ends="17:03"), Cause.PREEMPTION_AHEAD),
        (answer("SIGNALING", preempted="16:59", ends="17:03"), Cause.PREEMPTION_AHEAD),
        (answer("RUNNING", ends="18:30"), Cause.TIME_LIMIT_AHEAD),
        (answer("RUNNING", ends=ENDS_LATE), Cause.ASKED),
        (answer("SIGNALING", ends=ENDS_LATE), Cause.ASKED),
        (answer("CONFIGURING", ends=ENDS_LATE), Cause.ASKED),
        (answer("COMPLETING", reason="TimeLimit", ends="17:00"), Cause.TIME_LIMIT),
        (answer("TIMEOUT", reason="TimeLimit", ends="17:00"), Cause.TIME_LIMIT),
        (answer("COMPLETING", ends="17:00"), Cause.CANCELLED),
        (answer("CANCELLED", ends="17:00"), Cause.CANCELLED),
        (answer("CANCELLED", reason="Prolog", ends="17:00"), Cause.CANCELLED),
        (answer("COMPLETING", reason="NodeDown", ends="17:00"), Cause.ENDED),
        (answer("COMPLETING", reason="OutOfMemory", ends="17:00"), Cause.ENDED),
        (answer("NODE_FAIL", ends="17:00"), Cause.ENDED),
        (answer("COMPLETING", reason="NodeDown", restarts=1, ends="17:00"), Cause.REQUEUED),
        (answer("COMPLETING", preempted="16:55", ends="17:00"), Cause.CANCELLED),
        (answer("COMPLETING", preempted="17:00", ends="17:00"), Cause.PREEMPTED),
        (answer("PREEMPTED", preempted="17:00", ends="17:00"), Cause.PREEMPTED),
        (answer("COMPLETING", restarts=1, ends=ENDS_LATE), Cause.REQUEUED),
        (answer("PENDING", restarts=1, ends=ENDS_LATE), Cause.REQUEUED),
        ("slurm_load_jobs error: Invalid job id specified", Cause.UNKNOWN),
        ("", Cause.UNKNOWN),
    ],
)
def test_what_slurm_says_at_a_signal_has_one_meaning(said: str, cause: Cause) -> None:
    assert cause_of(parse_job(said), restarts=0, lead_s=30, now=NOW) is cause


def test_restarts_count_from_those_that_the_agent_knows() -> None:
    job = parse_job(answer("RUNNING", restarts=2, ends=ENDS_LATE))
    assert cause_of(job, restarts=2, lead_s=30, now=NOW) is Cause.ASKED
    assert cause_of(job, restarts=1, lead_s=30, now=NOW) is Cause.REQUEUED


def test_only_a_job_whose_fate_is_open_may_be_requeued() -> None:
    open_fates = {Cause.PREEMPTION_AHEAD, Cause.TIME_LIMIT_AHEAD, Cause.ASKED, Cause.TIME_LIMIT}
    assert {cause for cause in Cause if cause.may_requeue} == open_fates


def test_a_job_without_a_time_limit_is_not_near_it() -> None:
    job = JobView("RUNNING", "None", restarts=0, preempted_at=None, ends_at=None)
    assert parse_job("JobState=RUNNING Restarts=0 EndTime=Unknown PreemptTime=None") == job
    assert cause_of(job, restarts=0, lead_s=30, now=NOW) is Cause.ASKED


def test_what_a_scripts_arguments_say_is_no_field() -> None:
    said = answer("COMPLETING", ends="17:00") + " Command=/x.sbatch JobState=RUNNING PreemptTime=2026-11-23T16:17:00"
    assert cause_of(parse_job(said), restarts=0, lead_s=30, now=NOW) is Cause.CANCELLED


@pytest.mark.parametrize(
    ("said", "cause", "left_s"),
    [
        (answer("RUNNING", preempted="16:59", ends="17:30"), Cause.PREEMPTION_AHEAD, 25.0),
        (answer("RUNNING", preempted="16:59", ends="17:04"), Cause.PREEMPTION_AHEAD, 2.0),
        (answer("RUNNING", preempted="16:30", ends="16:50"), Cause.PREEMPTION_AHEAD, 0.0),
        (answer("COMPLETING", reason="TimeLimit", ends="16:55"), Cause.TIME_LIMIT, 10.0),
        (answer("RUNNING", ends="18:30"), Cause.TIME_LIMIT_AHEAD, None),
        (answer("RUNNING", ends=ENDS_LATE), Cause.ASKED, None),
        ("JobState=RUNNING EndTime=Unknown", Cause.ASKED, None),
    ],
)
def test_a_requeue_is_asked_for_seconds_before_slurm_would_refuse_it(
    said: str, cause: Cause, left_s: float | None
) -> None:
    job = parse_job(said)
    assert job is not None
    assert seconds_to_requeue(job, cause, kill_wait_s=20, now=NOW) == left_s


def test_the_time_from_sigterm_to_sigkill_is_slurms_or_its_default() -> None:
    assert parse_kill_wait("JobRequeue              = 1\nKillWait                = 45 sec\nMaxNodes = 3") == 45
    assert parse_kill_wait("Unable to contact slurm controller (connect failure)") == 30


@pytest.mark.parametrize(
    ("words", "out_of_reach"),
    [
        ("slurm_load_jobs error: Socket timed out on send/recv operation", True),
        ("Unable to contact slurm controller (connect failure)", True),
        ("Slurm backup controller in standby mode", True),
        ("Zero Bytes were transmitted or received", True),
        ("Command '['scontrol', 'requeue', '5']' timed out after 30.0 seconds", True),
        ("connect: Connection refused", True),
        ('error: Munge encode failed: Failed to access "/run/munge/munge.socket.2"', True),
        ("Requested operation is presently disabled for job 5", False),
        ("Job is pending execution", False),
        ("Invalid job id specified", False),
        ("Access/permission denied", False),
    ],
)
def test_a_controller_out_of_reach_is_told_from_one_that_refuses(words: str, out_of_reach: bool) -> None:
    assert is_out_of_reach(words) is out_of_reach
