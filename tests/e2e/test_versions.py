"""New index versions under constant queries: nobody sees an error, and nothing that the API wrote is lost."""

import json
from typing import Any

from tests.waiting import until

KEPT = {
    "id": "e2e-kept",
    "kind": "film",
    "title": "The Paper Astronomer",
    "year": 2033,
    "overview": "An astronomer folds the sky out of paper.",
}


def test_ingest_and_rollback_while_queries_go_on(server: Any, tools: Any) -> None:
    first = server.version()
    server.put(KEPT)
    server.delete("metropolis-1927")
    with tools.Load(server) as load:
        report = tools.ingest(server.home)
        assert (report["kept from the API"], report["deleted through the API"]) == (1, tombstones(server))
        until(lambda: server.version() == report["version"] != first, "the server follows the new version")
        unchanged(server)
        load.goes_on()

        late = server.put(KEPT | {"id": "e2e-late", "title": "The Late Astronomer"})
        back = server.cli("index", "rollback", "--json")
        assert json.loads(back.stdout)["version"] == first
        until(lambda: server.version() == first, "the server goes back")
        unchanged(server)
        assert server.get("/v1/items/e2e-late")["id"] == late[0]["id"]
        load.goes_on()

        forth = server.cli("index", "rollback", "--json")
        assert json.loads(forth.stdout)["version"] == report["version"]
        until(lambda: server.version() == report["version"], "the server goes forth again")
        unchanged(server)
        assert server.status("/v1/items/e2e-late") == 200
        load.goes_on()
    assert load.failures == []
    assert server.get("/v1/info")["degraded"] == []


def tombstones(server: Any) -> int:
    items = server.get("/v1/items", origin="api", deleted=True, limit=1000)["items"]
    return sum(item.get("deleted", False) for item in items)


def unchanged(server: Any) -> None:
    """What the API wrote is as it was."""
    assert server.get("/v1/items/e2e-kept")["origin"] == "api"
    assert server.post("/v1/search", {"text": "an astronomer folds the sky out of paper", "k": 1})["items"][0]["item"]["id"] == "e2e-kept"
    assert server.status("/v1/items/metropolis-1927") == 404
