"""`matinee.models.fetch`: conversions happen when the models are fetched, once, and only those that will be used."""

from pathlib import Path
from typing import Any

import pytest

from matinee.models import embedder, fetch
from matinee.models.embedder import Embedder
from matinee.models.fetch import fetch_models
from matinee.models.precision_choice import Choice, PrecisionChoice
from matinee.models.saved_model import digest
from matinee.settings.models import EmbedderSettings, EnhancerSettings
from matinee.settings.tree import Settings


@pytest.fixture(autouse=True)
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "gpu", lambda: None)


@pytest.fixture
def model(tiny_encoder: Any, tmp_path: Path) -> Path:
    folder: Path = tiny_encoder.save(tmp_path / "model", "roberta")
    return folder


def settings_of(model: Path, **options: Any) -> Settings:
    encoder = EmbedderSettings(**{"model": str(model), "threads": 1} | options)
    return Settings(home=model.parent / "home", embedder=encoder, enhancer=EnhancerSettings(enabled=False))


def exported(settings: Settings) -> list[Path]:
    return list(settings.models_dir.glob("onnx/*/model.onnx"))


def test_what_was_converted_when_it_was_fetched_is_there_at_the_first_load(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings, steps = settings_of(model), list[str]()
    fetch_models(settings, steps.append, converted=True)
    assert len(exported(settings)) == 1
    assert [step.partition(": once")[0] for step in steps] == [f"converting {model} to ONNX"]
    monkeypatch.setattr(embedder, "load_model", lambda *_, **__: pytest.fail("the model is loaded"))
    fetch_models(settings, pytest.fail, converted=True)


@pytest.mark.parametrize("options", [{"precision": "fp32"}, {"deployment": {"num_gpus": 1}}])
def test_no_form_is_made_that_is_not_used(model: Path, options: dict[str, Any]) -> None:
    settings = settings_of(model, **options)
    fetch_models(settings, pytest.fail, converted=True)
    assert exported(settings) == []


def test_a_gpu_needs_no_converted_form(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch, "gpu", lambda: "H200")
    fetch_models(settings_of(model), pytest.fail, converted=True)


def test_a_machine_that_chose_another_precision_exports_no_more(model: Path) -> None:
    settings = settings_of(model)
    PrecisionChoice(settings.models_dir, digest(model), "queries", 1).write(Choice("fp32", 1))
    fetch_models(settings, pytest.fail, converted=True)
    assert exported(settings) == []
    named = settings_of(model, precision="onnx")
    fetch_models(named, lambda step: None, converted=True)
    assert Embedder.load(named.embedder, named.models_dir).precision == "onnx"
