"""Another kind of catalogue by the same path: books teach the enhancer and the embedder, are described, ingested and served."""

import asyncio
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner, Result

from matinee.catalogue.reader import read_items
from matinee.settings.load import load_settings
from serve.graph import requests
from serve.graph.embedder import EmbedderReplica
from serve.graph.enhancer import EnhancerReplica
from serve.graph.gateway import Gateway
from serve.graph.health import Health
from serve.graph.parts import Graph
from serve.graph.retriever import RetrieverReplica
from serve.telemetry.metrics import Metrics
from tests.memory_sink import MemorySink
from train import describe, ingest, instructions, prepare, triplets
from train.enhancer import CT2, MERGED
from train.jobs.manifests import ADAPTER

ROOT = Path(__file__).parents[2]
BOOKS = ROOT / "examples" / "books" / "books.jsonl"


def run(app: Any, *args: object) -> Result:
    result = CliRunner().invoke(app, [str(arg) for arg in args])
    assert result.exit_code == 0, result.output
    return result


def test_the_books_are_clean() -> None:
    reader = read_items(str(BOOKS))
    books = list(reader)
    assert (len(books), reader.report.rejects, reader.report.duplicates, reader.report.warnings) == (50, [], 0, [])
    assert len({book.id for book in books}) == 50
    for book in books:
        assert book.kind == "book"
        assert book.year
        assert book.genres
        assert book.people["author"]
        assert 15 <= len(book.overview.split()) <= 80


def test_descriptions_that_the_recipe_would_not_use_are_refused(tmp_path: Path) -> None:
    for recipe, file, code, said in (("raw", "d.jsonl", 2, "the recipe raw embeds none"), ("both", "none.jsonl", 3, "cannot read")):
        result = CliRunner().invoke(ingest.app, [str(BOOKS), "--recipe", recipe, "--descriptions", str(tmp_path / file)])
        assert (result.exit_code, said in " ".join(result.stderr.split())) == (code, True), result.output


def test_from_a_file_to_a_recommendation(
    train_here: Any, tiny_gemma: Any, local_graph: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def job(name: str, *args: object) -> None:
        done = train_here(name, *args, "--smoke", "--workers", 0, home=tmp_path / "home")
        assert done.exit_code == 0, done.output

    gemma = tiny_gemma.save_model(tmp_path / "gemma")
    settings = {
        "MATINEE_HOME": tmp_path / "home",
        "MATINEE_CATALOGUE": "books",
        "MATINEE_EMBEDDER__PRECISION": "fp32",
        "MATINEE_ENHANCER__MODEL": gemma,
        "MATINEE_ENHANCER__PRECISION": "fp32",
        "MATINEE_ENHANCER__MAX_NEW_TOKENS": 8,
        "MATINEE_ENHANCER__RETRIES": 0,
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, str(value))
    prepared, taught, wordy = tmp_path / "prepared", tmp_path / "instructions", tmp_path / "enhancer"
    pairs, tuned = tmp_path / "triplets", tmp_path / "embedder"
    run(prepare.app, BOOKS, "--out", prepared)
    run(instructions.app, prepared, "--target", "overview", "--out", taught)
    job("enhancer", taught, "--out", wordy, "--precision", "nf4", "--max-tokens", "512", "--merge", "--ct2")
    assert (wordy / MERGED / "model.safetensors").is_file()
    assert (wordy / CT2 / "model.bin").is_file()
    run(describe.app, prepared, "--adapter", wordy / ADAPTER, "--out", tmp_path / "descriptions.jsonl", "--retries", 0)
    monkeypatch.setenv("MATINEE_ENHANCER__ADAPTER", str(wordy / ADAPTER))
    rows = [orjson.loads(line) for line in (tmp_path / "descriptions.jsonl").read_bytes().splitlines()]
    assert len(rows) == 50
    assert all(row["description"] for row in rows)
    run(triplets.app, prepared, "--out", pairs, "--count", 16, "--negatives", "bm25")
    job("embedder", pairs, "--prepared", prepared, "--out", tuned, "--fp32", "--epochs", "1")
    monkeypatch.setenv("MATINEE_EMBEDDER__MODEL", str(tuned / "model"))
    # Who loaded an enhancer now would fail: all descriptions are written.
    monkeypatch.setattr("matinee.models.descriptions.Enhancer", None)
    run(ingest.app, BOOKS, "--recipe", "both", "--descriptions", tmp_path / "descriptions.jsonl", "--rejects", tmp_path)
    asyncio.run(recommended(local_graph))


async def recommended(local_graph: Any) -> None:
    """By the graph that serves, with the tuned encoder and the enhancer for a book that no index has."""
    settings, metrics = load_settings(), Metrics(MemorySink())
    retriever, embedder, enhancer = (kind(settings, metrics) for kind in (RetrieverReplica, EmbedderReplica, EnhancerReplica))
    embedder.reconfigure({})
    enhancer.reconfigure({})
    await retriever.start()
    try:
        parts = [local_graph.as_part(part.call) for part in (embedder, retriever, enhancer)]
        service = Gateway(settings, Graph(*parts, {"embedder": embedder.info, "enhancer": enhancer.info}), metrics)
        info = await Health(service).info(False, service.new_context())
        assert (info["index"]["count"], info["index"]["recipe"], info["degraded"]) == (50, "both", [])
        cold = {
            "kind": "book",
            "title": "The Red Sea",
            "genres": ["Mystery"],
            "overview": "A detective finds a dead man on a train in the snow.",
        }
        request = requests.RecommendRequest.model_validate({"likes": ["The Hobbit", {"item": cold}], "k": 5, "filter": {"kind": ["book"]}})
        cards = orjson.loads((await service.recommend(request, service.new_context())).items)
        titles = [card["item"]["title"] for card in cards]
        assert {"The Fellowship of the Ring", "Murder on the Orient Express"} & set(titles)
        shared = next(card for card in cards if card["item"]["title"] in ("The Fellowship of the Ring", "Murder on the Orient Express"))
        assert shared["reason"].startswith("If you enjoyed The ")
    finally:
        await retriever.close()
        for part in (embedder, enhancer):
            part.close()
