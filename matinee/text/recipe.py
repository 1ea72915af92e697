"""From items to the texts that are embedded, and from the texts' vectors to the items': the recipes of the dense side.

`raw` and `enhanced` embed one text an item. `both` adds the vector of the enhanced text to the raw one's at a small weight: joined in
one text, or weighted alike, a description drowns what the overview says (docs/experiments.md). Does not describe and does not embed.
"""

from collections.abc import Sequence

import numpy as np

from matinee.items import Item
from matinee.settings.index import Recipe
from matinee.text import templates
from matinee.vectors import Matrix

WEIGHT = 0.3
"""Of the enhanced text's vector beside the raw one's 1, chosen on dev queries. Whoever changes it changes `templates.TEXT_VERSION`."""


def reads_alike(before: Item, after: Item, recipe: Recipe) -> bool:
    """Whether the description and the dense vector that `before` has under `recipe` are those of `after` too."""
    text = templates.raw_text if recipe == "raw" else templates.facts_text
    return text(before) == text(after)


class ItemTexts:
    """Items, their descriptions (None: not enriched, then raw under every recipe), and a recipe, as one flat list of texts."""

    def __init__(self, items: Sequence[Item], descriptions: Sequence[str | None], recipe: Recipe) -> None:
        first: Recipe = "raw" if recipe == "both" else recipe
        texts = [templates.embedded_text(item, description, first) for item, description in zip(items, descriptions, strict=True)]
        self._count = len(texts)
        self._rows = [row for row, description in enumerate(descriptions) if recipe == "both" and (description or "").strip()]
        self.flat = (*texts, *(templates.embedded_text(items[row], descriptions[row], "enhanced") for row in self._rows))

    def join(self, vectors: Matrix) -> Matrix:
        """float32[len(flat), d] of unit length -> float32[items, d] of unit length."""
        joined = np.array(vectors[: self._count], dtype=np.float32)
        if self._rows:
            joined[self._rows] += WEIGHT * vectors[self._count :]
            joined[self._rows] /= np.linalg.norm(joined[self._rows], axis=1, keepdims=True)
        return joined
