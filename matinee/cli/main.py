"""The command line: `matinee`. It only puts the commands together; each group of them is a module of this package."""

import typer

from matinee.cli import demo, ingest, search
from matinee.cli.catalogues import catalogues_app
from matinee.cli.evalset import evalset_app
from matinee.cli.index import index_app
from matinee.cli.items import items_app
from matinee.cli.models import models_app
from matinee.cli.size import size

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Semantic recommendations from your own catalogue, on small models. Start with [bold]matinee demo[/].",
    epilog="Exit codes: 0 done, 1 failed, 2 settings or request, 3 catalogue file, 4 model, 5 index or server, 6 not found, 7 busy.",
    rich_markup_mode="rich",
)
for command in (search.search, search.recommend, search.describe, search.info):
    app.command()(command)
for job in (ingest.ingest, ingest.sync):
    app.command(context_settings=ingest.CONTEXT)(job)
app.command()(demo.demo)
app.add_typer(items_app, name="items")
app.add_typer(catalogues_app, name="catalogues")
app.command()(size)
app.add_typer(index_app, name="index")
app.add_typer(models_app, name="models")
app.add_typer(evalset_app, name="evalset")
