"""The dense side's recipes, with unit vectors that stand for texts."""

import numpy as np
import pytest

from matinee.items import Item
from matinee.settings.index import Recipe
from matinee.text.recipe import WEIGHT, ItemTexts

HEAT, ALIEN = Item(kind="film", title="Heat", overview="A thief."), Item(kind="film", title="Alien", overview="A ship.")
AXES = np.eye(4, dtype=np.float32)


@pytest.mark.parametrize(
    ("recipe", "texts"),
    [
        ("raw", ("Heat. A thief.", "Alien. A ship.")),
        ("enhanced", ("Heat. Two men.", "Alien. A ship.")),
        ("both", ("Heat. A thief.", "Alien. A ship.", "Heat. Two men.")),
    ],
)
def test_what_is_embedded(recipe: Recipe, texts: tuple[str, ...]) -> None:
    assert ItemTexts([HEAT, ALIEN], ["Two men.", None], recipe).flat == texts


def test_both_adds_a_part_of_the_description_to_the_item_that_has_one() -> None:
    joined = ItemTexts([HEAT, ALIEN], [" ", "A creature."], "both").join(AXES[:3])
    assert joined[0].tolist() == AXES[0].tolist()
    assert joined[1] == pytest.approx((AXES[1] + WEIGHT * AXES[2]) / np.hypot(1, WEIGHT))
    assert joined.dtype == np.float32


@pytest.mark.parametrize("recipe", ["raw", "enhanced"])
def test_one_text_an_item_is_its_vector(recipe: Recipe) -> None:
    assert ItemTexts([HEAT, ALIEN], [None, "A creature."], recipe).join(AXES[:2]).tolist() == AXES[:2].tolist()


def test_the_given_vectors_stay_as_they_are() -> None:
    given = AXES[:2].copy()
    ItemTexts([HEAT], ["Two men."], "both").join(given)
    assert given.tolist() == AXES[:2].tolist()


def test_nothing_is_nothing() -> None:
    empty = ItemTexts([], [], "both")
    assert empty.flat == ()
    assert len(empty.join(AXES[:0])) == 0
