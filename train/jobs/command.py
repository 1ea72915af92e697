"""The command line of a job, made of its options model.

A job declares each option once, as a field of a frozen dataclass: `Annotated[type, typer.Option(limits, help)] = default`. A field whose
type is such a dataclass adds that model's options. A field without a Typer annotation is no option, and neither is one that the model's
`FIXED` names: the job sets them itself. Typer parses, checks limits and writes the help; a `Literal` is checked here, with the error line
that all jobs share. Knows no job in particular.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import MISSING, dataclass, fields, is_dataclass
from inspect import Parameter, Signature
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import typer
from rich.console import Console
from rich.text import Text
from typer.main import get_command

from matinee.cli.errors import explain_errors
from matinee.errors import SettingsError, SourceError
from matinee.files import user_path
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings

if TYPE_CHECKING:
    from matinee.models.embedder import Embedder

OptionsT = TypeVar("OptionsT")

console = Console(stderr=True)

GO_ON = "run the same command again to go on"

Schedule = Annotated[
    Literal["linear", "cosine", "constant_with_warmup"],
    typer.Option(help="schedule of the learning rate: linear, cosine, constant_with_warmup"),
]
Gpu = Annotated[bool | None, typer.Option("--gpu/--cpu", help="train or encode on GPUs or on CPUs; by default on GPUs where there are any")]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The model that a training job begins with."""

    base: Annotated[str | None, typer.Option(help="base model: pypi:, hub:, artifact: or a folder; by default the settings' own")] = None
    revision: Annotated[str | None, typer.Option(help="commit of a hub model; by default its newest")] = None

    def settings(self, section: Literal["embedder", "enhancer"]) -> Settings:
        """The settings of this process, with this model in their section."""
        return load_settings(flags={section: {"model": self.base, "revision": self.revision}} if self.base else {})


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """What a training job runs on."""

    workers: Annotated[
        int, typer.Option(min=0, help="worker processes, one GPU each where there are GPUs; 0: this process, without Ray, for a debugger")
    ] = 1
    gpu: Gpu = None
    threads: Annotated[int, typer.Option(min=0, help="CPU threads of each worker; 0: one for each core")] = 0
    max_failures: Annotated[
        int, typer.Option(min=0, help="how often lost workers are replaced, from the last checkpoint; more for workers on spot nodes")
    ] = 3

    @property
    def on_gpu(self) -> bool:
        import torch

        return bool(torch.cuda.is_available()) if self.gpu is None else self.gpu

    @property
    def fast_in_bf16(self) -> bool:
        """On CPUs with AVX512-BF16 it is more than twice as fast; without, far slower.

        The GPUs of workers elsewhere can't be asked where this process has none: all since NVIDIA's Ampere have it.
        """
        import torch

        from matinee.models import backends

        if self.on_gpu and not torch.cuda.is_available():
            return True
        return backends.computes_in_bf16("cuda" if self.on_gpu else "cpu")


def echo(*parts: str | tuple[str, str]) -> None:
    """A message to whoever started the job, on stderr: stdout is for results. A part is text, or text and its style: `(hint, "bold")`.

    Text is printed as it is. Rich's markup is not understood: a path may hold brackets.
    """
    console.print(Text.assemble(*parts), highlight=False, soft_wrap=True)


def load_embedder(model: str | None, precision: str | None) -> "Embedder":
    """The settings' embedder, or another model or precision, for a corpus."""
    from matinee.models.embedder import Embedder

    settings = embedder_settings(model, precision)
    return Embedder.load(settings.embedder, settings.models_dir, artifacts=settings.artifacts_uri, workload="corpus")


def embedder_settings(model: str | None, precision: str | None) -> Settings:
    """The settings, with another embedder or precision."""
    flags = {"model": model, "revision": None} if model else {}
    return load_settings(flags={"embedder": flags | ({"precision": precision} if precision else {})})


