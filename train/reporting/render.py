"""Reports from Jinja2 templates, which lie beside the modules that fill them. HTML is escaped; a name that is missing is an error."""

from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from train.reporting.rows import IntervalRow, Intervals

HERE = Path(__file__).parent
"""The macros and styles that all reports share."""


def render(template: Path, /, **values: Any) -> str:
    environment = Environment(
        loader=FileSystemLoader([template.parent, HERE]),
        autoescape=select_autoescape(["html.j2"]),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"interval": interval, "change": change, "decimals": decimals}
    return environment.get_template(template.name).render(**values)


def interval(value: IntervalRow, *, signed: bool = False) -> str:
    """A mean with its confidence interval."""
    form = "{:+.3f}" if signed else "{:.3f}"
    return f"{form.format(value['mean'])} [{form.format(value['low'])}, {form.format(value['high'])}]"


def change(difference: Intervals | None) -> str:
    """A paired difference in NDCG; empty where there is nothing to compare with."""
    return interval(difference["ndcg"], signed=True) if difference else ""


def decimals(value: float | None, places: int = 3) -> str:
    return "-" if value is None else f"{value:.{places}f}"
