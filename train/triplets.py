"""Make training triplets and pairs: from a catalogue's columns, from text -> item pairs and from co-likes, with hard negatives.

    python -m train.triplets work/prepared --sets shared/data/eval --out work/triplets
    python -m train.triplets work/prepared --sets shared/data/eval --count 20000 --weight text_keyword=8
    python -m train.triplets work/prepared --sets shared/data/eval --descriptions work/tuned.jsonl
    python -m train.triplets work/prepared --negatives both --weight related=1     # triplets as in the paper
    python -m train.triplets work/prepared --smoke --out work/triplets      # 200, from the catalogue alone

One file a source, each line `{"anchor", "positive", "negative"?, "ids"}`; `manifest.json` counts and hashes them. `--sets` is a folder of
evaluation sets (`matinee.evaluation.query_sets`), of which only the training side trains; what their dev and test
queries ask is kept out of keywords.
No item of the dev or test split is in any role: not as anchor, as positive or as negative, whatever the qrels say. What is finished is not
made again; an unfinished folder is made anew.
"""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, cast, get_args

import orjson
import typer

from matinee.errors import SettingsError
from matinee.evaluation.splits import read_corpus
from matinee.models.descriptions import read_descriptions
from matinee.models.embedder import Embedder
from matinee.settings.load import load_settings
from matinee.text import templates
from train.embedding import negatives, pairs
from train.jobs import runs

SMOKE = 200
WEIGHTS = {
    "known_desc": 3.0, "known_tagline": 2.0, "text_keyword": 4.0, "item_keyword": 1.5, "sentence": 1.5, "title": 0.4, "genre": 0.4,
    "keyword": 1.5, "description": 8.0, "related": 0.0, "item_colike": 0.0,
}  # fmt: skip
"""Shares of the sources, by measurement (RESULTS.md); 1 for any other. `related`, the paper's kind of pair, had one smoke run: the label
that is made of the same columns rose, the other one fell. `keyword` was not measured: no catalogue here has that column. Who liked what is
not in a text."""


def main(
    prepared: Annotated[Path, typer.Argument(help="the folder of train.prepare")],
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("work/triplets"),
    sets: Annotated[Path | None, typer.Option(help="folder of evaluation sets, for their training pairs")] = None,
    descriptions: Annotated[Path | None, typer.Option(help="JSONL of train.describe: its words -> the item")] = None,
    count: Annotated[int, typer.Option(min=1, help="how many altogether")] = 8000,
    weight: Annotated[
        list[str] | None,
        typer.Option("--weight", metavar="SOURCE=NUMBER", help="share of a source, 0 leaves it out"),
    ] = None,
    miner: Annotated[str, typer.Option("--negatives", help="none, bm25, encoder or both")] = "none",
    margin: Annotated[
        float, typer.Option(min=0, max=1, help="a negative nearer than this part of the positive's cosine is refused")
    ] = 0.95,
    template: Annotated[
        str, typer.Option(help="plain: 'Title. Overview', as served; full: 'Title (year). Genres. Overview'")
    ] = templates.DENSE_TEMPLATE,
    model: Annotated[str | None, typer.Option(help="the encoder that mines; by default the settings' one")] = None,
    seed: Annotated[int, typer.Option()] = 0,
    smoke: Annotated[bool, typer.Option("--smoke", help=f"{SMOKE} rows")] = False,
) -> None:
    """Write triplets and pairs for train.embedder."""
    if miner not in get_args(negatives.Miner) or template not in get_args(templates.Template):
        raise SettingsError(f"--negatives {miner}, --template {template}: use none, bm25, encoder or both, and full or plain")
    manifest = runs.read_manifest(prepared, "prepare")
    given = _weights(weight or [])
    weights = WEIGHTS | given
    count = min(count, SMOKE) if smoke else count
    options = {"count": count, "weights": weights, "negatives": miner, "margin": margin, "template": template, "model": model, "seed": seed}
    inputs = dict(manifest["outputs"]) | _set_hashes(sets)
    inputs |= runs.hashes([descriptions], descriptions.parent) if descriptions else {}
    if runs.finished(out, "triplets", options, inputs):
        runs.console.print(f"{out} is complete already: nothing to do", highlight=False, soft_wrap=True)
        return
    items = pairs.Trainable(read_corpus(prepared), cast("templates.Template", template))
    found = pairs.from_catalogue(items, seed, [name for name in pairs.CATALOGUE if weights.get(name, 1.0) > 0])
    if sets is not None:
        found = pairs.unasked(found, sets) | pairs.from_sets(items, sets)
    if descriptions is not None:
        found |= pairs.from_descriptions(items, read_descriptions(descriptions))
    unknown = set(given) - set(found) - set(pairs.CATALOGUE)
    if unknown:
        raise SettingsError(f"--weight {min(unknown)}: there is no such source; there are {', '.join(sorted(found))}")
    chosen = pairs.choose(found, count, weights, seed)
    encode = _encoder(model, smoke=smoke) if miner in ("encoder", "both") else None
    # All that was found, not what was chosen of it: a positive that the count left out is none the less right.
    known = [pair for rows in found.values() for pair in rows]
    counts = _write(out, items, chosen, known, encode, cast("negatives.Miner", miner), margin=margin, seed=seed)
    runs.write_manifest(out, "triplets", options, inputs, counts=counts, available={name: len(rows) for name, rows in found.items()})
    runs.console.print(f"{sum(counts.values())} rows in {out}: {counts}", highlight=False)


