"""Computed values kept in memory by their key, bounded in bytes: a few long texts must not take what many short ones may.

For one thread, or one event loop. Knows nothing of what the values mean, except what they weigh.
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Generic, TypeVar

import numpy as np
from cachetools import Cache, LRUCache, TTLCache

K = TypeVar("K")
V = TypeVar("V")

# What the cache itself keeps for an entry: its places in two tables, and the links of the order of use.
_ENTRY_BYTES = 300


class MemoryCache(Generic[K, V]):
    """Key -> value. What was used least recently goes first, when `max_bytes` or `max_entries` is passed; 0 of either keeps nothing.

    With `ttl_s`, a value goes after that many seconds. A value that is larger than everything together is not kept.
    """

    def __init__(
        self, max_bytes: int, *, max_entries: int = sys.maxsize, ttl_s: float | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        # An entry counts as its share at least, so that one bound in bytes holds both.
        self._lightest = max(1, max_bytes // max_entries) if max_entries else 1
        self._max_bytes = min(max_bytes, self._lightest * max_entries)

        def weight(entry: tuple[int, V]) -> int:
            return entry[0]

        self._entries: Cache[K, tuple[int, V]]
        if ttl_s is None:
            self._entries = LRUCache(self._max_bytes, weight)
        else:
            self._entries = TTLCache(self._max_bytes, ttl_s, clock, weight)

    @property
    def bytes(self) -> int:
        """What the entries count as."""
        return int(self._entries.currsize)

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: K) -> V | None:
        entry = self._entries.get(key)
        return None if entry is None else entry[1]

    def put(self, key: K, value: V) -> None:
        weight = max(self._lightest, _ENTRY_BYTES + size_of(key) + size_of(value))
        # Also where it is too large: the old value of this key is no longer true.
        self._entries.pop(key, None)
        if weight <= self._max_bytes:
            self._entries[key] = (weight, value)

    def drop(self, key: K) -> None:
        self._entries.pop(key, None)

    def clear(self) -> None:
        self._entries.clear()


def size_of(value: object) -> int:
    """Bytes of a value of texts, numbers, arrays, and tables of them, parts included. Of objects, their fields."""
    if isinstance(value, np.ndarray):
        # `getsizeof` counts the numbers of an array that owns them; a view keeps the whole of what it looks at.
        return sys.getsizeof(value) + (0 if value.base is None else size_of(value.base))
    parts: Iterable[object] = ()
    if isinstance(value, Mapping):
        parts = (part for pair in value.items() for part in pair)
    elif isinstance(value, list | tuple | set | frozenset):
        parts = value
    elif hasattr(value, "__dict__"):
        parts = vars(value).values()
    elif hasattr(value, "__slots__"):
        parts = (getattr(value, name) for name in value.__slots__)
    return sys.getsizeof(value) + sum(map(size_of, parts))
