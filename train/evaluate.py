"""Evaluate an encoder before and after fine-tuning: the paper's Table 1 and 2, baselines, hybrids, text recipes; one HTML report.

    python -m train.evaluate work/prepared --sets EVAL --after work/embedder/model --out work/report
    python -m train.evaluate work/prepared --sets EVAL --after artifact:3f9a01bc... --title "Blade Runner" --title Alien
    python -m train.evaluate work/prepared --sets EVAL                  # no --after: the base model and the baselines
    python -m train.evaluate work/prepared --sets EVAL --descriptions base=work/base.jsonl --descriptions tuned=work/tuned.jsonl
    python -m train.evaluate work/prepared --smoke --out work/report                # the circular label only, a few queries

Recall@10, NDCG@10, MRR@10 with 95 % bootstrap intervals over queries, paired for after - before; mean cosine of related pairs with its gap
to random pairs and AUC. Independent sets first; the paper's kind of label (similarity by metadata) is marked circular. Writes `report.html`
(self-contained), `report.json`, `report.md` (a table for docs/experiments.md) and a manifest. Fusion weights are chosen on the
split that is shown: use `--split dev` for that, and judge with fixed ones (`--fusion linear:0.015`) elsewhere. These have intervals.
"""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from matinee.errors import SettingsError, SourceError
from matinee.evaluation.query_sets import QuerySet, read_set, set_names
from matinee.evaluation.splits import Split, read_entries
from matinee.files import write_atomically
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from matinee.text.templates import DENSE_TEMPLATE, Template
from train.jobs import command, manifests
from train.reporting import ablation, measure, paper, report, tables


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    prepared: Annotated[Path, typer.Argument(help="the folder of train.prepare")]
    sets: Annotated[Path | None, typer.Option(help="folder of evaluation sets")] = None
    before: Annotated[str | None, typer.Option(help="the model to compare with; by default the settings' embedder")] = None
    after: Annotated[str | None, typer.Option(help="the tuned model: a folder or artifact:DIGEST")] = None
    out: Annotated[Path, typer.Option(help="folder of the report")] = Path("work/report")
    split: Annotated[Split, typer.Option(help="dev to choose by, test to judge a finished model once")] = "dev"
    only: Annotated[list[str], typer.Option("--set", help="only this set; repeatable")] = field(default_factory=list)
    title: Annotated[list[str], typer.Option(help="another title for Table 2; repeatable")] = field(default_factory=list)
    descriptions: Annotated[
        list[str], typer.Option(metavar="[NAME=]FILE", help="JSONL of train.describe: compares raw, enhanced and both texts; repeatable")
    ] = field(default_factory=list)
    template: Annotated[Template, typer.Option(help="template of the embedded text: plain, as it is served, or full")] = DENSE_TEMPLATE
    fusion: Annotated[
        list[str], typer.Option(help="fusion to measure: linear:BM25_WEIGHT, dbsf or rrf:K:DENSE:SPARSE; repeatable; by default a grid")
    ] = field(default_factory=list)
    recipes: Annotated[bool, typer.Option("--recipes/--no-recipes", help="also compare texts: encodes the corpus again for each")] = True
    precision: Annotated[str, typer.Option(help="numeric precision of the encoders, with the values of the setting embedder.precision")] = (
        "auto"
    )
    smoke: Annotated[bool, typer.Option("--smoke", help="a quick trial: 20 queries a set, no recipes")] = False


@dataclass(frozen=True)
class Evaluation:
    """What is measured, and with what. `settings` and `inputs` go into the manifest."""

    corpus: measure.Corpus
    sets: list[QuerySet]
    encoders: dict[str, measure.ModelVectors]
    descriptions: list[ablation.DescriptionSet]
    serving: Settings
    settings: dict[str, Any]
    inputs: dict[str, str]


def main(options: EvaluateOptions) -> None:
    """Measure, and write the report."""
    out, evaluation = options.out, load(options)
    if manifests.is_complete(out, "evaluate", evaluation.settings, evaluation.inputs):
        command.echo(f"{out} is complete already: nothing to measure; see {out / 'report.html'}")
        return
    out.mkdir(parents=True, exist_ok=True)
    results = evaluate(evaluation, options)
    write_atomically(out / "report.json", json.dumps(results, indent=1))
    write_atomically(out / "report.md", report.markdown(results))
    write_atomically(out / "report.html", report.html(results))
    manifests.write(out, "evaluate", evaluation.settings, evaluation.inputs)
    print(report.markdown(results))
    command.echo(f"report: {out / 'report.html'}")


