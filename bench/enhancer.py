"""The enhancer's engines and precisions beside each other: speed, size, and what fewer bits cost in quality.

    python -m bench.enhancer work/prepared --out enhancer.json
    python -m bench.enhancer work/prepared --adapter work/enhancer/enhancer-lora --precision ct2-int8 --precision hqq2
    python -m bench.enhancer work/prepared --precision ct2-int8 --server http://127.0.0.1:8080/v1 --model gemma

Tokens a second at batch 1 and 8 (as they come, and of like length), by the clock and by the CPU time of this process (which other work on
the machine disturbs less); size of the weights; on held-out items (dev) the perplexity of their overviews given their other facts, and the
share of descriptions without any violation of the metadata on the first try. An OpenAI-compatible server is measured by the clock alone,
with as many requests at once as a batch has texts. One run measures all: compare its rows with each other, not with another machine's.
"""

import argparse
import gc
import json
import math
import time
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.tables import markdown
from matinee.cli.errors import run_main
from matinee.evaluation.splits import read_entries
from matinee.items import Item
from matinee.models import backends, resolve
from matinee.models.backends import CTranslate2Backend, GenerationOptions
from matinee.models.enhancer import Enhancer
from matinee.settings.load import load_settings
from matinee.text import templates

BATCH = 8
WAYS = {"batch_1": "batch 1", "batch_8": f"batch {BATCH}", "batch_8_sorted": f"batch {BATCH} of like length"}
NEW_TOKENS = 32
FIXED = {"retries": 0, "max_new_tokens": NEW_TOKENS, "batch_size": BATCH}


def speed(backend: Any, texts: Sequence[str], batch: int) -> dict[str, float]:
    """Tokens a second, and tokens a CPU second, of `texts` in batches, in the order given."""
    writing = GenerationOptions(NEW_TOKENS)
    backend.generate(texts[:batch], GenerationOptions(4))
    clock, cpu, tokens = time.perf_counter(), time.process_time(), 0
    for start in range(0, len(texts), batch):
        tokens += sum(answer.tokens for answer in backend.generate(texts[start : start + batch], writing))
    return {"tokens_per_s": tokens / (time.perf_counter() - clock), "tokens_per_cpu_s": tokens / (time.process_time() - cpu)}


def perplexity(backend: Any, items: Sequence[Item]) -> float:
    """Of the overviews, each given the item's other facts."""
    total, count = 0.0, 0
    for item in items:
        head = backend.tokenizer(f"{templates.facts_text(item.model_copy(update={'overview': ''}))}\nOverview:").input_ids
        ids = [*head, *backend.tokenizer(f" {templates.one_line(item.overview)}", add_special_tokens=False).input_ids]
        total -= sum(_log_probabilities(backend, ids)[len(head) - 1 :])
        count += len(ids) - len(head)
    return math.exp(total / count)


def _log_probabilities(backend: Any, ids: list[int]) -> list[float]:
    """Of every token but the first."""
    if isinstance(backend, CTranslate2Backend):
        [scored] = backend.generator.score_batch([backend.tokenizer.convert_ids_to_tokens(ids)])
        return list(scored.log_probs)
    with torch.inference_mode():
        batch = torch.tensor([ids], device=backend.device)
        logs = torch.log_softmax(backend.model(input_ids=batch).logits[0, :-1].float(), dim=-1)
        return [float(logs[row, token]) for row, token in enumerate(ids[1:])]


def size_mb(backend: Any, converted: Path | None) -> float:
    """Of the weights, as they lie in memory."""
    if converted is not None:
        return (converted / "model.bin").stat().st_size / 1e6
    held: float = sum(parameter.nbytes for parameter in {id(p): p for p in backend.model.parameters()}.values())
    # HQQ keeps scales and zeros beside its weights.
    scales = [v for m in backend.model.modules() for v in (getattr(m, "meta", None) or {}).values() if isinstance(v, torch.Tensor)]
    held += sum(scale.nbytes for scale in scales)
    return held / 1e6


def measure(precision: str, adapter: str | None, items: Sequence[Item], threads: int) -> dict[str, Any]:
    """One row of the table: the engine in this process."""
    settings = load_settings(flags={"enhancer": {"adapter": adapter}} if adapter else {})
    alone = settings.enhancer.model_copy(update=FIXED | {"precision": precision, "threads": threads})
    enhancer = Enhancer.load(alone, settings.models_dir, artifacts=settings.artifacts_uri)
    backend = enhancer.backend
    row = {"precision": precision, "device": backend.device} | _speeds(enhancer, items, WAYS)
    converted = None
    if isinstance(backend, CTranslate2Backend):
        models, store = settings.models_dir, settings.artifacts_uri
        model = resolve.resolve(alone.model, alone.revision, models_dir=models, artifacts=store)
        folder = resolve.resolve(alone.adapter, models_dir=models, artifacts=store) if alone.adapter else None
        converted = resolve.ctranslate2_dir(model, folder, models_dir=settings.models_dir)
    return row | {"size_mb": size_mb(backend, converted), "perplexity": perplexity(backend, items)} | _quality(enhancer, items)


