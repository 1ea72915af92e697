"""Tune the enhancer's adapter on what people prefer: DPO by TRL inside Ray Train, published only if facts and wording don't suffer.

    python -m train.ratings sheets work/prepared --split train --base base.jsonl --tuned tuned.jsonl --rater anna --out work/preferences
    python -m train.preference work/preferences/sheets/*.csv --adapter work/enhancer/enhancer-lora --instructions work/instructions
    python -m train.preference work/preferences/sheets/anna.csv --smoke --out work/preference       # three short steps

Sheets are filled in on the page or by hand. The guard: adherence to the metadata, the share of descriptions without a violation, and BLEU,
on the pairs of `--instructions` of the dev split, before and after; where one falls by more than `--tolerance`, nothing is published, the
adapter is left in `refused-lora/`, and the exit code is 8. The same command after a kill goes on from the last checkpoint. The result is
`enhancer-lora/`, the same as an immutable artifact, the curves of `train.enhancer`, and `manifest.json`.
"""

import json
import shutil
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from matinee.errors import ModelError, SourceError
from matinee.evaluation.splits import read_corpus
from matinee.files import sha256
from matinee.models import resolve, saved_model
from matinee.models.registry import ArtifactStore, Origin
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from train.generation import lora
from train.generation.dpo import Recipe, fit
from train.human import judgments
from train.instructions import GUARD
from train.jobs import launch, runs
from train.jobs.options import Batch, Checkpointing, Epochs, Gpu, LearningRate, MaxSteps, Precision, Revision, SaveSteps, Threads, Workers
from train.jobs.runs import ADAPTER
from train.reporting import curves

REFUSED = "refused-lora"
GUARDED = ("adherence", "clean", "bleu")

SMOKE = {"heldout": 2, "batch": 1, "effective": 2, "max_steps": 3, "save_steps": 2, "max_tokens": 128}


class GuardError(ModelError):
    """What people prefer made the model worse at what it must not lose."""

    exit_code = 8


def main(
    sheets: Annotated[list[Path], typer.Argument(help="preference sheets, filled in")],
    adapter: Annotated[str, typer.Option(help="the adapter to tune: a folder or artifact:DIGEST")] = "work/enhancer/enhancer-lora",
    prepared: Annotated[Path, typer.Option(help="the folder of train.prepare that the sheets were made of")] = Path("work/prepared"),
    instructions: Annotated[Path, typer.Option(help="the folder of train.instructions, for its held-out items")] = Path(
        "work/instructions"
    ),
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("work/preference"),
    base: Annotated[str | None, typer.Option(help="the adapter's base model; by default the settings' enhancer")] = None,
    revision: Revision = None,
    precision: Precision = Recipe.precision,
    beta: Annotated[float, typer.Option(min=0.001, help="the higher, the closer it stays to the adapter it came from")] = Recipe.beta,
    smoothing: Annotated[float, typer.Option(min=0, max=0.49, help="the share of answers that may be slips")] = Recipe.smoothing,
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="how much each guarded figure (0 to 1) may fall")] = 0.02,
    epochs: Epochs = Recipe.epochs,
    batch: Batch = Recipe.batch,
    effective: Annotated[int, typer.Option(min=1, help="judgments of one step, on all workers together")] = Recipe.effective,
    lr: LearningRate = Recipe.lr,
    max_tokens: Annotated[int, typer.Option(min=32, help="of prompt and description together")] = Recipe.max_tokens,
    max_steps: MaxSteps = 0,
    heldout: Annotated[int, typer.Option(min=1, help="held-out items for the guard")] = Recipe.heldout,
    checkpointing: Checkpointing = True,
    save_steps: SaveSteps = Recipe.save_steps,
    seed: Annotated[int, typer.Option()] = 0,
    workers: Workers = 1,
    gpu: Gpu = None,
    threads: Threads = 0,
    smoke: Annotated[bool, typer.Option("--smoke", help="three short steps")] = False,
) -> None:
    """Train on preferences, guard, and publish."""
    lora.check_precision(precision)
    recipe = Recipe(
        precision=precision, epochs=epochs, batch=batch, effective=effective, lr=lr, max_tokens=max_tokens, max_steps=max_steps,
        heldout=heldout, checkpointing=checkpointing, seed=seed, save_steps=save_steps, beta=beta, smoothing=smoothing,
    )  # fmt: skip
    if smoke:
        recipe = Recipe(**recipe.as_dict() | SMOKE)
    recipe.accumulate(workers)
    judged, counts = judgments.collect(sheets, {entry.id: entry for entry in read_corpus(prepared)})
    settings = load_settings(flags={"enhancer": {"model": base, "revision": revision}} if base else {})
    on_gpu = launch.has_gpu() if gpu is None else gpu
    plan = _plan(settings, recipe, adapter, instructions, out, gpu=on_gpu, threads=threads) | {"tolerance": tolerance}
    plan["settings"] |= {"tolerance": tolerance}
    plan["inputs"] |= {f"sheets/{place}-{path.name}": sha256(path) for place, path in enumerate(sorted(set(sheets)))}
    if not runs.finished(out, "preference", plan["settings"], plan["inputs"]):
        judgments.write_judgments(judged, Path(plan["judgments"]))
        start = time.perf_counter()
        result = launch.run(fit, plan, "preference", workers)
        _conclude(settings, plan, result, counts, out, seconds=time.perf_counter() - start)
    else:
        runs.console.print(f"{out} is complete already: nothing to train", highlight=False, soft_wrap=True)
    _tell(out)


