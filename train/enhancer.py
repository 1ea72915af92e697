"""Fine-tune the enhancer: a LoRA adapter on Gemma by TRL's trainer inside Ray Train, on a CPU, one GPU or several.

    python -m train.enhancer work/instructions --out work/enhancer                          # QLoRA on NF4, the paper's settings
    python -m train.enhancer work/instructions --base hub:google/gemma-3-4b-it --workers 4
    python -m train.enhancer work/instructions --precision bf16 --no-checkpointing --limit 1200 --max-tokens 192
    python -m train.enhancer work/instructions --merge --ct2 --out work/enhancer            # bf16 weights, and CTranslate2 int8
    python -m train.enhancer work/instructions --smoke --out work/enhancer                  # about a minute on a CPU

BLEU on the held-out pairs is measured before the first step and after each epoch. The same command after a kill, of a worker or of
everything, goes on from the last checkpoint (`--save-steps`). The result: `enhancer-lora/` (what `enhancer.adapter` takes), the same as an
immutable artifact under `artifacts.uri`, `loss.csv`, `epochs.csv`, `loss.png`, `bleu.png`, `samples.json` and `manifest.json` with time,
tokens a second and peak memory.
"""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from matinee.errors import ModelError, SettingsError
from matinee.files import write_atomically
from matinee.models import convert, resolve, saved_model
from matinee.models.registry import ArtifactStore, ModelManifest, Origin
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from train.generation import lora
from train.generation.sft import SAMPLES, Recipe, fit
from train.instructions import read_pairs
from train.jobs import launch, runs
from train.jobs.options import Batch, Checkpointing, Epochs, Gpu, LearningRate, MaxSteps, Precision, Revision, SaveSteps, Threads, Workers
from train.jobs.runs import ADAPTER
from train.reporting import curves

MERGED, CT2 = "merged", "ct2-int8"

SMOKE = {"limit": 16, "heldout": 4, "batch": 2, "effective": 4, "max_steps": 6, "save_steps": 2, "max_tokens": 128}


def main(
    instructions: Annotated[Path, typer.Argument(help="the folder of train.instructions")],
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("work/enhancer"),
    base: Annotated[str | None, typer.Option(help="pypi:, hub:, artifact: or a folder; by default the settings' enhancer")] = None,
    revision: Revision = None,
    adapter: Annotated[
        str | None, typer.Option(help="go on from this adapter, of its rank, alpha and dropout: a folder or artifact:DIGEST")
    ] = None,
    precision: Precision = Recipe.precision,
    rank: Annotated[int, typer.Option(min=1, help="LoRA's r")] = Recipe.rank,
    alpha: Annotated[int, typer.Option(min=1, help="LoRA's alpha")] = Recipe.alpha,
    dropout: Annotated[float, typer.Option(min=0, max=0.9, help="LoRA's")] = Recipe.dropout,
    epochs: Epochs = Recipe.epochs,
    batch: Batch = Recipe.batch,
    effective: Annotated[int, typer.Option(min=1, help="pairs of one step, on all workers together")] = Recipe.effective,
    lr: LearningRate = Recipe.lr,
    warmup: Annotated[float, typer.Option(min=0, max=0.9, help="part of the steps in which the rate rises")] = Recipe.warmup,
    schedule: Annotated[str, typer.Option(help="linear, cosine, constant_with_warmup")] = Recipe.schedule,
    weight_decay: Annotated[float, typer.Option(min=0)] = Recipe.weight_decay,
    max_tokens: Annotated[int, typer.Option(min=32, help="of prompt and text together")] = Recipe.max_tokens,
    max_steps: MaxSteps = 0,
    limit: Annotated[int, typer.Option(min=0, help="train on that many pairs; 0: on all")] = 0,
    heldout: Annotated[int, typer.Option(min=0, help="held-out items for BLEU")] = Recipe.heldout,
    checkpointing: Checkpointing = True,
    save_steps: SaveSteps = Recipe.save_steps,
    seed: Annotated[int, typer.Option()] = 0,
    workers: Workers = 1,
    gpu: Gpu = None,
    threads: Threads = 0,
    merge: Annotated[bool, typer.Option("--merge", help="write and publish base + adapter as bf16 weights")] = False,
    ct2: Annotated[bool, typer.Option("--ct2", help="convert base + adapter to CTranslate2 int8")] = False,
    smoke: Annotated[bool, typer.Option("--smoke", help="six short steps")] = False,
) -> None:
    """Train an adapter and publish it."""
    lora.check_precision(precision)
    recipe = Recipe(
        precision, rank, alpha, dropout, epochs, batch, effective, lr, warmup, schedule, weight_decay, max_tokens, max_steps, limit,
        heldout, checkpointing, seed, save_steps,
    )  # fmt: skip
    if smoke:
        # What is asked for counts where it is smaller still.
        recipe = Recipe(**recipe.as_dict() | {name: min(most, getattr(recipe, name) or most) for name, most in SMOKE.items()})
    recipe.accumulate(workers)
    on_gpu = launch.has_gpu() if gpu is None else gpu
    if on_gpu and precision != "fp32" and not launch.bf16_pays(on_gpu):
        raise SettingsError(f"--precision {precision} computes in bf16, which this GPU does not have: use --precision fp32")
    settings = load_settings(flags={"enhancer": {"model": base, "revision": revision}} if base else {})
    plan = _plan(settings, recipe, instructions, adapter, out, gpu=on_gpu, threads=threads)
    if not runs.finished(out, "enhancer", plan["settings"], plan["inputs"]):
        start = time.perf_counter()
        result = launch.run(fit, plan, "enhancer", workers)
        _explained(publish, settings, plan, result, out, seconds=time.perf_counter() - start)
    else:
        runs.console.print(f"{out} is complete already: nothing to train", highlight=False, soft_wrap=True)
    if merge:
        _explained(_merge, settings, plan, out)
    if ct2:
        _explained(convert.to_ctranslate2, Path(plan["base"]), out / ADAPTER, out / CT2)


