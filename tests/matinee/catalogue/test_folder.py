"""`matinee.catalogue.folder`: the files of a folder are one table, and messages say which of them they are about."""

import json
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest

from matinee.catalogue.reader import read_items, write_rejects
from matinee.errors import SourceError


def films(folder: Path, **parts: str) -> Path:
    for name, text in parts.items():
        path = folder / f"{name.replace('__', '/')}.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_the_files_of_a_folder_are_one_table(tmp_path: Path) -> None:
    folder = films(
        tmp_path / "films", b__c="id,title,year,colour\n3,Ran,1985,red\n,,1990,\n", a="id,title,year\n1,Heat,1995\n2,Alien,1979\n"
    )
    for beside in (".hidden.csv", "_SUCCESS", "a.rejects.jsonl", "notes.md", "b/.tmp/d.csv"):
        (folder / beside).parent.mkdir(exist_ok=True)
        (folder / beside).write_text("no,table\n")
    reader = read_items(folder, kind="film")
    items = list(reader)
    assert [(item.title, item.year) for item in items] == [("Heat", 1995), ("Alien", 1979), ("Ran", 1985)]
    assert items[2].extra == {"colour": "red"}
    assert (reader.done, reader.total) == (reader.total, sum(path.stat().st_size for path in (folder / "a.csv", folder / "b" / "c.csv")))
    assert reader.report.summary.format["files"] == "2"
    assert "1 files lack columns that others have, the first is a.csv: colour" in reader.report.warnings
    rejects = write_rejects(reader.report, tmp_path)
    assert rejects == tmp_path / "films.rejects.jsonl"
    [row] = map(json.loads, rejects.read_text().splitlines())
    assert (row["file"], row["line"], row["reason"]) == ("b/c.csv", 3, "the title is missing")


def test_of_rows_with_one_id_in_two_files_the_first_counts(tmp_path: Path) -> None:
    reader = read_items(films(tmp_path, a="id,title\n1,Heat\n2,Alien\n", b="id,title\n2,Alien\n1,Ran\n"))
    assert [item.title for item in reader] == ["Heat", "Alien"]
    assert (reader.report.duplicates, [reject.file for reject in reader.report.rejects]) == (1, ["b.csv"])
    assert "has the id '1' of line 2 of a.csv, but other facts" in reader.report.rejects[0].reason


def test_parts_without_rows_are_no_error_among_others(tmp_path: Path) -> None:
    """As Spark writes them."""
    for number, titles in enumerate([["Heat"], []]):
        table = pyarrow.table({"title": pyarrow.array(titles, pyarrow.string())})
        pyarrow.parquet.write_table(table, tmp_path / f"part-{number}.snappy.parquet")
    reader = read_items(tmp_path)
    assert [item.title for item in reader] == ["Heat"]
    assert "1 files have no rows, the first is part-1.snappy.parquet" in reader.report.warnings
    (tmp_path / "part-0.snappy.parquet").unlink()
    with pytest.raises(SourceError, match="is a folder with 1 catalogue files, and none has rows"):
        read_items(tmp_path)


def test_a_part_of_one_json_line_is_a_part_like_others(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"title": "Heat"}\n{"title": "Ran"}\n')
    (tmp_path / "b.jsonl").write_text('{"title": "Alien"}\n')
    assert [item.title for item in read_items(tmp_path)] == ["Heat", "Ran", "Alien"]


def test_a_folder_that_is_no_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"is a folder with no catalogue file \(\.csv"):
        read_items(tmp_path)
    films(tmp_path, a="title,year\nHeat,1995\n")
    (tmp_path / "b.jsonl").write_text('{"title": "Ran"}\n')
    with pytest.raises(SourceError, match=r"several kinds \(a.csv is delimited with comma, b.jsonl is JSON\): name one kind by a pattern"):
        read_items(tmp_path)
    (tmp_path / "b.jsonl").unlink()
    (tmp_path / "b.csv").write_bytes(b"")
    with pytest.raises(SourceError, match=r"b\.csv is empty"):
        read_items(tmp_path)
