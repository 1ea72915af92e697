"""Describe a catalogue offline and in bulk: prepared items -> JSONL of (id, description), by the enhancer with or without an adapter.

    python -m train.describe work/prepared --out work/descriptions.jsonl
    python -m train.describe work/prepared --out work/tuned.jsonl --adapter work/enhancer/enhancer-lora  # or artifact:DIGEST
    python -m train.describe work/prepared --out work/some.jsonl --sample 2000 --seed 1 --first EVAL
    python -m train.describe work/prepared --out work/hidden.jsonl --hide-overview                     # title, year, genres, people only
    python -m train.describe work/prepared --out work/rated.jsonl --only test --sample 40              # what `train.ratings` draws 20 of
    python -m train.describe work/prepared --out work/two.jsonl --title Inception --title Interstellar
    python -m train.describe work/prepared --out work/smoke.jsonl --smoke                              # four items
    python -m train.describe work/prepared --out work/all.jsonl --engine ray --workers 8               # eight GPUs of a cluster

CTranslate2 int8 on a CPU, bf16 on a GPU, 48 items at a time. Run it again and it goes on where it was; with other settings or another model
the same file is refused. What serving would show is checked against the metadata; `--unchecked` keeps what the model itself said, and
`--hide-overview` implies it, because nothing is left to check a plot against. A sample is by seed alone: a larger one holds the smaller.
With `--engine ray`, processes of a Ray cluster (`RAY_ADDRESS`) or of this machine describe, each with a model of its own; models and
adapters have to lie where each of them finds them. A worker that is killed repeats its part, a job that is killed goes on where it was.
`--first` puts what evaluation sets look for to its head, so that a part of a catalogue can be judged.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Protocol

import orjson
import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from matinee.errors import SettingsError, SourceError
from matinee.evaluation.splits import Entry, Split, read_entries
from matinee.files import write_atomically
from matinee.settings import local_ray
from matinee.settings.load import load_settings
from train.generation.describing import Describing, LocalDescriber
from train.generation.selection import query_weights, ranked_sample, with_titles
from train.ingesting.plan import AUTO_DESCRIPTIONS, BY_SIZE, EngineOptions, machine, only_pool, wants_ray
from train.jobs import command, manifests


@dataclass(frozen=True, kw_only=True)
class DescribeOptions:
    prepared: Annotated[Path, typer.Argument(help="the folder of train.prepare")]
    out: Annotated[Path, typer.Option(help="JSONL file to write")] = Path("work/descriptions.jsonl")
    adapter: Annotated[str | None, typer.Option(help="a PEFT adapter's folder or artifact:DIGEST; by default the settings' own")] = None
    precision: Annotated[
        str | None, typer.Option(help="numeric precision of the model, with the values of the setting enhancer.precision")
    ] = None
    batch: Annotated[int, typer.Option(min=1, max=256, help="items that the model describes at a time")] = 48
    retries: Annotated[int, typer.Option(min=0, max=5, help="new tries for a description that the metadata contradicts")] = 1
    tokens: Annotated[int | None, typer.Option(min=8, max=1024, help="most tokens of a description; by default the settings' own")] = None
    hide_overview: Annotated[bool, typer.Option("--hide-overview", help="tell the model title, year, genres and people only")] = False
    unchecked: Annotated[bool, typer.Option("--unchecked", help="keep what the model said, whether the metadata bears it out or not")] = (
        False
    )
    title: Annotated[list[str], typer.Option(help="describe only the items with this title; repeatable")] = field(default_factory=list)
    only: Annotated[Split | None, typer.Option(help="describe only the items of this split: train, dev or test")] = None
    sample: Annotated[int | None, typer.Option(min=1, help="describe only so many items, drawn at random")] = None
    seed: Annotated[int, typer.Option(help="random seed of the sample")] = 0
    first: Annotated[Path | None, typer.Option(help="folder of evaluation sets; the answers to their queries are described first")] = None
    split: Annotated[Split, typer.Option(help="split of the sets in --first: train, dev or test")] = "dev"
    spread: EngineOptions = BY_SIZE
    smoke: Annotated[bool, typer.Option("--smoke", help="a quick trial: four items")] = False

    @property
    def checked(self) -> bool:
        """Nothing is left to check a plot against where the overview is hidden."""
        return not (self.unchecked or self.hide_overview)


class DescriptionWriter(Protocol):
    """Who describes: this process, or those of a cluster."""

    def info(self) -> dict[str, Any]:
        """What the model is made of."""
        ...

    def lines(self, entries: Sequence[Entry]) -> Iterator[list[bytes]]: ...


def main(options: DescribeOptions) -> None:
    """Write a description of every item, or of a sample."""
    out = options.out
    manifest = manifests.read(options.prepared, "prepare")
    entries = load(options)
    asked = describing(options)
    with engine(options, asked, len(entries)) as describer:
        settings = asked.settings.enhancer
        model = describer.info() | {
            **{name: getattr(settings, name) for name in ("max_new_tokens", "retries", "temperature", "repetition_penalty", "seed")},
            "hide_overview": options.hide_overview,
            "unchecked": not options.checked,
        }
        done = resume(out, {"job": "describe", "model": model, "inputs": manifest["outputs"]})
        todo = [entry for entry in entries if entry.id not in done]
        with out.open("ab") as file, progress_bar() as progress:
            bar = progress.add_task("describe", total=len(entries), completed=len(entries) - len(todo))
            for lines in describer.lines(todo):
                file.writelines(lines)
                file.flush()
                progress.advance(bar, len(lines))
    command.echo(f"{len(entries)} items are described in {out}, {len(todo)} of them now")


@contextmanager
def engine(options: DescribeOptions, asked: Describing, items: int) -> Iterator[DescriptionWriter]:
    """The models, here or on a Ray. Raises `SettingsError` where Ray is asked for and the model is on a server of its own."""
    # A server of its own takes any number of requests at once.
    local = asked.settings.enhancer.engine == "local"
    if not local and options.spread.engine == "ray":
        raise SettingsError(
            "--engine ray spreads models that are loaded here, and enhancer.engine is openai, whose server takes all requests from one "
            "process: leave --engine out, or set enhancer.engine to local"
        )
    if local and wants_ray(options.spread, items, least=AUTO_DESCRIPTIONS):
        from train.ingesting.joining import join_ray

        here = only_pool(options.spread, machine()) if local_ray.is_local() else None
        with join_ray(1 if here is None else max(1.0, here.size * here.cpus)):
            # Ray reads its token when it is imported.
            from train.generation.cluster import ClusterDescriber
            from train.ingesting.streams import room

            pool = only_pool(options.spread, room()) if here is None else here
            if pool is not None:
                command.echo(
                    f"engine ray: {pool.size} processes to describe ({'GPU' if pool.gpus else f'{pool.threads} CPU threads'} each)"
                )
                yield ClusterDescriber(asked, pool)
                return
    with command.console.status("loading the enhancer (the first time converts it)"):
        describer = LocalDescriber(asked)
    yield describer


def load(options: DescribeOptions) -> list[Entry]:
    """The items to describe, in their order."""
    entries = [entry for entry in read_entries(options.prepared) if options.only in (None, entry.split)]
    if options.title:
        entries = with_titles(entries, options.title)
    weights = query_weights(options.first, options.split) if options.first else {}
    return ranked_sample(entries, 4 if options.smoke else options.sample, options.seed, weights)


def describing(options: DescribeOptions) -> Describing:
    flags = {"adapter": options.adapter, "precision": options.precision, "max_new_tokens": options.tokens}
    settings = load_settings(flags={"enhancer": {name: value for name, value in flags.items() if value is not None}})
    # Serving's limits on a batch do not bind a job that has the machine to itself.
    alone = settings.enhancer.model_copy(update={"batch_size": options.batch, "retries": options.retries, "threads": 0})
    return Describing(settings.model_copy(update={"enhancer": alone}), options.hide_overview, options.checked)


def resume(out: Path, made_by: dict[str, Any]) -> set[str]:
    """The ids that an earlier run of the same settings has described; a last line that a kill cut off is taken away."""
    note = out.with_suffix(".manifest.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    if not out.is_file():
        write_atomically(note, json.dumps(made_by, indent=1))
        return set()
    try:
        before = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise SourceError(f"{out} is there, but not {note.name} that says what wrote it: give another --out, or delete it") from None
    if before != json.loads(json.dumps(made_by)):
        changed = sorted(key for key in before["model"] if before["model"][key] != made_by["model"].get(key)) or ["inputs"]
        raise SourceError(f"{out} was written with another {', '.join(changed)}: give another --out, or delete it")
    written = out.read_bytes()
    whole = written[: written.rfind(b"\n") + 1]
    if len(whole) < len(written):
        with out.open("r+b") as file:
            file.truncate(len(whole))
    return {orjson.loads(line)["id"] for line in whole.splitlines()}


def progress_bar() -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, console=command.console)


app = command.job_app(DescribeOptions, main)

if __name__ == "__main__":
    app()
