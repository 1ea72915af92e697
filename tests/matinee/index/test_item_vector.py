"""The item vector: kernels of facts beside the text's cosine."""

import numpy as np
import pytest

from matinee.filters.attributes import Attribute
from matinee.index.item_vector import FACTS_DIMENSION, complete_points, dimensions, item_vector
from matinee.index.types import ITEM, TEXT, Manifest, Point, item_payload, tombstone
from matinee.items import Item
from matinee.settings.index import FactWeights

TEXT_VECTOR = np.array([0.6, 0.8], np.float32)
WEIGHTS = FactWeights(year=0.1, votes=0.1, genres=0.2, language=0.2)
FILM = {"title": "A", "year": 1999, "genres": ["Drama", "War"], "language": "en", "numbers": {"votes": 5000.0}}


def cosine(a: dict[str, object], b: dict[str, object], weights: FactWeights = WEIGHTS) -> float:
    return float(item_vector(TEXT_VECTOR, a, weights) @ item_vector(TEXT_VECTOR, b, weights))


@pytest.mark.parametrize(
    ("near", "far"),
    [
        ({"year": 2001}, {"year": 1950}),
        ({"numbers": {"votes": 7000.0}}, {"numbers": {"votes": 12.0}}),
        ({"genres": ["Drama"]}, {"genres": ["Comedy"]}),
        ({"genres": ["War", "Drama"]}, {"genres": ["War"]}),
        ({"language": "EN"}, {"language": "fr"}),
        ({}, {"year": None}),
    ],
)
def test_a_fact_in_common_brings_items_of_one_text_nearer(near: dict[str, object], far: dict[str, object]) -> None:
    assert cosine(FILM, FILM | near) > cosine(FILM, FILM | far) + 0.005


def test_an_item_is_nearest_to_itself_and_every_vector_has_unit_length() -> None:
    vector = item_vector(TEXT_VECTOR, FILM, WEIGHTS)
    assert vector.shape == (2 + FACTS_DIMENSION,)
    assert vector.dtype == np.float32
    assert cosine(FILM, FILM) == pytest.approx(1, abs=1e-5)
    assert cosine(FILM, {"title": "no facts"}) < 1


@pytest.mark.parametrize("year", [-5000, 1880, 2040, 3000])
def test_facts_outside_the_grid_count_as_its_ends(year: int) -> None:
    vector = item_vector(TEXT_VECTOR, {"year": year, "numbers": {"votes": -3.0}, "genres": []}, WEIGHTS)
    assert np.isfinite(vector).all()
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)


def test_without_weights_there_is_no_item_vector() -> None:
    none = FactWeights(year=0, votes=0, genres=0, language=0)
    assert dimensions(384, none) == {TEXT: 384}
    assert dimensions(384, WEIGHTS) == {TEXT: 384, ITEM: 384 + FACTS_DIMENSION}
    assert cosine(FILM, {"title": "no facts"}, none) == pytest.approx(1, abs=1e-5)


def test_points_are_completed_as_their_version_wants() -> None:
    wants = Manifest(version="v", catalogue="c", fingerprint="f", recipe="raw", dimensions=dimensions(2, WEIGHTS), facts=WEIGHTS)
    plain = wants.model_copy(update={"dimensions": {TEXT: 2}, "facts": None})
    embedded = Point("a", {"item": FILM}, {TEXT: TEXT_VECTOR})
    waiting, gone = Point("b", {"item": FILM}), tombstone("c", revision=1)
    done = complete_points([embedded, waiting, gone], wants)
    assert [sorted(point.dense) for point in done] == [[ITEM, TEXT], [], []]
    assert complete_points([embedded], plain)[0].dense.keys() == {TEXT}


def test_a_point_of_another_version_gets_the_attributes_of_this_one() -> None:
    """As writes do that are carried over, by a switch or a rollback, to a version with another declaration or with none."""
    item = Item(title="x", extra={"size": "12"})
    point = Point("1", item_payload(item, origin="api", revision=1), {TEXT: np.ones(1, np.float32)})
    made = {name: Attribute(type=name, source="extra.size") for name in ("keyword", "integer")}
    versions = [
        Manifest(version="v", catalogue="c", fingerprint="f", recipe="raw", dimensions={TEXT: 1}, attributes=attributes)
        for attributes in ({"size": made["keyword"]}, {"size": made["integer"]}, None)
    ]
    stored = [None, None, None]
    for i, manifest in enumerate(versions):
        [point] = complete_points([point], manifest)
        stored[i] = point.payload.get("attributes")
    assert stored == [{"size": "12"}, {"size": 12}, None]
    assert "attributes" not in versions[2].model_dump(mode="json")
    [gone] = complete_points([tombstone("1", revision=2)], versions[0])
    assert gone == tombstone("1", revision=2)
