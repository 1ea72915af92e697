"""Rankings that wait for one another, and batches that need no stream on their way back."""

import pytest

from matinee.filters import ItemFilter
from matinee.index.cost import MOST
from matinee.recommend.queries import ExampleQuery, TextQuery
from serve.graph.messages import Delete, Rank, RetrieverMessage
from serve.graph.ranking_groups import group_rankings

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
