import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from matinee.catalogue.json_values import REPAIRED, decode, values_in
from matinee.catalogue.json_values import SEVERAL as SEVERAL_VALUES
from matinee.catalogue.reader import ItemReader, read_items
from matinee.catalogue.rows import ReadOptions
from matinee.errors import SourceError
from matinee.items import Item


def read(tmp_path: Path, content: str | bytes, name: str, **options: Any) -> tuple[list[Item], ItemReader]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    reader = read_items(path, **options)
    return list(reader), reader


OBJECTS = [{"title": "A", "year": 1999}, {"title": "B]}", "genres": [{"id": 1, "name": "X"}]}, {"title": "C", "cast": ["P, Jr.", "Q"]}]


@pytest.mark.parametrize("name", ["c.jsonl", "c.ndjson", "c.json", "c", "c.txt"])
@pytest.mark.parametrize("shape", ["lines", "array", "pretty"])
def test_json_of_every_shape(tmp_path: Path, name: str, shape: str) -> None:
    text = "\n".join(map(json.dumps, OBJECTS)) if shape == "lines" else json.dumps(OBJECTS, indent=2 if shape == "pretty" else None)
    items, reader = read(tmp_path, text, name)
    assert [item.title for item in items] == ["A", "B]}", "C"]
    assert items[1].genres == ("X",)
    assert items[2].people == {"cast": ("P, Jr.", "Q")}
    assert reader.report.rejects == []


def test_a_large_array_is_read_in_pieces(tmp_path: Path) -> None:
    rows = [{"title": f"T{n}", "overview": "x" * 500} for n in range(3000)]
    items, reader = read(tmp_path, json.dumps(rows, indent=1), "c.json")
    assert [item.title for item in items] == [row["title"] for row in rows]
    assert reader.report.truncated is False


@pytest.mark.parametrize("end", range(40, 600, 41))
def test_an_array_cut_anywhere_keeps_its_whole_objects(tmp_path: Path, end: int) -> None:
    text = json.dumps([{"title": f"T{n}", "year": 1900 + n} for n in range(20)], indent=1)
    assert end < len(text)
    items, reader = read(tmp_path, text[:end], "c.json")
    assert [item.title for item in items] == [f"T{n}" for n in range(len(items))]
    assert reader.report.truncated
    assert all(item.year == 1900 + n for n, item in enumerate(items))


@pytest.mark.parametrize("margin", ["", "  "])
def test_a_broken_element_that_starts_its_line_costs_itself_alone(tmp_path: Path, margin: str) -> None:
    rows = ['{"title": "A"}', '{"title": oh, "genres": [\n   {"name": "Drama"},\n   {"name": "War"}]}', '{"title": "C"}']
    items, reader = read(tmp_path, f"[\n{margin}" + f",\n{margin}".join(rows) + "\n]", "c.json")
    assert [item.title for item in items] == ["A", "C"]
    assert [(reject.line, reject.reason) for reject in reader.report.rejects] == [(3, "is not valid JSON")]
    assert not reader.report.truncated


def test_an_array_on_one_line_is_cut_at_its_break(tmp_path: Path) -> None:
    items, reader = read(tmp_path, '[{"title": "A"}, {"title": oh}, {"title": "C"}]', "c.json")
    assert [item.title for item in items] == ["A"]
    assert (reader.report.rejects[0].line, reader.report.truncated) == (1, True)


def test_values_nested_too_deeply_are_left_out(tmp_path: Path) -> None:
    deep = '{"title": "A", "x": ' + "[" * 900 + "1" + "]" * 900 + "}"
    for name, text in (("c.json", f"[{deep}]"), ("c.jsonl", deep)):
        items, _ = read(tmp_path, text, name)
        assert [item.title for item in items] == ["A"]


def test_equal_objects_on_one_line_are_duplicates(tmp_path: Path) -> None:
    items, reader = read(tmp_path, '[{"title": "A"}, {"title": "A"}]', "c.json")
    assert (len(items), reader.report.duplicates) == (1, 1)


