"""The evaluation report as Markdown and as one self-contained HTML page: tables, and bar charts as inline SVG. Computes no figure."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

Found = Mapping[str, Any]

_COLOURS = {
    "after + facts": "#1e40af",
    "after": "#2563eb",
    "before + facts": "#64748b",
    "before": "#9aa5b1",
    "BM25": "#d97706",
    "TF-IDF": "#a16207",
    "vote count": "#94a3b8",
    "random": "#cbd5e1",
}
_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;padding:0 1rem;color:#1f2933}
table{border-collapse:collapse;margin:1rem 0;font-size:13px}td,th{border-bottom:1px solid #e4e7eb;padding:.25rem .6rem;text-align:left}
td.n{text-align:right;font-variant-numeric:tabular-nums}.up{color:#047857}.down{color:#b91c1c}figure{margin:1.5rem 0}
@media(prefers-color-scheme:dark){body{background:#111827;color:#e5e7eb}td,th{border-color:#374151}text{fill:#e5e7eb}}"""


def interval(value: Mapping[str, float], *, signed: bool = False) -> str:
    form = "{:+.3f}" if signed else "{:.3f}"
    return f"{form.format(value['mean'])} [{form.format(value['low'])}, {form.format(value['high'])}]"


def markdown(found: Found) -> str:
    """The table for RESULTS.md."""
    head = "| set | items | system | Recall@10 | NDCG@10 | MRR@10 | NDCG@10 - before |"
    lines = [f"Split {found['split']}, {found['items']} items, text `{found['template']}`.", "", head, "| --- " * 7 + "|"]
    for row in found["table1"]:
        change = interval(row["minus_before"]["ndcg"], signed=True) if row.get("minus_before") else ""
        cells = [row["set"], row["items"], row["system"], *(interval(row[kind]) for kind in ("recall", "ndcg", "mrr")), change]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", "| set | system | cosine of related pairs | gap to random | AUC |", "| --- " * 5 + "|"]
    for row in found["closeness"]:
        lines.append(f"| {row['set']} | {row['system']} | {row['related']:.3f} | {row['gap']:.3f} | {row['auc']:.3f} |")
    lines += ["", "| hybrid with BM25 | fusion | mean NDCG@10 of text sets | Recall@10 by set |", "| --- " * 4 + "|"]
    for row in _best(found["hybrids"]):
        sets = ", ".join(f"{name} {figures['recall']:.3f}" for name, figures in row["sets"].items())
        lines.append(f"| {row['system']} | {row['fusion']} | {_mean(row['mean'])} | {sets} |")
    fixed = _fixed(found["hybrids"])
    if fixed:
        lines += ["", "| hybrid with BM25 | fusion | set | Recall@10 | NDCG@10 | NDCG@10 - before |", "| --- " * 6 + "|"]
    for row in fixed:
        change = interval(row["minus_before"]["ndcg"], signed=True) if row["minus_before"] else ""
        cells = [row["system"], row["fusion"], row["set"], interval(row["recall"]), interval(row["ndcg"]), change]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, *_ablation_lines(found["ablation"]), ""])


def _fixed(rows: Sequence[Found]) -> list[Found]:
    """Set by set, the fusions that were fixed beforehand, which alone have intervals."""
    return [
        {"system": row["system"], "fusion": row["fusion"], "set": set, **found, "minus_before": row.get("minus_before", {}).get(set)}
        for row in rows
        for set, found in row.get("intervals", {}).items()
    ]


def _ablation_lines(found: Found) -> list[str]:
    if not found["rows"]:
        return []
    lines = [
        "",
        _ablation_told(found),
        "",
        "| facts | encoder | sets | items | way | text | descriptions | mean NDCG@10 |",
        "| --- " * 8 + "|",
    ]
    for row in found["means"]:
        cells = (row["facts"], row["encoder"], row["sets"], row["items"], row["way"], row["arm"], row["model"] or "-", f"{row['ndcg']:.3f}")
        lines.append(f"| {' | '.join(cells)} |")
    head = "| facts | encoder | set | items | queries | way | text | descriptions | Recall@10 | NDCG@10 | NDCG@10 - raw |"
    lines += ["", head, "| --- " * 11 + "|"]
    for row in found["rows"]:
        change = interval(row["minus_raw"]["ndcg"], signed=True) if row.get("minus_raw") else ""
        start = (row["facts"], row["encoder"], row["set"], row["items"], str(row["queries"]), row["way"], row["arm"], row["model"] or "-")
        lines.append(f"| {' | '.join((*start, interval(row['recall']), interval(row['ndcg']), change))} |")
    return lines


