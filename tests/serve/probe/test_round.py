"""One round of the probe, its queries and its metrics: which figures a round makes of which answers. The server is a script here."""

import math
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import generate_latest

from matinee.client.calls import Call
from matinee.client.http import ServerError
from matinee.errors import SettingsError
from matinee.settings.load import load_settings
from matinee.settings.serving import ProbeSettings
from serve.probe.metrics import ProbeExporter
from serve.probe.round import Prober, Quality, RoundReport
from tests.serve.probe.query_files import uid, write_set

ROOT = Path(__file__).parents[3]


class Script:
    """A server by script: answers by query text (ids of the catalogue), the same in each mode unless `by_mode` knows better."""

    url = "http://script"

    def __init__(self, answers: Mapping[str, list[str]], **info: Any) -> None:
        self.answers = {text: [uid(id) for id in ids] for text, ids in answers.items()}
        self.absent = {uid("gone")}
        self.asked: list[str] = []
        self.index = {"version": "v1", "items": 10, "approximate": False, "created": "2026-01-01T00:00:00+00:00"} | info
        self.failing: dict[str, str] = {}
        self.trouble: str | None = None
        self.counted: list[str] = []

    async def send(self, endpoint: str, call: Call[Any], *, missing_is_fine: bool = False) -> Any:
        if endpoint == "info":
            return {"catalogue": "films", "index": self.index, "search": {"mode": "hybrid"}, "index_trouble": self.trouble}
        if endpoint == "facets":
            values = [{"value": "rare", "count": 12}, {"value": "tiny", "count": 2}, {"value": "half", "count": 60}]
            return {"count": 120, "genres": values, "language": [{"value": "en", "count": 120}], "kind": []}
        if endpoint == "items":
            return {"items": [{"item": {"title": text}} for text in self.answers]}
        if call.body is None:
            return self.reply(call.path.split("/")[3])
        body: Any = call.body
        key = f"{body['text']}, exact" if body.get("exact") else body["text"]
        if body.get("filter"):
            assert body["filter"] == {"genres": ["rare"]}, "the value that about a tenth of the items have"
            key = f"{key}, filtered"
        return self.reply(key if key in self.answers or key in self.failing else body["text"])

    def count_error(self, code: str, message: str) -> ServerError:
        self.counted.append(code)
        return ServerError(message, code)

    async def exists(self, id: str) -> bool:
        self.asked.append(id)
        return id not in self.absent

    async def index_id(self, id: str) -> str | None:
        self.asked.append(id)
        return uid(id)

    def reply(self, key: str) -> dict[str, Any]:
        if key in self.failing:
            raise ServerError("scripted", self.failing[key])
        return {"items": [{"id": id} for id in self.answers[key]]}


async def look(server: Any, **settings: Any) -> RoundReport:
    return await Prober(ProbeSettings(**settings)).round(server)


