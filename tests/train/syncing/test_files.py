"""`train.sync` with files: what the source has is what the server has afterwards, and a source that is not whole changes nothing."""

import gzip
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import httpx
import pytest
from typer.testing import CliRunner

from matinee.client.http import Client
from matinee.client.items import Items
from train.ingest import app as ingest_app
from train.syncing.source import FileSource, SourceItem


def test_rounds_bring_new_and_changed_items_and_take_those_that_are_gone(shop: Any, tools: Any, write: Callable[..., Path]) -> None:
    films = [tools.film(n) for n in range(tools.BASE)]
    assert tools.counts(shop.sync(write(films))) == {"unchanged": 10}
    films = [*films[1:9], tools.film(9, title="Another"), tools.film(10)]
    assert tools.counts(shop.sync(write(films))) == {"written": 2, "deleted": 1, "unchanged": 8}
    assert shop.titles() == {film["id"]: film["title"] for film in films}
    assert tools.counts(shop.sync(write(films))) == {"unchanged": 10}
    # What came back after it had been deleted is an item as any other.
    assert tools.counts(shop.sync(write([*films, tools.film(0)]))) == {"written": 1, "unchanged": 10}
    assert "f0" in shop.titles()


def test_a_dry_run_changes_nothing(shop: Any, tools: Any, write: Callable[..., Path]) -> None:
    before = shop.titles()
    report = shop.sync(write([tools.film(n) for n in range(1, 12)]), "--dry-run")
    assert tools.counts(report) == {"written": 2, "deleted": 1, "unchanged": 9}
    assert len(report["deleted_ids"]) == 1
    assert shop.titles() == before


def test_items_that_the_api_wrote_are_deleted_too_unless_they_are_kept(shop: Any, tools: Any, write: Callable[..., Path]) -> None:
    Items(Client(shop.url)).put([json.dumps(tools.film(50)).encode()])
    source = write([tools.film(n) for n in range(tools.BASE)])
    assert tools.counts(shop.sync(source, "--no-delete")) == {"unchanged": 10}
    assert "f50" in shop.titles()
    assert tools.counts(shop.sync(source)) == {"deleted": 1, "unchanged": 10}


def test_a_source_that_lacks_much_of_the_catalogue_is_asked_about(shop: Any, tools: Any, write: Callable[..., Path]) -> None:
    source = write([*(tools.film(n) for n in range(8)), tools.film(20)])
    said = shop.refused(source)
    assert "2 of the 10 items of the catalogue are not in it, more than --max-deleted 0.1" in said
    assert "is the source whole?" in said
    assert tools.counts(shop.sync(source, "--max-deleted", 0.2)) == {"written": 1, "deleted": 2, "unchanged": 8}


def test_a_source_that_is_not_whole_changes_nothing(shop: Any, tools: Any, write: Callable[..., Path], tmp_path: Path) -> None:
    source = write([tools.film(n, title="Changed") for n in range(tools.BASE)])
    whole = source.read_bytes()
    source.write_bytes(whole[:-20])
    assert "looks cut off" in shop.refused(source)
    packed = tmp_path / "films.jsonl.gz"
    packed.write_bytes(gzip.compress(whole)[:-12])
    assert "looks cut off" in shop.refused(packed)
    source.write_bytes(whole + b'{"id": "f11", "title": ""}\n')
    assert "1 of 11 rows can't be used, more than --max-rejected 0.01" in shop.refused(source)
    source.write_bytes(b'{"id": "f11", "title": ""}\n')
    assert "--max-rejected" in shop.refused(source)
    assert "no usable item" in shop.refused(source, "--max-rejected", 1, "--max-deleted", 1)
    source.write_bytes(b"")
    assert "is empty" in shop.refused(source)
    assert "there is no catalogue file" in shop.refused(tmp_path / "nowhere")


def test_the_item_of_a_row_that_broke_is_not_gone(shop: Any, tools: Any, write: Callable[..., Path]) -> None:
    source = write([*(tools.film(n) for n in range(8)), tools.film(8, overview="a\x00b"), tools.film(9, title="")])
    report = shop.sync(source, "--max-rejected", 0.5)
    assert tools.counts(report) == {"written": 1, "unchanged": 8, "rejected": 1}
    assert "the title is missing" in report["problems"][0]
    assert "column 'overview': 1 values can't be read and are left out, the first on line 9" in report["problems"][1]
    assert shop.titles()["f9"] == "Film 9"


