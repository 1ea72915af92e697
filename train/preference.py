"""Tune the enhancer's adapter on what people prefer: DPO by TRL inside Ray Train, published only if facts and wording don't suffer.

    python -m train.ratings sheets work/prepared --split train --base base.jsonl --tuned tuned.jsonl --rater anna --out work/preferences
    python -m train.preference work/preferences/sheets/*.csv --adapter work/enhancer/enhancer-lora --instructions work/instructions
    python -m train.preference work/preferences/sheets/anna.csv --smoke --out work/preference       # three short steps

Raters fill in the sheets on the page or by hand. The guard measures adherence to the metadata, the share of descriptions without a
violation, and BLEU, before and after, on the dev pairs of `--instructions`. If one falls by more than `--tolerance`, nothing is published,
the adapter is left in `refused-lora/`, and the exit code is 8. After a kill the same command goes on from the last checkpoint. The result
is `enhancer-lora/`, the same as an immutable artifact, the curves of `train.enhancer`, and `manifest.json`.
"""

import json
import shutil
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from matinee.errors import ModelError, SourceError
from matinee.evaluation.splits import read_entries
from matinee.files import sha256
from matinee.settings.tree import Settings
from train.generation import lora
from train.generation.adapter_run import FIGURES, find_models, model_settings, publish, run_report
from train.generation.config import DpoConfig, DpoPlan
from train.generation.instruction_pairs import GUARD
from train.human import judgments
from train.jobs import command, launch, manifests
from train.jobs.manifests import ADAPTER
from train.reporting import curves

REFUSED = "refused-lora"
SMOKE: dict[str, Any] = {"heldout": 2, "batch": 1, "effective": 2, "max_steps": 3, "save_steps": 2, "max_tokens": 128}


class GuardError(ModelError):
    """What people prefer made the model worse at what it must not lose."""

    exit_code = 8


@dataclass(frozen=True, kw_only=True)
class PreferenceOptions:
    sheets: Annotated[list[Path], typer.Argument(help="preference sheets, filled in")]
    adapter: Annotated[str, typer.Option(help="the adapter to tune: a folder or artifact:DIGEST")] = "work/enhancer/enhancer-lora"
    prepared: Annotated[Path, typer.Option(help="the folder of train.prepare that the sheets were made of")] = Path("work/prepared")
    instructions: Annotated[Path, typer.Option(help="the folder of train.instructions, for its held-out items")] = Path("work/instructions")
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("work/preference")
    model: command.ModelOptions
    training: DpoConfig
    tolerance: Annotated[float, typer.Option(min=0, max=1, help="how much each guarded figure (0 to 1) may fall")] = 0.02
    hardware: command.Hardware
    smoke: Annotated[bool, typer.Option("--smoke", help="a quick trial: three short steps")] = False


def main(options: PreferenceOptions) -> None:
    """Train on preferences, guard, and publish."""
    out = options.out
    config = replace(options.training, **SMOKE) if options.smoke else options.training
    lora.check_precision(config.precision)
    config.accumulation_steps(options.hardware.workers)
    settings = options.model.settings("enhancer")
    config = replace(config, language=settings.language)
    chosen, counts = judgments.collect(options.sheets, {entry.id: entry for entry in read_entries(options.prepared)}, settings.language)
    plan = load(options, config, settings)
    if not manifests.is_complete(out, "preference", plan.settings, plan.inputs):
        out.mkdir(parents=True, exist_ok=True)
        judgments.write_judgments(chosen, plan.examples)
        start = time.perf_counter()
        result = launch.run(train, plan, "preference")
        save(settings, plan, result, counts, out, seconds=time.perf_counter() - start)
    else:
        command.echo(f"{out} is complete already: nothing to train")
    verdict(out)


