import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from matinee.catalogue.cells import repair
from matinee.catalogue.reader import ItemReader, ReadOptions, read_items, source_name, write_rejects
from matinee.characters import tidy
from matinee.errors import SourceError
from matinee.items import Item

DATA = Path(os.environ.get("MATINEE_DATA") or Path(__file__).parents[4] / "shared" / "data")
FILMS = DATA / "mymoviedb.csv"
CORPUS = DATA / "eval" / "corpus.jsonl"
has_data = pytest.mark.skipif(not FILMS.exists(), reason=f"the shared data is not at {DATA}: set MATINEE_DATA")


def read(tmp_path: Path, content: str | bytes, name: str = "c.csv", **options: object) -> tuple[list[Item], ItemReader]:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    mapping = options.pop("mapping", None)
    kind = options.pop("kind", None)
    reader = read_items(path, mapping=mapping, kind=kind, options=ReadOptions(**options))  # type: ignore[arg-type]
    return list(reader), reader


@pytest.fixture(scope="module")
def whole_file() -> tuple[list[Item], ItemReader]:
    """The paper's films. Not to be changed: they are every test's."""
    reader = read_items(FILMS, kind="film")
    return list(reader), reader


@has_data
def test_the_papers_films_all_agree_with_the_known_corpus(whole_file: tuple[list[Item], ItemReader]) -> None:
    items, reader = whole_file
    known = [json.loads(line) for line in CORPUS.read_text(encoding="utf-8").splitlines()]
    assert len(items) == len(known) == 9827
    for item, film in zip(items, known, strict=True):
        facts = film["metadata"]
        assert item.kind == "film"
        assert item.title == repair(film["title"])[0]
        assert item.overview == tidy(repair(film["text"])[0])
        assert item.year == facts["year"]
        assert ", ".join(item.genres) == facts["genres"]
        assert item.language == facts["language"]
        assert item.numbers["votes"] == facts["votes"]
        assert item.numbers["popularity"] == facts["popularity"]
    assert len({item.uid("films") for item in items}) == 9827
    assert reader.report.rejects == []
    assert reader.report.truncated is False
    assert reader.done == reader.total == FILMS.stat().st_size
    assert any("no id column" in warning for warning in reader.report.warnings)
    assert any(warning.startswith("7 combinations") for warning in reader.report.warnings)


@has_data
def test_ids_do_not_depend_on_the_order_of_the_rows(tmp_path: Path, whole_file: tuple[list[Item], ItemReader]) -> None:
    named = Counter((item.title, item.year) for item in whole_file[0])
    items = [item for row, item in enumerate(whole_file[0]) if row < 500 or named[item.title, item.year] > 1]
    assert len(items) > 500, "some ids need more than title and year"
    lines = [json.dumps(item.model_dump(exclude={"id"})) for item in reversed(items)]
    again, _ = read(tmp_path, "\n".join(lines), "c.jsonl")
    assert {item.uid("x") for item in again} == {item.uid("x") for item in items}


def test_reading_twice_gives_the_same(tmp_path: Path) -> None:
    items, reader = read(tmp_path, "title,year\nA,2001\nB,\nB\n")
    first = reader.report
    assert list(reader) == items
    assert reader.report == first


def test_own_items_come_back_as_they_were(tmp_path: Path) -> None:
    item = Item(
        id="7",
        kind="game",
        title="Pong",
        year=1972,
        genres=("Sport", "Arcade, old"),
        people={"designer": ("Allan Alcorn",), "cast": ("A, B", "C")},
        overview="Two bats and a ball.",
        language="en",
        numbers={"rating": 8.5, "players": 2},
        extra={"maker": "Atari", "ports": ("Home", "Arcade")},
    )
    items, reader = read(tmp_path, item.model_dump_json() + "\n", "own.jsonl")
    assert items == [item]
    assert reader.report.warnings == []


