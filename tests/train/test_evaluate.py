"""`train.evaluate`, exact scoring and `matinee evalset make`: figures that are right, a report that stands alone, honest sets."""

import json
import math
import re
import sqlite3
import uuid
from collections import Counter
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qdrant_edge as edge
from typer.testing import CliRunner, Result

from matinee.cli.main import app as cli
from matinee.errors import SettingsError, SourceError
from matinee.evaluation import query_sets, scoring
from matinee.evaluation.query_sets import QuerySet, SetInfo
from matinee.evaluation.splits import Entry, read_entries
from matinee.index.edge.query import requests
from matinee.index.types import HybridQuery, Manifest, Search
from matinee.items import Item
from matinee.models.bm25 import Bm25Encoder
from matinee.settings.index import IndexSettings
from matinee.settings.tree import SearchSettings
from matinee.text import templates
from train import evaluate, prepare
from train.jobs import manifests
from train.reporting import measure, tables

ROOT = Path(__file__).parents[2]


def run(*args: object) -> Result:
    return CliRunner().invoke(evaluate.app, [str(arg) for arg in args])


def corpus(count: int = 6) -> measure.Corpus:
    items = [Item(id=str(n), title=f"Film {n}", genres=("War",), numbers={"votes": n}) for n in range(count)]
    return measure.Corpus([Entry(str(n), item, "train", str(n), ("kw",) if n % 2 else ()) for n, item in enumerate(items)])


def test_scores_and_fusions_are_the_engines_own(tmp_path: Path, prepared: Path) -> None:
    texts = [templates.raw_text(entry.item, "full") for entry in read_entries(prepared)]
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(texts) + 1, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    asked, query = "a soldier and his brother in the war", vectors[-1]
    encoder, terms = Bm25Encoder(), Bm25Encoder().query(asked)
    config = edge.EdgeConfig(
        vectors={"text": edge.EdgeVectorParams(16, edge.Distance.Cosine)},
        sparse_vectors={"bm25": edge.EdgeSparseVectorParams(modifier=edge.Modifier.Idf)},
        optimizers=edge.EdgeOptimizersConfig(indexing_threshold=0),
    )
    shard = edge.EdgeShard.create(str(tmp_path), config)
    points = []
    for row, text in enumerate(texts):
        sparse = encoder.document(text)
        named: dict[str, Any] = {"text": vectors[row].tolist(), "bm25": edge.SparseVector(sparse.indices, sparse.values)}
        points.append(edge.Point(str(uuid.UUID(int=row)), named, {}))
    shard.update(edge.UpdateOperation.upsert_points(points))
    near = edge.Query.Nearest(query.tolist(), "text")
    words = edge.Query.Nearest(edge.SparseVector(terms.indices, terms.values), "bm25")
    prefetches = [edge.Prefetch(40, query=near), edge.Prefetch(40, query=words)]

    def agrees(ours: scoring.Scores, given: Any, prefetches: Any = None) -> None:
        hits = shard.query(edge.QueryRequest(limit=20, query=given, prefetches=prefetches))
        assert len(hits) == 20
        # Texts with the very same BM25 score take their ranks in any order.
        told = [(uuid.UUID(str(hit.id)).int, hit.score) for hit in hits if uuid.UUID(str(hit.id)).int not in tied]
        assert len(told) > 10
        assert [float(ours[0, row]) for row, _ in told] == pytest.approx([score for _, score in told], abs=1e-5)

    lexical, dense = scoring.Bm25Scorer(texts, "english")([asked]), scoring.cosine(query[None], vectors[:-1])
    counts = Counter(lexical[0].round(4).tolist())
    tied = {row for row, score in enumerate(lexical[0].round(4).tolist()) if score and counts[score] > 1}
    agrees(lexical, words)
    agrees(dense, near)
    for k, weights in ((10, (1.0, 2.0)), (2, (3.0, 1.0)), (60, (1.0, 1.0))):
        agrees(scoring.rrf([dense, lexical], weights, k=k, prefetch=40), edge.Fusion.Rrf(k, list(weights)), prefetches)
    agrees(scoring.dbsf([dense, lexical], prefetch=40), edge.Fusion.Dbsf(), prefetches)
    for weight in (0.001, 0.1):
        summed = Search(HybridQuery(query, terms, fusion="linear", weights=(1.0, weight), prefetch=40), 20)
        manifest = Manifest(version="v1", catalogue="c", fingerprint="f", recipe="raw", dimensions={"text": 16})
        [fused] = requests([summed], manifest, IndexSettings())
        agrees(scoring.linear([dense, lexical], (1.0, weight), prefetch=40), fused.query, fused.prefetches)


