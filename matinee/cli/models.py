"""`matinee models`: what lies under `artifacts.uri`. Publishing is the training jobs' business; which model serves is the settings'."""

import sys
from typing import Annotated, Any

import orjson
import typer
import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from matinee.errors import MatineeError
from matinee.models.registry import ArtifactStore, ModelManifest
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings

models_app = typer.Typer(no_args_is_help=True, help="Trained models, named by the digest of their files: list, show, fetch, promote them.")
err = Console(stderr=True)
out = Console()

Digest = Annotated[str, typer.Argument(help="a digest, or its first 8 or more characters")]
Json = Annotated[bool, typer.Option("--json", help="print the answer as JSON")]


def _store() -> tuple[ArtifactStore, Settings]:
    settings = load_settings()
    return ArtifactStore(settings.artifacts_uri), settings


def _fail(error: MatineeError) -> typer.Exit:
    err.print(f"[red]error[/]: {escape(str(error))}", highlight=False, soft_wrap=True)
    return typer.Exit(error.exit_code)


@models_app.command("list")
def models_list(as_json: Json = False) -> None:
    """Every complete model, newest first.

    [dim]matinee models list[/]
    """
    try:
        store, _ = _store()
        models = store.models()
    except MatineeError as error:
        raise _fail(error) from None
    if as_json:
        _print_json([model.model_dump() for model in models])
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
def models_show(digest: Digest) -> None:
    """A model's manifest as JSON: base, data, settings, metrics, files.

    [dim]matinee models show 3f9a01bc[/]
    """
    _print_json(_found(digest).model_dump())


@models_app.command("fetch")
def models_fetch(digest: Digest) -> None:
    """Copy a model here and verify every file; prints its folder.

    [dim]matinee models fetch 3f9a01bc[/]
    """
    try:
        store, settings = _store()
        sys.stdout.write(f"{store.fetch(digest, settings.models_dir)}\n")
    except MatineeError as error:
        raise _fail(error) from None


@models_app.command("promote")
def models_promote(
    digest: Digest,
    chart: Annotated[bool, typer.Option("--chart", help="as values of the Helm chart, which has the settings under `settings`")] = False,
) -> None:
    """Print the settings that make this model serve: a patch for the settings file, or for the chart's values. Changes nothing itself.

    [dim]matinee models promote 3f9a01bc[/]
    [dim]matinee models promote 3f9a01bc --chart > model.yaml   # helm upgrade ... --values model.yaml[/]
    """
    model = _found(digest)
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
    said = {part: {name: "null" if value is None else value for name, value in given.items()} for part, given in patch.items()}
    return {"settings": said}


def _found(digest: str) -> ModelManifest:
    try:
        return _store()[0].find(digest)
    except MatineeError as error:
        raise _fail(error) from None


def _print_json(answer: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(answer, option=orjson.OPT_INDENT_2) + b"\n")
