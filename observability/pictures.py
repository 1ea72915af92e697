"""Draw the dashboards with matplotlib, from their own queries against a Prometheus: `python -m observability.pictures`.

    python -m observability.pictures docs                                  # docs/dashboard-*.png, of the last ten minutes
    python -m observability.pictures docs --minutes 30 --prometheus http://127.0.0.1:9090

For docs/observability.md, because no Grafana runs there: each picture says that it is none. It knows the three kinds of our panels.
"""

import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import matplotlib.pyplot as plt
import typer
from matplotlib.axes import Axes
from matplotlib.dates import AutoDateLocator, DateFormatter
from rich.console import Console

from matinee.cli.errors import explain_errors
from observability.files import BOARDS
from observability.panels import COLUMNS
from observability.prometheus import Prometheus, PrometheusError, Series
from observability.queries import RATE_INTERVAL, Panel, fill_legend, panels

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
console = Console(stderr=True)

MOST_LINES = 10
HEAD = 1.5
MARGINS = (1.1, 0.3, 0.9, 0.7)
"""Of a panel, in the grid's units: left, right, above, below."""
DIM, INK = "#8e8e8e", "#2b2b2b"
Drawn = list[tuple[str, Series]]


@app.command(help=__doc__)
def main(
    folder: Annotated[Path, typer.Argument(help="folder for the pictures")],
    prometheus: Annotated[str, typer.Option(help="URL of Prometheus")] = "http://127.0.0.1:9090",
    minutes: Annotated[float, typer.Option(min=1, help="minutes that the pictures show")] = 10,
) -> None:
    source = Prometheus(prometheus)
    with explain_errors(PrometheusError, OSError, private=False):
        for board in BOARDS:
            path = folder / file_name(board.UID)
            draw(board.UID, board.TITLE, source, minutes * 60, path)
            console.print(f"{path}", highlight=False, markup=False)


def file_name(uid: str) -> str:
    return f"dashboard-{uid.removeprefix('matinee-')}.png"


def draw(uid: str, title: str, source: Prometheus, seconds: float, path: Path, rate_interval: str = RATE_INTERVAL) -> None:
    """One dashboard as a PNG, its panels where Grafana puts them."""
    plt.switch_backend("Agg")
    shown = list(panels(uid, rate_interval))
    # Grafana's grid counts the rows' own lines too; here only the panels' lines take room.
    heights = {panel.place[1]: panel.place[3] for panel in shown}
    tall = sum(heights.values()) + HEAD
    figure = plt.figure(figsize=(16, 0.42 * tall))
    figure.text(0.5, 1 - 0.6 / tall, f"{title}   (drawn from the dashboard's queries, not a Grafana screenshot)", ha="center", fontsize=13)
    for panel in shown:
        x, y, width, height = panel.place
        above = HEAD + sum(room for line, room in heights.items() if line < y)
        left, right, up, down = MARGINS
        box = (x + left, tall - above - height + down, width - left - right, height - up - down)
        axes = figure.add_axes((box[0] / COLUMNS, box[1] / tall, box[2] / COLUMNS, box[3] / tall))
        axes.set_title(panel.title, fontsize=10, loc="left", color=INK)
        PAINTERS[panel.kind](axes, panel, _series_of(panel, source, seconds))
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _series_of(panel: Panel, source: Prometheus, seconds: float) -> Drawn:
    """Every series of a panel with its legend; those without any value left out."""
    drawn = []
    for query in panel.queries:
        lines = panel.kind == "timeseries"
        answer = source.over(query.expression, seconds, max(3, seconds / 120)) if lines else source.instant(query.expression)
        drawn += [(fill_legend(query.legend, series.labels), series) for series in answer]
    return [(name, series) for name, series in drawn if any(math.isfinite(value) for _, value in series.points)]


def _lines(axes: Axes, panel: Panel, drawn: Drawn) -> None:
    if not drawn:
        _text(axes, panel.none, DIM)
        return
    for name, series in sorted(drawn, key=lambda entry: -_peak(entry[1]))[:MOST_LINES]:
        times: Any = [datetime.fromtimestamp(at, UTC) for at, _ in series.points]
        axes.plot(times, [value for _, value in series.points], linewidth=1.2, label=name)
    top = max(_peak(series) for _, series in drawn) or 1
    # Room above for the legend, and a little below, so that a line at 0 is seen.
    axes.set_ylim(-0.03 * top, top * (1.1 + 0.08 * math.ceil(min(len(drawn), MOST_LINES) / 2)))
    axes.set_yticks([tick for tick in axes.get_yticks() if 0 <= tick <= 1.05 * top])
    axes.xaxis.set_major_locator(AutoDateLocator(minticks=2, maxticks=6))
    axes.xaxis.set_major_formatter(DateFormatter("%H:%M:%S"))
    axes.yaxis.set_major_formatter(lambda value, _: written(value, panel.unit))
    axes.tick_params(labelsize=7, colors=DIM)
    axes.grid(alpha=0.25)
    axes.spines[:].set_color("#dddddd")
    if any(name for name, _ in drawn):
        axes.legend(fontsize=6.5, ncols=2, loc="upper left", framealpha=0.6, borderpad=0.2, labelspacing=0.3)


def _peak(series: Series) -> float:
    return max((value for _, value in series.points if math.isfinite(value)), default=0)


def _number(axes: Axes, panel: Panel, drawn: Drawn) -> None:
    lines = [f"{name}  {written(series.last, panel.unit)}".strip() for name, series in drawn]
    _text(axes, "\n".join(lines) or panel.none, INK if lines else DIM, 18 if len(lines) < 2 else 10)


def _table(axes: Axes, panel: Panel, drawn: Drawn) -> None:
    axes.axis("off")
    if not drawn:
        _text(axes, panel.none, DIM)
        return
    columns = list(drawn[0][1].labels)
    rows = [[series.labels.get(column, "") for column in columns] for _, series in drawn]
    table = axes.table(cellText=rows, colLabels=columns, loc="upper left", cellLoc="left", edges="horizontal")
    table.auto_set_font_size(False)
    table.set_fontsize(8)
    table.auto_set_column_width(list(range(len(columns))))


def _text(axes: Axes, text: str, color: str, size: float = 11) -> None:
    axes.axis("off")
    axes.text(0.5, 0.5, text, ha="center", va="center", fontsize=size, color=color, transform=axes.transAxes)


PAINTERS = {"timeseries": _lines, "stat": _number, "table": _table}


def written(value: float, unit: str) -> str:
    """A value as Grafana writes it in this unit."""
    match unit:
        case "percentunit":
            return f"{100 * value:.3g} %"
        case "percent":
            return f"{value:.3g} %"
        case "ms" if value < 1000:
            return f"{value:.3g} ms"
        case "ms" | "s":
            return _duration(value / 1000 if unit == "ms" else value)
        case "bytes":
            return f"{value / 2**20:.4g} MiB"
        case "reqps":
            return f"{value:.3g} req/s"
    return f"{value:.4g}"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    return f"{seconds:.3g} s" if seconds < 120 else f"{seconds / 60:.3g} min" if seconds < 7200 else f"{seconds / 3600:.3g} h"


if __name__ == "__main__":
    app()
