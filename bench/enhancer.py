"""The enhancer's engines and precisions beside each other: speed, size, and what fewer bits cost in quality.

    python -m bench.enhancer work/prepared --out enhancer.json
    python -m bench.enhancer work/prepared --adapter work/enhancer/enhancer-lora --precision ct2-int8 --precision hqq2

Tokens a second at batch 1 and 8 (as they come, and of like length), by the clock and by the CPU time of this process (which other work on
the machine disturbs less); size of the weights; on held-out items (dev) the perplexity of their overviews given their other facts, and the
share of descriptions without any violation of the metadata on the first try. One run measures all: compare its rows with each other, not
with another machine's.
"""

import argparse
import gc
import json
import math
import time
from collections.abc import Sequence
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
    """One row of the table."""
    settings = load_settings(flags={"enhancer": {"adapter": adapter}} if adapter else {})
    changes = {"precision": precision, "retries": 0, "max_new_tokens": NEW_TOKENS, "batch_size": BATCH, "threads": threads}
    alone = settings.enhancer.model_copy(update=changes)
    enhancer = Enhancer.load(alone, settings.models_dir, artifacts=settings.artifacts_uri)
    backend = enhancer.backend
    texts = [enhancer.prompt(item) for item in items]
    row: dict[str, Any] = {"precision": precision, "device": backend.device}
    row |= {
        "batch_1": speed(backend, texts[:8], 1),
        "batch_8": speed(backend, texts, BATCH),
        "batch_8_sorted": speed(backend, sorted(texts, key=len), BATCH),
    }
    converted = None
    if isinstance(backend, CTranslate2Backend):
        models, store = settings.models_dir, settings.artifacts_uri
        model = resolve.resolve(alone.model, alone.revision, models_dir=models, artifacts=store)
        folder = resolve.resolve(alone.adapter, models_dir=models, artifacts=store) if alone.adapter else None
        converted = resolve.ctranslate2_dir(model, folder, models_dir=settings.models_dir)
    descriptions = enhancer.describe(items)
    return row | {
        "size_mb": size_mb(backend, converted),
        "perplexity": perplexity(backend, items),
        "clean": sum(not description.violations for description in descriptions) / len(descriptions),
        "example": descriptions[0].text,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Speeds also as a multiple of bf16's, by CPU time."""
    base = next((row for row in rows if row["precision"] == "bf16"), rows[0])
    heads = [*(f"tokens/s, {way}" for way in WAYS.values()), *(f"a CPU second, {way}" for way in WAYS.values())]
    cells = []
    for row in rows:
        speeds = [f"{row[way]['tokens_per_s']:.1f}" for way in WAYS]
        ratios = [f"{row[way]['tokens_per_cpu_s'] / base[way]['tokens_per_cpu_s']:.2f}x" for way in WAYS]
        cells.append([row["precision"], *speeds, *ratios, f"{row['size_mb']:.0f}", f"{row['perplexity']:.1f}", f"{row['clean']:.2f}"])
    return markdown(("precision", *heads, "weights, MB", "perplexity", "without violation"), cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prepared", type=Path, help="the folder of train.prepare")
    parser.add_argument("--adapter", help="LoRA adapter to measure with: a folder or artifact:DIGEST")
    parser.add_argument(
        "--precision", action="append", choices=backends.PRECISIONS, help="precision to measure; repeatable; by default all"
    )
    parser.add_argument("--items", type=int, default=24, help="held-out items to measure on")
    parser.add_argument(
        "--threads", type=int, default=2, help="CPU threads; use 1 on a busy machine, where threads burn CPU time while they wait"
    )
    parser.add_argument("--out", type=Path, help="write the figures to this JSON file")
    args = parser.parse_args()
    held_out = [entry.item for entry in read_entries(args.prepared) if entry.split == "dev" and entry.item.overview][: args.items]
    rows = []
    for precision in args.precision or backends.PRECISIONS:
        rows.append(measure(precision, args.adapter, held_out, args.threads))
        print(json.dumps(rows[-1]), flush=True)
        gc.collect()
        if args.out:
            args.out.write_text(json.dumps(rows, indent=1))
    print(table(rows))


if __name__ == "__main__":
    run_main(main)
