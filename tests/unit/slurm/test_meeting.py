"""Where agents and driver meet: whole files, for their user alone, and every absent node by name."""

from __future__ import annotations

import errno
import fcntl
import socket
import stat
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest

from launcher.attempts import NotUpError
from launcher.slurm.across_nodes import MeetingPlaceError, await_nodes, ray_settings, require_locks
from launcher.slurm.meeting import VARIABLE, Answer, Granted, Invitation, Meeting, absent_nodes, drivers_meeting
from launcher.slurm.node import NetworkError, gpus_granted, own_address
from launcher.slurm.records import Stay
from tests.unit.sample_jobs import make_job

GRANTED = Granted(("n1", "n2", "n3"), 2, "ib0", 300.0)
INVITATION = Invitation("10.0.0.1:6379", "secret", {"A": "b"})


@pytest.fixture
def meeting(tmp_path: Path) -> Meeting:
    meeting = Meeting.of(tmp_path, Stay("7", 1))
    meeting.open(GRANTED)
    return meeting


def test_what_is_written_is_read(meeting: Meeting) -> None:
    assert meeting.granted == GRANTED
    assert meeting.invitation() is None
    meeting.invite(INVITATION)
    assert meeting.invitation() == INVITATION
    meeting.withdraw()
    assert meeting.invitation() is None


def test_nobody_else_can_read_it(meeting: Meeting) -> None:
    meeting.invite(INVITATION)
    assert stat.S_IMODE(meeting.folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in meeting.folder.iterdir()} == {0o600}


def test_every_stay_meets_elsewhere_and_nothing_remains(meeting: Meeting, tmp_path: Path) -> None:
    assert Meeting.of(tmp_path, Stay("7", 2)).folder != meeting.folder
    meeting.close()
    assert not meeting.folder.exists()


def test_a_meeting_that_a_killed_stay_left_goes_with_the_next_one_and_not_the_other_way_round(
    meeting: Meeting, tmp_path: Path
) -> None:
    later = Meeting.of(tmp_path, Stay("7", 2))
    later.open(GRANTED)
    assert not meeting.folder.exists()
    meeting.close()
    assert later.granted == GRANTED


def test_answers_to_an_earlier_invitation_do_not_count(meeting: Meeting) -> None:
    meeting.answer(1, Answer("10.0.0.1:1", ""))
    assert meeting.answers(INVITATION.address) == {}
    meeting.answer(1, Answer(INVITATION.address, ""))
    assert meeting.answers(INVITATION.address) == {1: Answer(INVITATION.address, "")}


def test_nodes_that_are_silent_or_in_trouble_are_named() -> None:
    joined, troubled = Answer("a:1", ""), Answer("a:1", "Ray did not come up: no memory")
    assert absent_nodes(GRANTED, {1: joined, 2: joined}) == []
    assert absent_nodes(GRANTED, {2: troubled}) == ["n2 (has not answered)", "n3 (Ray did not come up: no memory)"]


def test_a_driver_without_an_agent_meets_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    assert drivers_meeting() is None
    monkeypatch.setenv(VARIABLE, "/runs/x/slurm/meeting-7-1")
    assert drivers_meeting() == Path("/runs/x/slurm/meeting-7-1")


def test_an_interface_tells_the_address_and_a_missing_one_what_there_is() -> None:
    assert own_address(interface="lo") == "127.0.0.1"
    with pytest.raises(NetworkError, match=f"{socket.gethostname()} has no IPv4 address on ib7; it has .*lo"):
        own_address(interface="ib7")


def test_the_way_to_another_host_tells_the_address() -> None:
    assert own_address(interface=None, towards="127.0.0.9") == "127.0.0.1"


def test_gpus_are_those_that_slurm_granted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLURM_GPUS_ON_NODE", raising=False)
    assert gpus_granted() == 0
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", "4")
    assert gpus_granted() == 4


def test_a_node_that_is_alone_is_reached_from_nowhere_else() -> None:
    assert ray_settings(replace(GRANTED, nodes=("n1",)), stall_timeout_s=60.0)["GLOO_SOCKET_IFNAME"] == "lo"
    assert ray_settings(GRANTED, stall_timeout_s=60.0)["GLOO_SOCKET_IFNAME"] == "ib0"


def test_a_node_that_is_slow_is_waited_for(meeting: Meeting) -> None:
    meeting.answer(1, Answer(INVITATION.address, ""))
    joined: list[float] = []

    def join_late() -> None:
        time.sleep(1.0)
        joined.append(time.monotonic())
        meeting.answer(2, Answer(INVITATION.address, ""))

    slow = threading.Thread(target=join_late)
    slow.start()
    await_nodes(meeting, INVITATION.address, make_job(run={"workers": 6}), 1000, [])
    assert joined
    slow.join()


@pytest.fixture
def without_n3(meeting: Meeting) -> Meeting:
    meeting.open(replace(GRANTED, join_timeout_s=0.1))
    meeting.answer(1, Answer(INVITATION.address, ""))
    return meeting


def test_a_job_that_can_do_without_a_missing_node_waits_no_longer(without_n3: Meeting) -> None:
    await_nodes(without_n3, INVITATION.address, make_job(run={"workers": {"min": 4, "max": 6}}), 1000, [])


def test_a_node_that_is_missing_is_named_unless_the_run_is_to_stop(without_n3: Meeting) -> None:
    job = make_job(run={"workers": 6})
    with pytest.raises(NotUpError, match=r"no Ray on n3 \(has not answered\) within 0.1 s, and .*join_timeout_s"):
        await_nodes(without_n3, INVITATION.address, job, 1000, [])
    await_nodes(without_n3, INVITATION.address, job, 1000, ["SIGTERM"])


def test_where_files_cannot_be_locked_nodes_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Lustre without -o flock."""
    require_locks(tmp_path)

    def refused(*_arguments: object) -> None:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(fcntl, "flock", refused)
    with pytest.raises(MeetingPlaceError, match=r"Function not implemented.*mount Lustre with -o flock"):
        require_locks(tmp_path)
