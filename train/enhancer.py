"""Fine-tune the enhancer: a LoRA adapter on Gemma by TRL's trainer inside Ray Train, on a CPU, one GPU or several.

    python -m train.enhancer work/instructions --out work/enhancer                          # QLoRA on NF4, the paper's settings
    python -m train.enhancer work/instructions --base hub:google/gemma-3-4b-it --workers 4
    python -m train.enhancer work/instructions --precision bf16 --no-checkpointing --limit 1200 --max-tokens 192
    python -m train.enhancer work/instructions --merge --ct2 --out work/enhancer            # bf16 weights, and CTranslate2 int8
    python -m train.enhancer work/instructions --smoke --out work/enhancer                  # about a minute on a CPU

BLEU on the held-out pairs is measured before the first step and after each epoch. If a worker or the whole job is killed, the same command
goes on from the last checkpoint (`--save-steps`). The result: `enhancer-lora/` (what `enhancer.adapter` takes), the same as an immutable
artifact under `artifacts.uri`, `loss.csv`, `epochs.csv`, `loss.png`, `bleu.png`, `samples.json` and `manifest.json` with time, tokens a
second and peak memory.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import typer

from matinee.errors import ModelError, SettingsError
from matinee.files import write_atomically
from matinee.models import convert
from matinee.settings.tree import Settings
from train.generation import lora
from train.generation.adapter_run import find_models, model_settings, publish, run_report
from train.generation.config import SAMPLES, AdapterPlan, SftConfig
from train.generation.instruction_pairs import read_pairs
from train.jobs import command, launch, manifests
from train.jobs.manifests import ADAPTER
from train.reporting import curves

MERGED, CT2 = "merged", "ct2-int8"
SMOKE = {"limit": 16, "heldout": 4, "batch": 2, "effective": 4, "max_steps": 6, "save_steps": 2, "max_tokens": 128}


@dataclass(frozen=True, kw_only=True)
class EnhancerOptions:
    instructions: Annotated[Path, typer.Argument(help="the folder of train.instructions")]
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("work/enhancer")
    model: command.ModelOptions
    adapter: Annotated[
        str | None, typer.Option(help="go on from this adapter, of its rank, alpha and dropout: a folder or artifact:DIGEST")
    ] = None
    training: SftConfig
    hardware: command.Hardware
    merge: Annotated[bool, typer.Option("--merge", help="write and publish base + adapter as bf16 weights")] = False
    ct2: Annotated[bool, typer.Option("--ct2", help="convert base + adapter to CTranslate2 int8")] = False
    smoke: Annotated[bool, typer.Option("--smoke", help="a quick trial: six short steps")] = False


def main(options: EnhancerOptions) -> None:
    """Train an adapter and publish it."""
    out = options.out
    config = training_config(options)
    settings = options.model.settings("enhancer")
    plan = load(options, config, settings)
    if not manifests.is_complete(out, "enhancer", plan.settings, plan.inputs):
        start = time.perf_counter()
        result = launch.run(train, plan, "enhancer")
        with disk_errors():
            save(settings, plan, result, out, seconds=time.perf_counter() - start)
    else:
        command.echo(f"{out} is complete already: nothing to train")
    with disk_errors():
        if options.merge:
            save_merged(settings, plan, out)
        if options.ct2:
            convert.to_ctranslate2(plan.base, out / ADAPTER, out / CT2)


def training_config(options: EnhancerOptions) -> SftConfig:
    """What the run computes. Raises `SettingsError` where options contradict each other or the machine."""
    config, hardware = options.training, options.hardware
    lora.check_precision(config.precision)
    if options.smoke:
        # An option counts where it is smaller still.
        smaller: dict[str, Any] = {name: min(most, getattr(config, name) or most) for name, most in SMOKE.items()}
        config = replace(config, **smaller)
    config.accumulation_steps(hardware.workers)
    if hardware.on_gpu and config.precision != "fp32" and not hardware.fast_in_bf16:
        raise SettingsError(f"--precision {config.precision} computes in bf16, which this GPU does not have: use --precision fp32")
    if config.precision == "bf16" and not hardware.fast_in_bf16:
        command.echo("this CPU has no bf16 instructions, and computes in bf16 about a hundred times slower: --precision fp32 is quicker")
    return config


def load(options: EnhancerOptions, config: SftConfig, settings: Settings) -> AdapterPlan:
    """Check the data and the models."""
    data = manifests.read(options.instructions, "instructions")
    base, adapter = find_models(settings, options.adapter)
    config = replace(config, language=settings.language)
    if adapter is not None:
        config = with_adapter_shape(adapter, config)
    return AdapterPlan(
        out=options.out.absolute(),
        settings=config.as_settings() | model_settings(settings, base, adapter, data),
        inputs={f"instructions/{name}": digest for name, digest in data["outputs"].items()},
        gpu=options.hardware.on_gpu,
        threads=options.hardware.threads,
        workers=options.hardware.workers,
        max_failures=options.hardware.max_failures,
        config=config,
        base=base,
        adapter=adapter,
        examples=options.instructions.absolute() / "train.jsonl",
        heldout=options.instructions.absolute() / "heldout.jsonl",
        new_tokens=settings.enhancer.max_new_tokens,
    )


def train(plan: AdapterPlan) -> None:
    """In each worker: build the trainer (`sft.build_trainer`), train, and measure BLEU after each epoch."""
    from train.generation import sft

    sft.train_adapter(plan, read_pairs(plan.examples), sft.BleuReporter, sft.build_trainer)


def with_adapter_shape(adapter: Path, config: SftConfig) -> SftConfig:
    """The configuration with the adapter's own shape. Raises `SettingsError` where the options name another one."""
    shape = lora.shape(adapter)
    for name, value in shape.items():
        option = getattr(config, name)
        if option not in (value, getattr(SftConfig, name)):
            raise SettingsError(f"--{name} {option:g}: the adapter {adapter} has {value:g}, and goes on with it; leave --{name} out")
    return replace(config, **shape)