def test_rows_add_up_and_rejects_have_lines_and_reasons(tmp_path: Path) -> None:
    text = 'title,year\nA,2001\n\n,2002\nA,2001\nB,soon\n"C\nD",2003\nE,2004,x\n'
    items, reader = read(tmp_path, text, strict=True)
    report = reader.report
    assert [item.title for item in items] == ["A", "C D"]
    assert [(reject.line, reject.reason) for reject in report.rejects] == [
        (4, "the title is missing"),
        (6, "column 'year': 'soon' is not a date or a year"),
        (9, "has 3 columns, the header has 2"),
    ]
    assert report.rows == report.items + report.duplicates + len(report.rejects) == 6
    assert report.duplicates == 1


def test_write_rejects(tmp_path: Path) -> None:
    _, reader = read(tmp_path, b"title,year\nA,2001\n\xff\xfe,2002\n\xc3\x84,2003\n", "films.csv")
    path = write_rejects(reader.report, tmp_path / "out")
    assert path == tmp_path / "out" / "films.rejects.jsonl"
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {
            "line": 3,
            "reason": "column 'title': holds bytes, not a text",
            "raw": '{"title": "\\udcff\\udcfe", "year": "2002"}',
        }
    ]
    _, clean = read(tmp_path, "title\nA\n", "films.csv")
    assert write_rejects(clean.report, tmp_path / "out") is None
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(
    ("source", "name"),
    [("a/films.csv.gz", "films"), ("films.2024.jsonl", "films.2024"), ("hub:owner/set@main:train", "owner-set-main-train"), ("x", "x")],
)
def test_source_name(source: str, name: str) -> None:
    assert source_name(source) == name


def test_same_title_and_year_but_different_things_are_kept_with_stable_ids(tmp_path: Path) -> None:
    rows = ["Alone,2020,A skipper.", "Alone,2020,A widow.", "Home,2020,A house.", "Home,2020,A house."]
    items, reader = read(tmp_path, "title,year,overview\n" + "\n".join(rows))
    back, _ = read(tmp_path, "title,year,overview\n" + "\n".join(reversed(rows)))
    assert [item.title for item in items] == ["Alone", "Alone", "Home"]
    assert {item.uid("c") for item in items} == {item.uid("c") for item in back}
    assert items[2].id is None
    assert reader.report.duplicates == 1


def test_the_same_id_with_other_facts_is_a_reject(tmp_path: Path) -> None:
    items, reader = read(tmp_path, "id,title\n1,A\n1,B\n1,A\n")
    assert [item.title for item in items] == ["A"]
    assert reader.report.rejects[0].reason == "has the id '1' of line 2, but other facts; the first was kept"
    assert reader.report.duplicates == 1


def test_the_same_thing_with_other_numbers_is_a_reject_not_a_second_item(tmp_path: Path) -> None:
    items, reader = read(tmp_path, "title,year,overview,votes\nA,2020,X.,1\nA,2020,X.,2\n")
    assert len(items) == 1
    assert "kind, title and year ('A', 2020) of line 2" in reader.report.rejects[0].reason


def test_texts_are_repaired(tmp_path: Path) -> None:
    items, reader = read(tmp_path, "title,overview\nAmÃ©lie,Tom &amp; Jerry&#39;s   “day”\nÉté,ok\n")
    assert [item.title for item in items] == ["Amélie", "Été"]
    assert items[0].overview == "Tom & Jerry's “day”"
    assert reader.report.mojibake_fixed == 1


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("title,type\nA,Show\nB,\n", ["Show", "item"]),
        ("title,kind\nA,book\nB,\n", ["book", "item"]),
        ("title\nA\nB\n", ["item", "item"]),
    ],
)
def test_kind_by_column(tmp_path: Path, text: str, kinds: list[str]) -> None:
    assert [item.kind for item in read(tmp_path, text)[0]] == kinds


@pytest.mark.parametrize(
    ("text", "kinds"), [("title,type\nA,Show\n", ["film"]), ("title,kind\nA,book\nB,\n", ["book", "film"]), ("title\nA\n", ["film"])]
)
def test_kind_given(tmp_path: Path, text: str, kinds: list[str]) -> None:
    assert [item.kind for item in read(tmp_path, text, kind="film")[0]] == kinds