def _plan(settings: Settings, recipe: Recipe, adapter: str, instructions: Path, out: Path, *, gpu: bool, threads: int) -> dict[str, Any]:
    """All that a worker needs, as plain values: it may run on another machine that shares these folders."""
    chosen = settings.enhancer
    folder = resolve.resolve(chosen.model, chosen.revision, models_dir=settings.models_dir, artifacts=settings.artifacts_uri)
    first = resolve.resolve(adapter, models_dir=settings.models_dir, artifacts=settings.artifacts_uri)
    saved_model.check_adapter(first, folder, chosen.model)
    recipe = replace(recipe, **lora.shape(first))
    data = runs.read_manifest(instructions, "instructions")
    if not data["counts"]["dev"]["pairs"]:
        raise SourceError(
            f"{instructions} has no pair of the dev split for the guard: prepare with a larger --dev, describe its items too "
            "(target teacher), and make the instructions again"
        )
    described = {"base": chosen.model, "base_digest": saved_model.digest(folder), "adapter": saved_model.digest(first)}
    return launch.folders(out) | {
        "recipe": recipe.as_dict(),
        "settings": recipe.as_dict() | described | {"new_tokens": chosen.max_new_tokens, "target": data["settings"]["target"]},
        "inputs": {f"instructions/{GUARD}": data["outputs"][GUARD]},
        "base": str(folder),
        "adapter": str(first),
        "heldout": str((instructions / GUARD).absolute()),
        "judgments": str((out / "judgments.jsonl").absolute()),
        "new_tokens": chosen.max_new_tokens,
        "gpu": gpu,
        "threads": threads,
    }


def fallen(before: dict[str, float], after: dict[str, float], tolerance: float) -> list[str]:
    """What the guard has against the model after training; empty where nothing is."""
    return [
        f"{name} fell from {before[name]:.3f} to {after[name]:.3f}"
        for name in GUARDED
        # Figures like 0.30 - 0.28 are a hair above 0.02.
        if before[name] - after[name] > tolerance + 1e-9
    ]


def _conclude(
    settings: Settings, plan: dict[str, Any], result: dict[str, Any], counts: dict[str, int], out: Path, *, seconds: float
) -> None:
    """The adapter, published or refused, with the run's curves and figures."""
    before, after = ({name: result["epochs"][place][name] for name in GUARDED} for place in (0, -1))
    against = fallen(before, after, plan["tolerance"])
    # From here on the folder is not what its manifest says.
    (out / runs.MANIFEST).unlink(missing_ok=True)
    for name in (ADAPTER, REFUSED):
        shutil.rmtree(out / name, ignore_errors=True)
    folder = out / (REFUSED if against else ADAPTER)
    lora.export(Path(result["checkpoint"]) / "trainer", folder, settings.enhancer.model)
    steps = curves.losses(Path(plan["log"]))
    curves.write(out, steps, result["epochs"])
    digest = None if against else _publish(settings, plan, after, folder)
    report = {
        **counts,
        "steps": result["step"],
        "left_out": result["left_out"],
        "seconds": round(seconds, 1),
        "training_seconds": round(result["seconds"], 1),
        "peak_memory_gb": round(result["peak_gb"], 2),
        "first_loss": steps[0]["loss"] if steps else None,
        "last_loss": steps[-1]["loss"] if steps else None,
        "last_margin": result.get("margin"),
        "before": before,
        "after": after,
        "against": against,
        "epochs": result["epochs"],
    }
    runs.write_manifest(out, "preference", plan["settings"], plan["inputs"], digest=digest, report=report)
    launch.clear(plan)


def _publish(settings: Settings, plan: dict[str, Any], figures: dict[str, float], folder: Path) -> str:
    origin = Origin(
        base=settings.enhancer.model,
        base_revision=settings.enhancer.revision,
        base_digest=plan["settings"]["base_digest"],
        data=plan["inputs"],
        settings=plan["settings"],
        git_commit=runs.git_commit(),
        metrics=figures,
    )
    return ArtifactStore(settings.artifacts_uri).publish(folder, origin).digest


def _tell(out: Path) -> None:
    """The verdict, of now or of the run that ended before. Raises `GuardError`."""
    manifest = runs.read_manifest(out, "preference")
    runs.console.print_json(json.dumps(manifest["report"]))
    if manifest["report"]["against"]:
        raise GuardError(
            f"not published: on dev items {', '.join(manifest['report']['against'])} (tolerance {manifest['settings']['tolerance']}). "
            f"Raise --beta, lower --lr, or collect more judgments; the adapter is in {out / REFUSED}"
        )
    hint = f"enhancer.adapter: artifact:{manifest['digest']}"
    runs.console.print(f"{out / ADAPTER}, published; to serve it: [bold]{hint}[/]", highlight=False, soft_wrap=True)


app = runs.job_app(main)

if __name__ == "__main__":
    app()