def _weights(given: list[str]) -> dict[str, float]:
    try:
        weights = {name: float(value) for name, _, value in (text.partition("=") for text in given)}
    except ValueError:
        weights = {"": -1.0}
    if not all(0 <= weight < math.inf for weight in weights.values()):
        raise SettingsError(f"--weight {' '.join(given)}: write each as SOURCE=NUMBER, 0 or more")
    return weights


def _set_hashes(sets: Path | None) -> dict[str, str]:
    if sets is None:
        return {}
    # Those of dev and test, too: what they ask stays out of the keywords.
    return runs.hashes([*sets.glob("*/qrels/*.tsv"), *sets.glob("*/queries.jsonl")], sets)


def _encoder(model: str | None, *, smoke: bool) -> negatives.Encode:
    # To measure which precision is the fastest takes longer than a few hundred texts at any of them.
    flags: dict[str, Any] = {"precision": "fp32"} if smoke else {}
    settings = load_settings(flags={"embedder": flags | ({"model": model, "revision": None} if model else {})})
    embedder = Embedder.load(settings.embedder, settings.models_dir, artifacts=settings.artifacts_uri, workload="corpus")

    def encode(texts: Any, kind: Literal["query", "document"]) -> Any:
        return embedder.encode(texts, kind=kind)

    return encode


def _write(
    out: Path,
    items: pairs.Trainable,
    chosen: dict[str, list[pairs.Pair]],
    known: list[pairs.Pair],
    encode: negatives.Encode | None,
    miner: negatives.Miner,
    *,
    margin: float,
    seed: int,
) -> dict[str, int]:
    out.mkdir(parents=True, exist_ok=True)
    # The manifest goes first and comes back last: half a folder never looks finished.
    (out / runs.MANIFEST).unlink(missing_ok=True)
    for leftover in out.glob("*.jsonl"):
        leftover.unlink()
    flat = [pair for rows in chosen.values() for pair in rows]
    found = negatives.mine(items, flat, encode, miner=miner, known=known, margin=margin, seed=seed)
    mined = dict(zip(flat, found, strict=True))
    counts = {}
    for name, rows in chosen.items():
        kept = [pair for pair in rows if miner == "none" or mined[pair]]
        with (out / f"{name}.jsonl").open("wb") as file:
            for pair in kept:
                file.write(orjson.dumps(_row(items, pair, mined[pair]), option=orjson.OPT_APPEND_NEWLINE))
        counts[name] = len(kept)
    return counts


def _row(items: pairs.Trainable, pair: pairs.Pair, mined: tuple[str, ...]) -> dict[str, Any]:
    row: dict[str, Any] = {"anchor": pair.anchor, "positive": pair.positive}
    if mined:
        row["negative"] = items.text(mined[0])
    return row | {"ids": {"anchor": pair.anchor_id, "positive": pair.positive_id, "negative": mined[0] if mined else None}}


app = runs.job_app(main)

if __name__ == "__main__":
    app()
