"""What a signal means: the table of what Slurm 22.05 was seen to say at each."""

from __future__ import annotations

from datetime import datetime

import pytest

from launcher.slurm.job_view import Cause, JobView, cause_of, parse_job

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