def test_an_item_is_never_its_own_answer_and_the_pool_bounds_both_sides() -> None:
    asked = QuerySet("item_keyword", {"q": "Film 0"}, {"q": "0"}, {"q": {"3", "2"}}, SetInfo(kind="item"))
    scores = np.array([[9.0, 1.0, 2.0, 3.0, 0.5, 4.0]], np.float32)
    all_items = measure.score(corpus(), asked, scores.copy())
    # Ranked 5, 3, 2, 1, 4: the two right ones are second and third.
    assert all_items["mrr"]["q"] == 0.5
    assert all_items["ndcg"]["q"] == pytest.approx((1 / math.log2(3) + 1 / 2) / (1 + 1 / math.log2(3)))
    pooled = measure.score(corpus(), asked, scores.copy(), pool=corpus().pool("kw"))
    assert (pooled["recall"]["q"], pooled["mrr"]["q"]) == (1.0, 0.5)


def test_what_has_no_score_is_no_answer() -> None:
    asked = QuerySet("text_a", {"q": "x"}, {}, {"q": {"0"}})
    found = measure.score(corpus(3), asked, np.array([[-np.inf, 0.5, -np.inf]], np.float32))
    assert found["recall"] == {"q": 0}


def test_a_split_without_items_is_said(tmp_path: Path) -> None:
    assert measure.circular_set(corpus(), "test").relevant == {}
    (tmp_path / "films.jsonl").write_text("".join(json.dumps({"title": f"Film {n}", "overview": "Rain."}) + "\n" for n in range(5)))
    done = CliRunner().invoke(prepare.app, [str(tmp_path / "films.jsonl"), "--kind", "film", "--out", str(tmp_path / "prepared")])
    assert done.exit_code == 0, done.output
    refused = run(tmp_path / "prepared", "--split", "dev", "--smoke", "--out", tmp_path / "out")
    assert refused.exit_code == SourceError.exit_code
    assert "none of them is of that split: see --split" in " ".join(refused.stderr.split())


def test_closeness_sees_through_a_model_that_calls_all_alike() -> None:
    asked = QuerySet("text_x", {"q": "x"}, {}, {"q": {"0", "1"}})
    alike = measure.closeness(corpus(), asked, np.full((1, 6), 0.99, np.float32))
    assert (alike.related, alike.gap, alike.auc) == pytest.approx((0.99, 0.0, 0.5), abs=1e-6)
    right = measure.closeness(corpus(), asked, np.array([[0.5, 0.5, 0.1, 0.1, 0.1, 0.1]], np.float32))
    assert (right.gap, right.auc) == pytest.approx((0.4, 1.0), abs=1e-6)


def test_a_difference_is_paired_and_marked() -> None:
    asked = QuerySet("text_x", {str(n): "x" for n in range(6)}, {}, {str(n): {str(n)} for n in range(6)})
    right, wrong = np.eye(6, dtype=np.float32), -np.eye(6, dtype=np.float32)
    found = tables.table1(corpus(), {"before": lambda _: wrong.copy(), "after": lambda _: right.copy()}, [asked])
    after = next(row for row in found if row["system"] == "after")
    assert after["mrr"]["mean"] == 1.0
    assert after["minus_before"]["mrr"]["low"] > 0.5
    assert "minus_before" not in next(row for row in found if row["system"] == "before")


