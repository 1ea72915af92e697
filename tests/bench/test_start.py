"""`bench.start`: it asks for an item that the index has, whatever its id, and prints medians."""

import json

import pytest

from bench.local_server import BenchError
from bench.start import similar_path, spread


def test_it_asks_for_the_first_item_of_the_index() -> None:
    assert similar_path(json.dumps({"items": [{"id": "a/b 1"}, {"id": "other"}]}).encode()) == "/v1/items/a%2Fb%201/similar?k=5"
    with pytest.raises(BenchError, match="no items"):
        similar_path(b'{"items": []}')


def test_a_cell_has_median_least_and_greatest() -> None:
    assert spread([18.4, 12.3, 18.1]) == "18.1 [12.3, 18.4]"
