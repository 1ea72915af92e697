"""Items, texts and vectors as plain columns of Arrow tables, which is what travels between the workers of a cluster.

Nothing here is pickled: an item is JSON, a vector is a list of float32 of one length.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from matinee.index.isolation import FailedItem
from matinee.index.points import Batch, described_batch
from matinee.items import Item
from matinee.settings.index import Recipe
from matinee.vectors import Matrix

ID, ITEM, DESCRIPTION, VECTOR, REASON = "id", "item", "description", "vector", "reason"
"""`reason`: why a model failed at the item; later stages leave it alone."""
FAILED = "failed"
"""What is left of such items at the end: JSON of id, item and reason."""
COUNTS = ("written", "encoded", "known")
"""Columns of what a batch did: items written, texts encoded, and texts whose vectors were kept from before."""


def item_table(chunk: Mapping[str, Item]) -> pa.Table:
    """Items by their index ids as a table."""
    items = [item.model_dump_json(exclude_defaults=True) for item in chunk.values()]
    # In each table: blocks with different columns can't be joined.
    reasons = pa.nulls(len(items), pa.string())
    return pa.table({ID: pa.array(chunk, pa.string()), ITEM: pa.array(items, pa.string()), REASON: reasons})


def usable(table: pa.Table) -> list[int]:
    """The rows that no model has failed at."""
    return [row for row, reason in enumerate(table[REASON].to_pylist()) if reason is None]


def with_reasons(table: pa.Table, reasons: Mapping[int, str]) -> pa.Table:
    """The table where these rows have failed too."""
    if not reasons:
        return table
    known = table[REASON].to_pylist()
    column = pa.array([reasons.get(row, reason) for row, reason in enumerate(known)], pa.string())
    return table.set_column(table.column_names.index(REASON), REASON, column)


def items_of(table: pa.Table) -> list[Item]:
    return [Item.model_validate_json(text) for text in table[ITEM].to_pylist()]


def batch_of(table: pa.Table, recipe: Recipe) -> Batch:
    """The table's usable items, with their descriptions where it has some."""
    table = table.take(pa.array(usable(table), pa.int64()))
    descriptions = table[DESCRIPTION].to_pylist() if DESCRIPTION in table.column_names else [None] * len(table)
    return described_batch(items_of(table), table[ID].to_pylist(), descriptions, recipe)


def with_descriptions(table: pa.Table, descriptions: Sequence[str | None]) -> pa.Table:
    return table.append_column(DESCRIPTION, pa.array(descriptions, pa.string()))


def with_vectors(table: pa.Table, vectors: Matrix, *, encoded: int, known: int) -> pa.Table:
    """The table with a vector for each row, and in its first row how many texts were encoded for it or known."""
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    table = table.append_column(VECTOR, pa.FixedSizeListArray.from_arrays(flat, vectors.shape[1]))
    for name, count in (("encoded", encoded), ("known", known)):
        table = table.append_column(name, pa.array([count, *[0] * (len(table) - 1)], pa.int64()))
    return table


def vectors_of(table: pa.Table) -> Matrix:
    """float32[rows, d]"""
    column = table[VECTOR].combine_chunks()
    # Of one chunk or of several: `flatten` also knows where a slice begins.
    arrays = column.chunks if isinstance(column, pa.ChunkedArray) else [column]
    flat = np.concatenate([array.flatten().to_numpy(zero_copy_only=False) for array in arrays])
    matrix: Matrix = flat.astype(np.float32, copy=False).reshape(len(table), -1)
    return matrix


def counts_table(table: pa.Table) -> pa.Table:
    """What is left of a table once it is written."""
    failed = [row for row in table.select([ID, ITEM, REASON]).to_pylist() if row[REASON] is not None]
    counts = {"written": len(table) - len(failed)} | {name: sum(table[name].to_pylist()) for name in ("encoded", "known")}
    columns = {name: pa.array([counts[name]], pa.int64()) for name in COUNTS}
    return pa.table(columns | {FAILED: pa.array([[json.dumps(row) for row in failed]], pa.list_(pa.string()))})


def failed_items(table: pa.Table) -> list[FailedItem]:
    """The items that models failed at, out of what `counts_table` gives."""
    rows = [json.loads(text) for texts in table[FAILED].to_pylist() for text in texts]
    return [FailedItem(row[ID], Item.model_validate_json(row[ITEM]), row[REASON]) for row in rows]


def sums(table: pa.Table) -> dict[str, Any]:
    return {name: sum(table[name].to_pylist()) for name in COUNTS}
