"""The tokens that tie feedback to an answer: signed, with an end, and shared by all gateways of a server.

A token names the impression, its user and its items, so that feedback can't invent any of them. It is neither a secret nor a key: everyone
who gets the answer may send feedback. The signing keys are the lines of a file. The first one signs and all of them verify, so that a key
can be replaced while its tokens still count. Does not know events or HTTP bodies.
"""

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import orjson

from matinee.errors import SettingsError
from serve.errors import RequestError

_VERSION = 2
_ID_BYTES = 16
_SHORTEST_KEY = 32
_LOOK_S = 1.0


@dataclass(frozen=True)
class Impression:
    """What a token says of an answer: its id, whom it was for, and the index ids that it showed, as bytes."""

    id: str
    user_id: str | None
    items: frozenset[bytes]

    def shows(self, uid: str) -> bool:
        return _id_bytes(uid) in self.items


class SigningKeys:
    """The keys in a file, one a line, read again when it changes. Without `path`, the file `own` is used, and made if it is absent."""

    def __init__(self, path: Path | None, own: Path) -> None:
        """Raises `SettingsError` where there is no key, or a short one."""
        self._path = own if path is None else path
        if path is None and not own.exists():
            _create(own)
        self._keys = self._read()
        self._mark, self._looked_at = self._state(), time.monotonic()

    def all(self) -> Sequence[bytes]:
        """The keys, that which signs first."""
        if time.monotonic() - self._looked_at > _LOOK_S:
            self._looked_at = time.monotonic()
            try:
                if (mark := self._state()) != self._mark:
                    self._keys, self._mark = self._read(), mark
            except (OSError, SettingsError):
                # A file that is being replaced: the old keys hold until it is whole.
                return self._keys
        return self._keys

    def _state(self) -> tuple[int, int]:
        status = self._path.stat()
        return status.st_ino, status.st_mtime_ns

    def _read(self) -> list[bytes]:
        try:
            keys = self._path.read_bytes().split()
        except OSError as error:
            raise SettingsError(f"events.signing_keys {self._path}: {error.strerror}: name a file that this user can read") from None
        if not keys or min(map(len, keys)) < _SHORTEST_KEY:
            raise SettingsError(f"events.signing_keys {self._path}: write keys of at least {_SHORTEST_KEY} characters, one a line")
        return keys


class FeedbackTokens:
    """Makes and reads the tokens of one catalogue, valid for `seconds`."""

    def __init__(self, keys: SigningKeys, catalogue: str, seconds: float, clock: Callable[[], float] = time.time) -> None:
        self._keys = keys
        self._catalogue = catalogue
        self._seconds = seconds
        self._clock = clock

    def sign(self, impression: str, user_id: str | None, uids: Sequence[str]) -> str:
        """The token of an answer that showed the items `uids`: each id as its 16 bytes, since a part of one would name other items too."""
        ends = int(self._clock() + self._seconds)
        head = orjson.dumps([_VERSION, self._catalogue, impression, ends, user_id])
        body = b"\n".join((head, _id_bytes("".join(uids))))
        return f"{_encode(body)}.{_encode(_signature(self._keys.all()[0], body))}"

    def read(self, token: str) -> Impression:
        """The impression of a token. Raises a 403 if none of our keys signed it, if it names another catalogue, or if it has expired."""
        try:
            body, signature = (_decode(part) for part in token.split("."))
        except ValueError:
            raise RequestError(403, f"this is not a feedback token: {_REMEDY}") from None
        if not any(hmac.compare_digest(signature, _signature(key, body)) for key in self._keys.all()):
            raise RequestError(403, f"this feedback token was not signed by this server: {_REMEDY}")
        # JSON holds no line end of its own; the bytes of the ids may.
        head, _, ids = body.partition(b"\n")
        version, catalogue, impression, ends, user_id, *_ = orjson.loads(head)
        if (version, catalogue) != (_VERSION, self._catalogue):
            raise RequestError(403, f"this feedback token is of another catalogue or release: {_REMEDY}")
        if ends < self._clock():
            raise RequestError(403, f"this feedback token has expired (events.token_s): {_REMEDY}")
        return Impression(impression, user_id, frozenset(ids[i : i + _ID_BYTES] for i in range(0, len(ids), _ID_BYTES)))


_REMEDY = "send the feedback_token of an answer of this server"


def _id_bytes(uids: str) -> bytes:
    """The bytes of index ids, 16 of each: thousands of `uuid.UUID` would take milliseconds of every large answer."""
    return bytes.fromhex(uids.replace("-", ""))


def _signature(key: bytes, body: bytes) -> bytes:
    return hmac.digest(key, body, hashlib.sha256)


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text.encode("ascii") + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, UnicodeEncodeError) as error:
        raise ValueError(str(error)) from None


def _create(path: Path) -> None:
    """A key of this machine's own. Where several gateways start at once, the first one's counts."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    aside.touch(mode=0o600)
    aside.write_text(f"{secrets.token_hex(32)}\n", encoding="ascii")
    try:
        path.hardlink_to(aside)
    except FileExistsError:
        return
    finally:
        aside.unlink()