def _ablation_told(found: Found) -> str:
    return (
        f"{found['described']} items are described; `described` ranks these only, in `all items` the {found['raw']} others keep their raw "
        "text, which favours what was described. Differences are paired, to the raw text of the same way."
    )


def html(found: Found) -> str:
    """The whole report; nothing is fetched from anywhere."""
    parts = [
        "<h1>Retrieval, before and after</h1>",
        f"<p>Split {escape(found['split'])}, {found['items']} items, text {escape(found['template'])}.</p>",
        *(f"<p><b>{escape(name)}</b>: {escape(str(info['model']))}, {escape(info['fingerprint'][:16])}, {escape(info['precision'])}</p>"
          for name, info in found["models"].items()),
        "<h2>Table 1</h2><p>95 % bootstrap intervals over queries; differences are paired, those of after + facts to before + facts. "
        "Sets marked circular take their labels from the "
        "same metadata that is embedded: they are here to compare with the paper, not to judge by.</p>",
        _chart(found, "recall", "Recall@10"),
        _chart(found, "ndcg", "NDCG@10"),
        _table1(found["table1"]),
        "<h2>Cosine of related pairs</h2><p>The mean alone means nothing: a model that calls everything alike has a high one.</p>",
        _rows(("set", "system", "related", "gap", "auc"), found["closeness"]),
        "<h2>Hybrids</h2>", _hybrids(found["hybrids"]),
        "<h2>Table 2</h2>", _table2(found["table2"]),
    ]  # fmt: skip
    if found["recipes"]:
        parts += ["<h2>Texts</h2>", _rows(("set", "system", "text", "recall", "ndcg", "mrr"), found["recipes"])]
    parts += _ablation(found["ablation"])
    body = "\n".join(parts)
    head = f'<!doctype html><html lang="en"><meta charset="utf-8"><title>Retrieval report</title><style>{_STYLE}</style>'
    return f"{head}<body>{body}</body></html>"


