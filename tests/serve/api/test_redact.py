"""What keys below admin are told of folders and addresses: the last part of each."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
from serve_helpers import Api, error

from matinee.errors import IndexLockedError
from serve.api.auth import new_key
from serve.api.redact import without_places


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/u/.matinee/models/abc", ".../abc"),
        ("locked: /home/u/.matinee/index/demo: another process", "locked: .../demo: another process"),
        ("http://qdrant.ns:6333 does not answer", "... does not answer"),
        ("see https://u:p@q:6333/collections/x.", "see .../x."),
        ("s3://bucket/models/abc", ".../abc"),
        ("gs://bucket", "..."),
        ("(~/.matinee/x)", "(.../x)"),
        ("hub:ibm/granite", "hub:ibm/granite"),
        ("build one with `matinee ingest FILE`", "build one with `matinee ingest FILE`"),
        ("look it up with GET /v1/items?q=TITLE, see /docs", "look it up with GET /v1/items?q=TITLE, see /docs"),
        ("and/or 1/2", "and/or 1/2"),
    ],
)
def test_places_lose_all_but_their_last_part(text: str, shown: str) -> None:
    assert without_places(text) == shown
    assert without_places({"a": [text, 1, None]}) == {"a": [shown, 1, None]}


async def test_only_admin_sees_paths(bent: Callable[..., AbstractAsyncContextManager[Api]]) -> None:
    place = "/srv/secret/index"
    reader, reader_entry = new_key("reader", ("read",))
    admin, admin_entry = new_key("admin", ("admin",))

    async def info() -> dict[str, Any]:
        return {"model": "/srv/secret/models/mine", "trouble": f"cannot read {place}"}

    async def locked(message: Any, deadline: float) -> Any:
        raise IndexLockedError(f"{place} is open in another process")

    keys = {"keys": [reader_entry.model_dump(), admin_entry.model_dump()]}
    async with bent(parts={"retriever": locked, "infos": {"embedder": info}}, serving=keys) as api:
        for key, sees in ((reader, False), (admin, True)):
            headers = {"authorization": f"Bearer {key}"}
            report = await api.get("/v1/info", headers=headers)
            assert report.status_code == 200
            refused = await api.get("/v1/items", headers=headers)
            assert error(refused) == (503, "index_locked")
            for text in (report.text, refused.text):
                assert ("/srv" in text) is sees
        assert report.json()["embedder"]["model"] == "/srv/secret/models/mine"
        assert "/srv" not in (await api.get("/readyz")).text


async def test_who_serves_on_loopback_without_keys_is_admin(bent: Callable[..., AbstractAsyncContextManager[Api]]) -> None:
    async def info() -> dict[str, Any]:
        return {"model": "/srv/models/mine"}

    async with bent(films=1, parts={"infos": {"embedder": info}}) as api:
        assert (await api.get("/v1/info")).json()["embedder"]["model"] == "/srv/models/mine"
    async with bent(films=1, parts={"infos": {"embedder": info}}, serving={"host": "0.0.0.0"}) as api:
        assert (await api.get("/v1/info")).json()["embedder"]["model"] == ".../mine"
