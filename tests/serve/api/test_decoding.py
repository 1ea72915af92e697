"""Compressed bodies: gzip is read and counted as what it becomes, everything else is refused by the header's name."""

import gzip
import json
import tracemalloc
from typing import Any

import pytest

from tests.serve.api_client import JSON, Api, error

pytestmark = pytest.mark.asyncio(loop_scope="session")

BODY = json.dumps({"text": "a heist inside dreams", "k": 2}).encode()


@pytest.mark.parametrize("encoding", ["gzip", "x-gzip", " GZIP "])
async def test_a_gzip_body_is_read(api: Api, encoding: str) -> None:
    plain = await api.raw("/v1/search", BODY)
    packed = await api.raw("/v1/search", gzip.compress(BODY), JSON | {"content-encoding": encoding})
    assert packed.status_code == 200, packed.text
    assert packed.json()["items"] == plain.json()["items"]
    assert (await api.raw("/v1/search", BODY, JSON | {"content-encoding": "identity"})).status_code == 200


async def test_a_gzip_body_may_come_in_pieces(api: Api) -> None:
    packed = gzip.compress(BODY)

    async def pieces() -> Any:
        for byte in packed:
            yield bytes([byte])

    assert (await api.raw("/v1/search", pieces(), JSON | {"content-encoding": "gzip"})).status_code == 200


@pytest.mark.parametrize("encoding", ["br", "deflate", "zstd", "gzip, gzip", "nonsense"])
async def test_other_encodings_are_refused_by_name(api: Api, encoding: str) -> None:
    response = await api.raw("/v1/search", BODY, JSON | {"content-encoding": encoding})
    assert error(response)[0] == 415
    assert "Content-Encoding" in response.json()["message"]
    assert (await api.get("/v1/info", headers={"content-encoding": encoding})).status_code == 200


@pytest.mark.parametrize(
    "body", [BODY, gzip.compress(BODY)[:-9], gzip.compress(BODY) + b"more", b""], ids=["plain", "cut", "longer", "empty"]
)
async def test_what_only_says_that_it_is_gzip_is_refused(api: Api, body: bytes) -> None:
    response = await api.raw("/v1/search", body, JSON | {"content-encoding": "gzip"})
    assert response.status_code == 400, response.text
    assert "Content-Encoding" in response.json()["message"]


async def test_a_bomb_is_refused_before_it_is_in_memory(api: Api) -> None:
    limit = api.service.settings.serving.max_body_bytes
    bomb = gzip.compress(b" " * 100 * limit)
    assert len(bomb) < limit
    tracemalloc.start()
    try:
        response = await api.raw("/v1/search", bomb, JSON | {"content-encoding": "gzip"})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert error(response)[0] == 413
    assert "decompressed" in response.json()["message"]
    assert peak < 10 * limit