def test_the_files_of_a_folder_are_one_source(shop: Any, tools: Any, write: Callable[..., Path]) -> None:
    films = [tools.film(n) for n in range(tools.BASE)]
    write(films[:4], "a.jsonl")
    write([*films[4:], films[0]], "deep/b.jsonl")
    for beside in (".hidden.jsonl", "_SUCCESS", "deep/.tmp/c.jsonl", "a.rejects.jsonl", "notes.md"):
        write([tools.film(99)], beside)
    folder = write([tools.film(10)], "c.jsonl").parent
    assert tools.counts(shop.sync(folder)) == {"written": 1, "unchanged": 10}
    assert tools.counts(shop.sync(f"{folder}/*.jsonl", "--max-deleted", 1)) == {"unchanged": 5, "deleted": 6}


def test_of_two_files_that_contradict_each_other_the_first_counts(shop: Any, tools: Any, write: Callable[..., Path]) -> None:
    write([tools.film(n) for n in range(tools.BASE)], "a.jsonl")
    folder = write([tools.film(3, title="Other")], "b.jsonl").parent
    report = shop.sync(folder, "--max-rejected", 0.2)
    assert tools.counts(report) == {"unchanged": 10, "rejected": 1}
    assert "has the id of an item in another file" in report["problems"][0]


def test_rows_without_ids_are_known_again(shop: Any, tools: Any, tmp_path: Path) -> None:
    """Of the last one, the id is derived from the title as the file writes it, and not as the item has it."""
    source = tmp_path / "films.csv"
    source.write_text("title;year;rating;genres\nOne;1990;7,5;Drama|Crime\nTwo;1991;8,0;Drama\nThe  Third\u200b;1992;;\n", encoding="utf-8")
    assert tools.counts(shop.sync(source, "--no-delete")) == {"written": 3}
    assert tools.counts(shop.sync(source, "--no-delete")) == {"unchanged": 3}


def test_an_error_names_the_file_of_the_source(shop: Any, write: Callable[..., Path], tools: Any) -> None:
    fsspec.filesystem("memory").pipe("/films/broken.parquet", b"PAR1 no more of it")
    said = shop.refused("memory://films")
    assert "memory://films/broken.parquet" in said.replace("memory:///", "memory://")
    assert "/tmp" not in said


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    """The address of a server that speaks S3, with the bucket `films`."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    assert httpx.put(f"http://{host}:{port}/films").is_success
    yield f"http://{host}:{port}"
    server.stop()


def test_a_bucket_is_followed(shop: Any, tools: Any, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"AWS_ENDPOINT_URL": bucket, "AWS_ACCESS_KEY_ID": "id", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_DEFAULT_REGION": "us-east-1"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    fsspec.filesystem("s3").clear_instance_cache()

    def put(name: str, films: list[dict[str, Any]]) -> None:
        body = "".join(json.dumps(film) + "\n" for film in films)
        assert httpx.put(f"{bucket}/films/{name}", content=body).is_success

    put("parts/a.jsonl", [tools.film(n) for n in range(5)])
    put("parts/b.jsonl", [tools.film(n) for n in range(5, 10)])
    for source in ("s3://films/parts", "s3://films/parts/*.jsonl"):
        assert tools.counts(shop.sync(source)) == {"unchanged": 10}
    # A file that came since the listing of the round before.
    put("parts/c.jsonl", [tools.film(10)])
    assert tools.counts(shop.sync("s3://films/parts")) == {"written": 1, "unchanged": 10}
    ingested = CliRunner().invoke(ingest_app, ["s3://films/parts/*.jsonl", "--dry-run", "--json"])
    assert ingested.exit_code == 0, ingested.output
    assert json.loads(ingested.stdout)["items"] == 11, "an ingest reads the same"
    assert "there is no catalogue file" in shop.refused("s3://films/elsewhere")
    assert shop.refused("s3://other-bucket/x.csv")


def test_what_another_writes_while_the_source_is_read_is_not_gone(
    shop: Any, tools: Any, write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a second sync does, which read the source a moment later, when it had one more item."""
    read = FileSource.items

    def late(self: FileSource, catalogue: str) -> Iterator[SourceItem]:
        Items(Client(shop.url)).put([json.dumps(tools.film(77)).encode()])
        return read(self, catalogue)

    monkeypatch.setattr(FileSource, "items", late)
    assert tools.counts(shop.sync(write([tools.film(n) for n in range(tools.BASE)]))) == {"unchanged": 10}
    assert "f77" in shop.titles()
