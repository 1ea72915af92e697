"""Fine-tune the embedder on pairs or triplets: sentence-transformers' trainer inside Ray Train, on a CPU, one GPU or several.

    python -m train.embedder work/triplets --prepared work/prepared --sets EVAL --out work/embedder
    python -m train.embedder work/triplets --loss triplet --negatives --epochs 5 --batch 16 --lr 3e-5     # as in the paper
    python -m train.embedder work/triplets --base hub:ibm-granite/granite-embedding-small-english-r2 --workers 4 --lora 16
    python -m train.embedder work/triplets --prepared work/prepared --smoke --out work/embedder      # a minute on a CPU

After each epoch the dev side of `--sets` is measured. The best epoch is kept, and training stops when `--patience` epochs bring no gain.
If a worker or the whole job is killed, the same command goes on from the last checkpoint (`--save-steps`). The result is a model folder
and, under `artifacts.uri`, an immutable artifact with its manifest: base, data hashes, settings, commit, metrics.
"""

import shutil
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import typer

from matinee.evaluation.query_sets import set_names
from matinee.models import resolve, saved_model
from matinee.models.registry import ArtifactStore, ModelManifest
from matinee.settings.tree import Settings
from train.embedding.contrastive import ContrastiveConfig, EmbedderPlan, finalise, published_metrics
from train.jobs import command, launch, manifests


@dataclass(frozen=True, kw_only=True)
class EmbedderOptions:
    triplets: Annotated[Path, typer.Argument(help="the folder of train.triplets")]
    prepared: Annotated[Path, typer.Option(help="the folder of train.prepare, for the dev items")] = Path("work/prepared")
    sets: Annotated[Path | None, typer.Option(help="folder of evaluation sets; their dev side chooses the best epoch")] = None
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("work/embedder")
    model: command.ModelOptions
    training: ContrastiveConfig
    hardware: command.Hardware
    pool: Annotated[int, typer.Option(min=10, help="items of the dev evaluation")] = 2000
    smoke: Annotated[bool, typer.Option("--smoke", help="two epochs over what there is, small batches")] = False


def main(options: EmbedderOptions) -> None:
    """Train an encoder and publish it."""
    settings = options.model.settings("embedder")
    plan = load(options, settings)
    if manifests.is_complete(options.out, "embedder", plan.settings, plan.inputs):
        command.echo(f"{options.out} is complete already: nothing to do")
        return
    start = time.perf_counter()
    result = launch.run(train, plan, "embedder")
    model = publish(settings, plan, result, options.out, seconds=time.perf_counter() - start)
    command.echo(f"model {model.digest} in {settings.artifacts_uri}; next: ", (f"matinee models promote {model.digest[:12]}", "bold"))


def load(options: EmbedderOptions, settings: Settings) -> EmbedderPlan:
    """Check the options, the data and the base model."""
    config, pool = training_config(options), min(options.pool, 100) if options.smoke else options.pool
    config.check()
    data = manifests.read(options.triplets, "triplets")
    inputs = {f"triplets/{name}": digest for name, digest in data["outputs"].items()}
    inputs |= {f"prepared/{name}": digest for name, digest in manifests.read(options.prepared, "prepare")["outputs"].items()}
    # They train nothing, but they choose the epoch.
    inputs |= manifests.set_hashes(options.sets, set_names(options.sets, "dev") if options.sets else [], ["dev"])
    base = resolve.resolve(
        settings.embedder.model, settings.embedder.revision, models_dir=settings.models_dir, artifacts=settings.artifacts_uri
    )
    return EmbedderPlan(
        out=options.out.absolute(),
        settings=asdict(config) | {"base": settings.embedder.model, "base_digest": saved_model.digest(base), "pool": pool},
        inputs=inputs,
        gpu=options.hardware.on_gpu,
        threads=options.hardware.threads,
        workers=options.hardware.workers,
        max_failures=options.hardware.max_failures,
        config=config,
        base=base,
        triplets=options.triplets.absolute(),
        prepared=options.prepared.absolute(),
        sets=options.sets.absolute() if options.sets else None,
        template=data["settings"]["template"],
        pool=pool,
    )


def train(plan: EmbedderPlan) -> None:
    """In each worker: build the trainer (`worker.build_trainer`), train, and measure NDCG on dev queries after each epoch."""
    from train.embedding import worker

    worker.fit(plan)


def training_config(options: EmbedderOptions) -> ContrastiveConfig:
    """What the run computes: options that follow from others are filled in, and `--smoke` makes it small."""
    config = options.training
    bf16 = options.hardware.fast_in_bf16 if config.bf16 is None else config.bf16
    config = replace(config, negatives=config.negatives or config.loss == "triplet", bf16=bf16)
    return replace(config, epochs=2, batch=8, save_steps=min(config.save_steps, 5), max_tokens=64) if options.smoke else config


def publish(settings: Settings, plan: EmbedderPlan, result: launch.RunResult, out: Path, *, seconds: float) -> ModelManifest:
    """The best epoch's model, whole and in safetensors: in the job's folder, and as an artifact."""
    manifests.reopen(out)
    shutil.rmtree(out / "model", ignore_errors=True)
    finalise(result.checkpoint / "best", plan.base, plan.config, out / "model")
    origin = plan.origin(settings.embedder, published_metrics(result.progress["best"]))
    model = ArtifactStore(settings.artifacts_uri).publish(out / "model", origin)
    report = {"steps": result.step, "seconds": round(seconds, 1)} | {name: result.progress[name] for name in ("base", "best", "epochs")}
    more = {"digest": model.digest, "base_revision": settings.embedder.revision, "report": report}
    manifests.write(out, "embedder", plan.settings, plan.inputs, **more)
    launch.clear(plan)
    return model


app = command.job_app(EmbedderOptions, main)

if __name__ == "__main__":
    app()