def test_broken_lines_are_rejected_with_their_numbers(tmp_path: Path) -> None:
    text = '{"title": "A"}\n\n{"title": }\n[1]\n{"title": ["x", "y"]}\n{"title": "\\ud800"}\n'
    text += '{"title": "B", "rating": "high"}\n{"title": "C", "rating": 1}\n{"title'
    items, reader = read(tmp_path, text, "c.jsonl", options=ReadOptions(strict=True))
    assert [item.title for item in items] == ["A", "C"]
    reasons = {reject.line: reject.reason for reject in reader.report.rejects}
    assert list(reasons) == [3, 4, 5, 6, 7, 9]
    assert "is not valid JSON" in reasons[3]
    assert reasons[4] == "holds a list, not an object"
    assert reasons[5] == "column 'title': holds a list, not a text"
    assert reasons[7] == "column 'rating': 'high' is not a number with the decimal sign '.'"
    assert reasons[9] == "the file ends in the middle of this object: it looks cut off"
    assert reader.report.truncated


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{\n", "one JSON object over many lines"),
        ('{\n "data": [\n', "one JSON object over many lines"),
        ('{"data": [{"headline": "A"}]}', "no column is the title; the columns are 'data'"),
        ("[]", "has no rows: give one JSON object a line, or one array of objects"),
        ("[1, 2]", "no row of the source is a whole object"),
        ("{broken\n", "no row of the source is a whole object"),
        ('{"a": 1}\n', "no column is the title; the columns are 'a'"),
        ("\n".join(json.dumps({f"k{n}": 1}) for n in range(600)), "more than 500 different keys"),
    ],
)
def test_json_that_is_no_table(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path, text, "c.json")


def test_a_packed_file_cut_off(tmp_path: Path) -> None:
    random.seed(2)
    text = "".join(json.dumps({"title": f"{random.getrandbits(300)}"}) + "\n" for _ in range(2000))
    items, reader = read(tmp_path, gzip.compress(text.encode())[:-9000], "c.jsonl.gz")
    assert 500 < len(items) < 2000
    assert reader.report.truncated


def parquet(tmp_path: Path, columns: Any, **options: Any) -> Path:
    path = tmp_path / "c.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path, **options)
    return path


@pytest.mark.parametrize("keep", [10, 0.5, 0.99])
def test_a_parquet_file_cut_off_is_refused(tmp_path: Path, keep: float) -> None:
    data = parquet(tmp_path, {"title": [f"T{n}" for n in range(1000)]}).read_bytes()
    with pytest.raises(SourceError, match="is not a whole Parquet file"):
        read(tmp_path, data[: int(keep if keep > 1 else keep * len(data))], "cut.parquet")


def test_a_damaged_parquet_file_is_refused(tmp_path: Path) -> None:
    data = bytearray(parquet(tmp_path, {"title": [f"Title {n}" for n in range(5000)]}, compression="gzip").read_bytes())
    data[200:2000] = bytes(1800)
    with pytest.raises(SourceError, match="is damaged after row"):
        read(tmp_path, bytes(data), "bad.parquet")


def test_parquet_without_rows_or_with_a_column_twice(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"has columns \(title\) but no rows"):
        read_items(parquet(tmp_path, {"title": pyarrow.array([], pyarrow.string())}))
    twice = pyarrow.Table.from_arrays([pyarrow.array(["A"]), pyarrow.array(["B"])], names=["title", "title"])
    with pytest.raises(SourceError, match="the column 'title' appears twice"):
        read_items(parquet(tmp_path, twice))


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"cannot read .*absent.csv: No such file or directory"):
        read_items(tmp_path / "absent.csv")
    with pytest.raises(SourceError, match="is empty"):
        read(tmp_path, b"", "c.parquet")


SEVERAL = {
    "pages.json": '[{"title": "A"}]\n[{"title": "B"},\n {"title": "C"}]\n[]\n',
    "stream.jsonl": '{"title": "A"}{"title": "B"} {"title": "C"}\n',
    "jq.json": '{\n "title": "A"\n}\n{\n "title": "B"\n}\n{\n "title": "C"\n}\n',
}


@pytest.mark.parametrize("name", SEVERAL)
def test_what_follows_is_not_dropped(tmp_path: Path, name: str) -> None:
    items, reader = read(tmp_path, SEVERAL[name], name)
    assert [item.title for item in items] == ["A", "B", "C"]
    assert reader.report.rejects == []


def test_only_the_values_that_were_repaired_are_told_as_repaired() -> None:
    line = '{"a":"\t"} {"b":\t"\\t"} {"c":2} {"d":["\x01"]}'
    assert [repaired for _, _, repaired in values_in(line)] == [REPAIRED, SEVERAL_VALUES, SEVERAL_VALUES, REPAIRED]
    # A value that is whole in itself, in a file of many lines, where tabs stand between its parts.
    assert decode('{"a":\t1}', 0, json.JSONDecoder(strict=False))[2] is None


def test_what_is_no_array_behind_an_array_is_told(tmp_path: Path) -> None:
    items, reader = read(tmp_path, '[{"title": "A"}]\n\n{"title": "B"}', "c.json")
    assert [item.title for item in items] == ["A"]
    assert [(reject.line, reject.reason[:31]) for reject in reader.report.rejects] == [(3, "stands after the end of the arr")]
