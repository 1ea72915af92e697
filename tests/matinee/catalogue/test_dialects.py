import csv
import gzip
import io
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from matinee.catalogue.cells import repair
from matinee.catalogue.reader import ItemReader, read_items
from matinee.catalogue.rows import ReadOptions
from matinee.errors import SourceError
from matinee.items import Item


def read(tmp_path: Path, content: str | bytes, **options: Any) -> tuple[list[Item], ItemReader]:
    path = tmp_path / "c.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    reader = read_items(path, options=ReadOptions(**options))
    return list(reader), reader


def titles(tmp_path: Path, content: str | bytes, **options: Any) -> list[str]:
    items, reader = read(tmp_path, content, **options)
    assert reader.report.rejects == []
    return [item.title for item in items]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_delimiters_and_line_ends(tmp_path: Path, delimiter: str, end: str) -> None:
    rows = [["title", "overview", "year"], ["A, or; B", "one | two\tthree", "1999"], ["C", "d", "2000"]]
    text = end.join(delimiter.join(f'"{cell}"' for cell in row) for row in rows) + end
    items, reader = read(tmp_path, text)
    assert [(item.title, item.overview, item.year) for item in items] == [("A, or; B", repair(rows[1][1])[0], 1999), ("C", "d", 2000)]
    assert reader.report.warnings == ["no id column: ids are derived from kind, title and year"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('title,year\n"He said ""no""",1\n', ['He said "no"']),
        ('title,year\n"He said \\"no\\", twice",801\n"a \\\\ b",802\n', ['He said "no", twice', "a \\ b"]),
        ("title,year\n'It''s, well',801\n'B',802\n", ["It's, well", "B"]),
        ("'title','year'\n'B','802'\n", ["B"]),
        ('title\tyear\n"Weird" Al\t2001\nThe "Best"\t2002\n', ['"Weird" Al', 'The "Best"']),
        ('title,year\n"C\nD",2003\n', ["C D"]),
        ('title,overview,year\nA,"one\n\ntwo, three",2003\n', ["A"]),
        ("sep=;\ntitle;year\nA;2001\n", ["A"]),
        ("title;score\nA;8,3\nB;7,5\n", ["A", "B"]),
        ("title,year,,\nA,2001,,\nB,2002,,\n", ["A", "B"]),
        ("title,year\nA,2001,,,\n", ["A"]),
        ("title,year\n,,,\n\nA,2001\n , \n", ["A"]),
        ("title\nA\nB\n", ["A", "B"]),
        ("title,year\nA,2001", ["A"]),
        ("\ufefftitle,year\nA,2001\n", ["A"]),
        ("\n\ntitle,year\nA,2001\n", ["A"]),
        (",title,year\n0,A,2001\n", ["A"]),
        ("TITLE , Year\nA,2001\n", ["A"]),
        ("title,overview\n'Tis Pity,it's 'x'\nIt's,don't\n", ["'Tis Pity", "It's"]),
    ],
)
def test_usual_dialects(tmp_path: Path, text: str, expected: list[str]) -> None:
    assert titles(tmp_path, text) == expected


@pytest.mark.parametrize(
    ("text", "kept", "rejects", "cut"),
    [
        ("title,overview,year\nA,a,1\nB,b\nC,c,3,x\nD,d,4\n", "AD", {3: "has 2 columns", 4: "has 4 columns"}, False),
        ('title,overview,year\nA,"a,1\nB,"b",2\nC,c,3\n', "BC", {2: "broken quoting"}, False),
        ('title,overview,year\nA,"a,1\nB,b 2",2\nC,c,3\n', "BC", {2: "swallows line 3"}, False),
        ('title,overview,year\nA,"a,1\nB,b,2\nC,c,3\n', "BC", {2: "never closed"}, False),
        ('title,overview,year\nA,a,1\n"B,b,2\nC,"c",3\nD,d,4\n', "ACD", {3: ""}, False),
        ('title,overview,year\nA,a,1\nB,"the end is no', "A", {3: "the file ends inside a quoted field: it looks cut off"}, True),
        ('title,overview,year\nA,a,1\nB,"one\ntwo', "A", {3: "the file ends inside a quoted field: it looks cut off"}, True),
        ("title,overview,year\nA,a,1\nB,b", "A", {3: "the file ends in the middle of this row"}, True),
        ("title,overview,year\nA,a\0b,1\nB,b,2\n", "B", {2: "NUL byte"}, False),
        ('title,overview,year\nA,"a"x,1\nB,b,2\n', "B", {2: "broken quoting"}, False),
    ],
)
def test_damage_stays_where_it_is(tmp_path: Path, text: str, kept: str, rejects: dict[int, str], cut: bool) -> None:
    items, reader = read(tmp_path, text.replace(",1\n", ",2001\n"), quote='"', strict=True)
    assert "".join(item.title for item in items) == kept
    assert [reject.line for reject in reader.report.rejects] == list(rejects)
    for reject in reader.report.rejects:
        assert rejects[reject.line] in reject.reason
    assert reader.report.truncated is cut
    assert any("CUT OFF" in warning for warning in reader.report.warnings) is cut


