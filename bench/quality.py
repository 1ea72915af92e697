"""Recall@10 and NDCG@10 of labelled query sets (BEIR folders), for sparse, dense and hybrid search, through the HTTP API.

    python -m bench.quality EVAL_FOLDER --kind film --split dev --out quality.json
    python -m bench.quality EVAL_FOLDER --kind film --split dev --sweep        # fusions and weights, in this process

`EVAL_FOLDER` holds `corpus.jsonl` and one folder a set (`queries.jsonl`, `qrels/SPLIT.tsv`). Sets whose queries name an item
(`metadata.item`, folder `item_*`) go to `/similar`, the others to `/search`. Prints Markdown tables with 95 % bootstrap intervals.
"""

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

from rich.progress import track

from bench.serve import matinee_server
from bench.tables import markdown
from matinee.cli.errors import run_main
from matinee.client import calls
from matinee.client.http import Client
from matinee.errors import MatineeError
from matinee.evaluation import metrics, query_sets
from matinee.evaluation.query_sets import QuerySet
from matinee.evaluation.splits import read_entries
from matinee.index.active import ActiveIndex
from matinee.index.factory import open_store
from matinee.items import NO_KIND, item_uid
from matinee.models.embedder import Embedder
from matinee.recommend.queries import TextQuery
from matinee.recommend.recommender import Recommender
from matinee.settings.load import load_settings

MODES = ("sparse", "dense", "hybrid")


def read_sets(folder: Path, split: str, catalogue: str) -> Iterator[QuerySet]:
    """The folder's sets, by index id."""
    for name in query_sets.set_names(folder, split):
        read = query_sets.read_set(folder, name, split)
        items = {query: item_uid(catalogue, item) for query, item in read.items.items()}
        relevant = {query: {item_uid(catalogue, item) for item in items_of} for query, items_of in read.relevant.items()}
        yield replace(read, items=items, relevant=relevant)


def catalogue_file(folder: Path, kind: str, into: Path) -> Path:
    """The items of the corpus as a catalogue file."""
    path = into / "corpus-items.jsonl"
    path.write_text("".join(f"{json.dumps(entry.item.facts())}\n" for entry in read_entries(folder, kind=kind)))
    return path


def through_api(url: str, queries: QuerySet, mode: str) -> dict[str, list[str]]:
    """Each query's best 10, as a client of the API gets them."""
    runs = {}
    client = Client(url, direct=True)
    for id in track(queries.relevant, description=f"{queries.name} {mode}", transient=True):
        if queries.of_items:
            call = calls.similar(queries.items[id], 10)
        else:
            call = calls.search({"text": queries.texts[id], "mode": mode, "k": 10})
        runs[id] = [card["id"] for card in client.send(call)["items"]]
    return runs


def row(name: str, queries: QuerySet, runs: dict[str, list[str]]) -> dict[str, Any]:
    measured = {m: metrics.interval(metrics.per_query(runs, queries.relevant, m).values()) for m in ("recall", "ndcg")}
    return {"set": queries.name, "system": name, "queries": len(queries.relevant), **{m: str(value) for m, value in measured.items()}}


def sweep(sets: list[QuerySet]) -> list[dict[str, Any]]:
    """Fusions and weights on the text sets, in this process with the same recommender as the API's."""
    settings = load_settings()
    fusions = [("rrf", k, w) for k, w in product((2, 10, 60), (0.5, 1.0, 2.0, 3.0))] + [("dbsf", 1, 1.0)]
    fusions += [("linear", 1, w) for w in (0.0075, 0.01, 0.0125, 0.015, 0.02)]

    async def run() -> list[dict[str, Any]]:
        embedder = Embedder.load(settings.embedder, settings.models_dir)
        active = ActiveIndex(open_store(settings))
        await active.refresh()
        rows = []
        for queries in (queries for queries in sets if not queries.of_items):
            ids = list(queries.relevant)
            vectors = embedder.encode([queries.texts[id] for id in ids], kind="query")
            for fusion, k, weight in fusions:
                weights = {"bm25_weight": weight} if fusion == "linear" else {"dense_weight": 1.0, "sparse_weight": weight}
                search = settings.search.model_copy(update={"fusion": fusion, "rrf_k": k, **weights})
                recommender = Recommender(active.get(embedder.fingerprint), search)
                answers = await recommender.answer([TextQuery(queries.texts[i], v, "hybrid") for i, v in zip(ids, vectors, strict=True)])
                runs = {id: _ids(answer) for id, answer in zip(ids, answers, strict=True)}
                rows.append(row(f"{fusion} k={k} 1:{weight:g}" if fusion != "dbsf" else fusion, queries, runs))
        await active.close()
        return rows

    return asyncio.run(run())


def _ids(answer: Any) -> list[str]:
    if isinstance(answer, MatineeError):
        raise answer
    return [card["id"] for card in json.loads(answer.items)]


def table(rows: list[dict[str, Any]]) -> str:
    heads = ("set", "queries", "system", "Recall@10", "NDCG@10")
    return markdown(heads, ([row[name] for name in ("set", "queries", "system", "recall", "ndcg")] for row in rows))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with corpus.jsonl and the query sets")
    parser.add_argument("--split", default="dev", help="split of the query sets: train, dev or test")
    parser.add_argument("--kind", default=NO_KIND, help="what the items are, where the corpus does not say")
    parser.add_argument("--home", type=Path, help="reuse this folder's index instead of ingesting anew")
    parser.add_argument("--sweep", action="store_true", help="compare fusions and weights instead")
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    home = args.home or Path(tempfile.mkdtemp(prefix="matinee-quality-"))
    home.mkdir(parents=True, exist_ok=True)
    os.environ |= {"MATINEE_HOME": str(home), "MATINEE_CATALOGUE": "quality"}
    if not (home / "index" / "quality" / "CURRENT").exists():
        subprocess.run([sys.executable, "-m", "train.ingest", str(catalogue_file(args.folder, args.kind, home))], check=True)
    sets = list(read_sets(args.folder, args.split, "quality"))
    if args.sweep:
        rows = sweep(sets)
    else:
        with matinee_server({}) as (url, _):
            rows = [
                row("similar" if queries.of_items else mode, queries, through_api(url, queries, mode))
                for queries in sets
                for mode in (("dense",) if queries.of_items else MODES)
            ]
    print(table(rows))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    run_main(main)
