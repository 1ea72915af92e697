"""The models as they serve: descriptions of items."""

from tests.serve.api_client import Api

A_FILM = "Metropolis"


COLD = {"kind": "film", "title": "A Film of Nobody", "year": 2031, "genres": ["Horror"], "overview": "A vampire sleeps in a lighthouse."}


async def film(api: Api, title: str = A_FILM) -> dict:
    return (await api.get("/v1/items", params={"q": title})).json()["items"][0]


async def test_describe_a_cold_item_and_a_stored_one(api: Api) -> None:
    cold = (await api.post("/v1/describe", {"item": COLD})).json()
    assert cold["description"] == "A Film of Nobody, in other words."
    assert cold["item"] == COLD
    assert (cold["source"], cold["marked"], cold["violations"]) == ("model", False, [])
    stored = (await api.post("/v1/describe", {"id": "metropolis-1927"})).json()
    assert stored["item"]["title"] == A_FILM
    marked = (await api.post("/v1/describe", {"item": {"title": "Marked"}})).json()
    assert (marked["source"], marked["marked"], len(marked["violations"])) == ("template", True, 1)