def test_what_facts_bring_is_not_counted_as_the_trainings() -> None:
    ids = [str(n) for n in range(5)]
    next_one = {id: {ids[n + 1]} for n, id in enumerate(ids[:4])}
    asked = QuerySet("item_x", dict.fromkeys(next_one, "x"), {id: id for id in next_one}, next_one, SetInfo(kind="item"))
    right, wrong = np.eye(4, 6, 1, dtype=np.float32), -np.eye(4, 6, 1, dtype=np.float32)
    # Facts alone make it right, before training as after.
    given = {"before": wrong, "after": wrong, "before + facts": right, "after + facts": right}
    systems = {name: (lambda _, scores=scores: scores.copy()) for name, scores in given.items()}
    minus = {
        row["system"]: row["minus_before"]["mrr"]["mean"] for row in tables.table1(corpus(), systems, [asked]) if row["system"] != "before"
    }
    assert minus["before + facts"] > 0.5
    assert (minus["after"], minus["after + facts"]) == (0, 0)


def test_a_fusion_fixed_beforehand_has_intervals_and_a_paired_difference() -> None:
    asked = [QuerySet(name, {str(n): "x" for n in range(6)}, {}, {str(n): {str(n)} for n in range(6)}) for name in ("text_x", "text_y")]
    right, wrong = np.eye(6, dtype=np.float32), -np.eye(6, dtype=np.float32)
    none = np.zeros((6, 6), np.float32)
    systems = {"before": lambda _: wrong.copy(), "after": lambda _: right.copy(), "BM25": lambda _: none.copy()}
    # Not one of the grid: what the API ranks with is always measured.
    configured = tables.Fusion.of_settings(SearchSettings(bm25_weight=0.5))
    assert configured.name == "linear, BM25 times 0.5"
    found = tables.hybrids(corpus(), systems, asked, [], configured)
    assert len(found) == 2 * (len(tables.GRID) + 1)
    [before, after] = sorted((row for row in found if "intervals" in row), key=lambda row: row["system"], reverse=True)
    assert {before["fusion"], after["fusion"]} == {configured.name}
    assert after["intervals"]["text_x"]["mrr"]["mean"] == after["sets"]["text_x"]["mrr"] == 1.0
    assert "minus_before" not in before
    gained = after["minus_before"]["text_y"]["mrr"]
    assert gained["mean"] == pytest.approx(1 - before["sets"]["text_y"]["mrr"])
    assert 0 < gained["low"] <= gained["mean"] <= gained["high"] <= 1
    given = [tables.Fusion.parse("dbsf"), tables.Fusion.parse("rrf:10:1:2")]
    named = tables.hybrids(corpus(), systems, asked, given, configured)
    assert len(named) == 4
    assert all("intervals" in row for row in named)


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ({}, "linear, BM25 times 0.015"),
        ({"fusion": "dbsf"}, "dbsf"),
        ({"fusion": "rrf", "rrf_k": 7, "dense_weight": 3.0, "sparse_weight": 1.0}, "rrf k=7 3:1"),
    ],
)
def test_the_configured_fusion_is_the_settings_own(given: dict[str, Any], name: str) -> None:
    found = tables.Fusion.of_settings(SearchSettings(**given))
    assert found.name == name
    assert (found in tables.GRID) == (name != "rrf k=7 3:1")


