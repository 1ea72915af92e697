"""Bytes to text: compressed or not, in which encoding, and whether the stream ends early.

An encoding is taken from a byte order mark, from valid UTF-8, or guessed. A guess is always reported. A weak one is an
error that names the flag. Does not look for rows or columns, and does not repair texts (`cells`).
"""

import codecs
import gzip
import io
import re
import unicodedata
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from charset_normalizer import from_bytes

from matinee.catalogue.rows import ReadOptions
from matinee.errors import SourceError

SAMPLE = 1 << 18
"""Characters from which the form of a file is detected."""
BLANK = " \t\r\n\x1a"
"""White space, and the end mark of old DOS programs."""
_BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"))
_BOMS16 = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_FOREIGN = {
    b"PK\x03\x04": "a zip archive or an Excel workbook: export the sheet as CSV",
    b"%PDF": "a PDF",
    b"SQLite format 3": "an SQLite database: export the table as CSV",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"7z\xbc\xaf": "a 7z archive: unpack it first",
    b"BZh": "a bzip2 file: unpack it first",
    b"\x28\xb5\x2f\xfd": "a zstd file: unpack it first",
    b"\xfd7zXZ": "an xz file: unpack it first",
    b"ARROW1": "an Arrow file: save it as Parquet",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook: export the sheet as CSV",
}
# What cp1252 text of Western languages is made of; anything else between its letters speaks for another code page.
_WESTERN = frozenset("àâäáãåæçéèêëíìîïñóòôöõøœßúùûüýÿÀÂÄÁÃÅÆÇÉÈÊËÍÌÎÏÑÓÒÔÖÕØŒÚÙÛÜŸ“”‘’„‚–—…•€£¥§©®™°«»¿¡ªº·×½¼¾´\u00a0")
_RUN = re.compile(r"[^\W\d_a-zA-Z]{3,}")
_PUNCTUATION_INSIDE = re.compile(r"[^\W\d_][¿¡©®«»“„§¥£°ªº½¼¾×][^\W\d_]")


@dataclass(frozen=True)
class Encoding:
    """How a file's bytes become text; `note` is set where this was guessed."""

    name: str
    errors: str = "replace"
    note: str | None = None


class ByteStream(io.RawIOBase):
    """The bytes of a file, unpacked; `cut` becomes true where a compressed stream ends before its end."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.cut = False
        self._file = path.open("rb")
        packed = self._file.read(2) == b"\x1f\x8b"
        self._file.seek(0)
        self._data: BinaryIO | gzip.GzipFile = gzip.GzipFile(fileobj=self._file) if packed else self._file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        try:
            data = self._data.read1(len(buffer)) if isinstance(self._data, gzip.GzipFile) else self._data.read(len(buffer))
        except EOFError:
            self.cut = True
            return 0
        except (gzip.BadGzipFile, zlib.error) as error:
            raise SourceError(f"{self.path} is damaged: its gzip stream is broken ({error}): fetch it again") from None
        buffer[: len(data)] = data
        return len(data)

    def position(self) -> int:
        """How many bytes of the file itself are read."""
        return self._file.tell()

    def close(self) -> None:
        self._file.close()
        super().close()


@contextmanager
def open_text(path: Path, encoding: Encoding) -> Iterator[tuple[io.TextIOWrapper, ByteStream]]:
    """The file as text with its own line ends, and the stream below it."""
    stream = ByteStream(path)
    with io.TextIOWrapper(io.BufferedReader(stream, 1 << 18), encoding.name, encoding.errors, newline="") as text:
        yield text, stream


def head(path: Path, size: int) -> bytes:
    """The first bytes, unpacked."""
    with io.BufferedReader(ByteStream(path), size) as data:
        return data.read(size)


def find_encoding(path: Path, options: ReadOptions) -> Encoding:
    """The file's encoding. Raises `SourceError` where it is ambiguous, or where the file is no text at all."""
    start = head(path, 1 << 16)
    bom = next((name for mark, name in _BOMS + _BOMS16 if start.startswith(mark)), None)
    for magic, what in _FOREIGN.items():
        if start.startswith(magic):
            raise SourceError(f"{path} is not a text file but {what}")
    if options.encoding:
        return _from_option(options.encoding, bom)
    if bom:
        return Encoding(bom, "surrogateescape" if bom == "utf-8-sig" else "replace")
    nuls = start.count(0)
    if nuls > len(start) / 10 and max(start[0::2].count(0), start[1::2].count(0)) > nuls * 0.9 and nuls > len(start) / 4:
        raise SourceError(f"{path} looks like UTF-16 without a byte order mark: pass --encoding utf-16-le or utf-16-be")
    odd = sum(start.count(code) for code in range(32) if code not in (9, 10, 12, 13, 26, 27))
    if odd > len(start) / 50 + 2:
        raise SourceError(f"{path} is binary, not text: give a CSV, TSV, JSONL, JSON or Parquet file")
    return _detect(path)


