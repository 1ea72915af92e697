"""The graph as Ray starts it elsewhere: from a Serve config file, or as `serve run serve.app:build`."""

import contextlib
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from tests.waiting import HANG_S, until

# Of Ray's own schema, when it is imported.
pytestmark = pytest.mark.filterwarnings("ignore:Using extra keyword arguments on `Field`:DeprecationWarning")

CONFIG = Path(__file__).parents[2] / "serve" / "config.yaml"


@pytest.fixture
def described(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The sample config as Ray's own schema reads it."""
    monkeypatch.delenv("MATINEE_CONFIG", raising=False)
    from ray.serve.schema import ServeDeploySchema

    return ServeDeploySchema.model_validate(yaml.safe_load(CONFIG.read_text(encoding="utf-8")))


def test_the_config_file_builds_the_graph(described: Any) -> None:
    from ray._common.utils import import_attr
    from ray.serve import Application

    [application] = described.applications
    build = import_attr(application.import_path)
    app = build(application.args)
    assert isinstance(app, Application)
    assert described.http_options.request_timeout_s > application.args["serving"]["deadline_s"]


def test_deployments_are_as_the_settings_say(described: Any) -> None:
    from ray.serve._private.build_app import build_app

    from serve.app import build

    built = build_app(build({"catalogue": "demo"}), name="matinee")
    deployments = {deployment.name: deployment for deployment in built.deployments}
    assert set(deployments) == {"Embedder", "Retriever", "Enhancer", "Gateway"}
    assert built.ingress_deployment_name == "Gateway"
    for deployment in deployments.values():
        assert deployment.max_queued_requests > 0, "an unbounded queue"
        assert deployment.max_ongoing_requests > 5, "Ray's default"
    idle = {"embedder": {"cpu_fallback": True, "deployment": {"min_replicas": 0, "num_gpus": 1}, "cpu_deployment": {"num_cpus": 2}}}
    spare = {deployment.name: deployment for deployment in build_app(build(idle), name="matinee").deployments}
    assert set(spare) == {*deployments, "CpuEmbedder"}
    assert spare["Embedder"]._deployment_config.autoscaling_config.min_replicas == 0
    assert spare["CpuEmbedder"].ray_actor_options["num_cpus"] == 2
    without = build_app(build({"enhancer": {"enabled": False}}), name="matinee")
    assert {deployment.name for deployment in without.deployments} == {"Embedder", "Retriever", "Gateway"}


def test_settings_that_contradict_each_other_build_nothing() -> None:
    from matinee.errors import SettingsError
    from serve.app import build

    with pytest.raises(SettingsError, match="unknown setting"):
        build({"colour": "red"})


@pytest.mark.full
def test_serve_run_starts_it(tools: Any, tmp_path: Path) -> None:
    """The file as it is, on a free port and without the enhancer, whose start is the server's test."""
    config = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))
    port = tools.free_port()
    config["http_options"]["port"] = port
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config), encoding="utf-8")
    home, log = tools.new_home(tmp_path), tmp_path / "log"
    more = {"MATINEE_ENHANCER__ENABLED": "false", "RAY_ADDRESS": "local", "RAY_USAGE_STATS_ENABLED": "0"}
    command = [str(Path(sys.executable).with_name("serve")), "run", str(tmp_path / "config.yaml"), "--app-dir", str(tools.ROOT)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            command, cwd=tmp_path, env=tools.environment(home, **more), stdout=out, stderr=out, start_new_session=True
        )
    try:

        def answer() -> Any:
            assert process.poll() is None, log.read_text(errors="replace")[-4000:]
            with contextlib.suppress(httpx.HTTPError):
                response = httpx.get(f"http://127.0.0.1:{port}/v1/info", timeout=10)
                return response if response.is_success else None

        info = until(answer, f"serve run answers ({log})").json()
        assert (info["catalogue"], info["index"], info["enhancer"]) == ("demo", None, None)
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(HANG_S)
        for left in [*family, *([psutil.Process(process.pid)] if process.poll() is None else [])]:
            with contextlib.suppress(psutil.NoSuchProcess):
                left.kill()
        process.wait(HANG_S)