def column_map(pairs: list[str]) -> dict[str, str]:
    """The values of `--map FIELD=COLUMN`."""
    mapping = {}
    for pair in pairs:
        name, sign, column = pair.partition("=")
        if not (name and sign and column):
            raise SourceError(f"--map {pair!r}: write it as FIELD=COLUMN, for example overview=Plot")
        mapping[name] = column
    return mapping


def job_app(
    options: type[OptionsT], job: Callable[[OptionsT], None], *, epilog: str | None = None, interrupted: str = GO_ON
) -> typer.Typer:
    """The command line of a job with one command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich")
    add_command(app, None, options, job, epilog=epilog, interrupted=interrupted)
    return app


def add_command(
    app: typer.Typer,
    name: str | None,
    options: type[OptionsT],
    job: Callable[[OptionsT], None],
    *,
    epilog: str | None = None,
    interrupted: str = GO_ON,
) -> None:
    """A command that parses `options` and runs `job` with them. Errors become one line on stderr and an exit code."""

    def command(**values: Any) -> None:
        try:
            with explain_errors():
                job(build(options, values))
        except KeyboardInterrupt:
            console.print(f"interrupted: {interrupted}")
            raise typer.Exit(130) from None

    # Typer reads a command's parameters from its signature.
    command.__signature__ = Signature(list(parameters(options)))  # type: ignore[attr-defined]
    app.command(name, help=job.__doc__, epilog=epilog)(command)


def parameters(options: type[Any]) -> Iterator[Parameter]:
    """The fields of an options model as parameters that Typer understands."""
    hints = get_type_hints(options, include_extras=True)
    fixed = getattr(options, "FIXED", ())
    for field in fields(options):
        hint = hints[field.name]
        if field.name in fixed:
            continue
        if is_dataclass(hint):
            yield from parameters(hint)  # type: ignore[arg-type]
        elif get_origin(hint) is Annotated:
            kind, info = get_args(hint)
            default: Any = field.default if field.default_factory is MISSING else field.default_factory()
            default = Parameter.empty if default is MISSING else default
            typed = Annotated[str | None, info] if choices(kind) else hint
            yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=typed)


def parse(options: type[OptionsT], words: Sequence[str], name: str) -> OptionsT:
    """The options model of the command line of the job `name`. Raises Click's error for what the job would refuse."""
    return build(options, get_command(job_app(options, lambda _: None)).make_context(name, list(words)).params)


def words(options: Any) -> Iterator[str]:
    """A group of options as a command line: what differs from its defaults."""
    for parameter in parameters(type(options)):
        # Inside `Annotated`, Typer keeps the names of an option where its default would be.
        value, declared = getattr(options, parameter.name), get_args(parameter.annotation)[1].default
        name, _, negated = (declared if isinstance(declared, str) else f"--{parameter.name.replace('_', '-')}").partition("/")
        if value == parameter.default:
            continue
        if isinstance(value, bool):
            yield name if value else negated
        else:
            for text in value if isinstance(value, list) else [value]:
                yield from (name, str(text))


def build(options: type[OptionsT], values: dict[str, Any]) -> OptionsT:
    """The options model of parsed values. Raises `SettingsError` for a value that is not one of the choices."""
    hints = get_type_hints(options)
    built = {}
    for field in fields(options):  # type: ignore[arg-type]
        name, kind = field.name, hints[field.name]
        if is_dataclass(kind):
            built[name] = build(kind, values)  # type: ignore[arg-type]
        elif name in values:
            value, known = values[name], choices(kind)
            if known and value is not None and value not in known:
                raise SettingsError(f"--{name.replace('_', '-')} {value}: use {', '.join(known)}")
            built[name] = _expand_paths(value)
    return options(**built)


def _expand_paths(value: Any) -> Any:
    """A path with the home folder where it begins with `~`: a shell leaves `--out=~/work` as it is."""
    if isinstance(value, list):
        return [_expand_paths(one) for one in value]
    return user_path(value) if isinstance(value, Path) else value


def choices(kind: Any) -> tuple[str, ...]:
    """The values of a `Literal`, optional or not; of any other type none."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    return next((known for part in get_args(kind) if (known := choices(part))), ())