def damage(raw: str, encoding: Encoding) -> str | None:
    """Which bytes of this text could not be read, None where all could."""
    if raw.isascii():
        return None
    if encoding.errors == "surrogateescape":
        return "bytes that are not UTF-8" if re.search("[\udc80-\udcff]", raw) else None
    return f"bytes that are not {encoding.name}" if "\ufffd" in raw else None


def _from_option(name: str, bom: str | None) -> Encoding:
    plain = codecs.lookup(name).name
    if plain == "utf-8":
        return Encoding("utf-8-sig", "surrogateescape")
    if bom == "utf-16" and plain in ("utf-16-le", "utf-16-be"):
        return Encoding("utf-16")
    return Encoding(plain)


def _detect(path: Path) -> Encoding:
    good = bad = 0
    only_cut = True
    sample = bytearray()
    with io.BufferedReader(ByteStream(path), 1 << 18) as lines:
        for line in lines:
            if line.isascii():
                continue
            try:
                line.decode("utf-8")
                good += 1
            except UnicodeDecodeError as error:
                bad += 1
                only_cut = only_cut and error.reason == "unexpected end of data" and not line.endswith(b"\n")
                if len(sample) < 1 << 16:
                    sample += line
    # Some broken lines among valid UTF-8 are damage in a UTF-8 file: those rows are rejected, one by one.
    if not bad or good >= bad or only_cut:
        return Encoding("utf-8-sig", "surrogateescape")
    return _guess(path, bytes(sample))


def _guess(path: Path, sample: bytes) -> Encoding:
    text = sample.decode("cp1252", "replace")
    if _is_western(text):
        return Encoding("cp1252", "replace", _note("cp1252", text))
    best = from_bytes(sample).best()
    other = sample.decode(best.encoding, "replace") if best else ""
    if best and best.coherence >= 0.5 and best.chaos < 0.1 and _is_one_script(other):
        return Encoding(best.encoding, "replace", _note(best.encoding, other))
    maybe = f" and as {best.encoding} {_odd_word(other)!r}" if best else ""
    raise SourceError(
        f"{path} is not UTF-8, and its encoding can't be told: read as cp1252 it says {_odd_word(text)!r}{maybe}: "
        "pass --encoding, for example --encoding cp1250"
    )


def _is_one_script(text: str) -> bool:
    """Whether the letters beyond ASCII are of one script other than Latin: guesses among Latin code pages are too often wrong."""
    scripts = Counter(unicodedata.name(c, "?").partition(" ")[0] for c in text if ord(c) > 127 and c.isalpha())
    return bool(scripts) and scripts.most_common(1)[0][1] > 0.95 * scripts.total() and "LATIN" not in scripts


def _is_western(text: str) -> bool:
    odd = [c for c in text if ord(c) > 127]
    return all(c in _WESTERN for c in odd) and not _RUN.search(text) and not _PUNCTUATION_INSIDE.search(text)


def _odd_word(text: str) -> str:
    return next((word.strip(",;|\"'") for word in re.split(r"[\s,;|]+", text) if not word.isascii()), "")[:60]


def _note(name: str, text: str) -> str:
    return f"the file is not UTF-8 and was read as {name}, a guess ({_odd_word(text)!r}): pass --encoding if that is wrong"
