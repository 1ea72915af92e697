"""Blinded sheets for people: two descriptions of an item side by side as A and B, one row an item, one CSV file a rater.

    FOLDER/sheets/NAME.csv   what a rater sees and fills in, in a spreadsheet or on the page (`train.human.rating_page`)
    FOLDER/key.json          which model A is, in each row of each rater; never shown, read only when all is answered

Items of the test split are rated (creativity, relevance, utility, 1-5); of the train split, the better description is named, which may
train (`train.preference`). Does not compute anything from answers (`train.human.ratings_report`), and invents none.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from matinee.errors import SourceError
from matinee.evaluation.splits import Entry, order_key
from matinee.files import write_atomically
from matinee.text import templates

Model = Literal["base", "tuned"]
SheetRow = dict[str, str]
RatedSplit = Literal["test", "train"]

CRITERIA = ("creativity", "relevance", "utility")
SHOWN = ("item", "title", "facts", "a", "b")
KEY = "key.json"
BETWEEN_FACTS = " | "


@dataclass(frozen=True)
class Form:
    """What is asked of each row: its columns, and all values that an answer may have, in their order."""

    name: str
    split: RatedSplit
    asks: tuple[str, ...]
    values: tuple[str, ...]

    def done(self, row: SheetRow) -> bool:
        return all(row[ask] for ask in self.asks)

    def check(self, ask: str, value: str, where: str) -> str:
        plain = value.strip().casefold()
        if ask not in self.asks:
            raise SourceError(f"{where}: nothing asks for {ask!r}: use {', '.join(self.asks)}")
        if plain not in self.values:
            raise SourceError(f"{where}: {ask} is {value.strip()!r}: use {', '.join(self.values[:-1])} or {self.values[-1]}")
        return plain


RATINGS = Form("ratings", "test", tuple(f"{name}_{side}" for side in "ab" for name in CRITERIA), ("1", "2", "3", "4", "5"))
PREFERENCE = Form("preference", "train", ("preference",), ("a", "b", "tie"))
FORMS = (RATINGS, PREFERENCE)


def form_of(split: RatedSplit) -> Form:
    return next(form for form in FORMS if form.split == split)


class Draw(BaseModel):
    """What decided which items people are shown."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    split: RatedSplit
    seed: int
    items: int


class SheetKey(BaseModel):
    """`raters`: rater -> item -> the model whose description is A there."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    draw: Draw
    inputs: dict[str, str]
    raters: dict[str, dict[str, Model]]

    @property
    def form(self) -> Form:
        return form_of(self.draw.split)


@dataclass(frozen=True)
class Sheet:
    """A rater's answers so far, `rows` as they are shown, `lines` where each stands in `path`; what is not answered is empty."""

    path: Path
    form: Form
    rows: tuple[SheetRow, ...]
    lines: tuple[int, ...]

    @property
    def rater(self) -> str:
        return self.path.stem

    @property
    def done(self) -> int:
        return sum(self.form.done(row) for row in self.rows)


def draw_items(entries: Sequence[Entry], draw: Draw, texts: Sequence[Mapping[str, str]]) -> list[Entry]:
    """Items of a split that every one of `texts` describes, each in its own words; only the seed and the ids decide which."""
    own = [entry for entry in entries if entry.split == draw.split]
    described = [entry for entry in own if all(entry.id in known for known in texts)]
    # Two texts that are the same ask nothing.
    usable = [entry for entry in described if len({known[entry.id] for known in texts}) == len(texts)]
    if len(usable) < draw.items:
        raise SourceError(
            f"--items {draw.items}, but of {len(own)} items of the {draw.split} split {len(described)} have a description in both files, "
            f"{len(usable)} of them two different ones: describe more with `python -m train.describe`, or ask for fewer"
        )
    return sorted(usable, key=lambda entry: order_key(draw.seed, entry.id))[: draw.items]


