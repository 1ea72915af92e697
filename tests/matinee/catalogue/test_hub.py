from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from matinee.catalogue.reader import read_items
from matinee.errors import SourceError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    data = tmp_path / "set"
    data.mkdir()
    for split, names in (("train", ["A", "B"]), ("test", ["C"])):
        table = pyarrow.table({"Title": names, "Year": [1999] * len(names), "Genres": [["X", "Y"]] * len(names)})
        pyarrow.parquet.write_table(table, data / f"{split}.parquet")
    return data


def test_a_split_is_read(folder: Path) -> None:
    reader = read_items(f"hub:{folder}:train", kind="book")
    items = list(reader)
    assert [(item.title, item.year, item.genres, item.kind) for item in items] == [(t, 1999, ("X", "Y"), "book") for t in "AB"]
    assert (reader.unit, reader.done, reader.total) == ("rows", 2, 2)


def test_the_only_split_needs_no_name(folder: Path) -> None:
    (folder / "test.parquet").unlink()
    assert len(list(read_items(f"hub:{folder}"))) == 2


@pytest.mark.parametrize(
    ("end", "message"), [("", "has several splits: add one of :train, :test"), (":dev", "has no split 'dev': add one")]
)
def test_splits_are_asked_for(folder: Path, end: str, message: str) -> None:
    with pytest.raises(SourceError, match=message):
        read_items(f"hub:{folder}{end}")


@pytest.mark.parametrize("address", ["", "a b:c d", "x@", "x:y:z"])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(SourceError, match="is malformed: write hub:owner/name"):
        read_items(f"hub:{address}")


def test_an_unreachable_hub_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def unreachable(name: str, **options: Any) -> Any:
        asked.update(options, name=name)
        raise ConnectionError(f"Couldn't reach '{name}' on the Hub (LocalEntryNotFoundError)")

    monkeypatch.setattr(datasets, "load_dataset", unreachable)
    with pytest.raises(SourceError, match=r"cannot load hub:owner/name@v1:train: Couldn't reach 'owner/name' on the Hub.*the network"):
        read_items("hub:owner/name@v1:train")
    assert asked == {"name": "owner/name", "revision": "v1"}


def test_a_folder_without_data_is_a_clear_error(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot load hub:"):
        read_items(f"hub:{tmp_path}")
