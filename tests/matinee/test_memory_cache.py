"""`matinee.memory_cache`: what it holds in bytes, whatever is put in."""

import sys
from dataclasses import dataclass

import numpy as np
import pytest

from matinee.memory_cache import MemoryCache, size_of


def test_long_values_take_the_place_of_many_short_ones() -> None:
    cache: MemoryCache[int, str] = MemoryCache(1_000_000)
    for key in range(1000):
        cache.put(key, "x" * 100)
    assert len(cache) == 1000
    for key in range(1000, 1100):
        cache.put(key, "x" * 90_000)
    assert 0 < len(cache) <= 11
    assert cache.bytes <= 1_000_000
    assert cache.get(1099) is not None
    assert cache.get(0) is None


def test_keys_weigh_too() -> None:
    cache: MemoryCache[str, int] = MemoryCache(1_000_000)
    for n in range(100):
        cache.put(f"{n}{'x' * 90_000}", n)
    assert len(cache) <= 11


def test_what_was_used_last_stays() -> None:
    cache: MemoryCache[str, int] = MemoryCache(10_000_000, max_entries=3)
    for key in "abc":
        cache.put(key, 1)
    cache.get("a")
    cache.put("d", 1)
    assert [key for key in "abcd" if cache.get(key)] == ["a", "c", "d"]


@pytest.mark.parametrize(("max_bytes", "max_entries"), [(0, 10), (1_000_000, 0), (0, 0)])
def test_none_of_either_keeps_nothing(max_bytes: int, max_entries: int) -> None:
    for ttl_s in (None, 60):
        cache: MemoryCache[str, str] = MemoryCache(max_bytes, max_entries=max_entries, ttl_s=ttl_s)
        cache.put("a", "x")
        assert (cache.get("a"), len(cache)) == (None, 0)


def test_what_is_too_large_is_not_kept_and_its_old_value_is_gone() -> None:
    cache: MemoryCache[str, str] = MemoryCache(10_000)
    cache.put("a", "old")
    cache.put("a", "x" * 10_000)
    assert cache.get("a") is None


def test_values_go_after_their_time() -> None:
    now = 0.0
    cache: MemoryCache[str, str] = MemoryCache(10_000, ttl_s=60, clock=lambda: now)
    cache.put("a", "x")
    now = 59
    assert cache.get("a") == "x"
    now = 61
    assert cache.get("a") is None
    cache.drop("never there")
    cache.clear()


def test_a_view_weighs_what_it_keeps_alive() -> None:
    matrix = np.zeros((1000, 384), np.float32)
    assert size_of(matrix[0]) > matrix.nbytes
    assert size_of(matrix[0].copy()) < 2000


@dataclass
class Plain:
    text: str


@dataclass(slots=True)
class Slotted:
    text: str


def test_parts_are_weighed_with_the_whole() -> None:
    text = "x" * 10_000
    for whole in ({"a": [text]}, {text: 1}, (text,), {text}, Plain(text), Slotted(text)):
        assert size_of(whole) > 10_000
    assert size_of("日" * 1000) > 2000
    assert size_of(1) == sys.getsizeof(1)
