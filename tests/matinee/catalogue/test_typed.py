import json
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from matinee.catalogue.reader import ItemReader, read_items
from matinee.catalogue.typed import plain
from matinee.items import Item


def parquet(tmp_path: Path, columns: Any) -> tuple[list[Item], ItemReader]:
    path = tmp_path / "c.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    reader = read_items(path)
    return list(reader), reader


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (b"text", "text"),
        ("é".encode(), "é"),
        (b"\xff\xd8", b"\xff\xd8"),
        (b"a\0b", b"a\0b"),
        ({"$oid": "5f1"}, "5f1"),
        ({"$numberInt": "3"}, 3),
        ({"$numberDouble": "2.5"}, 2.5),
        ({"$numberLong": "x"}, "x"),
        ({"$date": "2011-05-01T00:00:00Z"}, "2011-05-01T00:00:00Z"),
        ({"$date": {"$numberLong": "86400000"}}, datetime(1970, 1, 2, tzinfo=UTC)),
        ({"$date": 10**30}, str(10**30)),
        ({"type": "literal", "xml:lang": "en", "value": "Quay"}, "Quay"),
        ({"type": "x", "value": 1, "more": 2}, {"type": "x", "value": 1, "more": 2}),
        ([b"a", {"b": b"c"}], ["a", {"b": "c"}]),
    ],
)
def test_typed_values_become_plain(value: Any, expected: Any) -> None:
    assert plain(value) == expected


def test_texts_that_are_stored_as_bytes(tmp_path: Path) -> None:
    items, _ = parquet(tmp_path, {"id": [b"q"], "title": [b"Quay"], "genres": [[b"Drama", b"War"]], "cover": [b"\x89PNG\xff"]})
    assert items == [Item(id="q", title="Quay", genres=("Drama", "War"))]


def test_maps_are_objects(tmp_path: Path) -> None:
    kind = pyarrow.map_(pyarrow.string(), pyarrow.list_(pyarrow.string()))
    people = pyarrow.array([[("director", ["Ana Ruiz"])]], kind)
    weights = pyarrow.array([[("Strategy", 10), ("Sea", 7)]], pyarrow.map_(pyarrow.string(), pyarrow.int64()))
    items, _ = parquet(tmp_path, {"title": ["Quay"], "people": people, "genres": weights})
    assert items == [Item(title="Quay", people={"director": ("Ana Ruiz",)}, genres=("Strategy", "Sea"))]


def test_dates_outside_the_calendar_of_python_cost_themselves_alone(tmp_path: Path) -> None:
    days = pyarrow.array([15000, -1_000_000, 3_000_000], pyarrow.int32()).cast(pyarrow.date32())
    items, reader = parquet(tmp_path, {"title": ["A", "B", "C"], "release_date": days, "seen": days})
    assert [item.year for item in items] == [2011, -768, None]
    assert reader.report.summary.fields["release_date"].left_out == 1
    assert reader.report.rejects == []


def test_categories_decimals_and_moments(tmp_path: Path) -> None:
    columns = {
        "title": pyarrow.array(["Quay"], pyarrow.large_string()),
        "genre": pyarrow.array(["Drama"]).dictionary_encode(),
        "rating": pyarrow.array([7.5]).cast(pyarrow.decimal128(5, 2)),
        "released": pyarrow.array([date(2011, 5, 1)]),
        "cast": pyarrow.array([[{"name": "Ann Fell", "order": 1}]]),
    }
    items, _ = parquet(tmp_path, columns)
    assert items == [Item(title="Quay", genres=("Drama",), numbers={"rating": 7.5}, year=2011, people={"cast": ("Ann Fell",)})]


QUAY = {"title": "Quay", "year": 1999}


@pytest.mark.parametrize(
    "document",
    [
        {"data": [QUAY], "pagination": {"page": 1}},
        {"results": {"bindings": [{name: {"type": "literal", "value": value} for name, value in QUAY.items()}]}, "head": {"vars": ["x"]}},
        {"7": {"success": True, "data": QUAY}},
        QUAY,
        {"response": {"docs": [QUAY]}},
        {"columns": ["title", "year"], "index": [0], "data": [["Quay", 1999]]},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_rows_inside_one_object(tmp_path: Path, document: Any, indent: int | None) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(document, indent=indent))
    [item] = read_items(path)
    assert (item.title, item.year, item.id) == ("Quay", 1999, "7" if "7" in document else None)


@pytest.mark.parametrize(
    "document", [{"title": {"0": "Quay", "1": "Pier"}, "year": {"0": 1999, "1": None}}, {"title": ["Quay", "Pier"], "year": [1999, None]}]
)
def test_a_table_that_is_written_column_by_column(tmp_path: Path, document: Any) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps(document))
    assert [(item.title, item.year) for item in read_items(path)] == [("Quay", 1999), ("Pier", None)]