def _plan(
    settings: Settings, recipe: Recipe, instructions: Path, adapter: str | None, out: Path, *, gpu: bool, threads: int
) -> dict[str, Any]:
    """All that a worker needs, as plain values: it may run on another machine that shares these folders."""
    data = runs.read_manifest(instructions, "instructions")
    chosen = settings.enhancer
    folder = resolve.resolve(chosen.model, chosen.revision, models_dir=settings.models_dir, artifacts=settings.artifacts_uri)
    if saved_model.is_adapter(folder):
        raise ModelError(f"{chosen.model} is an adapter: name its base model with --base, and the adapter with --adapter")
    first, first_digest = None, None
    if adapter is not None:
        first = resolve.resolve(adapter, models_dir=settings.models_dir, artifacts=settings.artifacts_uri)
        saved_model.check_adapter(first, folder, chosen.model)
        first_digest = saved_model.digest(first)
        recipe = _of_adapter(recipe, first)
    described = {
        "base": chosen.model,
        "base_digest": saved_model.digest(folder),
        "adapter": first_digest,
        "new_tokens": chosen.max_new_tokens,
    }
    return launch.folders(out) | {
        "recipe": recipe.as_dict(),
        "settings": recipe.as_dict() | described | {"target": data["settings"]["target"]},
        "inputs": {f"instructions/{name}": digest for name, digest in data["outputs"].items()},
        "base": str(folder),
        "adapter": str(first) if first else None,
        "instructions": str(instructions.absolute()),
        "new_tokens": chosen.max_new_tokens,
        "gpu": gpu,
        "threads": threads,
    }


def _of_adapter(recipe: Recipe, adapter: Path) -> Recipe:
    """The recipe with the adapter's own shape. Raises `SettingsError` where another one was asked for."""
    own = lora.shape(adapter)
    for name, value in own.items():
        if getattr(recipe, name) not in (value, getattr(Recipe, name)):
            raise SettingsError(
                f"--{name} {getattr(recipe, name):g}: the adapter {adapter} has {value:g}, and goes on with it; leave --{name} out"
            )
    return replace(recipe, **own)