def test_smoke_writes_one_page_that_needs_nothing_else(tmp_path: Path, prepared: Path, eval_folder: Path, tiny_encoder: Any) -> None:
    model = tiny_encoder.save(tmp_path / "encoder")
    args = ["--sets", eval_folder, "--before", model, "--after", model, "--title", "No Such Film", "--smoke", "--out", tmp_path / "out"]
    result = run(prepared, *args)
    assert result.exit_code == 0, result.output
    manifest = manifests.read(tmp_path / "out", "evaluate")
    assert {"report.html", "report.json", "report.md"} <= set(manifest["outputs"])
    of_a_set = {name for name in manifest["inputs"] if name.startswith("sets/known_desc/")}
    assert of_a_set == {f"sets/known_desc/{part}" for part in ("set.json", "queries.jsonl", "qrels/dev.tsv")}
    found = json.loads((tmp_path / "out" / "report.json").read_text())
    assert set(found["queries"]) == {"item_keyword", "known_desc", "text_keyword", "item_metadata (circular)"}
    assert {row["system"] for row in found["table1"]} == {
        *("random", "vote count", "BM25", "TF-IDF"),
        *("before", "after", "before + facts", "after + facts"),
    }
    assert {row["items"] for row in found["table1"] if row["set"] == "text_keyword"} == {"all items", "judged items"}
    # The same model twice: no difference at all.
    assert all(row["minus_before"]["ndcg"]["mean"] == 0 for row in found["table1"] if row["system"] == "after")
    assert [row["title"] for row in found["table2"]][-1] == "No Such Film"
    fixed = [row for row in found["hybrids"] if "intervals" in row]
    assert [(row["system"], row["fusion"]) for row in fixed] == [(name, "linear, BM25 times 0.015") for name in ("after", "before")]
    assert "| after | linear, BM25 times 0.015 | text_keyword |" in (tmp_path / "out" / "report.md").read_text()
    page = (tmp_path / "out" / "report.html").read_text()
    assert not re.search(r"(src|href)\s*=|@import|url\(|<script", page)
    assert page.count("<svg") == 2
    assert "circular" in page
    assert "not in the catalogue" in page
    before = written(tmp_path / "out" / "vectors")
    assert before
    assert "complete already: nothing to measure" in run(prepared, *args).stderr
    (tmp_path / "out" / manifests.MANIFEST).unlink()
    assert run(prepared, *args).exit_code == 0
    assert written(tmp_path / "out" / "vectors") == before


def written(folder: Path) -> dict[str, tuple[int, int]]:
    """How many vectors each cache holds, and the number of its last write."""
    found = {}
    for path in folder.iterdir():
        with closing(sqlite3.connect(path)) as cache:
            found[path.name] = cache.execute("SELECT count(*), max(rowid) FROM entries").fetchone()
    return found


def test_a_split_that_is_none_is_refused(tmp_path: Path, prepared: Path) -> None:
    refused = run(prepared, "--split", "validation", "--smoke", "--out", tmp_path / "out")
    assert refused.exit_code == SettingsError.exit_code
    assert "use train, dev, test" in refused.stderr


@pytest.mark.parametrize("text", ["rrf", "rrf:x:1:2", "best", "dbsf:1", "rrf:10:1", "linear", "linear:a"])
def test_a_fusion_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"write linear:BM25_WEIGHT .* dbsf, or rrf:K:DENSE:SPARSE"):
        tables.Fusion.parse(text)
    assert tables.Fusion.parse("rrf:10:1:2").name == "rrf k=10 1:2"
    assert tables.Fusion.parse("linear:0.01").name == "linear, BM25 times 0.01"


def test_the_job_on_the_test_split_judges_with_what_the_api_ranks_with() -> None:
    text = (ROOT / "k8s" / "jobs" / "evaluate" / "kustomization.yaml").read_text()
    [told] = re.findall(r"--split test --fusion (\S+)", text)
    assert tables.Fusion.parse(told) == tables.Fusion.of_settings(SearchSettings())


