"""Fine-tune the embedder on pairs or triplets: sentence-transformers' trainer inside Ray Train, on a CPU, one GPU or several.

    python -m train.embedder work/triplets --prepared work/prepared --sets shared/data/eval --out work/embedder
    python -m train.embedder work/triplets --loss triplet --negatives --epochs 5 --batch 16 --lr 3e-5     # as in the paper
    python -m train.embedder work/triplets --base hub:ibm-granite/granite-embedding-small-english-r2 --workers 4 --lora 16
    python -m train.embedder work/triplets --prepared work/prepared --smoke --out work/embedder      # a minute on a CPU

After each epoch the dev side of `--sets` is measured; the best epoch is kept, and training stops when `--patience` epochs bring nothing.
The same command after a kill, of a worker or of everything, goes on from the last checkpoint (`--save-steps`). The result is a model folder
and, under `artifacts.uri`, an immutable artifact with its manifest: base, data hashes, settings, commit, metrics.
"""

import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, cast, get_args

import typer

from matinee.errors import SettingsError
from matinee.models import resolve, saved_model
from matinee.models.registry import ArtifactStore, ModelManifest, Origin
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings
from train.embedding.contrastive import Loss, Recipe, finalise
from train.jobs import launch, runs


def main(
    triplets: Annotated[Path, typer.Argument(help="the folder of train.triplets")],
    prepared: Annotated[Path, typer.Option(help="the folder of train.prepare, for the dev items")] = Path("work/prepared"),
    sets: Annotated[Path | None, typer.Option(help="folder of evaluation sets; their dev side chooses the best epoch")] = None,
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("work/embedder"),
    base: Annotated[str | None, typer.Option(help="pypi:, hub:, artifact: or a folder; by default the settings' embedder")] = None,
    revision: Annotated[str | None, typer.Option(help="of a hub model")] = None,
    loss: Annotated[str, typer.Option(help="mnr, cached, guided or triplet")] = Recipe.loss,
    epochs: Annotated[int, typer.Option(min=1)] = Recipe.epochs,
    batch: Annotated[int, typer.Option(min=2, help="a worker's; with less memory --batch 32 --lr 1e-4, or --loss cached")] = Recipe.batch,
    lr: Annotated[float, typer.Option(help="the highest learning rate")] = Recipe.lr,
    warmup: Annotated[float, typer.Option(min=0, max=0.9, help="part of the steps in which the rate rises")] = Recipe.warmup,
    schedule: Annotated[str, typer.Option(help="linear, cosine, constant_with_warmup")] = Recipe.schedule,
    scale: Annotated[float, typer.Option(help="inverse temperature of the in-batch losses")] = Recipe.scale,
    margin: Annotated[float, typer.Option(help="of the triplet loss")] = Recipe.margin,
    negatives: Annotated[bool, typer.Option("--negatives", help="use the mined negatives")] = False,
    lora: Annotated[int, typer.Option(min=0, help="rank of LoRA adapters; 0 trains all weights")] = 0,
    matryoshka: Annotated[
        list[int] | None,
        typer.Option(help="a shorter vector length to learn too, for uses of your own (serving takes whole vectors); repeatable"),
    ] = None,
    max_tokens: Annotated[int, typer.Option(min=16, help="texts are cut here in training")] = Recipe.max_tokens,
    patience: Annotated[int, typer.Option(min=1, help="epochs without a gain before it stops")] = Recipe.patience,
    save_steps: Annotated[int, typer.Option(min=1, help="steps between checkpoints")] = Recipe.save_steps,
    seed: Annotated[int, typer.Option()] = 0,
    workers: Annotated[int, typer.Option(min=1, help="processes, one GPU each where there are GPUs")] = 1,
    gpu: Annotated[bool | None, typer.Option("--gpu/--cpu", help="by default what the machine has")] = None,
    bf16: Annotated[bool | None, typer.Option("--bf16/--fp32", help="mixed precision; by default where the hardware has it")] = None,
    threads: Annotated[int, typer.Option(min=0, help="of each CPU worker; 0: all cores")] = 0,
    pool: Annotated[int, typer.Option(min=10, help="items of the dev evaluation")] = 2000,
    smoke: Annotated[bool, typer.Option("--smoke", help="two epochs over what there is, small batches")] = False,
) -> None:
    """Train an encoder and publish it."""
    if loss not in get_args(Loss):
        raise SettingsError(f"--loss {loss}: use {', '.join(get_args(Loss))}")
    settings = load_settings(flags={"embedder": {"model": base, "revision": revision}} if base else {})
    on_gpu = launch.has_gpu() if gpu is None else gpu
    recipe = Recipe(
        cast("Loss", loss), epochs, batch, lr, warmup, schedule, Recipe.weight_decay, scale, margin, lora, tuple(matryoshka or ()),
        max_tokens, negatives or loss == "triplet", patience, seed, save_steps, launch.bf16_pays(on_gpu) if bf16 is None else bf16,
    )  # fmt: skip
    if smoke:
        recipe = Recipe.of(recipe.as_dict() | {"epochs": 2, "batch": 8, "save_steps": min(save_steps, 5), "max_tokens": 64})
        pool = min(pool, 100)
    recipe.check()
    plan = _plan(settings, recipe, triplets, prepared, sets, out, gpu=on_gpu, threads=threads, pool=pool)
    if runs.finished(out, "embedder", plan["settings"], plan["inputs"]):
        runs.console.print(f"{out} is complete already: nothing to do", highlight=False, soft_wrap=True)
        return
    start = time.perf_counter()
    from train.embedding.fitting import fit

    result = launch.run(fit, plan, "embedder", workers)
    model = publish(settings, recipe, plan, result, out, seconds=time.perf_counter() - start)
    runs.console.print(
        f"model {model.digest} in {settings.artifacts_uri}; next: [bold]matinee models promote {model.digest[:12]}[/]", highlight=False
    )


