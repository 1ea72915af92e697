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
from matinee.models.registry import ArtifactStore, ModelOrigin
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


@dataclass(frozen=True)
class ModelAverage:
    """The runs to average, and what their base is. `settings` and `inputs` go into the manifest."""

    runs: list[dict[str, Any]]
    base: str
    base_revision: str | None
    settings: dict[str, Any]
    inputs: dict[str, str]


def main(options: SoupOptions) -> None:
    """Average, and publish."""
    out, planned = options.out, load(options)
    if manifests.is_complete(out, "soup", planned.settings, planned.inputs):
        command.echo(f"{out} is complete already: nothing to do")
        return
    settings = load_settings()
    base = resolve.resolve(planned.base, planned.base_revision, models_dir=settings.models_dir, artifacts=settings.artifacts_uri)
    digest = planned.settings["base_digest"]
    if saved_model.digest(base) != digest:
        raise ModelError(f"{planned.base} is not the model any more that {options.members[0]} was tuned from (sha256 {digest[:12]})")
    manifests.reopen(out)
    model = average(base, [member / "model" for member in options.members], options.base_share)
    with quiet():
        model.save(str(out / "model"), create_model_card=False, safe_serialization=True)
    manifest = ArtifactStore(settings.artifacts_uri).publish(out / "model", origin(planned))
    manifests.write(out, "soup", planned.settings, planned.inputs, digest=manifest.digest)
    command.echo(f"model {manifest.digest} in {settings.artifacts_uri}; next: ", (f"train.evaluate ... --after {out / 'model'}", "bold"))


def load(options: SoupOptions) -> ModelAverage:
    """Read the members' manifests. Raises `ModelError` where they do not have one base."""
    runs = [manifests.read(member, "embedder") for member in options.members]
    first = runs[0]["settings"]
    for member, run in zip(options.members, runs, strict=True):
        if run["settings"]["base_digest"] != first["base_digest"]:
            raise ModelError(
                f"{member} was not tuned from the base of {options.members[0]} ({first['base']}): only runs of one base can be averaged"
            )
    settings = {"base": first["base"], "base_digest": first["base_digest"], "base_share": options.base_share}
    settings["members"] = [run["digest"] for run in runs]
    # By member: each may have learnt from triplets of its own.
    inputs = {f"{run['digest'][:12]}/{name}": digest for run in runs for name, digest in run["inputs"].items()}
    return ModelAverage(runs, first["base"], runs[0].get("base_revision"), settings, inputs)


def origin(planned: ModelAverage) -> ModelOrigin:
    """Where the mean comes from. The figures are those of its members, by name: `train.evaluate` measures the mean itself."""
    metrics = {
        f"{run['digest'][:12]}/{name}": value for run in planned.runs for name, value in published_metrics(run["report"]["best"]).items()
    }
    return ModelOrigin(
        base=planned.base,
        base_revision=planned.base_revision,
        base_digest=planned.settings["base_digest"],
        data=planned.inputs,
        settings=planned.settings,
        git_commit=manifests.git_commit(),
        metrics=metrics,
    )


def average(base: Path, members: Sequence[Path], base_share: float) -> Any:
    """A model of weights base_share · base + (1 - base_share) · mean(members). Raises `ModelError` where they are not of one shape."""
    model = load_base(members[0], "cpu")
    parts = [(base, base_share), *((member, (1 - base_share) / len(members)) for member in members)]
    mean = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    for folder, share in parts:
        weights = load_base(folder, "cpu").state_dict()
        odd = next((name for name, tensor in mean.items() if name not in weights or weights[name].shape != tensor.shape), None)
        if odd is not None or len(weights) != len(mean):
            raise ModelError(
                f"{folder} does not have the weights of {members[0]} ({odd or 'it has more'}): "
                "average models that were trained from one base"
            )
        for name, tensor in mean.items():
            # Positions and the like are the same everywhere, and whole numbers.
            tensor.copy_(tensor + share * weights[name] if tensor.is_floating_point() else weights[name])
    model.load_state_dict(mean)
    return model


app = command.job_app(SoupOptions, main)

if __name__ == "__main__":
    app()
