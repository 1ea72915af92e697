"""A small catalogue with evaluation sets whose qrels name test items, and the folders that the jobs make of it."""

import json
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from matinee.catalogue.reader import read_items
from matinee.evaluation.splits import read_entries
from matinee.items import Item
from tests.train.job_process import Job, starting
from train import instructions, prepare, ratings, triplets


def run(app: object, *args: object) -> Result:
    return CliRunner().invoke(app, [str(arg) for arg in args])  # type: ignore[arg-type]


def demo_items(count: int) -> list[Item]:
    from matinee import demo

    return list(read_items(str(demo.FILMS)))[:count]


SETS: dict[str, dict[str, object]] = {
    "known_desc": {"texts": "sentences", "weight": 3},
    "text_keyword": {"pool": "kw"},
    "item_keyword": {"kind": "item", "pool": "kw"},
    "text_tag": {"trainable": False},
}
"""What each set of `beir_folder` says of itself."""


def beir_folder(folder: Path, count: int = 120) -> Path:
    """Every fifth film is a test film, every tenth a dev one; the qrels name films of every split for queries of every split."""
    items = demo_items(count)
    splits = ["test" if row % 5 == 0 else "dev" if row % 10 == 3 else "train" for row in range(count)]
    folder.mkdir()
    with (folder / "corpus.jsonl").open("w") as out:
        for item, split in zip(items, splits, strict=True):
            facts = {"year": item.year, "genres": ", ".join(item.genres), "language": item.language, "votes": 10, "split": split}
            row = {"_id": item.id, "title": item.title, "text": item.overview}
            out.write(json.dumps(row | {"metadata": facts | {"judged_kw": True, "judged_colike": False}}) + "\n")
    ids = [str(item.id) for item in items]
    words = {genre: [id for id, item in zip(ids, items, strict=True) if genre in item.genres] for genre in ("Drama", "Comedy", "War")}
    for split in ("train", "dev"):
        own = [id for id, given in zip(ids, splits, strict=True) if given == split]
        crossed = {f"d_{split}_{id}": [id] for id in [*own[:10], ids[0]]}
        _write_set(folder, "known_desc", split, crossed, {query: found[0] for query, found in crossed.items()})
        _write_set(folder, "text_keyword", split, {f"t_{split}_{word}": found for word, found in words.items()}, {})
        about = {f"k_{split}_{id}": [ids[0], ids[3], ids[row + 1]] for row, id in enumerate([*own[:8], ids[5]])}
        _write_set(folder, "item_keyword", split, about, {query: query.removeprefix(f"k_{split}_") for query in about})
    _write_set(folder, "text_tag", "train", {"g_x": [ids[1]]}, {})
    return folder


def _write_set(folder: Path, name: str, split: str, relevant: dict[str, list[str]], items: dict[str, str]) -> None:
    (folder / name / "qrels").mkdir(parents=True, exist_ok=True)
    (folder / name / "set.json").write_text(json.dumps(SETS[name]))
    rows = [f"{query}\t{id}\t1" for query, ids in relevant.items() for id in ids]
    (folder / name / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *rows]) + "\n")
    with (folder / name / "queries.jsonl").open("a") as out:
        for query in relevant:
            metadata = {"split": split} | ({"item": items[query]} if query in items else {})
            out.write(json.dumps({"_id": query, "text": f"words of {query}", "metadata": metadata}) + "\n")


@pytest.fixture(scope="session")
def eval_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return beir_folder(tmp_path_factory.mktemp("eval") / "sets")


@pytest.fixture(scope="session")
def prepared(eval_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("prepared") / "out"
    result = run(prepare.app, eval_folder, "--kind", "film", "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def pairs_folder(eval_folder: Path, prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs with BM25 negatives: mined without a model."""
    out = tmp_path_factory.mktemp("triplets") / "out"
    result = run(triplets.app, prepared, "--sets", eval_folder, "--out", out, "--negatives", "bm25", "--weight", "related=1", "--count", 40)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def pairs_of_films(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of train.instructions."""
    out = tmp_path_factory.mktemp("instructions") / "out"
    result = run(instructions.app, prepared, "--given", "title", "--limit", 40, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def texts(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> list[object]:
    """`--base` and `--tuned` with a description of every item by each model."""
    folder = tmp_path_factory.mktemp("descriptions")
    told: list[object] = []
    for name, says in (("base", "Something of {}, perhaps; <b>who</b> knows."), ("tuned", "A story of “{}”, told with care.")):
        rows = [json.dumps({"id": e.id, "description": says.format(e.item.title)}) for e in read_entries(prepared)]
        (folder / f"{name}.jsonl").write_text("\n".join(rows) + "\n")
        told += [f"--{name}", folder / f"{name}.jsonl"]
    return told


@pytest.fixture(scope="session")
def make_sheets(prepared: Path, texts: list[object]) -> Callable[..., Path]:
    """Makes sheets for raters: `make_sheets(out, "ann", "bob", split="train", items=3)`; returns `out`."""

    def make(out: Path, *raters: str, split: str = "test", **options: object) -> Path:
        more = [text for name, value in options.items() for text in (f"--{name}", value)]
        named = [text for rater in raters for text in ("--rater", rater)]
        result = run(ratings.app, "sheets", prepared, *texts, *named, "--split", split, "--out", out, *more)
        assert result.exit_code == 0, result.output
        return out

    return make


@pytest.fixture(autouse=True)
def _home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Models and artifacts of a test stay its own."""
    monkeypatch.setenv("MATINEE_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def start() -> Iterator[Callable[..., Job]]:
    with starting() as begin:
        yield begin


@contextmanager
def _one_ray() -> Iterator[None]:
    import ray

    yield
    ray.shutdown()


@pytest.fixture
def train_here(while_in: Any) -> Callable[..., Result]:
    """Runs a training job in this process. The first starts Ray as it would for itself, and all of this folder share that session."""
    while_in(Path(__file__).parent, _one_ray)

    def train(job: str, *args: object, home: Path) -> Result:
        with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
            # Ray's and torch's own, as in a process of its own.
            warnings.simplefilter("ignore")
            app = import_module(f"train.{job}").app
            patch.setenv("MATINEE_HOME", str(home))
            patch.setattr("ray.shutdown", lambda: None)
            return run(app, *args)

    return train


@pytest.fixture
def empty_results() -> dict[str, Any]:
    """What `train.evaluate` reports where nothing was measured."""
    tables = dict.fromkeys(("table1", "table2", "closeness", "hybrids", "recipes"), ())
    return {"split": "dev", "template": "plain", "items": 0, "models": {}, "ablation": {"rows": [], "means": []}, **tables}
