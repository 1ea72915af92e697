"""Evaluate an encoder before and after fine-tuning: the paper's Table 1 and 2, baselines, hybrids, text recipes; one HTML report.

    python -m train.evaluate work/prepared --sets shared/data/eval --after work/embedder/model --out work/report
    python -m train.evaluate work/prepared --sets shared/data/eval --after artifact:3f9a01bc... --title "Blade Runner" --title Alien
    python -m train.evaluate work/prepared --sets shared/data/eval                  # no --after: the base model and the baselines
    python -m train.evaluate work/prepared --sets shared/data/eval --descriptions base=work/base.jsonl --descriptions tuned=work/tuned.jsonl
    python -m train.evaluate work/prepared --smoke --out work/report                # the circular label only, a few queries

Recall@10, NDCG@10, MRR@10 with 95 % bootstrap intervals over queries, paired for after - before; mean cosine of related pairs with its gap
to random pairs and AUC. Independent sets first; the paper's kind of label (likeness by metadata) is marked circular. Writes `report.html`
(self-contained), `report.json`, `report.md` (a table for RESULTS.md) and a manifest. Fusion weights are chosen on the split that is shown:
use `--split dev` for that, and judge with fixed ones (`--fusion linear:0.015`) elsewhere. They (or the configured one) have intervals.
"""

import json
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from matinee.errors import SettingsError, SourceError
from matinee.evaluation.query_sets import QuerySet, read_set, set_names
from matinee.evaluation.splits import SPLITS, read_corpus
from matinee.files import write_atomically
from matinee.models.embedder import Embedder
from matinee.settings.load import load_settings
from matinee.text import templates
from train.jobs import runs
from train.reporting import ablation, measure, report, tables

PAPER_TITLES = ("Avengers: Age of Ultron", "La La Land", "Inception", "Interstellar")


def main(
    prepared: Annotated[Path, typer.Argument(help="the folder of train.prepare")],
    sets: Annotated[Path | None, typer.Option(help="folder of evaluation sets")] = None,
    before: Annotated[str | None, typer.Option(help="the model to compare with; by default the settings' embedder")] = None,
    after: Annotated[str | None, typer.Option(help="the tuned model: a folder or artifact:DIGEST")] = None,
    out: Annotated[Path, typer.Option(help="folder of the report")] = Path("work/report"),
    split: Annotated[str, typer.Option(help="dev to choose by, test to judge a finished model once")] = "dev",
    only: Annotated[list[str] | None, typer.Option("--set", help="only this set; repeatable")] = None,
    title: Annotated[list[str] | None, typer.Option(help="another title for Table 2; repeatable")] = None,
    descriptions: Annotated[
        list[str] | None, typer.Option(metavar="[NAME=]FILE", help="of train.describe: ablates raw, enhanced and both; repeatable")
    ] = None,
    template: Annotated[str, typer.Option(help="of the embedded text: plain, as it is served, or full")] = templates.DENSE_TEMPLATE,
    fusion: Annotated[list[str] | None, typer.Option(help="linear:BM25_WEIGHT, dbsf, rrf:K:DENSE:SPARSE; repeatable; else a grid")] = None,
    recipes: Annotated[bool, typer.Option("--recipes/--no-recipes", help="also compare texts: encodes the corpus again for each")] = True,
    precision: Annotated[str, typer.Option(help="as embedder.precision")] = "auto",
    smoke: Annotated[bool, typer.Option("--smoke", help="20 queries a set, no recipes")] = False,
) -> None:
    """Measure, and write the report."""
    manifest = runs.read_manifest(prepared, "prepare")
    if split not in SPLITS:
        raise SettingsError(f"--split {split}: use {', '.join(SPLITS)}")
    if template not in ("full", "plain"):
        raise SettingsError(f"--template {template}: use full or plain")
    written = [ablation.Written.read(given) for given in descriptions or ()]
    corpus = measure.Corpus(read_corpus(prepared))
    asked = _sets(corpus, sets, split, only, smoke=smoke)
    out.mkdir(parents=True, exist_ok=True)
    encoders = {
        name: measure.Encoder(_embedder(model, "fp32" if smoke else precision), out / "vectors")
        for name, model in (("before", before), ("after", after))
        if name == "before" or model
    }
    chosen = load_settings()
    settings: dict[str, Any] = {"split": split, "template": template, "sets": sorted(q.name for q in asked), "smoke": smoke}
    settings |= {"titles": title or [], "fusions": fusion or [], "recipes": recipes, "precision": precision}
    settings |= {"search": chosen.search.model_dump(mode="json"), "facts": chosen.index.facts.model_dump()}
    settings["descriptions"] = [[one.name, one.facts, one.digest] for one in written]
    fingerprints = {name: encoder.info()["fingerprint"] for name, encoder in encoders.items()}
    inputs = dict(manifest["outputs"]) | _set_hashes(sets, asked, split) | fingerprints
    if runs.finished(out, "evaluate", settings, inputs):
        runs.console.print(f"{out} is complete already: nothing to measure; see {out / 'report.html'}", highlight=False, soft_wrap=True)
        return
    kind = measure.Texts(template)  # type: ignore[arg-type]
    fusions = [tables.Fusion.parse(text) for text in fusion or ()]
    found = {"split": split, "template": template} | _measured(corpus, encoders, kind, asked, fusions, [*PAPER_TITLES, *(title or ())])
    found["recipes"] = tables.recipes(corpus, encoders, asked) if recipes and not smoke else []
    found["ablation"] = ablation.table(corpus, encoders, written, asked, kind.template, chosen.search)
    write_atomically(out / "report.json", json.dumps(found, indent=1))
    write_atomically(out / "report.md", report.markdown(found))
    write_atomically(out / "report.html", report.html(found))
    runs.write_manifest(out, "evaluate", settings, inputs)
    print(report.markdown(found))
    runs.console.print(f"report: {out / 'report.html'}", highlight=False)