def publish(settings: Settings, plan: dict[str, Any], result: dict[str, Any], out: Path, *, seconds: float) -> ModelManifest:
    """The adapter in the job's folder and as an artifact, with the run's curves and figures."""
    # From here on the folder is not what its manifest says.
    (out / runs.MANIFEST).unlink(missing_ok=True)
    lora.export(Path(result["checkpoint"]) / "trainer", out / ADAPTER, settings.enhancer.model)
    for stale in (MERGED, CT2):
        # Of the adapter that was here before.
        shutil.rmtree(out / stale, ignore_errors=True)
    steps = curves.losses(Path(plan["log"]))
    curves.write(out, steps, result["epochs"])
    _samples(plan, result, out / "samples.json")
    figures = {name: value for name, value in result["epochs"][-1].items() if name in ("bleu", "adherence", "clean")}
    manifest = ArtifactStore(settings.artifacts_uri).publish(out / ADAPTER, _origin(settings, plan, figures))
    report = {
        "steps": result["step"],
        "left_out": result["left_out"],
        "seconds": round(seconds, 1),
        "training_seconds": round(result["seconds"], 1),
        "tokens": result["tokens"],
        "tokens_per_second": round(result["tokens"] / result["seconds"], 1) if result["seconds"] else None,
        "peak_memory_gb": round(result["peak_gb"], 2),
        "first_loss": steps[0]["loss"] if steps else None,
        "last_loss": steps[-1]["loss"] if steps else None,
        "epochs": result["epochs"],
    }
    runs.write_manifest(out, "enhancer", plan["settings"], plan["inputs"], digest=manifest.digest, report=report)
    launch.clear(plan)
    runs.console.print_json(json.dumps(report))
    hint = f"enhancer.adapter: artifact:{manifest.digest}"
    runs.console.print(
        f"{out / ADAPTER}, published in {settings.artifacts_uri}; to serve it: [bold]{hint}[/]", highlight=False, soft_wrap=True
    )
    return manifest


def _origin(settings: Settings, plan: dict[str, Any], figures: dict[str, float]) -> Origin:
    return Origin(
        base=settings.enhancer.model,
        base_revision=settings.enhancer.revision,
        base_digest=plan["settings"]["base_digest"],
        data=plan["inputs"],
        settings=plan["settings"],
        git_commit=runs.git_commit(),
        metrics=figures,
    )


def _samples(plan: dict[str, Any], result: dict[str, Any], path: Path) -> None:
    """Some held-out items with their text, and what the model wrote of them before training and after each epoch."""
    pairs = read_pairs(Path(plan["instructions"]) / "heldout.jsonl")[: min(SAMPLES, plan["recipe"]["heldout"])]
    rows = [
        {"item": pair.item.facts(), "text": pair.text, "written": {str(of["epoch"]): of["texts"][place] for of in result["samples"]}}
        for place, pair in enumerate(pairs)
    ]
    write_atomically(path, json.dumps(rows, indent=1, ensure_ascii=False))


def _merge(settings: Settings, plan: dict[str, Any], out: Path) -> None:
    convert.merge(Path(plan["base"]), out / ADAPTER, out / MERGED)
    report = runs.read_manifest(out, "enhancer")["report"]
    figures = {name: value for name, value in report["epochs"][-1].items() if name in ("bleu", "adherence", "clean")}
    manifest = ArtifactStore(settings.artifacts_uri).publish(out / MERGED, _origin(settings, plan, figures))
    runs.console.print(f"{out / MERGED}: to serve it [bold]enhancer.model: artifact:{manifest.digest}[/]", highlight=False, soft_wrap=True)


def _explained(write: Any, *given: Any, **more: Any) -> None:
    """A result is written last: where the disk is full by then, the checkpoints are still there."""
    try:
        write(*given, **more)
    except OSError as error:
        raise ModelError(f"cannot write the result: {error}. Make room; the same command goes on from the last checkpoint") from error


app = runs.job_app(main)

if __name__ == "__main__":
    app()
