"""Feedback tokens: whose they are, how long they hold, and how their keys are shared and replaced."""

import stat
import threading
from pathlib import Path

import pytest

from matinee.errors import SettingsError
from serve.api import feedback_tokens
from serve.api.feedback_tokens import FeedbackTokens, SigningKeys
from serve.errors import RequestError

UIDS = ["0a3f6c12-0000-5000-8000-000000000001", "9b3f6c12-0000-5000-8000-000000000002"]
OLD, NEW = "o" * 32, "n" * 32


def tokens(path: Path, catalogue: str = "films", now: float = 0.0) -> FeedbackTokens:
    return FeedbackTokens(SigningKeys(path, path), catalogue, 60, lambda: now)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    path.write_text(f"{OLD}\n")
    return path


def test_a_token_says_what_was_signed(keys: Path) -> None:
    impression = tokens(keys).read(tokens(keys).sign("i", "u", UIDS))
    assert (impression.id, impression.user_id) == ("i", "u")
    assert all(map(impression.shows, UIDS))
    assert not impression.shows("00000000-0000-5000-8000-000000000001")
    assert tokens(keys).read(tokens(keys).sign("i", None, [])).user_id is None


def test_it_ends_and_belongs_to_one_catalogue(keys: Path) -> None:
    token = tokens(keys).sign("i", "u", UIDS)
    assert tokens(keys, now=59).read(token).id == "i"
    with pytest.raises(RequestError, match="expired"):
        tokens(keys, now=61).read(token)
    with pytest.raises(RequestError, match="another catalogue"):
        tokens(keys, "books").read(token)


def test_keys_rotate_with_an_overlap_and_without_a_restart(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feedback_tokens, "_LOOK_S", -1.0)
    running = tokens(keys)
    first = running.sign("first", "u", UIDS)
    keys.write_text(f"{NEW}\n{OLD}\n")
    second = running.sign("second", "u", UIDS)
    assert (running.read(first).id, running.read(second).id) == ("first", "second")
    keys.write_text("half")
    assert running.read(second).id == "second", "while the file is replaced the old keys hold"
    keys.write_text(f"{NEW}\n\n")
    assert running.read(second).id == "second"
    with pytest.raises(RequestError, match="not signed by this server"):
        running.read(first)


def test_gateways_that_start_at_once_share_the_key_that_they_make(tmp_path: Path) -> None:
    path, made = tmp_path / "home" / "feedback.keys", []
    barrier = threading.Barrier(8)

    def start() -> None:
        barrier.wait()
        made.append(SigningKeys(None, path).all()[0])

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8
    assert len(set(made)) == 1
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [file.name for file in path.parent.iterdir()] == ["feedback.keys"]


@pytest.mark.parametrize("content", ["", "short", f"{OLD}\nshort", None])
def test_keys_that_protect_nothing_are_refused_at_the_start(tmp_path: Path, content: str | None) -> None:
    path = tmp_path / "keys"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SettingsError, match=r"events\.signing_keys"):
        SigningKeys(path, tmp_path / "own")