def test_facts_of_other_columns(tmp_path: Path) -> None:
    text = "bookId,Title,Author,Budget,Poster URL,2nd Code,adult\n9,A,Tolkien; Lewis,1e6,http://x/1,007,False\n"
    items, _ = read(tmp_path, text)
    assert items[0].id == "9"
    assert items[0].people == {"author": ("Tolkien", "Lewis")}
    assert items[0].numbers == {"budget": 1e6}
    assert items[0].extra == {"poster_url": "http://x/1", "column_2nd_code": "007", "adult": "False"}


def test_too_many_and_too_long_facts_are_told(tmp_path: Path) -> None:
    names = ",".join(f"c{i}" for i in range(40))
    items, reader = read(tmp_path, f"title,{names}\nA,{','.join('x' * 40)}\n")
    assert len(items[0].extra) == 28
    assert "left out: 'c28', 'c29'" in reader.report.warnings[0]
    _, reader = read(tmp_path, "title,notes,cast\nA," + "y" * 2001 + "," + "|".join(map(str, range(70))) + "\n")
    left_out, cut = reader.report.warnings[-2:]
    assert left_out.startswith("column 'notes': 1 values can't be read and are left out, the first on line 2, yyy")
    assert left_out.endswith("over 2,000 characters")
    assert cut == "column 'cast': 1 values are cut, the first on line 2: 70 names, the first 64 are kept"


def test_an_overlong_title_is_cut_and_with_strict_a_reject(tmp_path: Path) -> None:
    text = "title\nA\n" + "word " * 101
    items, reader = read(tmp_path, text)
    assert (len(items[1].title), items[1].title[-6:]) == (495, " word…")
    assert "column 'title': 1 values are cut" in "".join(reader.report.warnings)
    _, strict = read(tmp_path, text, strict=True)
    assert strict.report.rejects[0].reason.startswith("title: ")


def test_more_rejects_than_memory_should_hold_stop_the_reading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matinee.catalogue.reader.MAX_REJECTS", 2)
    with pytest.raises(SourceError, match="more than 2 broken rows; the last, on line 5"):
        read(tmp_path, "title,year\nA,1999\nB\nC\nD\n")


def test_parquet_and_packed_files_agree(tmp_path: Path) -> None:
    table = pyarrow.table({"title": ["A", "B"], "year": [1999.0, None], "genres": [["X", "Y"], None], "cover": [b"\xff", None]})
    pyarrow.parquet.write_table(table, tmp_path / "c.parquet")
    plain = read_items(tmp_path / "c.parquet")
    items = list(plain)
    assert [(item.title, item.year, item.genres) for item in items] == [("A", 1999, ("X", "Y")), ("B", None, ())]
    assert (plain.unit, plain.total, plain.done) == ("rows", 2, 2)
    assert (
        "column 'cover': 1 values can't be read and are left out, the first on line 1, b'\\xff': holds bytes, not a text"
        in plain.report.warnings
    )
    (tmp_path / "c.parquet.gz").write_bytes(gzip.compress((tmp_path / "c.parquet").read_bytes()))
    assert list(read_items(tmp_path / "c.parquet.gz")) == items
    packed, reader = read(tmp_path, gzip.compress(b"title,year,genres\nA,1999,X|Y\nB,,\n"), "c.csv.gz")
    assert packed == items
    assert reader.done == reader.total == (tmp_path / "c.csv.gz").stat().st_size


@has_data
@pytest.mark.parametrize("end", [60_000, 60_011, 60_123, 60_250, 60_299, 60_400, 60_555])
def test_the_papers_file_cut_anywhere_keeps_its_whole_rows_and_tells(
    tmp_path: Path, whole_file: tuple[list[Item], ItemReader], end: int
) -> None:
    data = FILMS.read_bytes()
    items, reader = read(tmp_path, data[:end], "cut.csv", kind="film")
    whole = whole_file[0][: len(items)]
    same = [a.model_copy(update={"id": None}) == b.model_copy(update={"id": None}) for a, b in zip(items, whole, strict=True)]
    assert all(same[:-1])
    assert reader.report.truncated or any("the last line has no line end" in warning for warning in reader.report.warnings)
    assert same[-1] or not reader.report.truncated
