import gzip
from pathlib import Path

import pytest

from matinee.catalogue.reader import read_items
from matinee.catalogue.rows import ReadOptions
from matinee.errors import SourceError

FRENCH = "title,overview\nAmélie,Une serveuse à Paris – déçue\nÉté,Ça va\n"
RUSSIAN = "title,overview\nВойна и мир,История нескольких семей в начале века\nИдиот,Князь возвращается в Петербург из Швейцарии\n"
CZECH = "title,overview\nŽlutý kůň,Příliš mnoho filmů\nObecná škola,Učitel a válečný hrdina\n"
JAPANESE = "title,overview\n千と千尋の神隠し,少女が不思議な世界へ迷い込む物語\n"


def write(tmp_path: Path, data: bytes, name: str = "c.csv") -> Path:
    path = tmp_path / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("text", [FRENCH, RUSSIAN, CZECH, JAPANESE])
@pytest.mark.parametrize("name", ["c.csv", "c.csv.gz"])
def test_unicode_is_recognised(tmp_path: Path, encoding: str, text: str, name: str) -> None:
    data = text.encode(encoding)
    reader = read_items(write(tmp_path, gzip.compress(data) if name.endswith("gz") else data, name))
    assert [item.title for item in reader] == [line.split(",")[0] for line in text.splitlines()[1:]]
    assert not any("encoding" in warning for warning in reader.report.warnings)


@pytest.mark.parametrize(("text", "encoding"), [(FRENCH, "cp1252"), (RUSSIAN, "cp1251"), (FRENCH.replace("–", "-"), "latin-1")])
def test_a_guessed_code_page_is_told(tmp_path: Path, text: str, encoding: str) -> None:
    reader = read_items(write(tmp_path, text.encode(encoding)))
    assert [item.title for item in reader] == [line.split(",")[0] for line in text.splitlines()[1:]]
    assert "a guess" in reader.report.warnings[0]


@pytest.mark.parametrize(
    ("text", "encoding"), [(CZECH, "cp1250"), (JAPANESE, "shift_jis"), (FRENCH, "mac_roman"), (FRENCH, "cp850"), (CZECH, "iso8859_2")]
)
def test_a_doubtful_code_page_is_asked_for(tmp_path: Path, text: str, encoding: str) -> None:
    path = write(tmp_path, text.replace("–", "-").encode(encoding))
    with pytest.raises(SourceError, match=r"its encoding can't be told.*pass --encoding"):
        read_items(path)
    items = list(read_items(path, options=ReadOptions(encoding=encoding)))
    assert [item.title for item in items] == [line.split(",")[0] for line in text.splitlines()[1:]]


NO_TEXT = "column 'title': holds bytes, not a text"


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", ["c.csv", "c.jsonl"])
def test_some_broken_bytes_in_utf8_cost_their_values_only(tmp_path: Path, name: str, strict: bool) -> None:
    rows = [("Ä", "ä"), ("Ö", "ö"), ("\udcc4", "x"), ("B", "a\udcc4b"), ("plain", "x")]
    text = "title,overview\n" + "".join(f"{title},{overview}\n" for title, overview in rows)
    if name == "c.jsonl":
        text = "".join(f'{{"title": "{title}", "overview": "{overview}"}}\n' for title, overview in rows)
    path = tmp_path / name
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    reader = read_items(path, options=ReadOptions(strict=strict))
    items = {item.title: item.overview for item in reader}
    assert items == {"Ä": "ä", "Ö": "ö"} | ({} if strict else {"B": ""}) | {"plain": "x"}
    assert len(reader.report.rejects) == (2 if strict else 1)
    if not strict:
        assert reader.report.rejects[0].reason == NO_TEXT
        assert reader.report.summary.fields["overview"].left_out == 1


def test_a_file_cut_inside_a_character_is_cut_and_not_of_another_encoding(tmp_path: Path) -> None:
    reader = read_items(write(tmp_path, "title\nplain\nÄ".encode()[:-1]))
    assert [item.title for item in reader] == ["plain"]
    assert reader.report.truncated


def test_bytes_that_the_asked_encoding_has_not_are_rejected(tmp_path: Path) -> None:
    reader = read_items(write(tmp_path, FRENCH.encode()), options=ReadOptions(encoding="ascii"))
    assert list(reader) == []
    assert {reject.reason for reject in reader.report.rejects} == {NO_TEXT}
    assert any("bytes that are not ascii" in warning for warning in reader.report.warnings)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04 sheet", "a zip archive or an Excel workbook: export the sheet as CSV"),
        (b"SQLite format 3\0....", "an SQLite database"),
        (b"%PDF-1.7 ....", "a PDF"),
        (bytes(range(256)) * 40, "is binary, not text"),
        (FRENCH.encode("utf-16-le"), "UTF-16 without a byte order mark: pass --encoding utf-16-le"),
        (gzip.compress(FRENCH.encode() * 2000, mtime=0)[:60] + b"\0" * 90, "its gzip stream is broken"),
        (gzip.compress(b"", mtime=0)[:8], "is empty"),
    ],
)
def test_what_is_no_text_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        list(read_items(write(tmp_path, data)))


def test_utf16_without_a_mark_is_read_when_asked(tmp_path: Path) -> None:
    path = write(tmp_path, FRENCH.encode("utf-16-le"))
    assert [item.title for item in read_items(path, options=ReadOptions(encoding="utf-16-le"))] == ["Amélie", "Été"]


@pytest.mark.parametrize("name", ["klingon", "rot13", "hex"])
def test_an_unknown_encoding_is_refused(name: str) -> None:
    with pytest.raises(SourceError, match=r"--encoding .* is unknown"):
        ReadOptions(encoding=name)