def measure_server(url: str, model: str, adapter: str | None, items: Sequence[Item]) -> dict[str, Any]:
    """One row of the table: a server. It shows neither the size of its weights nor the probabilities of a text."""
    given = {"engine": "openai", "url": url, "model": model, "timeout_s": 600} | ({"adapter": adapter} if adapter else {})
    settings = load_settings(flags={"enhancer": given})
    enhancer = Enhancer.load(settings.enhancer.model_copy(update=FIXED), settings.models_dir)
    # Not the same texts in another order: such servers keep what they have read of a prompt, and need no like lengths.
    ways = ("batch_1", "batch_8")
    row = {"precision": f"server: {adapter or model}", "device": enhancer.backend.device} | _speeds(enhancer, items, ways)
    for way in ways:
        # What it takes of a CPU is taken in another process.
        row[way].pop("tokens_per_cpu_s")
    return row | _quality(enhancer, items)


def _speeds(enhancer: Enhancer, items: Sequence[Item], ways: Iterable[str]) -> dict[str, Any]:
    """Of each way. A batch of one has the first items, the others the rest."""
    texts = [enhancer.prompt(item) for item in items]
    alone, rest = texts[:BATCH], texts[BATCH:]
    order = {"batch_1": (alone, 1), "batch_8": (rest, BATCH), "batch_8_sorted": (sorted(rest, key=len), BATCH)}
    return {way: speed(enhancer.backend, *order[way]) for way in ways}


def _quality(enhancer: Enhancer, items: Sequence[Item]) -> dict[str, Any]:
    descriptions = enhancer.describe(items)
    return {"clean": sum(not description.violations for description in descriptions) / len(descriptions), "example": descriptions[0].text}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Speeds also as a multiple of bf16's, or of the first row's: by the clock, and by CPU time."""
    base = next((row for row in rows if row["precision"] == "bf16"), rows[0])
    heads = [f"{head}, {way}" for head in ("tokens/s", "times", "a CPU second, times") for way in WAYS.values()]
    cells = []
    for row in rows:
        speeds = [f"{row[way]['tokens_per_s']:.1f}" if way in row else "" for way in WAYS]
        ratios = [_ratio(row, base, way, unit) for unit in ("tokens_per_s", "tokens_per_cpu_s") for way in WAYS]
        weights = [f"{row['size_mb']:.0f}", f"{row['perplexity']:.1f}"] if "size_mb" in row else ["", ""]
        cells.append([row["precision"], *speeds, *ratios, *weights, f"{row['clean']:.2f}"])
    return markdown(("precision", *heads, "weights, MB", "perplexity", "without violation"), cells)


def _ratio(row: dict[str, Any], base: dict[str, Any], way: str, unit: str) -> str:
    """Empty where one of them has no such figure."""
    ours, theirs = row.get(way, {}).get(unit), base.get(way, {}).get(unit)
    return f"{ours / theirs:.2f}" if ours and theirs else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, help="the folder of train.prepare")
    parser.add_argument("--adapter", help="LoRA adapter to measure with: a folder or artifact:DIGEST")
    parser.add_argument(
        "--precision", action="append", choices=backends.PRECISIONS, help="precision to measure; repeatable; by default all"
    )
    parser.add_argument(
        "--server", metavar="URL", help="an OpenAI-compatible server to measure beside them, such as http://127.0.0.1:8080/v1"
    )
    parser.add_argument("--model", help="name of the model on that server; its key is MATINEE_ENHANCER__API_KEY")
    parser.add_argument("--items", type=int, default=40, help="held-out items to measure on: more than 8")
    parser.add_argument(
        "--threads", type=int, default=2, help="CPU threads; use 1 on a busy machine, where threads burn CPU time while they wait"
    )
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    held_out = [entry.item for entry in read_entries(args.prepared) if entry.split == "dev" and entry.item.overview][: args.items]
    rows = []
    if bool(args.server) != bool(args.model):
        parser.error("--server and --model belong together")
    measures = [partial(measure, precision, args.adapter, held_out, args.threads) for precision in args.precision or backends.PRECISIONS]
    if args.server:
        measures.append(partial(measure_server, args.server, args.model, args.adapter, held_out))
    for measure_row in measures:
        rows.append(measure_row())
        print(json.dumps(rows[-1]), flush=True)
        gc.collect()
        if args.out:
            args.out.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    run_main(main)
