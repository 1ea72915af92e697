"""`train.reporting.report`: what was measured, as a page and as Markdown."""

from typing import Any

import pytest

from train.reporting import report

MEASURED = {kind: {"mean": 0.5, "low": 0.4, "high": 0.6} for kind in ("recall", "ndcg", "mrr")}
GAIN = {kind: {"mean": 0.1, "low": 0.05, "high": 0.2} for kind in MEASURED}
ROW = {"set": "text_keyword", "items": "all items", "queries": 7, "system": "after", **MEASURED, "minus_before": GAIN}


def test_a_title_cannot_inject_into_the_page(empty_results: dict[str, Any]) -> None:
    rows = [{"title": "<script>alert(1)</script>", "before": [{"title": "<b>", "cosine": 0.5}]}]
    models = {"before": {"model": "<i>", "fingerprint": "f", "precision": "fp32"}}
    page = report.html(empty_results | {"table2": rows, "models": models})
    assert "&lt;script&gt;alert(1)" in page
    assert not any(tag in page for tag in ("<script", "<b>&", "<i>"))


def test_a_row_has_its_intervals_and_its_difference(empty_results: dict[str, Any]) -> None:
    results = empty_results | {"table1": [ROW, ROW | {"system": "before", "minus_before": None}]}
    line = "| text_keyword | all items | after | " + "0.500 [0.400, 0.600] | " * 3 + "+0.100 [+0.050, +0.200] |"
    assert line in report.markdown(results).splitlines()
    page = report.html(results)
    assert '<td class="n up">+0.100 [+0.050, +0.200]</td>' in page
    assert '<td class="n"></td>' in page


@pytest.mark.parametrize(("mean", "top"), [(0.0, 240), (0.5, 130), (1.0, 20)])
def test_a_bar_is_as_high_as_its_value(mean: float, top: float) -> None:
    chart = report.bar_chart([ROW | {"recall": {"mean": mean, "low": 0, "high": 1}}], "recall", "Recall@10")
    [bar] = chart.bars
    assert (bar.top, bar.low, bar.high) == (top, 240, 20)
    assert chart.legend == [("after", bar.colour)]