def _mean(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _best(rows: Sequence[Found], count: int = 3) -> list[Found]:
    return [row for name in ("before", "after") for row in [row for row in rows if row["system"] == name][:count]]


def _chart(found: Found, kind: str, label: str) -> str:
    """Grouped bars with their intervals, one group a set, over all items."""
    rows = [row for row in found["table1"] if row["items"] == "all items"]
    sets = list(dict.fromkeys(row["set"] for row in rows))
    systems = [name for name in _COLOURS if any(row["system"] == name for row in rows)][::-1]
    bar, gap, height = 16, 30, 220
    group = bar * len(systems) + gap
    width = 50 + group * len(sets)
    parts = [f'<text x="0" y="12" font-size="12">{escape(label)}</text>']
    for tick in (0, 0.25, 0.5, 0.75, 1):
        y = 20 + height * (1 - tick)
        line = f'<line x1="36" x2="{width}" y1="{y}" y2="{y}" stroke="#8884"/>'
        parts.append(f'{line}<text x="0" y="{y + 4}" font-size="10">{tick:g}</text>')
    for row in rows:
        x = 42 + group * sets.index(row["set"]) + bar * systems.index(row["system"])
        value = row[kind]
        top, low, high = (20 + height * (1 - value[name]) for name in ("mean", "low", "high"))
        tip = f"<title>{escape(row['system'])}: {escape(interval(value))}</title>"
        rect = (
            f'<rect x="{x}" y="{top:.1f}" width="{bar - 2}" height="{20 + height - top:.1f}" fill="{_COLOURS[row["system"]]}">{tip}</rect>'
        )
        middle = x + (bar - 2) / 2
        parts.append(f'{rect}<line x1="{middle}" x2="{middle}" y1="{low:.1f}" y2="{high:.1f}" stroke="#1f2933"/>')
    parts += [f'<text x="{42 + group * i}" y="{height + 36}" font-size="11">{escape(name)}</text>' for i, name in enumerate(sets)]
    for i, name in enumerate(systems):
        key = f'<rect x="{42 + 110 * i}" y="{height + 48}" width="10" height="10" fill="{_COLOURS[name]}"/>'
        parts.append(f'{key}<text x="{56 + 110 * i}" y="{height + 57}" font-size="11">{escape(name)}</text>')
    width = max(width, 42 + 110 * len(systems))
    head = f'<svg role="img" aria-label="{escape(label)}" viewBox="0 0 {width} {height + 64}" width="100%">'
    return f"<figure>{head}{''.join(parts)}</svg></figure>"


def _table1(rows: Sequence[Found]) -> str:
    head = "".join(
        f"<th>{name}</th>" for name in ("set", "items", "queries", "system", "Recall@10", "NDCG@10", "MRR@10", "NDCG@10 - before")
    )
    lines = []
    for row in rows:
        cells = "".join(f'<td class="n">{interval(row[kind])}</td>' for kind in ("recall", "ndcg", "mrr"))
        cells += _changed(row.get("minus_before"))
        start = f"<td>{escape(row['set'])}</td><td>{escape(row['items'])}</td><td>{row['queries']}</td><td>{escape(row['system'])}</td>"
        lines.append(f"<tr>{start}{cells}</tr>")
    return f"<table><tr>{head}</tr>{''.join(lines)}</table>"


def _ablation(found: Found) -> list[str]:
    if not found["rows"]:
        return []
    columns = ("facts", "encoder", "items", "set", "queries", "way", "arm", "model")
    head = "".join(f"<th>{name}</th>" for name in (*columns, "Recall@10", "NDCG@10", "MRR@10", "NDCG@10 - raw"))
    lines = []
    for row in found["rows"]:
        change = row.get("minus_raw")
        cells = "".join(f"<td>{escape(str(row[name]))}</td>" for name in columns)
        cells += "".join(f'<td class="n">{interval(row[kind])}</td>' for kind in ("recall", "ndcg", "mrr"))
        lines.append(f"<tr>{cells}{_changed(change)}</tr>")
    return [
        f"<h2>Descriptions</h2><p>{escape(_ablation_told(found))}</p>",
        _rows(("facts", "encoder", "items", "sets", "way", "arm", "model", "ndcg"), found["means"]),
        f"<table><tr>{head}</tr>{''.join(lines)}</table>",
    ]


def _changed(change: Found | None) -> str:
    """The cell of a paired difference, coloured where its interval leaves out 0."""
    sign = "" if not change else " up" if change["ndcg"]["low"] > 0 else " down" if change["ndcg"]["high"] < 0 else ""
    return f'<td class="n{sign}">{interval(change["ndcg"], signed=True) if change else ""}</td>'


def _rows(columns: Sequence[str], rows: Sequence[Found]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    body = ["".join(_cell(row[name]) for name in columns) for row in rows]
    return f"<table><tr>{head}</tr>{''.join(f'<tr>{cells}</tr>' for cells in body)}</table>"


def _cell(value: Any) -> str:
    return f'<td class="n">{value:.3f}</td>' if isinstance(value, float) else f"<td>{escape(str(value))}</td>"


def _hybrids(rows: Sequence[Found]) -> str:
    sets = list(rows[0]["sets"]) if rows else []
    flat = [
        {"system": row["system"], "fusion": row["fusion"], "mean NDCG": _mean(row["mean"])}
        | {name: f"{row['sets'][name]['recall']:.3f} / {row['sets'][name]['ndcg']:.3f}" for name in sets}
        for row in rows
    ]
    lines = []
    for row in _fixed(rows):
        start = "".join(f"<td>{escape(row[name])}</td>" for name in ("system", "fusion", "set"))
        cells = "".join(f'<td class="n">{interval(row[kind])}</td>' for kind in ("recall", "ndcg", "mrr"))
        lines.append(f"<tr>{start}{cells}{_changed(row['minus_before'])}</tr>")
    head = "".join(f"<th>{name}</th>" for name in ("system", "fusion", "set", "Recall@10", "NDCG@10", "MRR@10", "NDCG@10 - before"))
    told = "<p>Recall@10 / NDCG@10; best first.</p>" + _rows(["system", "fusion", "mean NDCG", *sets], flat)
    return f"{told}<p>The fusion that was fixed beforehand, with its intervals.</p><table><tr>{head}</tr>{''.join(lines)}</table>"


def _table2(rows: Sequence[Found]) -> str:
    names = [name for name in ("before", "after") if rows and name in rows[0]]

    def told(found: Sequence[Found] | None) -> str:
        return "not in the catalogue" if found is None else "; ".join(f"{hit['title']} {hit['cosine']:.2f}" for hit in found)

    return _rows(["title", *names], [{"title": row["title"]} | {name: told(row[name]) for name in names} for row in rows])