def blind(
    form: Form, entries: Sequence[Entry], texts: Mapping[Model, Mapping[str, str]], rater: str, seed: int
) -> tuple[list[SheetRow], dict[str, Model]]:
    """A rater's empty rows in an order of their own, and item -> the model that is A there."""
    rows, first = [], {}
    for entry in sorted(entries, key=lambda entry: order_key(seed, rater, entry.id)):
        a: Model = "base" if order_key(seed, rater, entry.id, "side")[0] % 2 else "tuned"
        b: Model = "tuned" if a == "base" else "base"
        facts = BETWEEN_FACTS.join(templates.facts_text(entry.item).split("\n"))
        shown = (entry.id, entry.item.title, facts, texts[a][entry.id], texts[b][entry.id])
        rows.append(dict(zip(SHOWN, map(templates.one_line, shown), strict=True)) | dict.fromkeys(form.asks, ""))
        first[entry.id] = a
    return rows, first


def write_sheet(path: Path, form: Form, rows: Sequence[SheetRow]) -> None:
    out = io.StringIO()
    writer = csv.DictWriter(out, [*SHOWN, *form.asks], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    # With a mark, because spreadsheets take a file without one for an old code page and spoil its accents.
    write_atomically(path, f"\ufeff{out.getvalue()}")


def read_sheet(path: Path) -> Sheet:
    """A sheet as it came back; commas may have become semicolons or tabs. Raises `SourceError` with file and line."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SourceError(f"{path} is not UTF-8: save it again as CSV in UTF-8") from None
    head = text.partition("\n")[0]
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=max(",;\t", key=head.count), restkey="", strict=True)
    columns = set(reader.fieldnames or ())
    form = next((form for form in FORMS if {*SHOWN, *form.asks} <= columns), None)
    if form is None:
        choices = " or ".join(", ".join(form.asks) for form in FORMS)
        raise SourceError(f"{path} is not a sheet: its first line needs the columns {', '.join(SHOWN)}, and {choices}")
    rows, lines = [], []
    seen: dict[str, int] = {}
    try:
        for raw in reader:
            # Some spreadsheets write empty rows below the last one.
            if not any("".join(cell or "") for cell in raw.values()):
                continue
            where = f"{path}, line {reader.line_num}"
            rows.append(_check_row(raw, form, where))
            lines.append(reader.line_num)
            before = seen.setdefault(rows[-1]["item"], reader.line_num)
            if before != reader.line_num:
                raise SourceError(f"{where}: item {rows[-1]['item']} is judged in line {before} already: keep one of them")
    except csv.Error as error:
        raise SourceError(f"{path}, line {reader.line_num}: {error}") from None
    return Sheet(path, form, tuple(rows), tuple(lines))


def _check_row(raw: Mapping[str, Any], form: Form, where: str) -> SheetRow:
    # The reader fills what a short line lacks with None, and puts what a long line has too much under the empty name.
    if "".join(raw.get("") or "") or any(raw[name] is None for name in (*SHOWN, *form.asks)):
        raise SourceError(f"{where}: it has more or fewer cells than the first line: was it cut off, or a comma left unquoted?")
    if not raw["item"].strip():
        raise SourceError(f"{where}: the item is empty")
    row = {name: raw[name].strip() for name in SHOWN}
    return row | {ask: form.check(ask, raw[ask], where) if raw[ask].strip() else "" for ask in form.asks}


def rater_name(name: str) -> str:
    """A name that is a file's name on any machine."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_-]{0,40}", name):
        raise SourceError(f"--rater {name!r}: use letters, digits, - and _")
    return name


def sheet_path(folder: Path, rater: str) -> Path:
    return folder / "sheets" / f"{rater_name(rater)}.csv"


def sheet_paths(folder: Path) -> list[Path]:
    paths = sorted((folder / "sheets").glob("*.csv"))
    if not paths:
        raise SourceError(f"{folder} has no sheets: make them with `python -m train.ratings sheets`")
    return paths


def read_key(folder: Path) -> SheetKey:
    path = folder / KEY
    try:
        return SheetKey.model_validate_json(path.read_bytes())
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}; `python -m train.ratings sheets` writes it") from None
    except ValidationError as error:
        raise SourceError(f"{path} is not what `python -m train.ratings sheets` wrote: {error.errors()[0]['msg']}") from None
