"""Ask people which descriptions are good: blinded sheets, a local page to fill them in, and the paper's Table 3 and Figure 5.

    python -m train.ratings sheets work/prepared --base base.jsonl --tuned tuned.jsonl --out work/ratings --rater anna --rater ben
    python -m train.ratings serve work/ratings               # a page on this machine; or fill in work/ratings/sheets/*.csv by hand
    python -m train.ratings report work/ratings              # means, deviations, Cohen's and Fleiss' kappa

The two JSONL files are `train.describe`'s. Items are drawn from the test split by seed; `--split train` asks which of the two descriptions
is the better one instead, and those sheets may train (`train.preference`). Which model wrote A differs from row to row and rater to rater,
and stands in `key.json` alone. `sheets` again with more raters adds their sheets and leaves the others as they are.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from matinee.errors import SettingsError
from matinee.evaluation.splits import read_entries
from matinee.files import sha256, write_atomically
from matinee.models.descriptions import read_descriptions
from train.human import rating_sheets, ratings_report
from train.human.rating_sheets import KEY, Draw, Form, Model, RatedSplit, SheetKey, form_of
from train.jobs import command, manifests


@dataclass(frozen=True, kw_only=True)
class SheetOptions:
    prepared: Annotated[Path, typer.Argument(help="the folder of train.prepare")]
    base: Annotated[Path, typer.Option(help="descriptions by the base model: JSONL of id and description")]
    tuned: Annotated[Path, typer.Option(help="descriptions by the fine-tuned model")]
    rater: Annotated[list[str], typer.Option(help="a rater's name; repeatable")]
    out: Annotated[Path, typer.Option(help="folder of the sheets and their key")] = Path("work/ratings")
    items: Annotated[int, typer.Option(min=1, help="items to draw for the sheets")] = 20
    split: Annotated[RatedSplit, typer.Option(help="test: rate both descriptions 1-5; train: name the better one")] = "test"
    seed: Annotated[int, typer.Option(help="random seed of the draw, of each rater's order, and of which description is A")] = 0


@dataclass(frozen=True, kw_only=True)
class PageOptions:
    folder: Annotated[Path, typer.Argument(help="the folder of `sheets`")] = Path("work/ratings")
    port: Annotated[int, typer.Option(min=0, max=65_535, help="port of the page; 0: a free one")] = 8010


@dataclass(frozen=True, kw_only=True)
class ReportOptions:
    folder: Annotated[Path, typer.Argument(help="the folder of `sheets`, filled in")] = Path("work/ratings")
    finished_only: Annotated[bool, typer.Option("--finished-only", help="leave out raters who are not done yet")] = False


def make_sheets(options: SheetOptions) -> None:
    """Draw items and write a blinded sheet for each rater."""
    base, tuned, out, seed = options.base, options.tuned, options.out, options.seed
    draw = Draw(split=options.split, seed=seed, items=options.items)
    form = form_of(options.split)
    inputs = {f"prepared/{name}": digest for name, digest in manifests.read(options.prepared, "prepare")["outputs"].items()}
    texts: dict[Model, dict[str, str]] = {"base": read_descriptions(base), "tuned": read_descriptions(tuned)}
    inputs |= {"base": sha256(base), "tuned": sha256(tuned)}
    entries = rating_sheets.draw_items(read_entries(options.prepared), draw, [*texts.values()])
    raters: dict[str, dict[str, Model]] = {}
    if (out / KEY).exists():
        key = rating_sheets.read_key(out)
        if (key.draw, key.inputs) != (draw, inputs):
            raise SettingsError(f"{out} holds the sheets of another draw or of other descriptions ({key.draw}): give another --out")
        raters = key.raters
    (out / "sheets").mkdir(parents=True, exist_ok=True)
    rows = {name: rating_sheets.blind(form, entries, texts, rating_sheets.rater_name(name), seed) for name in dict.fromkeys(options.rater)}
    # First the key: a sheet without one could never be read.
    key = SheetKey(draw=draw, inputs=inputs, raters=raters | {name: first for name, (_, first) in rows.items()})
    write_atomically(out / KEY, key.model_dump_json(indent=1))
    write_new_sheets(out, form, rows)
    command.echo("next: ", (f"python -m train.ratings serve {out}", "bold"), ", or fill in the CSV files")


def write_new_sheets(out: Path, form: Form, rows: dict[str, tuple[list[rating_sheets.SheetRow], dict[str, Model]]]) -> None:
    for name, (empty, _) in rows.items():
        path = rating_sheets.sheet_path(out, name)
        # What somebody has filled in is never written over.
        if path.exists():
            command.echo(f"{path} is there already: left as it is")
        else:
            rating_sheets.write_sheet(path, form, empty)
            command.echo(f"{path}: {len(empty)} items")


def serve(options: PageOptions) -> None:
    """Serve the page where raters answer, on this machine only; each answer is saved at once in the rater's sheet."""
    from train.human.rating_page import run

    run(options.folder, options.port)


def report(options: ReportOptions) -> None:
    """Open the key and write FOLDER/report: JSON, Markdown, HTML and, of ratings, Figure 5."""
    folder, finished_only = options.folder, options.finished_only
    form, answers, waiting = ratings_report.collect(folder, finished_only=finished_only)
    results = ratings_report.figures(form, answers) | {"left_out": waiting}
    out = folder / "report"
    out.mkdir(exist_ok=True)
    figure = ratings_report.figure5(results) if "table3" in results else None
    if figure:
        write_atomically(out / "figure5.svg", figure)
    text = ratings_report.markdown(results)
    write_atomically(out / "report.json", json.dumps(results, indent=1))
    write_atomically(out / "report.md", text)
    write_atomically(out / "report.html", ratings_report.html(results, figure))
    inputs = manifests.hashes([folder / KEY, *rating_sheets.sheet_paths(folder)], folder)
    manifests.write(out, "ratings", rating_sheets.read_key(folder).draw.model_dump() | {"finished_only": finished_only}, inputs)
    print(text)
    left = f"; not done yet, and left out: {', '.join(waiting)}" if waiting else ""
    command.echo(f"report: {out / 'report.html'}{left}")


app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode="rich", no_args_is_help=True)
command.add_command(app, "sheets", SheetOptions, make_sheets)
command.add_command(app, "serve", PageOptions, serve)
command.add_command(app, "report", ReportOptions, report)

if __name__ == "__main__":
    app()