def test_sets_from_likes_follow_chance_and_split(prepared: Path) -> None:
    entries = read_entries(prepared)
    a, b, popular = (entry.id for entry in entries[:3])
    likes = [(f"u{n}", item) for n in range(8) for item in (a, b)]
    likes += [(f"u{n}", popular) for n in range(100)] + [("u1", "unknown item")]
    likes += [(f"v{n}", id) for n in range(200) for id in (entries[10].id, popular)]
    found = query_sets.from_colikes(entries, likes)
    related = {query: ids for queries in found.values() for query, ids in queries.relevant.items()}
    assert related == {a: {b}, b: {a}}
    splits = {entry.id: entry.split for entry in entries}
    assert all(splits[query] == split for split, queries in found.items() for query in queries.relevant)


def test_a_training_text_keeps_training_items_only(prepared: Path) -> None:
    entries = read_entries(prepared)
    clicks = [("Lost  Brothers", entry.id) for entry in entries for _ in range(2)] + [("once only", entries[0].id)]
    sets = query_sets.from_clicks(entries, clicks)
    splits = {entry.id: entry.split for entry in entries}
    found = {(split, query): ids for split, queries in sets.items() for query, ids in queries.relevant.items()}
    assert [query for _, query in found] == ["lost brothers"]
    [(split, _)] = found
    if split == "train":
        assert all(splits[id] == "train" for id in found[split, "lost brothers"])


def test_evalset_make_writes_a_set_that_reads_back(tmp_path: Path, prepared: Path) -> None:
    entries = read_entries(prepared)
    likes = tmp_path / "likes.jsonl"
    couples = [(entries[n].id, entries[n + 1].id) for n in range(0, 60, 2)]
    events = [{"user_id": f"u{n}-{m}", "item": id, "event": "liked"} for n, couple in enumerate(couples) for m in range(6) for id in couple]
    events += [{"user_id": "u0-0", "item": entries[80].id, "event": "disliked"}]
    likes.write_text("\n".join(json.dumps(event) for event in events))
    result = CliRunner().invoke(cli, ["evalset", "make", str(prepared), "--likes", str(likes), "--out", str(tmp_path / "sets")])
    assert result.exit_code == 0, result.output
    counted = {split: len(query_sets.read_set(tmp_path / "sets", "item_colike", split).relevant) for split in ("train", "dev", "test")}
    assert sum(counted.values()) == 60
    dev = query_sets.read_set(tmp_path / "sets", "item_colike", "dev")
    assert all(dev.items[query] == query for query in dev.relevant)


def test_evalset_from_a_field_that_is_not_embedded(tmp_path: Path) -> None:
    items = [Item(id=str(n), title=f"F{n}", extra={"keywords": f"all,only {n // 2}"}) for n in range(20)]
    entries = [Entry(str(n), item, "dev" if n < 4 else "train", str(n)) for n, item in enumerate(items)]
    found = query_sets.from_field(entries, "keywords")
    # What all carry says nothing; what two carry does.
    assert found["dev"].relevant == {"only 0": {"0", "1"}, "only 1": {"2", "3"}}
    assert len(found["train"].relevant) == 8
    with pytest.raises(SourceError, match="no item has a field"):
        query_sets.from_field(entries, "mood")


@pytest.mark.parametrize(
    ("lines", "args", "message"),
    [
        ('{"user": "u"}', ("--likes", "{file}"), "line 1"),
        ("not json", ("--clicks", "{file}"), "line 1"),
        ("", ("--likes", "{file}"), "too few events"),
        ("", (), "give one of --likes"),
        ("", ("--likes", "{file}", "--field", "x"), "give one of --likes"),
        ("", ("--likes", "nowhere.jsonl"), "cannot read"),
    ],
)
def test_evalset_says_what_is_wrong(tmp_path: Path, prepared: Path, lines: str, args: tuple[str, ...], message: str) -> None:
    (tmp_path / "events.jsonl").write_text(lines)
    given = [arg.format(file=tmp_path / "events.jsonl") for arg in args]
    result = CliRunner().invoke(cli, ["evalset", "make", str(prepared), *given, "--out", str(tmp_path / "sets")])
    assert result.exit_code in (SettingsError.exit_code, SourceError.exit_code)
    assert message in " ".join(result.stderr.split())
