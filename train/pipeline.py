"""The paper's embedding half in one command, from a data set to the report: prepare, triplets, embedder, soup, evaluate.

    python -m train.pipeline films.csv --out work
    python -m train.pipeline EVAL --sets EVAL --seeds 3 --out work                                # three runs, and their mean with the base
    python -m train.pipeline EVAL --sets EVAL --count 20000 --descriptions words.jsonl --out work # options of train.triplets
    python -m train.pipeline films.csv -- --lora 16 --max-tokens 80                               # after `--`: options of train.embedder
    python -m train.pipeline films.csv --weight related=1 -- --loss triplet --negatives --epochs 5 --batch 16 --lr 3e-5   # as in the paper
    python -m train.pipeline --smoke --out work                                                  # the bundled films, some minutes on a CPU

Each step is a process of its own (`python -m train.prepare` and so on), with that job's defaults, and ends the pipeline where it fails. The
same command goes on after a kill: what is finished is not done twice. Knows the order and the folders, and nothing of what a step does.
"""

import subprocess
import sys
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated

import typer

from matinee.errors import SettingsError
from train.jobs import command
from train.jobs.reading import AS_IT_IS, Reading

Step = list[str]


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    source: Annotated[str | None, typer.Argument(help="as of train.prepare")] = None
    options: Annotated[list[str], typer.Argument(help="after `--`: options of train.embedder")] = field(default_factory=list)
    out: Annotated[Path, typer.Option(help="folder of all results")] = Path("work")
    sets: Annotated[Path | None, typer.Option(help="folder of evaluation sets")] = None
    reading: Reading = AS_IT_IS
    count: Annotated[int | None, typer.Option(min=1, help="as of train.triplets")] = None
    descriptions: Annotated[Path | None, typer.Option(help="as of train.triplets")] = None
    weight: Annotated[list[str], typer.Option(metavar="SOURCE=NUMBER", help="as of train.triplets")] = field(default_factory=list)
    seeds: Annotated[int, typer.Option(min=1, help="training runs; of several, their mean with the base is the result")] = 1
    gpu: command.Gpu = None
    smoke: Annotated[bool, typer.Option("--smoke", help="the bundled films, every step at its smallest")] = False


def main(options: PipelineOptions) -> None:
    """Run every step from a data set to the report."""
    for step in steps(options):
        command.echo((f"train.{' '.join(step)}", "bold"))
        code = subprocess.run([sys.executable, "-m", f"train.{step[0]}", *step[1:]], check=False).returncode  # noqa: S603
        if code:
            raise typer.Exit(code)


def steps(options: PipelineOptions) -> list[Step]:
    """The commands in their order, each with the folders of those before."""
    if options.source is not None and options.source.startswith("-"):
        # Typer takes the first word after `--` for the source where there is none.
        options = replace(options, source=None, options=[options.source, *options.options])
    out = options.out
    smoke = ["--smoke"] if options.smoke else []
    sets = flag("--sets", options.sets)
    prepared, triplets = str(out / "prepared"), str(out / "triplets")
    embedders = [str(out / (f"embedder-{seed}" if seed else "embedder")) for seed in range(options.seeds)]
    training = values_by_flag(options.options)
    if "--seed" in training:
        raise SettingsError("--seed: the pipeline counts its seeds itself, from 0; say how many with --seeds")
    drawing = [*flag("--count", options.count), *flag("--descriptions", options.descriptions)]
    drawing += [word for text in options.weight for word in ("--weight", text)]
    if "--negatives" in training or training.get("--loss") == "triplet":
        # Training with mined negatives takes mining them, and the triplet loss has no others.
        drawing = ["--negatives", "both", *drawing]
    device = [] if options.gpu is None else ["--gpu" if options.gpu else "--cpu"]
    # Without a source, --smoke stands for the bundled films.
    source = smoke if options.source is None else [options.source]
    commands = [
        ["prepare", *source, *options.reading.words(), "--out", prepared],
        ["triplets", prepared, *sets, *smoke, *drawing, "--out", triplets],
    ]
    for seed, folder in enumerate(embedders):
        inputs = [triplets, "--prepared", prepared, *sets]
        commands.append(["embedder", *inputs, *smoke, *options.options, *device, "--seed", str(seed), "--out", folder])
    best = embedders[0]
    if options.seeds > 1:
        best = str(out / "soup")
        commands.append(["soup", *embedders, "--out", best])
    before = flag("--before", training.get("--base"))
    return [*commands, ["evaluate", prepared, *sets, *smoke, *before, "--after", f"{best}/model", "--out", str(out / "report")]]


def flag(name: str, value: object) -> list[str]:
    return [] if value is None else [name, str(value)]


def values_by_flag(options: list[str]) -> dict[str, str]:
    """Each option with what follows it, written as `--name value` or `--name=value`."""
    pairs = [option.partition("=") for option in options]
    return {name: value if sign else following for (name, sign, value), following in zip(pairs, [*options[1:], ""], strict=False)}


app = command.job_app(PipelineOptions, main)

if __name__ == "__main__":
    app()
