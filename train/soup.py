"""Average tuned embedders with the base they came from, weight by weight: what each run overfits, the mean of them does not.

    python -m train.soup work/embedder-0 work/embedder-1 work/embedder-2 --out work/soup
    python -m train.soup work/embedder --base-share 0.5 --out work/halfway             # one run, held half-way
    python -m train.evaluate work/prepared --sets EVAL --after work/soup/model --out work/report

Takes the folders of `train.embedder`: runs of one base that differ in seed, data or settings. Serving costs what one of them costs. After
"Model soups" (Wortsman et al., 2022) for the mean and "Robust fine-tuning of zero-shot models" (Wortsman et al., 2022) for the base's
share in it. Trains nothing: `train.embedder` does, and `train.evaluate` says which share is best. Needs a fraction of a minute.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from matinee.errors import ModelError
from matinee.models import resolve, saved_model
from matinee.models.convert import quiet
from matinee.models.registry import ArtifactStore, Origin
from matinee.settings.load import load_settings
from train.embedding.contrastive import load_base, published_metrics
from train.jobs import command, manifests


@dataclass(frozen=True, kw_only=True)
class SoupOptions:
    members: Annotated[list[Path], typer.Argument(help="folders of train.embedder, all of one base model")]
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("work/soup")
    base_share: Annotated[float, typer.Option(min=0, max=0.99, help="part of the base model in the mean; the members share the rest")] = (
        0.25
    )


def main(options: SoupOptions) -> None:
    """Average, and publish."""
    members, out = options.members, options.out
    settings = load_settings()
    runs = [manifests.read(member, "embedder") for member in members]
    first, digests = runs[0]["settings"], [run["digest"] for run in runs]
    for member, run in zip(members, runs, strict=True):
        if run["settings"]["base_digest"] != first["base_digest"]:
            raise ModelError(
                f"{member} was not tuned from the base of {members[0]} ({first['base']}): only runs of one base can be averaged"
            )
    recorded = {"base": first["base"], "base_digest": first["base_digest"], "base_share": options.base_share, "members": digests}
    # By member: each may have learnt from triplets of its own.
    inputs = {f"{run['digest'][:12]}/{name}": digest for run in runs for name, digest in run["inputs"].items()}
    if manifests.is_complete(out, "soup", recorded, inputs):
        command.echo(f"{out} is complete already: nothing to do")
        return
    revision = runs[0].get("base_revision")
    base = resolve.resolve(first["base"], revision, models_dir=settings.models_dir, artifacts=settings.artifacts_uri)
    if saved_model.digest(base) != first["base_digest"]:
        raise ModelError(f"{first['base']} is not the model any more that {members[0]} was tuned from (sha256 {first['base_digest'][:12]})")
    (out / manifests.MANIFEST).unlink(missing_ok=True)
    with quiet():
        averaged(base, [member / "model" for member in members], options.base_share).save(
            str(out / "model"), create_model_card=False, safe_serialization=True
        )
    # Of the members, by name: the mean itself is measured by train.evaluate.
    metrics = {f"{run['digest'][:12]}/{name}": value for run in runs for name, value in published_metrics(run["report"]["best"]).items()}
    origin = Origin(
        base=first["base"],
        base_revision=revision,
        base_digest=first["base_digest"],
        data=inputs,
        settings=recorded,
        git_commit=manifests.git_commit(),
        metrics=metrics,
    )
    manifest = ArtifactStore(settings.artifacts_uri).publish(out / "model", origin)
    manifests.write(out, "soup", recorded, inputs, digest=manifest.digest)
    command.echo(f"model {manifest.digest} in {settings.artifacts_uri}; next: ", (f"train.evaluate ... --after {out / 'model'}", "bold"))


def averaged(base: Path, members: Sequence[Path], base_share: float) -> Any:
    """A model of weights base_share · base + (1 - base_share) · mean(members). Raises `ModelError` where they are not of one shape."""
    model = load_base(members[0], "cpu")
    parts = [(base, base_share), *((member, (1 - base_share) / len(members)) for member in members)]
    mean = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    for folder, share in parts:
        weights = load_base(folder, "cpu").state_dict()
        odd = next((name for name, tensor in mean.items() if name not in weights or weights[name].shape != tensor.shape), None)
        if odd is not None or len(weights) != len(mean):
            raise ModelError(f"{folder} does not have the weights of {members[0]} ({odd or 'it has more'}): they are not one architecture")
        for name, tensor in mean.items():
            # Positions and the like are the same everywhere, and whole numbers.
            tensor.copy_(tensor + share * weights[name] if tensor.is_floating_point() else weights[name])
    model.load_state_dict(mean)
    return model


app = command.job_app(SoupOptions, main)

if __name__ == "__main__":
    app()
