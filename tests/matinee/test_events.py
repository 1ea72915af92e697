"""The event log: whole parts, a bounded queue, a store that fails and comes back, and what reads the events again."""

import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from matinee.cli.main import app as cli
from matinee.errors import SettingsError, SourceError
from matinee.evaluation.query_sets import read_set
from matinee.evaluation.splits import Entry, write_entries
from matinee.events import EventLog, read_events, with_impressions
from matinee.items import Item
from matinee.settings.serving import EventSettings
from tests.waiting import HANG_S, until

HOUR = 3600.0


class Bench:
    """A log in a folder, and what it lost."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.folder = folder
        self.lost: list[tuple[int, str]] = []
        self.log = EventLog(str(folder), EventSettings(**({"flush_s": HOUR} | settings)), lambda n, why: self.lost.append((n, why)))

    def parts(self) -> list[list[int]]:
        """The numbers in each part, in the order of their names."""
        return [[json.loads(line)["n"] for line in path.read_text().splitlines()] for path in sorted(self.folder.rglob("*.jsonl"))]

    def offer(self, *numbers: int) -> bool:
        return self.log.offer([{"event": "liked", "n": n} for n in numbers])


def test_what_waits_at_the_end_is_written_in_order(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    assert bench.offer(1)
    assert bench.offer(2, 3)
    bench.log.close()
    assert bench.parts() == [[1, 2, 3]]
    assert bench.lost == []
    [part] = tmp_path.rglob("*.jsonl")
    assert json.loads(part.read_text().splitlines()[0])["at"].endswith("+00:00")


def test_parts_are_full_ones_and_nothing_unfinished_is_left(tmp_path: Path) -> None:
    bench = Bench(tmp_path, flush_events=2)
    for n in range(5):
        bench.offer(n)
    bench.log.close()
    assert sorted(n for part in bench.parts() for n in part) == [*range(5)]
    assert all(len(part) <= 2 for part in bench.parts())
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.suffix != ".jsonl"]


def test_after_flush_s_a_part_is_written_though_it_is_not_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, flush_s=0.01)
    written = threading.Event()
    write = bench.log._written

    def noted(part: Any) -> bool:
        done = write(part)
        written.set()
        return done

    monkeypatch.setattr(bench.log, "_written", noted)
    bench.offer(1)
    assert written.wait(HANG_S)
    assert bench.parts() == [[1]]
    bench.log.close()


def test_a_full_queue_takes_all_or_nothing_and_counts(tmp_path: Path) -> None:
    bench = Bench(tmp_path, max_waiting=3, flush_events=3)
    bench.log._failing = True
    assert bench.offer(1, 2)
    assert not bench.offer(3, 4)
    assert bench.lost == [(2, "full")]
    assert bench.offer(3)
    bench.log.close()
    assert bench.parts() == [[1, 2, 3]]
    assert not bench.offer(5)


def test_a_store_that_fails_is_tried_again_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, flush_s=0.01)
    failed, mended = threading.Event(), threading.Event()
    pipe = bench.log._fs.pipe_file

    def broken(*args: Any, **kwargs: Any) -> None:
        if not mended.is_set():
            failed.set()
            raise ConnectionError("the store is down")
        pipe(*args, **kwargs)

    monkeypatch.setattr(bench.log._fs, "pipe_file", broken)
    bench.offer(1)
    assert failed.wait(HANG_S)
    bench.offer(2)
    mended.set()
    bench.log.close()
    assert sorted(n for part in bench.parts() for n in part) == [1, 2]
    assert bench.lost == []


def test_a_try_that_fails_while_the_log_closes_is_not_the_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path, flush_s=0.01)
    failed = threading.Event()
    pipe = bench.log._fs.pipe_file

    def broken(*args: Any, **kwargs: Any) -> None:
        if not failed.is_set():
            failed.set()
            until(lambda: bench.log._closing, "the log closes")
            raise ConnectionError("the store is down")
        pipe(*args, **kwargs)

    monkeypatch.setattr(bench.log._fs, "pipe_file", broken)
    bench.offer(1)
    assert failed.wait(HANG_S)
    bench.log.close()
    assert (bench.parts(), bench.lost) == ([[1]], [])


def test_what_cannot_be_written_at_the_end_is_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "events").write_text("a file where the folder should be")
    bench = Bench(tmp_path / "events")
    bench.offer(1, 2)
    bench.log.close()
    assert bench.lost == [(2, "unwritten")]
    assert "cannot write events" in caplog.text


def test_a_log_that_was_never_used_closes(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.log.close()
    assert bench.parts() == []


def test_a_uri_that_nothing_opens(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"events\.uri nosuch://x"):
        EventLog("nosuch://x", EventSettings(), lambda *_: None)


def test_a_part_that_could_never_fill_is_refused() -> None:
    with pytest.raises(ValueError, match="flush_events 20 is above max_waiting 10"):
        EventSettings(flush_events=20, max_waiting=10)


def test_feedback_finds_its_impression_whoever_wrote_it(tmp_path: Path) -> None:
    gateway, other = Bench(tmp_path), Bench(tmp_path)
    other.log.offer(
        [{"event": "clicked", "request_id": "r", "user_id": None, "item": "i"}, {"event": "liked", "item": "j", "user_id": "v"}]
    )
    gateway.log.offer([{"event": "impression", "request_id": "r", "user_id": "u", "text": "a heist", "items": ["i"]}])
    other.log.close()
    gateway.log.close()
    found = {event["item"]: event for _, event in with_impressions(str(tmp_path)) if "item" in event}
    assert (found["i"]["user_id"], found["i"]["text"]) == ("u", "a heist")
    assert found["j"]["user_id"] == "v"
    assert "text" not in found["j"]


def test_a_request_id_of_an_old_log_that_two_answers_claim_names_neither(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.log.offer([{"event": "impression", "request_id": "r", "user_id": user, "text": user} for user in ("u", "attacker")])
    bench.log.offer([{"event": "clicked", "request_id": "r", "item": "i"}])
    bench.log.close()
    [clicked] = [event for _, event in with_impressions(str(tmp_path)) if event["event"] == "clicked"]
    assert "text" not in clicked
    assert "user_id" not in clicked


def test_what_was_sent_twice_is_read_once_whoever_wrote_it(tmp_path: Path) -> None:
    for bench in (Bench(tmp_path), Bench(tmp_path)):
        bench.log.offer([{"event": "liked", "id": "e", "impression": "m", "item": "i"}, {"event": "liked", "id": "e", "item": "j"}])
        bench.log.close()
    # The last two are not of our form: an id there may mean anything.
    assert [event["item"] for _, event in with_impressions(str(tmp_path))] == ["i", "j", "j"]


def test_days_that_are_too_old_are_deleted_and_nothing_else(tmp_path: Path) -> None:
    today = datetime.now(UTC).date()
    old, young = (str(today - timedelta(days=days)) for days in (31, 29))
    for name in (old, young, "2020-01-01-notes", "models"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.jsonl").write_text("{}\n")
    bench = Bench(tmp_path, keep_days=30)
    bench.offer(1)
    bench.log.close()
    assert {path.name for path in tmp_path.iterdir()} == {young, "2020-01-01-notes", "models", str(today)}


def test_without_a_limit_days_are_kept(tmp_path: Path) -> None:
    (tmp_path / "2020-01-01").mkdir()
    bench = Bench(tmp_path, keep_days=0)
    bench.offer(1)
    bench.log.close()
    assert (tmp_path / "2020-01-01").exists()


@pytest.mark.parametrize(("content", "message"), [("{}\nnot json\n", "line 2"), ("[1]\n", "not a JSON object")])
def test_lines_that_are_no_events(tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    with pytest.raises(SourceError, match=message):
        list(read_events(str(tmp_path)))


def test_an_evaluation_set_is_made_of_a_log(tmp_path: Path) -> None:
    entries = [Entry(f"f{n}", Item(id=f"f{n}", title=f"Film {n}"), "dev" if n < 2 else "train", str(n)) for n in range(4)]
    (tmp_path / "prepared").mkdir()
    write_entries(entries, tmp_path / "prepared" / "items.jsonl")
    bench = Bench(tmp_path / "events")
    uid = entries[0].item.uid("films")
    for n in range(2):
        bench.log.offer([{"event": "impression", "catalogue": "films", "request_id": f"r{n}", "text": "A heist", "items": [uid]}])
        bench.log.offer([{"event": "clicked", "catalogue": "films", "key": "shop", "request_id": f"r{n}", "item": uid}])
    # Nothing ties this one to a text.
    bench.log.offer([{"event": "clicked", "catalogue": "films", "item": uid}])
    bench.log.close()
    command = ["evalset", "make", str(tmp_path / "prepared"), "--clicks", str(tmp_path / "events"), "--out", str(tmp_path / "sets")]
    result = CliRunner().invoke(cli, command)
    assert result.exit_code == 0, result.output
    assert read_set(tmp_path / "sets", "text_click", "dev").relevant == {"a heist": {"f0"}}


def test_events_that_anyone_could_send_make_no_label(tmp_path: Path) -> None:
    """The attack on a server without keys: invented users like two items. Its owner may count them, by name."""
    entries = [Entry(f"f{n}", Item(id=f"f{n}", title=f"Film {n}"), "dev", str(n)) for n in range(3)]
    (tmp_path / "prepared").mkdir()
    write_entries(entries, tmp_path / "prepared" / "items.jsonl")
    bench = Bench(tmp_path / "events")
    for user in range(72):
        # The more like the third one, the less chance gives the first two together.
        items = (0, 1) if user < 12 else (2,)
        event = {"event": "liked", "catalogue": "films", "key": None, "user_id": f"u{user}", "impression": f"i{user}"}
        bench.log.offer([event | {"id": f"{user}-{n}", "item": entries[n].item.uid("films")} for n in items])
    bench.log.close()
    command = ["evalset", "make", str(tmp_path / "prepared"), "--likes", str(tmp_path / "events"), "--out", str(tmp_path / "sets")]
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 3
    assert "--keyless" in refused.output
    assert CliRunner().invoke(cli, [*command, "--keyless"]).exit_code == 0
    assert read_set(tmp_path / "sets", "item_colike", "dev").relevant == {"f0": {"f1"}, "f1": {"f0"}}


def test_the_events_of_an_abused_key_can_be_left_out(tmp_path: Path) -> None:
    """The attack: invented users of one key like two items that have nothing in common."""
    entries = [Entry(f"f{n}", Item(id=f"f{n}", title=f"Film {n}"), "dev", str(n)) for n in range(5)]
    (tmp_path / "prepared").mkdir()
    write_entries(entries, tmp_path / "prepared" / "items.jsonl")
    bench = Bench(tmp_path / "events")
    for key, users, items in (("shop", 12, (0, 1)), ("shop", 60, (4,)), ("leaked", 12, (2, 3))):
        for user in range(users):
            said = {"event": "liked", "catalogue": "films", "key": key, "user_id": f"{items}{user}", "impression": f"{items}{user}"}
            bench.log.offer([said | {"id": f"{items}{user}{n}", "item": entries[n].item.uid("films")} for n in items])
    bench.log.close()
    command = ["evalset", "make", str(tmp_path / "prepared"), "--likes", str(tmp_path / "events")]
    for out, more, labels in (("all", [], {"f0", "f1", "f2", "f3"}), ("sets", ["--without-key", "leaked"], {"f0", "f1"})):
        result = CliRunner().invoke(cli, [*command, "--out", str(tmp_path / out), *more])
        assert result.exit_code == 0, result.output
        assert set().union(*read_set(tmp_path / out, "item_colike", "dev").relevant.values()) == labels
