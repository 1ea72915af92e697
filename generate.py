"""Write every committed file that is made from code: `make generate`.

The settings page, the page of the command line, the OpenAPI document, the tables of metrics and alerts, the chart's values comments, schema
and README table, dashboards and rules. A test fails where a file is not as this writes it.
"""

import re
from collections.abc import Iterator
from inspect import cleandoc
from pathlib import Path
from typing import Any

from typer.main import get_command

import helm.generate
import observability.files
import serve.__main__
import serve.probe.__main__
import train.ingest
import train.sync
from matinee.cli.main import app
from matinee.settings import reference
from observability.rules import alert_table
from serve.api import openapi
from serve.telemetry.declare import table
from serve.telemetry.metrics import Metrics, ProbeMetrics

DOCS = Path(__file__).parent / "docs"


def with_tables(page: str) -> str:
    """The page with the tables between its markers made anew."""
    tables = {"metrics": table(Metrics), "probe metrics": table(ProbeMetrics), "alerts": alert_table()}
    for name, text in tables.items():
        begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
        before, _, rest = page.partition(begin)
        page = f"{before}{begin}\n{text}\n{end}{rest.partition(end)[2]}"
    return page


COMMAND_LINE = """# Command line

For everyone who looks for a command or an option of it. `--help` prints the same. The jobs of `train` and the tools of `bench` have it too.
"""
_MARKUP = re.compile(r"\[/?(?:dim|bold)?\]")


def command_line_page() -> str:
    """Every command with its options, from the help of each."""
    matinee = get_command(app)
    # Only their processes know the options of these.
    jobs = {"matinee ingest": get_command(train.ingest.app), "matinee sync": get_command(train.sync.app)}
    parts = [COMMAND_LINE, f"{matinee.epilog}\n"]
    for name, command in _commands("matinee", matinee):
        parts += _section(name, jobs.get(name, command))
    for name, typer_app in (("python -m serve", serve.__main__.app), ("python -m serve.probe", serve.probe.__main__.app)):
        for full_name, command in _commands(name, get_command(typer_app)):
            parts += _section(full_name, command)
    return "\n".join(parts)


# Typer's classes of commands and parameters have no public name.
def _commands(name: str, command: Any) -> Iterator[tuple[str, Any]]:
    subcommands = getattr(command, "commands", {})
    if not subcommands or command.params:
        yield name, command
    for sub in subcommands:
        yield from _commands(f"{name} {sub}", subcommands[sub])


def _section(name: str, command: Any) -> list[str]:
    summary = _MARKUP.sub("", cleandoc(command.help or "")).split("\n\n")[0]
    rows = [_row(parameter) for parameter in command.params if not getattr(parameter, "hidden", False) and parameter.name != "help"]
    table = ["| argument or option | meaning | default |", "| --- | --- | --- |", *rows, ""] if rows else []
    return [f"## {name}\n", " ".join(summary.split()) + "\n", *table]


def _row(parameter: Any) -> str:
    names = [parameter.name.upper()] if parameter.param_type_name == "argument" else [*parameter.opts, *parameter.secondary_opts]
    written = ", ".join(f"`{name}`" for name in names)
    variable = f" (`{parameter.envvar}`)" if parameter.envvar else ""
    help = _MARKUP.sub("", getattr(parameter, "help", None) or "").replace("|", "\\|")
    default = "" if parameter.default in (None, False, (), Path()) or callable(parameter.default) else parameter.default
    default = ", ".join(default) if isinstance(default, list) else default
    return f"| {written}{variable} | {help} | {default} |"


def files() -> dict[Path, str]:
    """Path -> what it should hold."""
    return {
        DOCS / "settings.md": reference.page(),
        DOCS / "cli.md": command_line_page(),
        DOCS / "openapi.json": openapi.document(),
        DOCS / "observability.md": with_tables((DOCS / "observability.md").read_text(encoding="utf-8")),
        **helm.generate.files(),
        **observability.files.files(),
    }


def main() -> None:
    for path, text in files().items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
