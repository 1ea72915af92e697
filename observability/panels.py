"""What the three dashboards are built of: variables, panels of our few kinds, and the PromQL that they share.

Every panel reads the data source, namespace, release, application and deployment that are chosen at the top. Does not know what any
dashboard shows.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as common_models
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models import prometheus as prometheus_models

PLACE = 'namespace=~"$namespace",matinee_release=~"$release"'
"""Of processes that are no part of the graph: the probe, nodes."""
APP = f'{PLACE},application=~"$application"'
PART = f'{APP},deployment=~"$deployment"'

NO_QUERIES = "no query set (probe.queries), or no probe"
NO_RULES = "needs the rules (alerts.enabled), and requests"
QUANTILES = {"p50": "0.5", "p95": "0.95", "p99": "0.99"}
COLUMNS = 24
_SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True)
class PanelSpec:
    """One panel: `queries` maps each legend to its expression. `kind` is lines, number or table."""

    title: str
    queries: Mapping[str, str]
    description: str
    unit: str = "short"
    kind: str = "lines"
    width: int = 8
    none: str = "no data"
    top: float | None = None


def selector(metric: str, *matchers: str, where: str = APP) -> str:
    return f"{metric}{{{','.join([where, *matchers])}}}"


def rate(metric: str, by: str = "", *matchers: str, where: str = APP) -> str:
    """Events a second, summed by the labels `by`."""
    return f"sum{_by(by)} (rate({selector(metric, *matchers, where=where)}[$__rate_interval]))"


def quantiles(metric: str, by: str, *matchers: str, where: str = APP) -> dict[str, str]:
    """p50, p95 and p99 of a histogram, by a label."""
    buckets = rate(f"{metric}_bucket", f"le, {by}", *matchers, where=where)
    return {f"{name} {{{{{by}}}}}": f"histogram_quantile({q}, {buckets})" for name, q in QUANTILES.items()}


def share(metric: str, by: str, bound: str) -> str:
    """Part of a histogram's observations that were at most `bound`, one of its bounds.

    In place of a mean: Ray fills `_sum` with the middle of each bucket, so that a batch of one would count as half.
    """
    few, all_ = rate(f"{metric}_bucket", by, f'le="{bound}"'), rate(f"{metric}_count", by)
    return f"{few} / {all_}"


def or_zero(expression: str, like: str) -> str:
    """`expression`, and 0 where nothing of the kind has happened yet; `like` always has series with the same labels."""
    return f"{expression} or 0 * {like}"


def any_or_zero(expression: str, like: str) -> str:
    """`expression`, and a single 0 while it has no series at all: of what happens in failures there is none before the first."""
    return f"{or_zero(expression, like)} unless on () ({expression})"


def _by(labels: str) -> str:
    return f" by ({labels})" if labels else ""


def build(uid: str, title: str, description: str, rows: Mapping[str, Iterable[PanelSpec]]) -> models.Dashboard:
    """A dashboard of rows of views."""
    board = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["matinee"])
        .readonly()
        .refresh("30s")
        .time("now-1h", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(
            dashboard.DashboardLink("Matinee")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["matinee"])
            .keep_time(True)
            .include_vars(True)
        )
    )
    for variable in _variables():
        board.with_variable(variable)
    for row, views in rows.items():
        board.with_row(dashboard.Row(row))
        for view in views:
            board.with_panel(_panel(view))
    return board.build()


def _variables() -> list[Any]:
    status = "ray_serve_deployment_status"
    chosen = 'namespace=~"$namespace",matinee_release=~"$release"'
    return [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        _variable("namespace", "Namespace", f"label_values({status}, namespace)"),
        _variable("release", "Release", f'label_values({status}{{namespace=~"$namespace"}}, matinee_release)'),
        _variable("application", "Application", f"label_values({status}{{{chosen}}}, application)"),
        _variable("deployment", "Deployment", f'label_values({status}{{{chosen},application=~"$application"}}, deployment)'),
    ]


def _variable(name: str, label: str, query: str) -> dashboard.QueryVariable:
    # `.*` also matches what has no such label: a Prometheus outside of Kubernetes.
    return (
        dashboard.QueryVariable(name)
        .label(label)
        .datasource(_SOURCE)
        .query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
    )


def _panel(view: PanelSpec) -> Any:
    panel = {"lines": _lines, "number": _number, "table": _table}[view.kind]()
    panel.title(view.title).description(view.description).datasource(_SOURCE).unit(view.unit).no_value(view.none).span(view.width)
    panel.height(4 if view.kind == "number" else 8)
    if view.top is not None:
        panel.min(0).max(view.top)
    elif view.kind == "lines":
        panel.min(0)
    for n, (legend, expression) in enumerate(view.queries.items()):
        query = prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(chr(ord("A") + n)).datasource(_SOURCE)
        if view.kind == "table":
            query.instant().format(prometheus_models.PromQueryFormat.TABLE)
        elif view.kind == "number":
            query.instant()
        panel.with_target(query)
    if view.kind == "table":
        hidden = {"Time": True, "Value": True}
        panel.with_transformation(models.DataTransformerConfig(id_val="organize", options={"excludeByName": hidden}))
    return panel


def _lines() -> Any:
    legend = common.VizLegendOptions().display_mode(common_models.LegendDisplayMode.LIST).placement(common_models.LegendPlacement.BOTTOM)
    return (
        timeseries.Panel()
        .legend(legend.show_legend(True))
        .tooltip(common.VizTooltipOptions().mode(common_models.TooltipDisplayMode.MULTI).sort(common_models.SortOrder.DESCENDING))
        .fill_opacity(10)
        .line_width(1)
    )


def _number() -> Any:
    return stat.Panel().reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"])).color_mode(common_models.BigValueColorMode.NONE)


def _table() -> Any:
    return table.Panel()
