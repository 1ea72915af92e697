"""An item is never lost for a fact that it can do without."""

import json
from pathlib import Path
from typing import Any

import pytest

from matinee.catalogue.cells import is_placeholder
from matinee.catalogue.reader import ItemReader, ReadOptions, read_items
from matinee.items import MAX_OVERVIEW, Item


def read(tmp_path: Path, *rows: dict[str, Any], strict: bool = False) -> tuple[list[Item], ItemReader]:
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    reader = read_items(path, options=ReadOptions(strict=strict))
    return list(reader), reader


GOOD = {"title": "Quay", "year": 1999, "rating": 7.5, "votes": 10, "genres": ["Drama"], "cast": ["Ann Fell"], "overview": "A quay.",
        "language": "en", "runtime": 90, "id": "q"}  # fmt: skip


@pytest.mark.parametrize(
    "odd",
    [
        {"year": "soon or later"},
        {"year": 9999},
        {"year": {"when": "later"}},
        {"rating": "good"},
        {"rating": 1e18},
        {"rating": {"stars": 3}},
        {"genres": [{"key": 1}]},
        {"genres": [["a", "b"]]},
        {"cast": {"Ann": {"age": 3}}},
        {"cast": "[[broken] list]"},
        {"overview": {"html": "x"}},
        {"overview": "a\0b"},
        {"language": [{"code": 1}]},
        {"language": "x" * 41},
        {"id": ["a", "b"]},
        {"id": "x" * 201},
        {"runtime": {"minutes": 3}},
        {"runtime": "y" * 3000},
        {"cast": ["https://cdn.example/" + "0123456789" * 20]},
    ],
    ids=lambda odd: str(odd)[:30],
)
def test_a_value_that_cannot_be_read_is_left_out_and_shown(tmp_path: Path, odd: dict[str, Any]) -> None:
    items, reader = read(tmp_path, GOOD, GOOD | {"title": "Pier", "id": "p"} | odd)
    [column] = odd
    assert [item.title for item in items] == ["Quay", "Pier"]
    found = reader.report.summary.fields[column]
    if column == "runtime" and isinstance(odd[column], dict):
        assert items[1].extra == {"runtime": '{"minutes": 3}'}
        return
    assert (found.read, found.left_out) == (1, 1)
    assert found.left_out_example is not None
    assert found.left_out_example.startswith("line 2, ")
    assert [warning for warning in reader.report.warnings if f"column {column!r}: 1 values can't be read" in warning]
    _, reader = read(tmp_path, GOOD, GOOD | {"title": "Pier", "id": "p"} | odd, strict=True)
    assert [reject.line for reject in reader.report.rejects] == [2]


def test_only_an_item_without_a_title_or_one_that_contradicts_itself_is_rejected(tmp_path: Path) -> None:
    rows = [GOOD, {"year": 1999}, GOOD | {"title": ["a", "b"], "id": "2"}, GOOD | {"year": 2000}]
    items, reader = read(tmp_path, *rows)
    assert [item.title for item in items] == ["Quay"]
    assert [reject.reason for reject in reader.report.rejects] == [
        "the title is missing",
        "column 'title': holds a list, not a text",
        "has the id 'q' of line 1, but other facts; the first was kept",
    ]


def test_long_texts_are_cut_between_words_and_counted(tmp_path: Path) -> None:
    items, reader = read(tmp_path, GOOD | {"overview": "word " * 6000, "keywords": ["short", "long " * 60]})
    assert (len(items[0].overview) <= MAX_OVERVIEW, items[0].overview[-6:]) == (True, " word…")
    assert [len(name) for name in items[0].extra["keywords"]] == [5, 195]
    assert (reader.report.summary.fields["overview"].cut, reader.report.summary.fields["keywords"].cut) == (1, 1)
    assert sum(" values are cut, the first on line 1" in warning for warning in reader.report.warnings) == 2


