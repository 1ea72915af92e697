"""No file makes an ingest take more than linear time: whole files of each kind of table, each at two sizes."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from matinee.catalogue.json_table import MAX_LINE
from matinee.catalogue.reader import read_items
from matinee.errors import SourceError
from tests.matinee.linear_time import Shape, is_linear

GOOD = '{"title": "A"}\n{"title": "B"}\n'
# Four bytes a character from here on, so that a copy of the text costs more than what is done with it.
WIDE = '"\U0001f600"'
TEXTS: dict[str, tuple[Shape, str, int]] = {
    "objects on one line": (Shape(("{}",), GOOD), "c.jsonl", 16_000),
    "halves of characters": (Shape(('{"a":"\\ud800"}',), GOOD), "c.jsonl", 50_000),
    "control characters": (Shape(('{"a":"\t"}',), f"{GOOD}{WIDE}"), "c.jsonl", 100_000),
    "objects after a control character": (Shape(('{\t"a":1}',), f'{GOOD}{WIDE}{{"a":"\t"}}'), "c.jsonl", 50_000),
    "values on one line": (Shape(("1 ",), f"{GOOD}{WIDE}"), "c.jsonl", 50_000),
    "numbers of many digits": (Shape(("1234567890123456789 ",), GOOD), "c.jsonl", 400_000),
    "blanks on one line": (Shape((" ",), GOOD, "{}{}"), "c.jsonl", 400_000),
    "objects over many lines": (Shape(('{\n"title":"A"\n}\n',), WIDE), "c.json", 200_000),
    "open lists": (Shape(("[",), GOOD), "c.jsonl", 400_000),
    "broken lines": (Shape(("{}{\n",), GOOD), "c.jsonl", 20_000),
    "elements of an array": (Shape(("{},",), f'[{{"title": "A"}}, {WIDE},', "{}]"), "c.json", 200_000),
    "elements with control characters": (Shape(('{"a":"\t"},',), f"[{WIDE},", "{}]"), "c.json", 100_000),
    "an element that never ends": (Shape(("1,",), '[{"title": "A"}, {"a": ['), "c.json", 4_000_000),
    "broken elements": (Shape(("{x\n",), f'[\n{{"title": "A"}},\n{WIDE},\n'), "c.json", 20_000),
    "arrays": (Shape(("[]",), f'[{{"title": "A"}}, {WIDE}]'), "c.json", 200_000),
    "blanks after an array": (Shape(("\n",), '[{"title": "A"}]'), "c.json", 4_000_000),
    "blanks in an array": (Shape((" ",), '[{"title": "A"}', "]"), "c.json", 4_000_000),
    "entries of a document": (Shape(('"k":[{"title":"A"}],',), "{", '"e":[]}'), "c.json", 200_000),
    "depth of a document": (Shape(('{"a":',), "", "1"), "c.json", 200_000),
    "columns": (Shape(("a,",), "title,", "b\nA,1\nB,2\n"), "c.csv", 10_000),
    "columns of one key": (Shape(("a,", "A ,"), "title,", "b\nA,1\nB,2\n"), "c.csv", 10_000),
    "parts of a row": (Shape((" a,",), "title,overview\nA,x\nB,y\nC,", "\n"), "c.csv", 100_000),
    "short rows": (Shape(("A\n",), "title,overview,year\nA,x,1999\n"), "c.csv", 10_000),
    "open quotes": (Shape(('A,"a\n', "B,b\n"), "title,overview\nA,x\n"), "c.csv", 10_000),
    "lines of a cell": (Shape(("a\n",), 'title,overview\nA,"', '"\nB,x\n'), "c.csv", 10_000),
    "quotes in a cell": (Shape(('""',), 'title,overview\nA,"', '"\nB,x\n'), "c.csv", 400_000),
    "escaped quotes": (Shape(('\\"',), 'title,overview\nA,"', '"\nB,x\n'), "c.csv", 400_000),
    "bytes that are not UTF-8": (Shape(("A\udcff,b\n",), "title,overview\nA,x\n"), "c.csv", 10_000),
}


def read(path: Path) -> None:
    with suppress(SourceError):
        list(read_items(path))


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_file_takes_linear_time(tmp_path: Path, name: str) -> None:
    shape, file, length = TEXTS[name]

    def run(text: str) -> None:
        (tmp_path / file).write_bytes(text.encode("utf-8", "surrogateescape"))
        read(tmp_path / file)

    assert is_linear(run, shape, length)


PARQUET: dict[str, Callable[[str], pyarrow.Table]] = {
    "columns": lambda text: pyarrow.table({"title": ["A"]} | {f"c{n}": ["x"] for n in range(len(text))}),
    "columns of one key": lambda text: pyarrow.table({"title": ["A"]} | {"c" + "_" * n: ["x"] for n in range(len(text) // 8)}),
    "entries of a map": lambda text: pyarrow.table(
        {
            "title": ["A"],
            "extra": pyarrow.array([[(f"c{n}", "x") for n in range(len(text))]], pyarrow.map_(pyarrow.string(), pyarrow.string())),
        }
    ),
    "a long cell": lambda text: pyarrow.table({"title": ["A"], "overview": [text * 10]}),
}


@pytest.mark.parametrize("name", PARQUET)
def test_a_parquet_file_takes_linear_time(tmp_path: Path, name: str) -> None:
    def run(text: str) -> None:
        pyarrow.parquet.write_table(PARQUET[name](text), tmp_path / "c.parquet")
        read(tmp_path / "c.parquet")

    assert is_linear(run, Shape(("a ",)), 2_000)


def test_a_line_without_an_end_costs_itself_alone(tmp_path: Path) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text('{"title": "A"}\n{"a": "' + "x" * (2 * MAX_LINE) + '"}\r\n{"title": "B"}\n')
    reader = read_items(path)
    assert [item.title for item in reader] == ["A", "B"]
    [reject] = reader.report.rejects
    assert (reject.line, reject.reason, len(reject.raw)) == (2, "has more than 16,777,216 characters", 2000)