def load(options: PreferenceOptions, config: DpoConfig, settings: Settings) -> DpoPlan:
    """Check the models and the data of the guard."""
    base, adapter = find_models(settings, options.adapter)
    assert adapter is not None  # noqa: S101
    config = replace(config, **lora.shape(adapter))
    data = manifests.read(options.instructions, "instructions")
    if not data["counts"]["dev"]["pairs"]:
        raise SourceError(
            f"{options.instructions} has no pair of the dev split for the guard: prepare with more of them "
            "(`python -m train.prepare --dev`), describe its items too "
            "(target teacher), and make the instructions again"
        )
    sheets = {f"sheets/{place}-{path.name}": sha256(path) for place, path in enumerate(sorted(set(options.sheets)))}
    return DpoPlan(
        out=options.out.absolute(),
        settings=config.as_settings() | model_settings(settings, base, adapter, data) | {"tolerance": options.tolerance},
        inputs={f"instructions/{GUARD}": data["outputs"][GUARD]} | sheets,
        gpu=options.hardware.on_gpu,
        threads=options.hardware.threads,
        workers=options.hardware.workers,
        max_failures=options.hardware.max_failures,
        config=config,
        base=base,
        adapter=adapter,
        examples=options.out.absolute() / "judgments.jsonl",
        heldout=options.instructions.absolute() / GUARD,
        new_tokens=settings.enhancer.max_new_tokens,
    )


def train(plan: DpoPlan) -> None:
    """In each worker: build the trainer (`dpo.build_trainer`), train, and measure BLEU and margins."""
    from train.generation import dpo, sft

    sft.train_adapter(plan, judgments.read_judgments(plan.examples), dpo.MarginReporter, dpo.build_trainer)


def regressions(before: dict[str, float], after: dict[str, float], tolerance: float) -> list[str]:
    """What the guard has against the model after training; empty where nothing is."""
    return [
        f"{name} fell from {before[name]:.3f} to {after[name]:.3f}"
        for name in ("adherence", "clean", "bleu")
        # Figures like 0.30 - 0.28 are a hair above 0.02.
        if before[name] - after[name] > tolerance + 1e-9
    ]


def save(settings: Settings, plan: DpoPlan, result: launch.RunResult, counts: dict[str, int], out: Path, *, seconds: float) -> None:
    """The adapter, published or refused, with the run's curves and figures."""
    before, after = ({name: result.progress["epochs"][place][name] for name in FIGURES} for place in (0, -1))
    against = regressions(before, after, plan.settings["tolerance"])
    manifests.reopen(out)
    for name in (ADAPTER, REFUSED):
        shutil.rmtree(out / name, ignore_errors=True)
    folder = out / (REFUSED if against else ADAPTER)
    lora.export(result.checkpoint / "trainer", folder, settings.enhancer.model)
    steps = curves.losses(plan.log)
    curves.write(out, steps, result.progress["epochs"])
    digest = None if against else publish(settings, plan, folder, after).digest
    report = counts | run_report(result, steps, seconds)
    report |= {"last_margin": result.progress.get("margin"), "before": before, "after": after, "against": against}
    manifests.write(out, "preference", plan.settings, plan.inputs, digest=digest, report=report)
    launch.clear(plan)


def verdict(out: Path) -> None:
    """Show the guard's verdict, of this run or of the one that ended before. Raises `GuardError`."""
    manifest = manifests.read(out, "preference")
    command.console.print_json(json.dumps(manifest["report"]))
    if manifest["report"]["against"]:
        raise GuardError(
            f"not published: on dev items {', '.join(manifest['report']['against'])} (tolerance {manifest['settings']['tolerance']}). "
            f"Raise --beta, lower --lr, or collect more judgments; the adapter is in {out / REFUSED}"
        )
    command.echo(f"{out / ADAPTER}, published; to serve it: ", (f"enhancer.adapter: artifact:{manifest['digest']}", "bold"))


app = command.job_app(PreferenceOptions, main)

if __name__ == "__main__":
    app()