def _plan(
    settings: Settings, recipe: Recipe, triplets: Path, prepared: Path, sets: Path | None, out: Path, *, gpu: bool, threads: int, pool: int
) -> dict[str, Any]:
    """All that a worker needs, as plain values: it may run on another machine that shares these folders."""
    data = runs.read_manifest(triplets, "triplets")
    inputs = {f"triplets/{name}": digest for name, digest in data["outputs"].items()}
    inputs |= {f"prepared/{name}": digest for name, digest in runs.read_manifest(prepared, "prepare")["outputs"].items()}
    # They train nothing, but they choose the epoch.
    asked = [] if sets is None else [*sets.glob("*/qrels/dev.tsv"), *sets.glob("*/queries.jsonl")]
    inputs |= {f"sets/{name}": digest for name, digest in runs.hashes(asked, sets or Path()).items()}
    folder = resolve.resolve(
        settings.embedder.model, settings.embedder.revision, models_dir=settings.models_dir, artifacts=settings.artifacts_uri
    )
    described = recipe.as_dict() | {"base": settings.embedder.model, "base_digest": saved_model.digest(folder), "pool": pool}
    return launch.folders(out) | {
        "recipe": recipe.as_dict(),
        "settings": described,
        "inputs": inputs,
        "template": data["settings"]["template"],
        "base": str(folder),
        "triplets": str(triplets.absolute()),
        "prepared": str(prepared.absolute()),
        "sets": str(sets.absolute()) if sets else None,
        "gpu": gpu,
        "threads": threads,
        "pool": pool,
    }


def publish(
    settings: Settings, recipe: Recipe, plan: dict[str, Any], result: dict[str, Any], out: Path, *, seconds: float
) -> ModelManifest:
    """The best epoch's model, whole and in safetensors: in the job's folder, and as an artifact."""
    base = Path(plan["base"])
    # From here on the folder is not what its manifest says.
    (out / runs.MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(out / "model", ignore_errors=True)
    finalise(Path(result["checkpoint"]) / "best", base, recipe, out / "model")
    best = result["best"]
    origin = Origin(
        base=settings.embedder.model,
        base_revision=settings.embedder.revision,
        base_digest=plan["settings"]["base_digest"],
        data=plan["inputs"],
        settings=plan["settings"],
        git_commit=runs.git_commit(),
        metrics=metrics_of(best),
    )
    manifest = ArtifactStore(settings.artifacts_uri).publish(out / "model", origin)
    report = {"steps": result["step"], "seconds": round(seconds, 1), "base": result["base"], "best": best, "epochs": result["epochs"]}
    more = {"digest": manifest.digest, "base_revision": settings.embedder.revision, "report": report}
    runs.write_manifest(out, "embedder", plan["settings"], plan["inputs"], **more)
    launch.clear(plan)
    return manifest


def metrics_of(best: Mapping[str, Any]) -> dict[str, float]:
    """What is published of a run's best epoch."""
    return {f"dev_{name}_ndcg": value for name, value in best["dev"].items()} | {"dev_gain": best["score"]}


app = runs.job_app(main)

if __name__ == "__main__":
    app()
