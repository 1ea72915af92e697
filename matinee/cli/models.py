"""`matinee models`: what lies under `artifacts.uri`. Publishing is the training jobs' business; which model serves is the settings'."""

import sys
from typing import Annotated, Any

import typer
import yaml
from rich.markup import escape
from rich.table import Table

from matinee.cli.errors import explain_errors
from matinee.cli.output import Json, err, out, print_json
from matinee.models.registry import ArtifactStore, ModelManifest
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings

models_app = typer.Typer(no_args_is_help=True, help="Trained models, named by the digest of their files: list, show, fetch, promote them.")

Digest = Annotated[str, typer.Argument(help="a digest, or its first 8 or more characters")]


def _store() -> tuple[ArtifactStore, Settings]:
    settings = load_settings()
    return ArtifactStore(settings.artifacts_uri), settings


@models_app.command("list")
@explain_errors()
def models_list(as_json: Json = False) -> None:
    """Every complete model, newest first.

    [dim]matinee models list[/]
    """
    store, _ = _store()
    models = store.models()
    if as_json:
        print_json([model.model_dump() for model in models])
        return
    table = Table("digest", "kind", "base", "created", "MB", "metrics")
    for model in models:
        metrics = ", ".join(f"{name} {value:.3f}" for name, value in list(model.origin.metrics.items())[:3])
        size = f"{model.size / 1e6:.0f}"
        table.add_row(model.digest[:16], model.kind, escape(model.origin.base), model.created, size, escape(metrics))
    out.print(table)
    if not models:
        err.print(f"none under {escape(store.uri)} yet: [bold]python -m train.embedder[/] makes one", highlight=False)


@models_app.command("show")
@explain_errors()
def models_show(digest: Digest) -> None:
    """A model's manifest as JSON: base, data, settings, metrics, files.

    [dim]matinee models show 3f9a01bc[/]
    """
    print_json(_find(digest).model_dump())


@models_app.command("fetch")
@explain_errors(private=False)
def models_fetch(digest: Digest) -> None:
    """Copy a model here and verify every file; prints its folder.

    [dim]matinee models fetch 3f9a01bc[/]
    """
    store, settings = _store()
    sys.stdout.write(f"{store.fetch(digest, settings.models_dir)}\n")


@models_app.command("promote")
@explain_errors()
def models_promote(
    digest: Digest,
    chart: Annotated[bool, typer.Option("--chart", help="print values of the Helm chart, which has the settings under `settings`")] = False,
) -> None:
    """Print the settings that make this model serve: a patch for the settings file, or for the chart's values. Changes nothing itself.

    [dim]matinee models promote 3f9a01bc[/]
    [dim]matinee models promote 3f9a01bc --chart > model.yaml   # helm upgrade ... --values model.yaml[/]
    """
    model = _find(digest)
    name = f"artifact:{model.digest}"
    # What sentence-transformers saves has its modules listed; a merged enhancer is a plain model.
    encodes = "modules.json" in model.files
    patch: dict[str, dict[str, str | None]]
    if model.kind == "adapter":
        patch = {"enhancer": {"adapter": name}}
    elif encodes:
        patch = {"embedder": {"model": name, "revision": None}}
    else:
        patch = {"enhancer": {"model": name, "revision": None, "adapter": None}}
    sys.stdout.write(yaml.safe_dump(_as_values(patch) if chart else patch, sort_keys=False))
    if encodes:
        err.print("then ingest again: an index belongs to the encoder that made it, and the old one serves until the new one is complete")


def _as_values(patch: dict[str, dict[str, str | None]]) -> dict[str, Any]:
    """No value is written "null", as the chart's own values files do: of a null Helm deletes the key."""
    return {"settings": {part: {k: "null" if v is None else v for k, v in values.items()} for part, values in patch.items()}}


def _find(digest: str) -> ModelManifest:
    return _store()[0].find(digest)
