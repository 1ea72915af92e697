"""API keys: bearer keys with scopes, for one catalogue or all, stored as sha256 and compared in constant time.

Without keys every reader is welcome, and writing is allowed on loopback addresses only. Does not issue keys: `python -m serve key NAME`
prints one with its settings line.
"""

import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass
from typing import NamedTuple

from matinee.settings.addresses import is_loopback
from matinee.settings.serving import SCOPES, KeySettings, Scope, ServingSettings
from serve.errors import RequestError

# What anyone may do where a server has no keys. The rest needs a loopback address.
_OPEN: frozenset[Scope] = frozenset({"read", "feedback"})


class About(NamedTuple):
    """What a request is about: a catalogue (`default`: the default one, whatever its name), or the server as a whole."""

    catalogue: str | None = None
    default: bool = True


DEFAULT = About()
SERVER = About(default=False)


class ApiKeys:
    """Checks the `Authorization` header against the configured keys."""

    def __init__(self, settings: ServingSettings) -> None:
        self.use(settings)

    def use(self, settings: ServingSettings) -> None:
        """Other keys from now on."""
        self._keys = settings.keys
        self.open_to_write = not settings.keys and is_loopback(settings.host)

    @property
    def exist(self) -> bool:
        return bool(self._keys)

    def writable(self, about: About = DEFAULT) -> bool:
        """Whether anybody may write there."""
        return self.open_to_write or any(key.allows("write", about.catalogue, default=about.default) for key in self._keys)

    def identify(self, authorization: str | None) -> KeySettings | None:
        """The key that came, None on a server without keys. Raises a 401 without a valid one."""
        if not self._keys:
            return None
        scheme, _, key = (authorization or "").partition(" ")
        if scheme.lower() != "bearer" or not key:
            raise RequestError(401, "send an API key as 'Authorization: Bearer KEY'")
        entry = self._find(key.strip())
        if entry is None:
            raise RequestError(401, "this API key is unknown")
        return entry

    def require(self, entry: KeySettings | None, scope: Scope, about: About = DEFAULT) -> None:
        """Raises a 403 where what `identify` returned does not allow `scope`."""
        if entry is None:
            if scope not in _OPEN and not self.open_to_write:
                message = f"scope {scope!r} needs a key, and this server has none: set serving.keys, or serve on 127.0.0.1"
                raise RequestError(403, message)
        elif not entry.allows(scope, about.catalogue, default=about.default):
            needed = scope if about.default or about.catalogue is None else f"{about.catalogue}:{scope}"
            raise RequestError(403, f"key {entry.name!r} lacks the scope {needed!r}; it has {', '.join(entry.scopes)}")

    def _find(self, key: str) -> KeySettings | None:
        digest = hash_key(key)
        match = None
        for known in self._keys:
            # No early exit: the time must not tell which key was near.
            if hmac.compare_digest(known.sha256, digest):
                match = known
        return match


@dataclass(frozen=True)
class RouteMatch:
    """Which requests are a route's."""

    methods: frozenset[str]
    path: re.Pattern[str]

    def covers(self, method: str, path: str) -> bool:
        return method in self.methods and self.path.match(path) is not None


@dataclass(frozen=True)
class NeededScope(RouteMatch):
    """The scope that a route needs."""

    scope: Scope


@dataclass(frozen=True)
class Caller:
    """Who sent a request: the key (None on a server without keys), and the address for the limits (None if unknown)."""

    keys: ApiKeys
    entry: KeySettings | None = None
    address: str | None = None
    about: About = DEFAULT

    @property
    def key(self) -> str | None:
        """The key's name."""
        return None if self.entry is None else self.entry.name

    def require(self, scope: Scope) -> None:
        """Raises a 403 where the caller lacks `scope`."""
        self.keys.require(self.entry, scope, self.about)

    def may(self, scope: Scope) -> bool:
        try:
            self.require(scope)
        except RequestError:
            return False
        return True

    def sees(self, catalogue: str, *, default: bool) -> bool:
        """Whether the caller may do anything in a catalogue."""
        return self.entry is None or any(self.entry.allows(scope, catalogue, default=default) for scope in SCOPES)


def hash_key(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


def new_key(name: str, scopes: tuple[str, ...]) -> tuple[str, KeySettings]:
    """A fresh key, to be shown once, and the settings entry that admits it."""
    key = f"mat_{secrets.token_urlsafe(32)}"
    return key, KeySettings(name=name, sha256=hash_key(key), scopes=scopes)