async def test_figures_are_those_of_the_labels_that_the_index_has(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report = await look(Script({"one": ["x", "a"], "two": ["c", "y"], "three": ["z"]}), queries=write_set(tmp_path / "mine"))
    ndcg = (1 / math.log2(3) + 1 / (1 + 1 / math.log2(3))) / 2
    expected = [Quality("mine", mode, 2, 0.75, pytest.approx(ndcg)) for mode in ("hybrid", "dense", "sparse")]
    assert list(report.qualities) == expected
    assert (report.queries, report.labelled, report.unknown, report.trouble) == ({"mine": 3}, {"mine": 4}, {"mine": 1}, ())
    assert "set mine: 1 of its 4 items are not in the index" in caplog.text
    assert report.created is not None
    assert report.created.year == 2026


async def test_which_items_exist_is_asked_once_for_each_state_of_the_index(tmp_path: Path) -> None:
    server = Script({"one": ["a"], "two": ["x"], "three": ["z"]})
    prober = Prober(ProbeSettings(queries=write_set(tmp_path / "mine")))
    for _ in range(2):
        assert (await prober.round(server)).unknown == {"mine": 1}
    assert sorted(server.asked) == sorted(map(uid, ("b", "c", "gone"))), "what was answered exists, the others are asked for once"
    server.absent.clear()
    server.index["items"] = 11
    assert (await prober.round(server)).unknown == {"mine": 0}


async def test_a_set_about_another_catalogue_has_no_figure(tmp_path: Path) -> None:
    server = Script({"one": ["x"]})
    server.absent = {uid("a")}
    report = await look(server, queries=write_set(tmp_path / "mine", {"one": ["a"]}))
    assert report.qualities == ()
    assert report.unknown == report.labelled == {"mine": 1}
    assert "is it about another catalogue?" in report.trouble[0]


async def test_a_failed_request_is_no_miss_and_too_many_of_them_no_figure(tmp_path: Path) -> None:
    labels = {f"q{i}": ["a"] for i in range(20)}
    server = Script(labels)
    folder = write_set(tmp_path / "mine", labels)
    server.failing = {"q1": "overloaded", "q2": "timeout"}
    report = await look(server, queries=folder)
    assert {(found.queries, found.recall) for found in report.qualities} == {(18, 1.0)}
    server.failing["q3"] = "overloaded"
    report = await look(server, queries=folder)
    assert report.qualities == ()
    assert report.trouble[0] == "set mine, hybrid: 17 of 20 queries were answered"


async def test_a_set_of_items_asks_for_similar_ones(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "item_taste", {"a": ["b"]}, items=True)
    server = Script({uid("a"): ["b"]})
    assert (await look(server, queries=folder)).qualities == (Quality("item_taste", "similar", 1, 1.0, 1.0),)


async def test_an_item_to_ask_with_that_is_gone_is_unknown(tmp_path: Path) -> None:
    asked = [f"q{i}" for i in range(10)]
    folder = write_set(tmp_path / "item_taste", {name: ["b"] for name in asked}, items=True)
    server = Script({uid(name): ["b"] for name in asked})
    server.failing = {uid(name): "not_found" for name in asked[:3]}
    server.absent = {uid(name) for name in asked[:3]}
    report = await look(server, queries=folder)
    assert report.qualities == (Quality("item_taste", "similar", 7, 1.0, 1.0),)
    assert (report.labelled, report.unknown, report.trouble) == ({"item_taste": 11}, {"item_taste": 3}, ())


async def test_what_the_approximate_search_loses(tmp_path: Path) -> None:
    answers = {"one": ["a", "b"], "one, exact": ["a", "c"], "one, exact, filtered": ["d", "a"], "one, filtered": ["a", "d"]}
    folder = write_set(tmp_path / "mine", {"one": ["a"]})
    assert (await look(Script(answers, approximate=True), queries=folder)).ann_recall == {False: 0.5, True: 1.0}
    assert (await look(Script(answers), queries=folder)).ann_recall == {}, "an exact index has nothing to lose"
    assert (await look(Script(answers, approximate=True), queries=folder, ann_queries=0)).ann_recall == {}


async def test_without_a_query_set_titles_serve_the_comparison_and_nothing_is_labelled() -> None:
    report = await look(Script({"A Title": ["a"]}, approximate=True))
    assert (report.queries, report.qualities, report.trouble) == ({}, (), ())
    assert report.ann_recall == {False: 1.0, True: 1.0}


async def test_a_key_without_the_scope_leaves_the_comparison_out(tmp_path: Path) -> None:
    server = Script({"one": ["a"]}, approximate=True)
    server.failing = {"one, exact": "forbidden"}
    report = await look(server, queries=write_set(tmp_path / "mine", {"one": ["a"]}))
    assert report.ann_recall == {}
    assert report.trouble == (), "recall is measured, and that is what the key is for"
    assert "a key with the scope admin: scripted" in report.not_compared
    assert len(report.qualities) == 3
    shown = ProbeExporter()
    shown.show(report)
    assert "matinee_probe_last_success_timestamp_seconds 1" in generate_latest(shown.registry).decode()


async def test_other_failures_of_the_comparison_are_trouble(tmp_path: Path) -> None:
    server = Script({"one": ["a"]}, approximate=True)
    server.failing = {"one, exact": "internal"}
    report = await look(server, queries=write_set(tmp_path / "mine", {"one": ["a"]}))
    assert (report.trouble, report.not_compared) == (("approximate against exact search: scripted",), "")


async def test_a_server_that_tells_its_state_is_up_whatever_else_is_wrong(tmp_path: Path) -> None:
    class Gone(Script):
        async def send(self, endpoint: str, call: Call[Any], *, missing_is_fine: bool = False) -> Any:
            raise ServerError("gone", "unreachable")

    shown = ProbeExporter()
    assert "\nmatinee_probe_up " not in generate_latest(shown.registry).decode(), "no round yet"
    for server, up in ((Script({"one": ["a"]}), 1.0), (Gone({}), 0.0)):
        report = await look(server, queries=write_set(tmp_path / f"up {up}", {"one": ["gone"]}))
        assert report.trouble
        shown.show(report)
        assert f"\nmatinee_probe_up {up}" in generate_latest(shown.registry).decode()


async def test_a_round_ends_in_time(tmp_path: Path) -> None:
    class Slow(Script):
        async def send(self, endpoint: str, call: Call[Any], *, missing_is_fine: bool = False) -> Any:
            if call.body is None:
                return await super().send(endpoint, call)
            import asyncio

            await asyncio.Event().wait()
            raise AssertionError

    report = await look(Slow({}), queries=write_set(tmp_path / "mine"), interval_s=0.05, deadline_s=0.04)
    assert "took longer than 0.05 s" in report.trouble[0]


async def test_no_index_and_no_matinee() -> None:
    server = Script({})
    server.index = None  # type: ignore[assignment]
    assert (await look(server)).trouble == ("http://script has no index yet: build one with `matinee ingest FILE`",)
    server.trouble = "no answer from http://qdrant:6333"
    report = await look(server)
    assert report.up
    assert report.trouble == ("http://script has no index to answer from: no answer from http://qdrant:6333",)
    assert server.counted == ["index_absent", "index_unavailable"]

    async def other(*_: Any, **__: Any) -> dict[str, Any]:
        return {"name": "another service"}

    server.send = other  # type: ignore[method-assign]
    assert "check probe.url" in (await look(server)).trouble[0]
    assert server.counted[2:] == ["malformed"]


# query sets


async def test_labels_that_only_look_like_ids_of_the_index_are_asked_about(tmp_path: Path) -> None:
    own = "0b3f8a52-9c1d-4e7a-8f60-1d2c3b4a5e6f"
    server = Script({"q": [own, "b"]})
    prober = Prober(ProbeSettings(queries=write_set(tmp_path / "mine", {"q": [own, "b"]})))
    for _ in range(2):
        [quality, *_] = (await prober.round(server)).qualities
        assert quality.recall == 1
    assert server.asked == [own], "once, and only what is uncertain"


def test_settings_of_the_probe() -> None:
    settings = load_settings(environ={"MATINEE_PROBE__KEY": "mat_secret", "MATINEE_PROBE__URL": "http://x"}).probe
    assert "mat_secret" not in repr(settings)
    with pytest.raises(SettingsError, match="deadline_s 5 is not below interval_s 5"):
        load_settings({"probe": {"deadline_s": 5, "interval_s": 5}}, environ={})
    with pytest.raises(SettingsError) as refusal:
        load_settings({"probe": {"key": 12345}}, environ={})
    assert "12345" not in str(refusal.value)


# metrics


def test_the_probe_needs_neither_models_nor_ray() -> None:
    code = "import sys, serve.probe; print(sorted({'torch', 'ray', 'transformers'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
