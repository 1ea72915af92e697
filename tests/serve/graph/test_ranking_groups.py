"""Rankings that wait for one another, and batches that need no stream on their way back."""

import warnings
from typing import Any

import pytest

from matinee.filters import ItemFilter
from matinee.index.cost import MOST
from matinee.recommend.queries import ExampleQuery, TextQuery
from serve.graph.messages import Delete, Embed, Rank, RetrieverMessage
from serve.graph.ranking_groups import group_rankings
from serve.graph.wire import enqueue

LIGHT = Rank(TextQuery("robots", None, "hybrid"))
FILTERED = Rank(TextQuery("robots", None, "hybrid", filter=ItemFilter(genres=("Drama",))))


@pytest.mark.parametrize(
    ("batch", "groups"),
    [
        ([LIGHT, LIGHT, LIGHT], [[0, 1, 2]]),
        ([LIGHT, FILTERED, LIGHT], [[0, 2], [1]]),
        ([LIGHT, Rank(LIGHT.query, "another encoder")], [[0], [1]]),
        ([Delete("a"), LIGHT, Delete("b")], [[0], [1], [2]]),
        ([LIGHT] * (MOST + 1), [list(range(MOST)), [MOST]]),
        ([Rank(ExampleQuery((), k=1000)), LIGHT], [[0], [1]]),
    ],
    ids=["alike", "filter", "encoder", "writes", "many", "heavy"],
)
def test_only_rankings_alike_are_answered_together(batch: list[RetrieverMessage[object]], groups: list[list[int]]) -> None:
    assert group_rankings(batch) == groups


class Called:
    """A handle that notes how it was called."""

    def __init__(self) -> None:
        self.how: list[str] = []
        self.call, self.stream = (type("Method", (), {"remote": staticmethod(self._remote(how))}) for how in ("call", "stream"))

    def options(self, **_: object) -> "Called":
        return self

    def _remote(self, how: str) -> Any:
        async def whole(batch: list[object]) -> list[str]:
            return ["answer"] * len(batch)

        async def parts(batch: list[object]) -> Any:
            yield [(place, "answer") for place in range(len(batch))]

        def remote(batch: list[object]) -> Any:
            self.how.append(how)
            return whole(batch) if how == "call" else parts(batch)

        return remote


@pytest.mark.parametrize(
    ("part", "batch", "how"),
    [
        ("retriever", [LIGHT, LIGHT], "call"),
        ("retriever", [LIGHT, FILTERED], "stream"),
        ("embedder", [Embed(("robots",)), Embed(("love",))], "call"),
        ("embedder", [Embed(("robots",)), Embed(("love",), "document")], "stream"),
        ("embedder", [Embed(("robots",), bulk=True), Embed(("love",), bulk=True)], "stream"),
        ("embedder", [Embed(("love",), "document")], "call"),
    ],
)
async def test_what_is_answered_at_once_comes_back_without_a_stream(part: str, batch: list[Any], how: str) -> None:
    with warnings.catch_warnings():
        # Its own, at import, are Ray's business.
        warnings.simplefilter("ignore")
        from serve.graph.handles import RayRemote, encodes, rankings
    handle = Called()
    remote: Any = RayRemote(handle, encodes if part == "embedder" else rankings)  # type: ignore[arg-type]
    assert await remote([enqueue(message, 1e9) for message in batch], lambda place, result: None) == ["answer"] * len(batch)
    assert handle.how == [how]