def test_one_entry_of_an_object_costs_itself_alone(tmp_path: Path) -> None:
    row = {
        "title": "Quay",
        "people": {"Director": ["Ana Ruiz"], "Cast": {"x": {"y": 1}}},
        "numbers": {"Box Office": 3, "far": 1e300, "odd": "x"},
        "extra": {"Poster URL": "http://x/1", "blob": "z" * 3000} | {f"k{n}": "v" for n in range(40)},
    }
    items, reader = read(tmp_path, row)
    assert items[0].people == {"director": ("Ana Ruiz",)}
    assert items[0].numbers == {"box_office": 3}
    assert len(items[0].extra) == 32
    assert items[0].extra["poster_url"] == "http://x/1"
    assert {name: found.left_out for name, found in reader.report.summary.fields.items()} == {
        "title": 0, "people": 1, "numbers": 2, "extra": 1 + 9,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        ({"overview": ["First.", "Second."]}, {"overview": "First. Second."}),
        ({"overview": {"type": "/type/text", "value": "Told."}}, {"overview": "Told."}),
        ({"overview": "<p><b>Quay</b> is old.<br/>Very.</p>"}, {"overview": "Quay is old. Very."}),
        ({"overview": "2 < 3 and 4 > 1"}, {"overview": "2 < 3 and 4 > 1"}),
        ({"language": ["English", "Hindi"]}, {"language": "English", "extra": {"language": ["English", "Hindi"]}}),
        ({"language": "English, Hindi"}, {"language": "English", "extra": {"language": ["English", "Hindi"]}}),
        ({"language": {"code": "en", "name": "English"}}, {"language": "English"}),
        ({"genres": {"Strategy": 10, "Sea": 7, "Air": 0}}, {"genres": ["Strategy", "Sea"]}),
        ({"genres": [{"id": "1", "description": "Action"}]}, {"genres": ["Action"]}),
        ({"genres": {"/m/1": "Drama", "/m/2": "War"}}, {"genres": ["Drama", "War"]}),
        ({"release_date": {"coming_soon": False, "date": "1 Nov, 2000"}}, {"year": 2000}),
        ({"release_date": ["1954", "1960"]}, {"year": 1954}),
        ({"rating": {"average": 6.5}}, {"numbers": {"rating": 6.5}}),
        ({"rating": {"average": None}}, {}),
        ({"channel": 1289731240021254144}, {"extra": {"channel": "1289731240021254144"}}),
        ({"channel": "653247040368672768"}, {"extra": {"channel": "653247040368672768"}}),
    ],
    ids=str,
)
def test_values_in_other_shapes_are_understood(tmp_path: Path, facts: dict[str, Any], expected: dict[str, Any]) -> None:
    items, reader = read(tmp_path, {"title": "Quay"} | facts)
    assert items[0].facts() == {"kind": "item", "title": "Quay"} | expected
    assert not any("left out" in warning for warning in reader.report.warnings)


@pytest.mark.parametrize(
    "text", ["Unknown", "TBA", "Coming soon", "(no genres listed)", "not available.", "To be announced", "[Unknown]", "#N/A", "n.a.", "—"]
)
def test_placeholders_are_no_values_but_may_be_titles(tmp_path: Path, text: str) -> None:
    assert is_placeholder(text)
    row = {"genres": text, "cast": ["Ann Fell", text], "rating": text, "year": text, "overview": text, "language": text, "studio": text}
    items, reader = read(tmp_path, GOOD, {"title": text} | row)
    assert items[1].facts() == {"kind": "item", "title": text, "people": {"cast": ["Ann Fell"]}}
    assert reader.report.summary.fields["year"].empty == 1


@pytest.mark.parametrize("text", ["Unknown Pleasures", "A Star Is Coming Soon", "0", "none of it", "Missing Persons"])
def test_what_only_holds_such_a_word_is_a_value(text: str) -> None:
    assert not is_placeholder(text)


@pytest.mark.parametrize("zero", ["0", 0, "0.0", "0000"])
def test_the_year_zero_is_no_year(tmp_path: Path, zero: object) -> None:
    items, reader = read(tmp_path, {"title": "Quay", "year": zero}, {"title": "Pier", "year": "1999"})
    assert [item.year for item in items] == [None, 1999]
    assert not any("two-digit" in warning for warning in reader.report.warnings)


@pytest.mark.parametrize(("column", "flag"), [("Published", "1"), ("published", "TRUE"), ("released", True)])
def test_a_column_of_yes_and_no_is_no_date(tmp_path: Path, column: str, flag: object) -> None:
    items, _ = read(tmp_path, {"title": "Quay", column: flag}, {"title": "Pier", column: flag})
    assert [(item.year, item.extra) for item in items] == [(None, {column.lower(): str(flag)})] * 2


def test_a_number_that_a_spreadsheet_damaged_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("title,popularity\nA,12.5\nB,5.083.954\nC,875.123\n")
    reader = read_items(path)
    assert [item.numbers for item in reader] == [{"popularity": 12.5}, {}, {"popularity": 875.123}]
    assert reader.report.summary.fields["popularity"].left_out == 1


def test_invisible_characters_are_gone_and_equal_texts_are_equal(tmp_path: Path) -> None:
    rows = [
        {"title": "Mat\u00adrix\u200b Lamp", "genres": ["Drama\u200b"], "overview": "A clock\u200bmaker."},
        {"title": "\u200eWinter", "genres": ["Drama", "Dra\u00adma"]},
        {"title": "E\u0301te\u0301 می\u200cروم", "genres": []},
    ]
    items, _ = read(tmp_path, *rows)
    assert [item.title for item in items] == ["Matrix Lamp", "Winter", "Été می\u200cروم"]
    assert [item.genres for item in items] == [("Drama",), ("Drama",), ()]
    assert items[0].overview == "A clockmaker."


