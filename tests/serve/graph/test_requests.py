"""Requests to rank: their texts are made canonical, and bodies that are wrong in very many places cost little.

A validator that notes each of them would stop the server while it does.
"""

import time
from collections.abc import Callable
from typing import Any

import pytest
from pydantic import ValidationError

from matinee.filters import ItemFilter
from matinee.items import Item
from serve.graph import requests
from serve.graph.requests import RecommendRequest, SearchRequest

WRONG = [1] * 64
MOST = 5_000

BODIES: dict[str, Callable[[], tuple[Any, dict[str, Any]]]] = {
    "facts of likes": lambda: (RecommendRequest, {"likes": [{"item": {"title": "t", "extra": {f"e{i}": WRONG for i in range(145)}}}] * 50}),
    "as many facts as there may be": lambda: (
        RecommendRequest,
        {"likes": [{"item": {"title": "t", "extra": {f"e{i}": WRONG for i in range(32)}}}] * 50},
    ),
    "roles": lambda: (Item, {"title": "t", "people": {f"r{i}": WRONG for i in range(16)}}),
    "facts": lambda: (Item, {"title": "t", "extra": {f"e{i}": [1] for i in range(7_200)}}),
    "unknown fields": lambda: (SearchRequest, {"text": "a", **{f"x{i}": 0 for i in range(100_000)}}),
    "unknown fields of an item": lambda: (Item, {"title": "t", **{f"x{i}": 0 for i in range(100_000)}}),
    "conditions": lambda: (SearchRequest, {"text": "a", "filter": {"and": [{"year": {"gte": 0}}] * 45_000}}),
}


@pytest.mark.parametrize("name", BODIES)
def test_it_has_few_errors(name: str) -> None:
    model, body = BODIES[name]()
    with pytest.raises(ValidationError) as raised:
        model.model_validate(body)
    assert 0 < raised.value.error_count() <= MOST


def test_marks_of_two_classes_are_no_hang() -> None:
    """Half a million of them would take Python's normalisation a quarter of an hour."""
    start = time.thread_time()
    with pytest.raises(ValidationError):
        SearchRequest.model_validate({"text": "\x00a" + "\u0301" * 250_000 + "\u0316" * 250_000})
    with pytest.raises(ValidationError):
        Item.model_validate({"title": "a" + "\u0301\u0316" * 250_000, "overview": 1})
    # Of CPU time, and five hundred times what it takes.
    assert time.thread_time() - start < 60


def test_texts_of_requests_are_canonical_and_ids_stay() -> None:
    request = requests.RecommendRequest.model_validate(
        {
            "likes": ["E\u0301te\u0301\u200b", {"id": "e\u0301"}],
            "text": "a cafe\u0301 by the\u00ad sea",
            "filter": {"genres": ["E\u0301pope\u0301e"]},
        }
    )
    assert request.likes[0] == "Été"
    assert request.likes[1].id == "e\u0301"  # type: ignore[union-attr]
    assert request.text == "a café by the sea"
    assert request.filter == ItemFilter(genres=("Épopée",))