def save(settings: Settings, plan: AdapterPlan, result: launch.RunResult, out: Path, *, seconds: float) -> None:
    """The adapter in the job's folder and as an artifact, with the run's curves and figures."""
    progress = result.progress
    manifests.reopen(out)
    lora.export(result.checkpoint / "trainer", out / ADAPTER, settings.enhancer.model)
    for stale in (MERGED, CT2):
        # Of the adapter that was here before.
        shutil.rmtree(out / stale, ignore_errors=True)
    steps = curves.losses(plan.log)
    curves.write(out, steps, progress["epochs"])
    save_samples(plan, progress["samples"], out / "samples.json")
    model = publish(settings, plan, out / ADAPTER, progress["epochs"][-1])
    report = run_report(result, steps, seconds) | {
        "tokens": progress["tokens"],
        "tokens_per_second": round(progress["tokens"] / progress["seconds"], 1) if progress["seconds"] else None,
    }
    manifests.write(out, "enhancer", plan.settings, plan.inputs, digest=model.digest, report=report)
    launch.clear(plan)
    command.console.print_json(json.dumps(report))
    hint = f"enhancer.adapter: artifact:{model.digest}"
    command.echo(f"{out / ADAPTER}, published in {settings.artifacts_uri}; to serve it: ", (hint, "bold"))


def save_samples(plan: AdapterPlan, samples: list[dict[str, Any]], path: Path) -> None:
    """Some held-out items with their text, and what the model wrote of them before training and after each epoch."""
    pairs = read_pairs(plan.heldout)[: min(SAMPLES, plan.config.heldout)]
    rows = [
        {"item": pair.item.facts(), "text": pair.text, "written": {str(of["epoch"]): of["texts"][place] for of in samples}}
        for place, pair in enumerate(pairs)
    ]
    write_atomically(path, json.dumps(rows, indent=1, ensure_ascii=False))


def save_merged(settings: Settings, plan: AdapterPlan, out: Path) -> None:
    convert.merge(plan.base, out / ADAPTER, out / MERGED)
    model = publish(settings, plan, out / MERGED, manifests.read(out, "enhancer")["report"]["epochs"][-1])
    command.echo(f"{out / MERGED}: to serve it: ", (f"enhancer.model: artifact:{model.digest}", "bold"))


@contextmanager
def disk_errors() -> Iterator[None]:
    """The result is written last: if the disk is full by then, the checkpoints are still there."""
    try:
        yield
    except OSError as error:
        raise ModelError(f"cannot write the result: {error}. Make room; the same command goes on from the last checkpoint") from error


app = command.job_app(EnhancerOptions, main)

if __name__ == "__main__":
    app()
