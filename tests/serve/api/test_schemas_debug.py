"""`debug: true`: what an answer was made of, and what dropped the rest. Its scope is held in `test_api_states`."""

from collections import Counter
from typing import Any

import pytest

from matinee.errors import IndexUnavailableError
from matinee.filters import ItemFilter
from serve.api.schemas import RankedResponse
from tests.serve.api_client import Api, error

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def debug(api: Api, route: str, **body: Any) -> dict[str, Any]:
    """The answer, held against the documented schema, and against the same request without `debug`."""
    answer: dict[str, Any] = (await api.post(f"/v1/{route}", body | {"debug": True})).json()
    RankedResponse.model_validate(answer)
    plain = (await api.post(f"/v1/{route}", body)).json()
    assert "debug" not in plain
    assert plain["items"] == answer["items"], "looking at a case must not change it"
    ranked = sorted((row for row in answer["debug"]["candidates"] if "rank" in row), key=lambda row: row["rank"])
    assert [row["id"] for row in ranked] == [card["id"] for card in answer["items"]]
    assert [row["score"] for row in ranked] == [card["score"] for card in answer["items"]]
    assert all(("rank" in row) != ("dropped" in row) for row in answer["debug"]["candidates"])
    return answer


async def test_a_hybrid_search_shows_each_stage(api: Api) -> None:
    found = (await debug(api, "search", text="a vampire in a castle", mode="hybrid", k=3))["debug"]
    assert found["stages"] == ["dense", "sparse", "fused"]
    rows = found["candidates"]
    assert [row["rank"] for row in rows[:3]] == [1, 2, 3]
    assert all("dense" in row["scores"] for row in rows), "every film has a cosine"
    words = [row["scores"]["sparse"] for row in rows if "sparse" in row["scores"]]
    assert 0 < len(words) < len(rows), "only some films share a word with the query"
    fused = [row["scores"]["fused"] for row in rows if "fused" in row["scores"]]
    assert fused == sorted(fused, reverse=True)
    assert found["dropped"] == {"rank": len(rows) - 3}
    assert found["items"] == found["items_passing_filter"] == found["candidates_found"]


@pytest.mark.parametrize(
    ("mode", "text", "stages"),
    [("dense", "a castle", ["dense"]), ("sparse", "a castle", ["sparse"]), ("hybrid", "the of and", ["dense"])],
)
async def test_a_search_of_one_stage(api: Api, mode: str, text: str, stages: list[str]) -> None:
    answer = await debug(api, "search", text=text, mode=mode, k=2)
    assert answer["debug"]["stages"] == stages
    for row in answer["debug"]["candidates"][:2]:
        assert row["scores"] == {stages[0]: row["score"]}


async def test_versions_and_times(api: Api) -> None:
    found = (await debug(api, "search", text="a castle", k=2))["debug"]
    index = (await api.get("/v1/info")).json()["index"]
    assert found["index"] == {name: index[name] for name in ("version", "fingerprint", "recipe", "models")}
    assert set(found["times_ms"]) >= {"retrieve", "forensics"}
    assert 0 < found["times_ms"]["forensics"] < found["times_ms"]["retrieve"]


async def test_what_a_filter_drops_is_counted_by_condition(api: Api) -> None:
    filter = {"genres": ["Horror"], "genres_none": ["Mystery"], "year": {"lte": 1932}}
    found = (await debug(api, "search", text="love in the city", mode="hybrid", k=3, filter=filter))["debug"]
    stored = {item["id"]: item["item"] for item in (await api.get("/v1/items", params={"limit": 1000})).json()["items"]}
    meant = ItemFilter(**filter)
    assert found["items_passing_filter"] == sum(not meant.unmet(item) for item in stored.values()) < found["items"]
    reasons: Counter[str] = Counter()
    for row in found["candidates"]:
        failed = {reason.removeprefix("filter.") for reason in row.get("dropped", ()) if reason.startswith("filter.")}
        assert bool(failed) == bool(meant.unmet(stored[row["id"]]))
        assert failed == {name for name in filter if ItemFilter(**{name: filter[name]}).unmet(stored[row["id"]])}
        assert ("score" in row) <= (not failed)
        reasons.update(f"filter.{name}" for name in failed)
    assert {name: count for name, count in found["dropped"].items() if name.startswith("filter.")} == reasons
    assert len(reasons) == 3


async def test_examples_exclusions_and_diversity_are_told_apart(api: Api) -> None:
    best = [card["id"] for card in (await api.post("/v1/recommend", {"likes": ["Nosferatu"], "k": 2})).json()["items"]]
    body = {"likes": ["Nosferatu"], "k": 3, "exclude": [best[0]], "diversity": 0.8}
    answer = await debug(api, "recommend", **body)
    by_reason = {row["id"]: row["dropped"] for row in answer["debug"]["candidates"] if "dropped" in row}
    assert by_reason[answer["likes"][0]["id"]] == ["example"]
    assert by_reason[best[0]] == ["exclude"]
    dropped = answer["debug"]["dropped"]
    assert (dropped["example"], dropped["exclude"]) == (1, 1)
    assert dropped["diversity"] == answer["debug"]["items"] - 3 - 2, "all others were candidates, and too near to what was chosen"
    assert answer["debug"]["candidates"][0]["dropped"] == ["example"], "nothing is nearer to a film than itself"


@pytest.mark.parametrize(
    ("body", "stage"), [({}, "popularity"), ({"likes": ["Nosferatu", "Metropolis"]}, "taste"), ({"dislikes": ["Nosferatu"]}, "taste")]
)
async def test_recommendations_name_their_stage(api: Api, body: dict[str, Any], stage: str) -> None:
    assert (await debug(api, "recommend", k=2, **body))["debug"]["stages"] == [stage]


async def test_candidates_are_bounded_and_counted_in_full(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("matinee.recommend.explain.MAX_CANDIDATES", 5)
    words = "a vampire in a castle, a soldier in the war, a heist"
    found = (await debug(api, "search", text=words, k=2))["debug"]
    assert len(found["candidates"]) == 5 < found["candidates_found"]
    answered = (await debug(api, "search", text="a castle", mode="dense", k=8))["debug"]
    assert [row["rank"] for row in answered["candidates"]] == [*range(1, 9)], "what was answered is told beyond the bound"


async def test_an_index_that_fails_under_the_report_is_an_error_of_the_envelope(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def gone(*_: Any) -> Any:
        raise IndexUnavailableError("the store is gone")

    monkeypatch.setattr("matinee.recommend.recommender.explain", gone)
    assert error(await api.post("/v1/search", {"text": "a castle", "debug": True})) == (503, "index_unavailable")
