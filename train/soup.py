"""Average tuned embedders with the base they came from, weight by weight: what each run overfits, the mean of them does not.

    python -m train.soup work/embedder-0 work/embedder-1 work/embedder-2 --out work/soup
    python -m train.soup work/embedder --base-share 0.5 --out work/halfway             # one run, held half-way
    python -m train.evaluate work/prepared --sets EVAL --after work/soup/model --out work/report

Takes the folders of `train.embedder`: runs of one base that differ in seed, data or settings. Serving costs what one of them costs. After
"Model soups" (Wortsman et al., 2022) for the mean and "Robust fine-tuning of zero-shot models" (Wortsman et al., 2022) for the base's
share in it. Trains nothing: `train.embedder` does, and `train.evaluate` says which share is best. Needs a fraction of a minute.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from matinee.errors import ModelError
from matinee.models import resolve, saved_model
from matinee.models.convert import quiet
from matinee.models.registry import ArtifactStore, Origin
from matinee.settings.load import load_settings
from train.embedder import metrics_of
from train.embedding.contrastive import load_base
from train.jobs import runs


def main(
    members: Annotated[list[Path], typer.Argument(help="folders of train.embedder, all of one base model")],
    out: Annotated[Path, typer.Option(help="folder of the result")] = Path("work/soup"),
    base_share: Annotated[
        float, typer.Option(min=0, max=0.99, help="part of the base model in the mean; the members share the rest")
    ] = 0.25,
) -> None:
    """Average, and publish."""
    settings = load_settings()
    made = [runs.read_manifest(member, "embedder") for member in members]
    first = made[0]["settings"]
    other = next(
        (member for member, manifest in zip(members, made, strict=True) if manifest["settings"]["base_digest"] != first["base_digest"]),
        None,
    )
    if other is not None:
        raise ModelError(f"{other} was not tuned from the base of {members[0]} ({first['base']}): only runs of one base can be averaged")
    digests = [manifest["digest"] for manifest in made]
    options = {"base": first["base"], "base_digest": first["base_digest"], "base_share": base_share, "members": digests}
    # By member: each may have learnt from triplets of its own.
    data = {f"{manifest['digest'][:12]}/{name}": digest for manifest in made for name, digest in manifest["inputs"].items()}
    if runs.finished(out, "soup", options, data):
        runs.console.print(f"{out} is complete already: nothing to do", highlight=False, soft_wrap=True)
        return
    revision = made[0].get("base_revision")
    base = resolve.resolve(first["base"], revision, models_dir=settings.models_dir, artifacts=settings.artifacts_uri)
    if saved_model.digest(base) != first["base_digest"]:
        raise ModelError(f"{first['base']} is not the model any more that {members[0]} was tuned from (sha256 {first['base_digest'][:12]})")
    (out / runs.MANIFEST).unlink(missing_ok=True)
    with quiet():
        averaged(base, [member / "model" for member in members], base_share).save(
            str(out / "model"), create_model_card=False, safe_serialization=True
        )
    # Of the members, by name: the mean itself is measured by train.evaluate.
    metrics = {f"{member['digest'][:12]}/{name}": value for member in made for name, value in metrics_of(member["report"]["best"]).items()}
    origin = Origin(
        base=first["base"],
        base_revision=revision,
        base_digest=first["base_digest"],
        data=data,
        settings=options,
        git_commit=runs.git_commit(),
        metrics=metrics,
    )
    manifest = ArtifactStore(settings.artifacts_uri).publish(out / "model", origin)
    runs.write_manifest(out, "soup", options, data, digest=manifest.digest)
    runs.console.print(
        f"model {manifest.digest} in {settings.artifacts_uri}; next: [bold]train.evaluate ... --after {out / 'model'}[/]",
        highlight=False,
        soft_wrap=True,
    )


def averaged(base: Path, members: Sequence[Path], base_share: float) -> Any:
    """A model of weights base_share · base + (1 - base_share) · mean(members). Raises `ModelError` where they are not of one shape."""
    model = load_base(members[0], "cpu")
    parts = [(base, base_share), *((member, (1 - base_share) / len(members)) for member in members)]
    mean = {name: torch.zeros_like(tensor) for name, tensor in model.state_dict().items()}
    for folder, share in parts:
        given = load_base(folder, "cpu").state_dict()
        odd = next((name for name, tensor in mean.items() if name not in given or given[name].shape != tensor.shape), None)
        if odd is not None or len(given) != len(mean):
            raise ModelError(f"{folder} does not have the weights of {members[0]} ({odd or 'it has more'}): they are not one architecture")
        for name, tensor in mean.items():
            # Positions and the like are the same everywhere, and whole numbers.
            tensor.copy_(tensor + share * given[name] if tensor.is_floating_point() else given[name])
    model.load_state_dict(mean)
    return model


app = runs.job_app(main)

if __name__ == "__main__":
    app()
