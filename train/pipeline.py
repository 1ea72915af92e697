"""The paper's embedding half in one command, from a data set to the report: prepare, triplets, embedder, soup, evaluate.

    python -m train.pipeline films.csv --out work
    python -m train.pipeline EVAL --sets EVAL --seeds 3 --out work                                # three runs, and their mean with the base
    python -m train.pipeline EVAL --sets EVAL --count 20000 --descriptions words.jsonl --out work # options of train.triplets
    python -m train.pipeline films.csv -- --lora 16 --max-tokens 80                               # after `--`: options of train.embedder
    python -m train.pipeline films.csv --weight related=1 -- --loss triplet --negatives --epochs 5 --batch 16 --lr 3e-5   # as in the paper
    python -m train.pipeline --smoke --out work                                                  # the bundled films, some minutes on a CPU

Each step is a process of its own (`python -m train.STEP`), with that job's defaults, and ends the pipeline where it fails. The same command
goes on after a kill: what is finished is not done twice. Knows the order and the folders, and nothing of what a step does.
"""

import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from matinee.errors import SettingsError
from train.jobs import runs
from train.jobs.options import Gpu

Step = list[str]


def main(
    source: Annotated[str | None, typer.Argument(help="as of train.prepare")] = None,
    options: Annotated[list[str] | None, typer.Argument(help="after `--`: options of train.embedder")] = None,
    out: Annotated[Path, typer.Option(help="folder of all results")] = Path("work"),
    sets: Annotated[Path | None, typer.Option(help="folder of evaluation sets")] = None,
    kind: Annotated[str | None, typer.Option(help="what the items are, where rows don't say")] = None,
    count: Annotated[int | None, typer.Option(min=1, help="as of train.triplets")] = None,
    descriptions: Annotated[Path | None, typer.Option(help="as of train.triplets")] = None,
    weight: Annotated[list[str] | None, typer.Option("--weight", metavar="SOURCE=NUMBER", help="as of train.triplets")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="training runs; of several, their mean with the base is the result")] = 1,
    gpu: Gpu = None,
    smoke: Annotated[bool, typer.Option("--smoke", help="the bundled films, every step at its smallest")] = False,
) -> None:
    """Run every step from a data set to the report."""
    told = [*(options or []), *([] if gpu is None else ["--gpu" if gpu else "--cpu"])]
    drawn = [*(["--count", str(count)] if count else []), *(["--descriptions", str(descriptions)] if descriptions else [])]
    drawn += [word for text in weight or () for word in ("--weight", text)]
    for step in steps(source, told, drawn, out, sets=sets, kind=kind, seeds=seeds, smoke=smoke):
        runs.console.print(f"[bold]train.{' '.join(step)}[/]", highlight=False, soft_wrap=True)
        code = subprocess.run([sys.executable, "-m", f"train.{step[0]}", *step[1:]], check=False).returncode  # noqa: S603
        if code:
            raise typer.Exit(code)


def steps(
    source: str | None,
    options: list[str],
    drawn: list[str],
    out: Path,
    *,
    sets: Path | None,
    kind: str | None,
    seeds: int,
    smoke: bool,
) -> list[Step]:
    """The commands in their order, each with the folders of those before; `options` are train.embedder's, `drawn` train.triplets'."""
    small = ["--smoke"] if smoke else []
    asked = ["--sets", str(sets)] if sets is not None else []
    prepared, triplets = str(out / "prepared"), str(out / "triplets")
    tuned = [str(out / (f"embedder-{seed}" if seed else "embedder")) for seed in range(seeds)]
    given = _values(options)
    if "--seed" in given:
        raise SettingsError("--seed: the pipeline counts its seeds itself, from 0; say how many with --seeds")
    # Training with mined negatives takes mining them, and the triplet loss has no others.
    mined = ["--negatives", "both"] if "--negatives" in given or given.get("--loss") == "triplet" else []
    before = ["--before", given["--base"]] if "--base" in given else []
    # What --smoke stands for there is a catalogue.
    named = small if source is None else [source]
    found = [
        ["prepare", *named, *(["--kind", kind] if kind else []), "--out", prepared],
        ["triplets", prepared, *asked, *small, *mined, *drawn, "--out", triplets],
    ]
    for seed, folder in enumerate(tuned):
        found.append(["embedder", triplets, "--prepared", prepared, *asked, *small, *options, "--seed", str(seed), "--out", folder])
    best = tuned[0]
    if seeds > 1:
        best = str(out / "soup")
        found.append(["soup", *tuned, "--out", best])
    return [*found, ["evaluate", prepared, *asked, *small, *before, "--after", f"{best}/model", "--out", str(out / "report")]]


def _values(options: list[str]) -> dict[str, str]:
    """Each option with what follows it, written as `--name value` or `--name=value`."""
    pairs = [option.partition("=") for option in options]
    return {name: value if sign else following for (name, sign, value), following in zip(pairs, [*options[1:], ""], strict=False)}


app = runs.job_app(main)

if __name__ == "__main__":
    app()
