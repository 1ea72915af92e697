"""API keys: bearer keys with scopes, stored as sha256 and compared in constant time.

Without keys every reader is welcome, and writing is allowed on loopback addresses only. Does not issue keys: `python -m serve key NAME`
prints one with its settings line.
"""

import hashlib
import hmac
import secrets

from matinee.settings.addresses import is_loopback
from matinee.settings.serving import KeySettings, Scope, ServingSettings
from serve.errors import RequestError


class ApiKeys:
    """Checks the `Authorization` header against the configured keys."""

    def __init__(self, settings: ServingSettings) -> None:
        self.use(settings)

    def use(self, settings: ServingSettings) -> None:
        """Other keys from now on."""
        self._keys = settings.keys
        self.open_to_write = not settings.keys and is_loopback(settings.host)

    @property
    def writable(self) -> bool:
        return self.open_to_write or any("write" in key.scopes for key in self._keys)

    def check(self, authorization: str | None, scope: Scope) -> str | None:
        """The key's name, None where none is asked for. Raises a 401 without a valid key, a 403 where it does not allow `scope`."""
        if not self._keys:
            if scope == "read" or self.open_to_write:
                return None
            raise RequestError(403, f"scope {scope!r} needs a key, and this server has none: set serving.keys, or serve on 127.0.0.1")
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise RequestError(401, "send an API key as 'Authorization: Bearer KEY'")
        entry = self._find(key.strip())
        if entry is None:
            raise RequestError(401, "this API key is unknown")
        if scope not in entry.scopes and "admin" not in entry.scopes:
            raise RequestError(403, f"key {entry.name!r} lacks the scope {scope!r}; it has {', '.join(entry.scopes)}")
        return entry.name

    def _find(self, key: str) -> KeySettings | None:
        digest = hash_key(key)
        match = None
        for known in self._keys:
            # No early exit: the time must not tell which key was near.
            if hmac.compare_digest(known.sha256, digest):
                match = known
        return match


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def new_key(name: str, scopes: tuple[Scope, ...]) -> tuple[str, KeySettings]:
    """A fresh key, to be shown once, and the settings entry that admits it."""
    key = f"mat_{secrets.token_urlsafe(32)}"
    return key, KeySettings(name=name, sha256=hash_key(key), scopes=scopes)
