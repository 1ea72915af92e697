"""A start that can't succeed fails before anything serves, in seconds, with one line that says why and an exit code that says what kind."""

import asyncio
import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from matinee.index.edge.store import EdgeStore
from matinee.index.protocols import Index
from matinee.index.types import TEXT, Manifest


def refused(tools: Any, home: Path, *arguments: str, **environment: str) -> tuple[int, str]:
    """Exit code and message of a start; nothing may have served."""
    done = tools.run(home, "serve", *arguments, **environment)
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("error: "), done.stderr
    assert not (home / "server.json").exists()
    return done.returncode, done.stderr


def test_the_port_is_taken(tools: Any, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, message = refused(tools, tmp_path, "--port", str(port))
    assert code == 2
    assert f"serving.port {port}" in message
    assert "--port 0" in message


@pytest.mark.parametrize(
    ("name", "value", "where"),
    [
        ("MATINEE_INDEX__ENGINE", "cloud", "index.engine"),
        ("MATINEE_SERVING__PORT", "99999", "serving.port"),
        ("MATINEE_SERVING__HAPROXY", "1", "serving.haproxy: on one machine"),
        ("MATINEE_SERVING__FAST", "1", "serving.placement process: serving.fast needs Ray Serve"),
        ("MATINEE_EMBEDDER__DEPLOYMENT__MAX_REPLICAS", "2", "embedder.deployment.max_replicas 2 needs Ray Serve"),
        ("MATINEE_SERVING__COLOUR", "red", "unknown environment variable MATINEE_SERVING__COLOUR"),
        ("MATINEE_SERVING__DRAIN_S", "1", "serving.drain_s 1 is below serving.deadline_s"),
        ("MATINEE_PROFILE", "cloud", "profile 'cloud' is unknown"),
        ("MATINEE_CONFIG", "nothing.yaml", "cannot read the settings file nothing.yaml"),
    ],
)
def test_broken_settings(tools: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str, where: str) -> None:
    """In this process: what a start costs is its imports."""
    from serve import __main__ as server
    from serve.placement import local_ray, process

    def too_late(*_: object) -> None:
        raise AssertionError("it served")

    monkeypatch.setattr(local_ray, "running", too_late)
    monkeypatch.setattr(process, "run", too_late)
    placement = {} if name == "MATINEE_SERVING__HAPROXY" else {"MATINEE_SERVING__PLACEMENT": "process"}
    monkeypatch.setattr("os.environ", tools.environment(tmp_path, **placement | {name: value}))
    done = CliRunner().invoke(server.app, ["--port", "0" if name != "MATINEE_SERVING__PORT" else value])
    assert done.exit_code == 2
    assert done.stderr.startswith("error: ")
    assert where in done.stderr


def test_a_missing_model_folder(tools: Any, tmp_path: Path) -> None:
    code, message = refused(tools, tmp_path, "--port", "0", MATINEE_EMBEDDER__MODEL=str(tmp_path / "nowhere"))
    assert code == 4
    assert str(tmp_path / "nowhere") in message


def test_the_index_is_open_in_another_process(tools: Any, tmp_path: Path) -> None:
    async def hold() -> tuple[int, str]:
        index = await empty_version(tmp_path / "index" / "demo")
        try:
            # Without a precision that would convert the model first.
            more = {"MATINEE_ENHANCER__ENABLED": "false", "MATINEE_EMBEDDER__PRECISION": "fp32"}
            return await asyncio.to_thread(refused, tools, tmp_path, "--port", "0", **more)
        finally:
            await index.close()

    code, message = asyncio.run(hold())
    assert code == 5
    assert "another process has the index" in message


async def empty_version(path: Path) -> Index:
    """A current version without items, open here."""
    store = EdgeStore(path, "demo")
    created = datetime.now(UTC).isoformat()
    manifest = Manifest(version="v1", catalogue="demo", fingerprint="f", recipe="raw", dimensions={TEXT: 4}, created=created, source="test")
    await (await store.create(manifest)).close()
    await store.finish(manifest)
    await store.switch(manifest.version)
    return await store.open(manifest.version)
