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
from train.embedding.sources import PairSources
from train.jobs import command
from train.jobs.reader_options import DEFAULTS, ReaderOptions

Step = list[str]


@dataclass(frozen=True, kw_only=True)
class PipelineOptions:
    source: Annotated[str | None, typer.Argument(help="a catalogue file, hub:OWNER/NAME, or a BEIR folder with corpus.jsonl")] = None
    options: Annotated[list[str], typer.Argument(help="after `--`: options of train.embedder")] = field(default_factory=list)
    out: Annotated[Path, typer.Option(help="folder of all results")] = Path("work")
    reading: ReaderOptions = DEFAULTS
    sources: PairSources
    seeds: Annotated[int, typer.Option(min=1, help="training runs; of several, their mean with the base is the result")] = 1
    hardware: command.Hardware
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
    out, smoke = options.out, ["--smoke"] if options.smoke else []
    sets = [] if options.sources.sets is None else ["--sets", str(options.sources.sets)]
    prepared, triplets = str(out / "prepared"), str(out / "triplets")
    embedders = [str(out / (f"embedder-{seed}" if seed else "embedder")) for seed in range(options.seeds)]
    # Only now: it loads PyTorch.
    from train.embedder import EmbedderOptions

    trained = command.parse(EmbedderOptions, [triplets, *options.options], "train.embedder")
    if trained.training.seed:
        raise SettingsError("--seed: the pipeline counts its seeds itself, from 0; say how many with --seeds")
    # Training with mined negatives takes mining them, and the triplet loss has no others.
    mined = ["--negatives", "both"] if trained.training.negatives or trained.training.loss == "triplet" else []
    # Without a source, --smoke stands for the bundled films.
    source = smoke if options.source is None else [options.source]
    commands = [
        ["prepare", *source, *command.words(options.reading), "--out", prepared],
        ["triplets", prepared, *smoke, *mined, *command.words(options.sources), "--out", triplets],
    ]
    for seed, folder in enumerate(embedders):
        inputs = [triplets, "--prepared", prepared, *sets, *smoke, *options.options, *command.words(options.hardware)]
        commands.append(["embedder", *inputs, "--seed", str(seed), "--out", folder])
    best = embedders[0]
    if options.seeds > 1:
        best = str(out / "soup")
        commands.append(["soup", *embedders, "--out", best])
    before = [] if trained.model.base is None else ["--before", trained.model.base]
    return [*commands, ["evaluate", prepared, *sets, *smoke, *before, "--after", f"{best}/model", "--out", str(out / "report")]]


app = command.job_app(PipelineOptions, main)

if __name__ == "__main__":
    app()
