"""Feedback tokens: whose they are, how long they hold, and how their keys are shared and replaced."""

import base64
import hmac
import stat
import threading
import uuid
from pathlib import Path

import orjson
import pytest

from matinee.errors import SettingsError
from matinee.recommend.options import MAX_CANDIDATES
from serve.api import feedback_tokens
from serve.api.feedback_tokens import FeedbackTokens, SigningKeys
from serve.api.schemas_feedback import MAX_TOKEN
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
    assert not any(impression.shows(f"{uid[:-1]}0") for uid in UIDS)
    nothing = tokens(keys).read(tokens(keys).sign("i", None, []))
    assert nothing.user_id is None
    assert not nothing.items


def test_ids_with_any_bytes_are_shown(keys: Path) -> None:
    """Line ends too, which are what parts the ids from the rest of the token."""
    uids = [str(uuid.UUID(bytes=bytes([byte]) * 16)) for byte in range(256)]
    impression = tokens(keys).read(tokens(keys).sign("i", "\n", uids))
    assert (impression.user_id, len(impression.items)) == ("\n", 256)
    assert all(map(impression.shows, uids))


def test_the_token_of_the_longest_answer_fits_into_a_request(keys: Path) -> None:
    token = tokens(keys).sign(uuid.uuid4().hex, "\U0001f3ac" * 200, [str(uuid.uuid4()) for _ in range(MAX_CANDIDATES)])
    assert len(token) < MAX_TOKEN
    assert len(tokens(keys).read(token).items) == MAX_CANDIDATES


def test_a_signed_token_that_holds_parts_of_ids_is_refused(keys: Path) -> None:
    body = orjson.dumps([1, "films", "i", 60, "u", "0a3f6c12"])
    signature = hmac.digest(OLD.encode(), body, "sha256")
    token = ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (body, signature))
    with pytest.raises(RequestError, match="another catalogue or release"):
        tokens(keys).read(token)


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
