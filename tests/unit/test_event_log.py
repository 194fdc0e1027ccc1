"""A run's events, line by line."""

from __future__ import annotations

import json
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from launcher.event_log import EventLog, EventLogError, read_events

json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.text()
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
events = st.dictionaries(st.text(max_size=5), json_values, max_size=3).map(lambda fields: {**fields, "event": "x"})


def append_all(path: Path, *some: dict[str, object]) -> None:
    log = EventLog(path)
    for event in some:
        log.append(event)
    log.close()


def test_an_event_is_one_line_with_its_time_in_utc(tmp_path: Path) -> None:
    append_all(tmp_path / "events.jsonl", {"event": "epoch_trained", "loss": 1.5})
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    event = json.loads(line)
    assert list(event) == ["time", "event", "loss"]
    assert datetime.fromisoformat(event["time"]).utcoffset() == timedelta(0)


def test_an_event_is_in_the_file_as_soon_as_it_is_appended(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")
    log.append({"event": "first"})
    assert [event["event"] for event in read_events(log.path)] == ["first"]
    log.close()


def test_numbers_that_json_lacks_become_null(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    append_all(path, {"event": "x", "loss": float("nan"), "more": {"a": [float("inf"), 1.0]}, "b": (2,)})
    (event,) = read_events(path)
    assert (event["loss"], event["more"], event["b"]) == (None, {"a": [None, 1.0]}, [2])


@settings(deadline=None, max_examples=40)
@given(st.lists(events, min_size=1, max_size=4), st.data())
def test_a_line_torn_anywhere_is_dropped_and_the_next_one_stands_alone(
    tmp_path_factory: pytest.TempPathFactory, some: list[dict[str, object]], data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("log") / "events.jsonl"
    append_all(path, *some)
    before = read_events(path)
    assert [{**event, "time": 0} for event in before] == [{**event, "time": 0} for event in some]
    content = path.read_bytes()
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])
    whole = content[:cut].count(b"\n")
    assert read_events(path) == before[:whole]
    append_all(path, {"event": "resumed"})
    after = read_events(path)
    assert after[:-1] == before[:whole]
    assert after[-1]["event"] == "resumed"


def test_threads_do_not_tear_each_others_lines(tmp_path: Path) -> None:
    log = EventLog(tmp_path / "events.jsonl")

    def append_many(thread: int) -> None:
        for turn in range(50):
            log.append({"event": "x", "thread": thread, "turn": turn, "padding": "x" * 500})

    threads = [threading.Thread(target=append_many, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    log.close()
    seen = [(event["thread"], event["turn"]) for event in read_events(log.path)]
    assert sorted(seen) == [(thread, turn) for thread in range(4) for turn in range(50)]


HONEST = '{"time": "2026-03-14T09:26:53.589+00:00", "event": "a"}'


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("not json", "not JSON"),
        ("", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[1]", "not a JSON object"),
        ("{}", "it has no 'event'"),
        ('{"event": "x"}', "it has no 'time'"),
        ('{"event": "x", "time": "noon"}', "its time is none"),
        ('{"event": "x", "time": 3}', "its time is none"),
        (HONEST.replace('"a"', "7"), "its name is no text"),
    ],
)
def test_a_damaged_line_within_is_named_with_its_number(tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f"{HONEST}\n{line}\n{HONEST}\n")
    with pytest.raises(EventLogError, match=rf"events\.jsonl, line 2: {reason}"):
        read_events(path)


def test_to_ask_an_event_for_what_it_lacks_names_its_line(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(f"{HONEST}\n{HONEST}\n")
    event = read_events(path)[1]
    assert event == json.loads(HONEST)
    with pytest.raises(EventLogError, match=r"events\.jsonl, line 2: it has no 'epoch'"):
        event["epoch"]


def test_a_link_in_the_logs_place_is_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("no end of line")
    (tmp_path / "events.jsonl").symlink_to(outside)
    with pytest.raises(OSError, match="symbolic links"):
        EventLog(tmp_path / "events.jsonl")
    assert outside.read_text() == "no end of line"