def test_nan_and_infinity_cost_their_value_alone(tmp_path: Path) -> None:
    lines = ['{"title": "A", "rating": 7.1}', '{"title": "B", "rating": NaN}', '{"title": "C", "rating": -Infinity}', '{"title": "D"}']
    for name, text in (("c.json", f"[{','.join(lines)}]"), ("c.jsonl", "\n".join(lines))):
        path = tmp_path / name
        path.write_text(text)
        reader = read_items(path)
        assert [(item.title, item.numbers) for item in reader] == [("A", {"rating": 7.1}), ("B", {}), ("C", {}), ("D", {})]
        assert reader.report.summary.fields["rating"].left_out == 1
        assert not reader.report.truncated


def test_the_end_mark_of_old_programs_is_no_row(tmp_path: Path) -> None:
    for name, data in (("c.csv", b"title,year\r\nA,2001\r\n\x1a"), ("c.jsonl", b'{"title": "A"}\n\x1a')):
        path = tmp_path / name
        path.write_bytes(data)
        reader = read_items(path)
        assert [item.title for item in reader] == ["A"]
        assert reader.report.rejects == []
        assert reader.report.warnings == ["no id column: ids are derived from kind, title and year"]


HUGE = "word " * 300_000


@pytest.mark.parametrize("name", ["c.csv", "c.jsonl"])
def test_a_text_of_any_length_is_cut_and_costs_no_item(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(f'title,overview\nQuay,"{HUGE}"\nPier,x\n' if name == "c.csv" else json.dumps({"title": "Quay", "overview": HUGE}))
    quay = next(iter(read_items(path)))
    assert (quay.title, quay.overview[:10], len(quay.overview) <= MAX_OVERVIEW) == ("Quay", "word word ", True)


ODD = [
    '{"title": "Quay", "overview": "a\tb"}',
    '{"title": "Pier", "overview": "cut \\ud83d"}',
    '{"title": "Lamp \\ud83d\\ude00", "rating": 1e400}',
    '{"title": "Ferry", "id": 123456789012345678901234567890}',
    '{"title": "Ferry", "id": 123456789012345678901234567891}',
]


@pytest.mark.parametrize("name", ["c.jsonl", "c.json"])
def test_what_json_has_no_form_for_costs_no_item_and_changes_no_id(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("\n".join(ODD) if name == "c.jsonl" else "[" + ",".join(ODD) + "]")
    reader = read_items(path)
    assert [(item.title, item.overview, item.id) for item in reader] == [
        ("Quay", "a b", None),
        ("Pier", "cut", None),
        ("Lamp 😀", "", None),
        ("Ferry", "", "123456789012345678901234567890"),
        ("Ferry", "", "123456789012345678901234567891"),
    ]
    assert any(warning.startswith("2 rows have characters that JSON has no form for") for warning in reader.report.warnings)
    strict = read_items(path, options=ReadOptions(strict=True))
    assert [item.title for item in strict] == ["Lamp 😀", "Ferry", "Ferry"]


def test_texts_by_language(tmp_path: Path) -> None:
    items, _ = read(
        tmp_path,
        {"title": {"de": "Kai", "en-US": "Quay"}, "overview": {"fr": "Un quai."}},
        {"title": {"romaji": "Hatoba", "english": None, "native": "波止場"}},
        {"title": {"id": "5"}},
    )
    assert [(item.title, item.overview) for item in items] == [("Quay", "Un quai."), ("Hatoba", "")]


def test_every_value_is_read_empty_or_left_out(tmp_path: Path) -> None:
    odd = {
        "year": 0,
        "rating": "good",
        "votes": "N/A",
        "genres": [""],
        "cast": None,
        "overview": "<p></p>",
        "language": "x" * 41,
        "runtime": "?",
    }
    items, reader = read(tmp_path, GOOD, GOOD | {"title": "Pier", "id": "p"}, GOOD | odd | {"title": "Lamp", "id": "l"}, {"title": "Ferry"})
    assert len(items) == 4
    counts = {name: (found.read, found.empty, found.left_out) for name, found in reader.report.summary.fields.items()}
    assert {name: sum(count) for name, count in counts.items()} == dict.fromkeys(counts, 4)
    assert {name for name, (_, _, lost) in counts.items() if lost} == {"rating", "language"}


def test_a_title_in_another_column_than_most(tmp_path: Path) -> None:
    rows = [
        {"title": "Quay", "year": 1999},
        {"name": "Pier", "original_name": "Pir"},
        {"title": " ", "original_title": "Lamp"},
        {"year": 2000},
    ]
    items, reader = read(tmp_path, *rows)
    assert [item.title for item in items] == ["Quay", "Pier", "Lamp"]
    assert any(warning.startswith("2 items have no 'title', and take their title from 'name', ") for warning in reader.report.warnings)
    assert [reject.reason for reject in reader.report.rejects] == ["the title is missing"]
    path = tmp_path / "c.jsonl"
    assert [item.title for item in read_items(path, mapping={"title": "title"})] == ["Quay"]
