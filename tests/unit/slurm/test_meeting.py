"""Where agents and driver meet: whole files, for their user alone, and every absent node by name."""

from __future__ import annotations

import socket
import stat
from pathlib import Path

import pytest

from launcher.slurm.across_nodes import ray_settings
from launcher.slurm.meeting import VARIABLE, Answer, Granted, Invitation, Meeting, absent_nodes, drivers_meeting
from launcher.slurm.node import NetworkError, gpus_granted, own_address
from launcher.slurm.records import Stay

GRANTED = Granted(("n1", "n2", "n3"), 2, "ib0")
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
    assert ray_settings(Granted(("n1",), 2, "ib0"), stall_timeout_s=60.0)["GLOO_SOCKET_IFNAME"] == "lo"
    assert ray_settings(Granted(("n1", "n2"), 2, "ib0"), stall_timeout_s=60.0)["GLOO_SOCKET_IFNAME"] == "ib0"