def _measured(
    corpus: measure.Corpus,
    encoders: dict[str, measure.Encoder],
    kind: measure.Texts,
    asked: list[QuerySet],
    fusions: list[tables.Fusion],
    titles: list[str],
) -> dict[str, Any]:
    settings = load_settings()
    systems = tables.systems(corpus, encoders, kind, settings.index.facts)
    return {
        "models": {name: encoder.info() for name, encoder in encoders.items()},
        "queries": {queries.name: len(queries.relevant) for queries in asked},
        "items": len(corpus.ids),
        "table1": tables.table1(corpus, systems, asked),
        "closeness": tables.closeness(corpus, systems, asked),
        "hybrids": tables.hybrids(corpus, systems, asked, fusions, tables.Fusion.configured(settings.search)),
        "table2": tables.table2(corpus, encoders, kind, titles),
    }


def _set_hashes(folder: Path | None, asked: list[QuerySet], split: str) -> dict[str, str]:
    if folder is None:
        return {}
    files = [folder / queries.name / part for queries in asked for part in ("queries.jsonl", f"qrels/{split}.tsv")]
    # The circular set is made here, of the items: it has no files.
    return {f"sets/{name}": digest for name, digest in runs.hashes((path for path in files if path.is_file()), folder).items()}


def _embedder(model: str | None, precision: str) -> Embedder:
    flags: dict[str, Any] = {"embedder": {"precision": precision} | ({"model": model, "revision": None} if model else {})}
    settings = load_settings(flags=flags)
    return Embedder.load(settings.embedder, settings.models_dir, artifacts=settings.artifacts_uri, workload="corpus")


def _sets(corpus: measure.Corpus, folder: Path | None, split: str, only: list[str] | None, *, smoke: bool) -> list[QuerySet]:
    """The independent sets, and after them the circular one."""
    names = set_names(folder, split) if folder is not None else []
    if only:
        unknown = set(only) - set(names)
        if unknown:
            raise SettingsError(f"--set {min(unknown)}: there are {', '.join(names) or 'none'} with {split} queries")
        names = [name for name in names if name in only]
    asked = [read_set(folder, name, split) for name in names if folder is not None]
    asked += [] if only else [measure.circular_set(corpus, split, 20 if smoke else 200)]
    known = [measure.known_only(queries, corpus) for queries in asked]
    if smoke:
        known = [replace(queries, relevant=dict(list(queries.relevant.items())[:20])) for queries in known]
    if not any(queries.relevant for queries in known):
        raise SourceError(f"nothing to ask: no set has a {split} query about these items, and none of them is of that split: see --split")
    return [queries for queries in known if queries.relevant]


app = runs.job_app(main)

if __name__ == "__main__":
    app()
