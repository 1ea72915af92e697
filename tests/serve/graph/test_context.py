"""What a request brings along: the times of its stages."""

import itertools
import time
from types import SimpleNamespace

import pytest

from serve.graph import context
from serve.graph.context import RequestContext


def test_a_stage_that_several_do_at_the_same_time_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    now, ticks = RequestContext(time.monotonic() + 3600), itertools.count()
    monkeypatch.setattr(context, "time", SimpleNamespace(perf_counter=lambda: next(ticks)))
    with now.stage("enhance"), now.stage("enhance"):
        pass
    assert now.stages == {"enhance": 2000}
    with now.stage("enhance"):
        pass
    assert now.stages == {"enhance": 3000}
