"""Make training triplets and pairs: from a catalogue's columns, from text -> item pairs and from co-likes, with hard negatives.

    python -m train.triplets work/prepared --sets EVAL --out work/triplets
    python -m train.triplets work/prepared --sets EVAL --count 20000 --weight keyword=8
    python -m train.triplets work/prepared --sets EVAL --descriptions work/tuned.jsonl
    python -m train.triplets work/prepared --negatives both --weight related=1     # triplets as in the paper
    python -m train.triplets work/prepared --negatives encoder --engine ray --workers 4        # four processes encode
    python -m train.triplets work/prepared --smoke --out work/triplets      # 200, from the catalogue alone

One file a source, each line `{"anchor", "positive", "negative"?, "ids"}`; `manifest.json` counts and hashes them. `--sets` is a folder of
evaluation sets (`matinee.evaluation.query_sets`). Only their training side trains, and no keyword is a dev or test query.
No item of the dev or test split is in any role: not as anchor, as positive or as negative, whatever the qrels say. A finished folder is
not made again; an unfinished one is made anew. With `--engine ray`, the encoder that mines runs in processes of a Ray cluster
(`RAY_ADDRESS`) or of this machine; the choice of negatives stays in this process.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from matinee.errors import SettingsError
from matinee.evaluation.query_sets import read_set, set_names
from matinee.evaluation.scoring import Encode
from matinee.evaluation.splits import SPLITS, read_entries
from matinee.files import write_jsonl
from matinee.languages import ENGLISH
from matinee.models.descriptions import read_descriptions
from matinee.settings import local_ray
from matinee.settings.load import load_settings
from matinee.text import templates
from train.embedding import negatives, pairs
from train.embedding.negatives import Miner
from train.embedding.sources import PairSources
from train.ingesting.plan import BY_SIZE, EngineOptions, machine, only_pool, wants_ray
from train.jobs import command, manifests
from train.jobs.training_items import TrainingItems

SMOKE = 200
WEIGHTS = {"sentence": 1.5, "title": 0.4, "genre": 0.4, "keyword": 1.5, "description": 8.0, "related": 0.0}
"""Shares of the sources that are no evaluation sets, by measurement (docs/experiments.md); a set says its own in its `set.json`. `related`,
the paper's kind of pair, had one smoke run: the label that is made of the same columns rose, the other one fell. `keyword` was not
measured: no catalogue here has that column."""


@dataclass(frozen=True, kw_only=True)
class TripletsOptions:
    prepared: Annotated[Path, typer.Argument(help="the folder of train.prepare")]
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("work/triplets")
    sources: PairSources
    negatives: Annotated[Miner, typer.Option(help="how hard negatives are found: none, bm25, encoder or both")] = "none"
    margin: Annotated[float, typer.Option(min=0, max=1, help="a negative nearer than this part of the positive's cosine is refused")] = 0.95
    template: Annotated[
        templates.Template, typer.Option(help="plain: 'Title. Overview', as served; full: 'Title (year). Genres. Overview'")
    ] = templates.DENSE_TEMPLATE
    model: Annotated[str | None, typer.Option(help="the encoder that mines; by default the settings' one")] = None
    seed: Annotated[int, typer.Option(help="random seed of the choice of pairs and negatives")] = 0
    smoke: Annotated[bool, typer.Option("--smoke", help=f"a quick trial: at most {SMOKE} rows")] = False
    spread: EngineOptions = BY_SIZE


def main(options: TripletsOptions) -> None:
    """Write triplets and pairs for train.embedder."""
    out, sets = options.out, options.sources.sets
    if options.spread.engine == "ray" and options.negatives not in ("encoder", "both"):
        raise SettingsError(f"--engine ray spreads the encoder, which --negatives {options.negatives} does not use: leave --engine out")
    manifest = manifests.read(options.prepared, "prepare")
    chosen_weights = parse_weights(options.sources.weight)
    weights = WEIGHTS | set_weights(sets) | chosen_weights
    count = min(options.sources.count, SMOKE) if options.smoke else options.sources.count
    settings = {name: getattr(options, name) for name in ("negatives", "margin", "template", "model", "seed")}
    known = load_settings()
    language = known.embedder.language
    settings |= {"count": count, "weights": weights, "language": language}
    settings |= {} if known.language == ENGLISH else {"queries_in": known.language}
    inputs = dict(manifest["outputs"]) | input_hashes(sets, options.sources.descriptions)
    if manifests.is_complete(out, "triplets", settings, inputs):
        command.echo(f"{out} is complete already: nothing to do")
        return
    items = TrainingItems(read_entries(options.prepared), options.template, language)
    available = pairs.from_catalogue(items, options.seed, [name for name in pairs.CATALOGUE if weights.get(name, 1.0) > 0], known.language)
    if sets is not None:
        available = pairs.without_test_keywords(available, sets) | pairs.from_sets(items, sets)
    if options.sources.descriptions is not None:
        available |= pairs.from_descriptions(items, read_descriptions(options.sources.descriptions))
    unknown = set(chosen_weights) - set(available) - set(pairs.CATALOGUE)
    if unknown:
        raise SettingsError(f"--weight {min(unknown)}: there is no such source; there are {', '.join(sorted(available))}")
    chosen = pairs.choose(available, count, weights, options.seed)
    mined = mine(options, items, chosen, available)
    counts = write(out, items, chosen, mined)
    manifests.write(out, "triplets", settings, inputs, counts=counts, available={name: len(rows) for name, rows in available.items()})
    command.echo(f"{sum(counts.values())} rows in {out}: {counts}")


def set_weights(folder: Path | None) -> dict[str, float]:
    """The shares that the evaluation sets of a folder have for themselves."""
    names = set_names(folder, "train") if folder else []
    return {name: read_set(folder, name, "train").info.weight for name in names if folder}


def parse_weights(texts: list[str]) -> dict[str, float]:
    try:
        weights = {name: float(value) for name, _, value in (text.partition("=") for text in texts)}
    except ValueError:
        weights = {"": -1.0}
    if not all(0 <= weight < math.inf for weight in weights.values()):
        raise SettingsError(f"--weight {' '.join(texts)}: write each as SOURCE=NUMBER, 0 or more")
    return weights


def input_hashes(sets: Path | None, descriptions: Path | None) -> dict[str, str]:
    # Queries of dev and test, too: their words stay out of the keywords.
    names = sorted({name for split in SPLITS for name in set_names(sets, split)}) if sets else []
    return manifests.set_hashes(sets, names, SPLITS) | (manifests.hashes([descriptions], descriptions.parent) if descriptions else {})


def mine(
    options: TripletsOptions, items: TrainingItems, chosen: dict[str, list[pairs.TextPair]], available: dict[str, list[pairs.TextPair]]
) -> dict[pairs.TextPair, str | None] | None:
    """The hard negative of each pair; None where none are wanted."""
    if options.negatives == "none":
        return None
    flat = [pair for rows in chosen.values() for pair in rows]
    # All that are available: a positive that the count left out is none the less right.
    known = [pair for rows in available.values() for pair in rows]
    with engine(options, len(items.texts) + len(flat)) as encode:
        mined = negatives.mine(items, flat, encode, miner=options.negatives, known=known, margin=options.margin, seed=options.seed)
    return dict(zip(flat, mined, strict=True))


@contextmanager
def engine(options: TripletsOptions, texts: int) -> Iterator[Encode | None]:
    """The encoder that mines, here or on a Ray; None where BM25 mines alone."""
    if options.negatives not in ("encoder", "both"):
        yield None
        return
    # To measure which precision is the fastest takes longer than a few hundred texts at any of them.
    settings = command.embedder_settings(options.model, "fp32" if options.smoke else None)
    if wants_ray(options.spread, texts):
        from train.ingesting.joining import join_ray

        here = only_pool(options.spread, machine()) if local_ray.is_local() else None
        with join_ray(1 if here is None else max(1.0, here.size * here.cpus)):
            # Ray reads its token when it is imported.
            from train.ingesting.streams import room
            from train.ingesting.texts import ClusterTexts

            pool = only_pool(options.spread, room()) if here is None else here
            if pool is not None:
                command.echo(f"engine ray: {pool.size} processes to embed ({'GPU' if pool.gpus else f'{pool.threads} CPU threads'} each)")
                yield ClusterTexts(settings, pool)
                return
    embedder = command.load_embedder(options.model, "fp32" if options.smoke else None)
    yield lambda texts, kind: embedder.encode(texts, kind=kind)


def write(
    out: Path, items: TrainingItems, chosen: dict[str, list[pairs.TextPair]], mined: dict[pairs.TextPair, str | None] | None
) -> dict[str, int]:
    """One file a source. A pair without a negative is left out where negatives are mined."""
    manifests.reopen(out)
    for leftover in out.glob("*.jsonl"):
        leftover.unlink()
    counts = {}
    for name, rows in chosen.items():
        kept = [pair for pair in rows if mined is None or mined[pair]]
        write_jsonl(out / f"{name}.jsonl", (as_row(items, pair, mined[pair] if mined else None) for pair in kept))
        counts[name] = len(kept)
    return counts


def as_row(items: TrainingItems, pair: pairs.TextPair, negative: str | None) -> dict[str, Any]:
    row: dict[str, Any] = {"anchor": pair.anchor, "positive": pair.positive}
    if negative is not None:
        row["negative"] = items.text(negative)
    return row | {"ids": {"anchor": pair.anchor_id, "positive": pair.positive_id, "negative": negative}}


app = command.job_app(TripletsOptions, main)

if __name__ == "__main__":
    app()
