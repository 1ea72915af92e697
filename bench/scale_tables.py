"""The figures of `bench.scale` as Markdown tables."""

from typing import Any

from bench.scale_home import CLIENTS, FILTERS, SCAN, SIMILAR, STAGES, K
from bench.tables import markdown


def tables(figures: dict[str, Any]) -> str:
    """The figures that are there, as Markdown; what was not measured is empty."""
    variants: dict[str, dict[str, Any]] = figures.get("variants", {})
    items, parts = figures["items"], []
    heads = [*variants]
    took = figures.get("write", {})
    rows: list[list[object]] = [[f"{stage}, s", *[_seconds(took, stage) if name == SCAN else "" for name in heads]] for stage in STAGES]
    rows.append(["graph, s", *[_seconds(each, "graph") for each in variants.values()]])
    rows.append(["graph, peak MB", *[each.get("graph, peak MB", "") for each in variants.values()]])
    parts.append(markdown([f"building {items:,} items, of that CPU", *heads], rows))
    memory = [(key, when) for when in ("opened", "after searches") for key in ("PSS", "anonymous", "files")]
    rows = [[f"{key}, {when}", *[_added(each, key, when, items) for each in variants.values()]] for key, when in memory]
    stored = sorted({part for each in variants.values() for part in each.get("disk", {})})
    rows += [[f"disk: {part}", *[_per_item(each.get("disk", {}).get(part), items) for each in variants.values()]] for part in stored]
    parts.append(markdown(["bytes an item", *heads], rows))
    rows = [
        [f"{case}, of {figures.get('passing', {}).get(case, items):,}", *[_recalls(each, case) for each in variants.values()]]
        for case in (*FILTERS, SIMILAR)
    ]
    parts.append(markdown([f"recall@{K}", *heads], rows))
    cases = list(dict.fromkeys(case for each in variants.values() for case in each.get("latency", {}).get("cases", {})))
    rows = [
        [f"{case}, {clients} {'client' if clients == 1 else 'clients'}", *[_latencies(each, case, clients) for each in variants.values()]]
        for case in cases
        for clients in CLIENTS
    ]
    rows += [[f"{case}, CPU of one, ms", *[_core_ms(each, case) for each in variants.values()]] for case in cases]
    rows.append(["load average at the end", *[each.get("latency", {}).get("load average", "") for each in variants.values()]])
    parts.append(markdown(["p50 / p99, ms (requests/s)", *heads], rows))
    return "\n\n".join(parts)


def _seconds(figures: dict[str, Any], stage: str) -> str:
    return f"{figures[stage]:.1f}, {figures[f'{stage}, CPU']:.1f}" if stage in figures else ""


def _added(figures: dict[str, Any], key: str, when: str, items: int) -> str:
    """What the index added to its process, an item."""
    memory = figures.get("memory")
    return "" if memory is None else _per_item(memory[when][key] - memory["before"][key], items)


def _per_item(size: int | None, items: int) -> str:
    return "" if size is None else f"{size / items:,.0f}"


def _recalls(figures: dict[str, Any], case: str) -> str:
    return " / ".join(f"{recall[case]:.3f}" for recall in figures.get("recall", {}).values())


def _latencies(figures: dict[str, Any], case: str, clients: int) -> str:
    one = figures.get("latency", {}).get("cases", {}).get(case, {}).get(str(clients))
    return "" if one is None else f"{one['p50_ms']:.1f} / {one['p99_ms']:.1f} ({one['rps']:.0f})"


def _core_ms(figures: dict[str, Any], case: str) -> str:
    one = figures.get("latency", {}).get("cases", {}).get(case, {}).get(str(CLIENTS[0]))
    return "" if one is None else f"{one['core_ms']:.1f}"
