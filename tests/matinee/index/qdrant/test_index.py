"""What only the server engine can get wrong: unreachable servers, their answers, sizes of batches, what is asked of a collection."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import SecretStr
from qdrant_client import AsyncQdrantClient, models

from matinee.errors import IndexAbsentError, IndexUnavailableError, SettingsError
from matinee.index.qdrant import query
from matinee.index.qdrant.index import QdrantIndex
from matinee.index.qdrant.store import QdrantStore
from matinee.index.types import TEXT, DenseQuery, Manifest, Point, Search
from matinee.settings.index import IndexSettings

MANIFEST = Manifest(version="v1", catalogue="test", fingerprint="f" * 64, recipe="raw", dimensions={TEXT: 4})
SEARCH = [Search(DenseQuery(np.ones(4, dtype=np.float32)), 3)]


def settings(url: str, **given: object) -> IndexSettings:
    return IndexSettings.model_validate({"engine": "qdrant", "url": url, "timeout_s": 0.5, **given})


@contextmanager
def silent() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@contextmanager
def answering(status: int, body: str, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def index_of(store: QdrantStore) -> QdrantIndex:
    return QdrantIndex(store._call, "test.v1", MANIFEST)


@pytest.mark.parametrize("grpc", [False, True])
async def test_nobody_there(grpc: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    store = QdrantStore(settings(f"http://127.0.0.1:{port}", grpc=grpc), "test")
    for call in (store.current(), store.versions(), index_of(store).count(), index_of(store).search(SEARCH)):
        with pytest.raises(IndexUnavailableError, match=f"http://127.0.0.1:{port}"):
            await call
    await store.close()


async def test_no_answer_in_time() -> None:
    with silent() as url:
        store = QdrantStore(settings(url, timeout_s=0.05), "test")
        with pytest.raises(IndexUnavailableError, match=r"at http://127\.0\.0\.1:\d+ did not answer within 0\.05 s"):
            await index_of(store).search(SEARCH)
        await store.close()


@pytest.mark.parametrize(
    ("status", "text", "error", "says"),
    [
        (500, "panic", IndexUnavailableError, "answered 500"),
        (503, "loading", IndexUnavailableError, "answered 503"),
        (403, "no", IndexUnavailableError, r"refused the key: set index\.api_key"),
        (404, "Collection test.v1 not found", IndexAbsentError, r"Collection test\.v1"),
        (400, "Wrong input: Vector dimension error: expected dim: 4, got 3", ValueError, "dimension"),
    ],
)
async def test_what_a_server_refuses(status: int, text: str, error: type[Exception], says: str) -> None:
    with answering(status, json.dumps({"status": {"error": text}})) as url:
        store = QdrantStore(settings(url), "test")
        with pytest.raises(error, match=says):
            await index_of(store).search(SEARCH)
        await store.close()


def test_a_key_is_sent_and_not_shown() -> None:
    with pytest.warns(UserWarning, match="insecure"):
        store = QdrantStore(settings("http://127.0.0.1:1", api_key=SecretStr("k3y")), "test")
    assert "k3y" not in repr(store._call.settings)


def test_batches_stay_below_the_limits_of_a_server() -> None:
    points = [query.engine_point(Point(f"00000000-0000-0000-0000-{i:012x}", {})) for i in range(600)]
    assert [len(batch) for batch in query.batches(points, {TEXT: 384})] == [256, 256, 88]
    assert max(len(batch) for batch in query.batches(points, {TEXT: 3072})) < 80
    assert query.batches([], {TEXT: 4}) == []


def test_a_collection_is_made_as_the_settings_say() -> None:
    made = query.collection(MANIFEST, settings("http://x:1", shards=3, replication_factor=2, on_disk=True))
    assert (made["shard_number"], made["replication_factor"], made["on_disk_payload"]) == (3, 2, True)
    assert made["vectors_config"] == {TEXT: models.VectorParams(size=4, distance=models.Distance.COSINE, on_disk=True)}
    assert {vector.modifier for vector in made["sparse_vectors_config"].values()} == {models.Modifier.IDF}


async def test_a_switch_moves_both_aliases_in_one_call(monkeypatch: pytest.MonkeyPatch) -> None:
    client = AsyncQdrantClient(":memory:")
    store = QdrantStore(IndexSettings(), "test", client=client)
    calls: list[list[object]] = []
    original = client.update_collection_aliases

    async def counted(operations: list[models.AliasOperations]) -> bool:
        calls.append(list(operations))
        return await original(operations)

    monkeypatch.setattr(client, "update_collection_aliases", counted)
    for version in ("v1", "v2"):
        manifest = MANIFEST.model_copy(update={"version": version})
        await store.create(manifest)
        await store.finish(manifest)
        await store.switch(version)
    assert len(calls) == 2
    aliases = {entry.alias_name: entry.collection_name for entry in (await client.get_aliases()).aliases}
    assert aliases == {"test": "test.v2", "test.previous": "test.v1"}
    await store.close()
    assert (await store.versions())[0].version == "v2", "a client that was given stays open"
    await client.close()


async def test_an_unreadable_manifest_says_what_to_do() -> None:
    client = AsyncQdrantClient(":memory:")
    store = QdrantStore(IndexSettings(), "test", client=client)
    await store.create(MANIFEST)
    await client.update_collection("test.v1", metadata={"matinee_manifest": {"version": "v1"}})
    with pytest.raises(IndexUnavailableError, match=r"collection test\.v1 .*unreadable manifest.*build the version again"):
        await store.open("v1")
    await client.close()


def test_an_authority_that_is_none_is_explained(tmp_path: Path) -> None:
    for file in (tmp_path / "absent.crt", tmp_path / "empty.crt"):
        if file.name == "empty.crt":
            file.touch()
        with pytest.raises(SettingsError, match=r"index\.tls_ca .* is not a file of certificates"):
            QdrantStore(settings("https://127.0.0.1:1", tls_ca=file), "films")


def write_certificate(certificate: Path, key: Path) -> None:
    """A certificate of 127.0.0.1 that is its own authority, and its key."""
    secret = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder(
            name, name, secret.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1)
        )
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(secret, hashes.SHA256())
    )
    certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    unlocked = serialization.NoEncryption()
    key.write_bytes(secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, unlocked))


async def test_a_server_is_trusted_by_its_authority_and_no_other(tmp_path: Path) -> None:
    """A real TLS server. Its certificate is its own authority."""
    certificate = tmp_path / "tls.crt"
    write_certificate(certificate, tmp_path / "tls.key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, tmp_path / "tls.key")
    with answering(200, '{"result": {"aliases": []}, "status": "ok", "time": 0}', context) as url:
        https = url.replace("http://", "https://")
        store = QdrantStore(settings(https, tls_ca=certificate, timeout_s=30), "films")
        assert await store.current() is None
        await store.close()
        store = QdrantStore(settings(https, timeout_s=30), "films")
        with pytest.raises(IndexUnavailableError, match="can't be reached"):
            await store.current()
        await store.close()


def test_settings_decide_how_a_collection_is_kept_and_searched() -> None:
    def server(**given: object) -> IndexSettings:
        return settings("http://qdrant:6333", **given)

    manifest = Manifest.model_construct(dimensions={"text": 4}, declared={})
    plain = query.collection(manifest, server())
    assert (plain["quantization_config"], plain["on_disk_payload"], plain["hnsw_config"].m) == (None, False, 16)
    tuned = query.collection(manifest, server(m=32, ef_construct=200, payload="disk", quantization="scalar"))
    assert (tuned["hnsw_config"].m, tuned["hnsw_config"].ef_construct, tuned["on_disk_payload"]) == (32, 200, True)
    assert tuned["vectors_config"]["text"].on_disk is False, "each in its place"
    assert tuned["quantization_config"].scalar.always_ram
    kinds = {
        kind: type(query.collection(manifest, server(quantization=kind))["quantization_config"]).__name__ for kind in ("binary", "product")
    }
    assert kinds == {"binary": "BinaryQuantization", "product": "ProductQuantization"}
    assert query.collection(manifest, server(on_disk=True))["on_disk_payload"]
    assert not query.collection(manifest, server(on_disk=True, payload="memory"))["on_disk_payload"]

    def params(**given: object) -> models.SearchParams | None:
        search = Search(DenseQuery(np.zeros(4, np.float32)), 3)
        return query.request(search, manifest, exact=False, settings=server(**given)).params

    assert params() is None
    assert params(ef=300) == models.SearchParams(hnsw_ef=300)
    assert params(quantization="binary", oversampling=4) == models.SearchParams(
        quantization=models.QuantizationSearchParams(rescore=True, oversampling=4)
    )
    with pytest.raises(ValueError, match="does not use m, quantization"):
        IndexSettings(m=32, quantization="scalar")