def load(options: EvaluateOptions) -> Evaluation:
    """Read what is measured, and load the models."""
    manifest = manifests.read(options.prepared, "prepare")
    descriptions = [ablation.DescriptionSet.read(text) for text in options.descriptions]
    serving = load_settings()
    corpus = measure.Corpus(read_entries(options.prepared), serving.embedder.language)
    sets = load_sets(corpus, options)
    encoders = load_encoders(options)
    settings = {
        **{name: getattr(options, name) for name in ("split", "template", "recipes", "precision", "smoke")},
        "sets": sorted(queries.name for queries in sets),
        "titles": options.title,
        "fusions": options.fusion,
        "search": serving.search.model_dump(mode="json"),
        "facts": serving.index.facts.model_dump(),
        "descriptions": [[one.name, one.facts, one.digest] for one in descriptions],
    }
    inputs = dict(manifest["outputs"]) | manifests.set_hashes(options.sets, (queries.name for queries in sets), [options.split])
    inputs |= {name: encoder.fingerprint for name, encoder in encoders.items()}
    return Evaluation(corpus, sets, encoders, descriptions, serving, settings, inputs)


def evaluate(evaluation: Evaluation, options: EvaluateOptions) -> dict[str, Any]:
    """All tables of the report."""
    corpus, sets, encoders, search = evaluation.corpus, evaluation.sets, evaluation.encoders, evaluation.serving.search
    systems = tables.systems(corpus, encoders, options.template, evaluation.serving.index.facts)
    fusions = [tables.Fusion.parse(text) for text in options.fusion]
    titles = [*(title for title in paper.TITLES if corpus.has(title)), *options.title]
    return {
        "split": options.split,
        "template": options.template,
        "models": {name: encoder.info() for name, encoder in encoders.items()},
        "queries": {queries.name: len(queries.relevant) for queries in sets},
        "items": len(corpus.ids),
        "table1": tables.table1(corpus, systems, sets),
        "closeness": tables.closeness(corpus, systems, sets),
        "hybrids": tables.hybrids(corpus, systems, sets, fusions, tables.Fusion.of_settings(search)),
        "table2": tables.table2(corpus, encoders, options.template, titles),
        "recipes": tables.recipes(corpus, encoders, sets) if options.recipes and not options.smoke else [],
        "ablation": ablation.table(corpus, encoders, evaluation.descriptions, sets, options.template, search),
    }


def load_encoders(options: EvaluateOptions) -> dict[str, measure.ModelVectors]:
    """The model before, and the one after where there is one."""
    models = {"before": options.before} | ({"after": options.after} if options.after else {})
    precision = "fp32" if options.smoke else options.precision
    loaded = {name: command.load_embedder(model, precision) for name, model in models.items()}
    return {name: measure.ModelVectors(embedder, options.out / "vectors") for name, embedder in loaded.items()}


def load_sets(corpus: measure.Corpus, options: EvaluateOptions) -> list[QuerySet]:
    """The independent sets, and after them the circular one."""
    folder, split, only = options.sets, options.split, options.only
    names = set_names(folder, split) if folder is not None else []
    if only:
        unknown = set(only) - set(names)
        if unknown:
            raise SettingsError(f"--set {min(unknown)}: there are {', '.join(names) or 'none'} with {split} queries")
        names = [name for name in names if name in only]
    sets = [read_set(folder, name, split) for name in names if folder is not None]
    sets += [] if only else [measure.circular_set(corpus, split, 20 if options.smoke else 200)]
    sets = [queries.restricted_to(corpus.rows.keys()) for queries in sets]
    if options.smoke:
        sets = [replace(queries, relevant=dict(list(queries.relevant.items())[:20])) for queries in sets]
    if not any(queries.relevant for queries in sets):
        raise SourceError(f"nothing to ask: no set has a {split} query about these items, and none of them is of that split: see --split")
    return [queries for queries in sets if queries.relevant]


app = command.job_app(EvaluateOptions, main)

if __name__ == "__main__":
    app()