@pytest.mark.parametrize("place", [1, 2, 150, 3499])
def test_an_unclosed_quote_in_a_large_file_costs_one_row(tmp_path: Path, place: int) -> None:
    lines = [f'T{n},"overview, {n}",{1900 + n % 100}' for n in range(3500)]
    lines[place] = f'T{place},"never closed,1999'
    items, reader = read(tmp_path, "title,overview,year\n" + "\n".join(lines) + "\n")
    assert len(items) == 3499
    assert [reject.line for reject in reader.report.rejects] == [place + 2]


def test_a_packed_file_that_is_cut_off_keeps_its_whole_rows(tmp_path: Path) -> None:
    random.seed(1)
    text = "title,year\n" + "".join(f"{random.getrandbits(200)},{1900 + n % 100}\n" for n in range(3000))
    path = tmp_path / "c.csv.gz"
    path.write_bytes(gzip.compress(text.encode())[:-20000])
    reader = read_items(path)
    items = list(reader)
    assert [f"{item.title},{item.year}" for item in items] == text.splitlines()[1 : len(items) + 1]
    assert 1000 < len(items) < 3000
    assert reader.report.truncated
    assert "CUT OFF" in reader.report.warnings[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        (" \n\n", "is empty"),
        ("title,year\n", r"has a header \(title, year\) but no rows"),
        ("A,2001\nB,2002\n", "no column is the title; the columns are 'A', '2001'.*The first line looks like data"),
        ("title,year,title\nA,1,B\n", r"the column 'title' appears twice \(columns 1 and 3\)"),
        ("foo;bar,baz\na;b,c\nd;e,f\n", "comma and semicolon fit equally well as its delimiter: pass --delimiter"),
        ("hello there\nthis is prose, not a table\nfor anyone\n", "no delimiter gives rows of equal length"),
        ('title,score\nA,"1,234"\n', "which may mean 1234 or 1.234: pass --decimal"),
        ("title,released\nA,01/02/03\n", "pass --date-order"),
    ],
)
def test_what_cannot_be_read_says_why(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read(tmp_path, text)


def test_a_header_with_an_open_quote_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no delimiter gives rows of equal length"):
        read(tmp_path, 'title,"year\nA,2001\n', quote='"')


def test_answers_settle_what_was_asked(tmp_path: Path) -> None:
    assert titles(tmp_path, "title;x,y\na;b,c\n", delimiter=";") == ["a"]
    assert titles(tmp_path, "title\tx,y\na\tb,c\n", delimiter="tab") == ["a"]
    assert titles(tmp_path, 'title,year\n"a",1999\n', quote="none") == ['"a"']
    assert read(tmp_path, 'title,score\nA,"1,234"\n', decimal=",")[0][0].numbers == {"rating": 1.234}
    assert read(tmp_path, "title,released\nA,01/02/03\n", date_order="ymd")[0][0].year == 2001


@pytest.mark.parametrize("options", [{"delimiter": ",,"}, {"quote": "x"}, {"date_order": "dym"}, {"decimal": ";"}, {"pivot": 100}])
def test_wrong_answers_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(SourceError, match="--"):
        ReadOptions(**options)


TEXTS = st.text(st.sampled_from("abc deé鸟\"',;|\t\n.-!"), min_size=1, max_size=30).map(lambda text: f"x{text}y")
ROWS = st.lists(
    st.tuples(TEXTS, TEXTS, st.integers(1800, 2030)), min_size=2, max_size=8, unique_by=lambda row: repair(row[0])[0].casefold()
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=ROWS,
    delimiter=st.sampled_from(",;\t|"),
    end=st.sampled_from(["\n", "\r\n"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]),
    backslash=st.booleans(),
)
@example(rows=[('x"y', "xy", 1999), ("xz", "x\n\ny", 2000)], delimiter=";", end="\r\n", encoding="utf-16", quoting=1, backslash=True)
def test_round_trip(
    tmp_path: Path, rows: list[tuple[str, str, int]], delimiter: str, end: str, encoding: str, quoting: Any, backslash: bool
) -> None:
    # A line inside a text that has delimiters of its own may look like a row; such a record is rejected, see the test of damage.
    rows = [(title.replace("\n", " "), text.replace("\n" + delimiter, "\n"), year) for title, text, year in rows]
    rows = [(t, "\n".join(line.replace(delimiter, " ") if n else line for n, line in enumerate(o.split("\n"))), y) for t, o, y in rows]
    out = io.StringIO(newline="")
    how: dict[str, Any] = {"doublequote": False, "escapechar": "\\"} if backslash else {}
    writer = csv.writer(out, delimiter=delimiter, lineterminator=end, quoting=quoting, **how)
    writer.writerows([("title", "overview", "year"), *rows])
    items, reader = read(tmp_path, out.getvalue().encode(encoding))
    assert reader.report.rejects == []
    assert [(item.title, item.overview, item.year) for item in items] == [(repair(t)[0], repair(o)[0], year) for t, o, year in rows]
