"""`matinee.models.backends`: both engines on a tiny Gemma 3, every precision, and what can't be loaded or converted."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from matinee.errors import ModelError
from matinee.models import backends, convert
from matinee.models.backends import GenerationOptions


@pytest.mark.parametrize(("cuda", "expected"), [(True, "bf16"), (False, "ct2-int8")])
def test_auto_picks_by_the_device(cuda: bool, expected: str) -> None:
    assert backends.pick_precision("auto", cuda=cuda) == expected


@pytest.mark.parametrize("precision", ["fp16", "float16", "half"])
def test_half_precision_is_refused_with_its_reason(precision: str) -> None:
    with pytest.raises(ModelError, match="overflows in fp16"):
        backends.pick_precision(precision, cuda=True)


def test_a_package_that_few_need_is_named_where_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "find_spec", lambda name: None)
    with pytest.raises(ModelError, match=r"precision hqq4 needs .* run pip install hqq"):
        backends.load(tmp_path, None, "hqq4", models_dir=tmp_path)


WRITING = GenerationOptions(max_new_tokens=12)
PROMPTS = ["a b c", "d e f g h i", "j"]


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8", "nf4", "hqq4", "hqq3", "hqq2"])
def test_each_precision_of_transformers_writes_and_repeats_itself(tiny_base: Path, tmp_path: Path, precision: str) -> None:
    backend = backends.load(tiny_base, None, precision, models_dir=tmp_path)
    answers = backend.generate(PROMPTS, WRITING)
    assert answers == backend.generate(PROMPTS, WRITING)
    assert all(0 < answer.tokens <= 12 for answer in answers)
    sampled = GenerationOptions(max_new_tokens=12, temperature=0.7, seed=3, repetition_penalty=1.2)
    state = torch.random.get_rng_state()
    assert backend.generate(PROMPTS, sampled) == backend.generate(PROMPTS, sampled)
    assert torch.equal(state, torch.random.get_rng_state())


def test_padding_does_not_change_an_answer(tiny_base: Path, tmp_path: Path) -> None:
    backend = backends.load(tiny_base, None, "fp32", models_dir=tmp_path)
    assert backend.generate(PROMPTS, WRITING) == [backend.generate([prompt], WRITING)[0] for prompt in PROMPTS]
    assert backend.generate([], WRITING) == []


@pytest.mark.parametrize("precision", ["fp32", "nf4", "hqq3"])
def test_an_adapter_changes_what_is_written(tiny_base: Path, tiny_adapter: Path, tmp_path: Path, precision: str) -> None:
    plain = backends.load(tiny_base, None, precision, models_dir=tmp_path).generate(PROMPTS, WRITING)
    adapted = backends.load(tiny_base, tiny_adapter, precision, models_dir=tmp_path).generate(PROMPTS, WRITING)
    assert plain != adapted


def test_fewer_bits_are_smaller_and_further_from_the_model(tiny_base: Path, tmp_path: Path) -> None:
    from hqq.core.quantize import HQQLinear

    def layers(precision: str) -> dict[str, Any]:
        backend: Any = backends.load(tiny_base, None, precision, models_dir=tmp_path)
        return {name: module for name, module in backend.model.named_modules() if "layers." in name and hasattr(module, "in_features")}

    exact = {name: module.weight.detach().float() for name, module in layers("fp32").items()}
    packed, wrong = [], []
    for bits in (4, 3, 2):
        found = layers(f"hqq{bits}")
        assert found.keys() == exact.keys()
        assert all(isinstance(module, HQQLinear) for module in found.values())
        packed.append(sum(module.W_q.nbytes for module in found.values()))
        wrong.append(max(float((module.dequantize().detach().float() - exact[name]).abs().mean()) for name, module in found.items()))
    assert packed == sorted(packed, reverse=True)
    assert 0 < wrong[0] < wrong[1] < wrong[2]


def test_a_model_that_transformers_cannot_read_is_a_model_error(tiny_base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    for path in tiny_base.iterdir():
        (broken / path.name).write_bytes(path.read_bytes())
    (broken / "config.json").write_text('{"model_type": "no_such_model"}')
    with pytest.raises(ModelError, match=r"cannot load .*broken in bf16"):
        backends.load(broken, None, "bf16", models_dir=tmp_path)


@pytest.mark.parametrize("precision", ["ct2-int8", "bf16", "nf4"])
@pytest.mark.parametrize("adapted", [False, True])
def test_a_model_that_lacks_a_tensor_is_refused(tiny_base: Path, tiny_adapter: Path, tmp_path: Path, precision: str, adapted: bool) -> None:
    """And its weights are not drawn at random."""
    broken = shutil.copytree(tiny_base, tmp_path / "broken")
    weights = load_file(broken / "model.safetensors")
    del weights["model.layers.0.mlp.up_proj.weight"]
    save_file(weights, broken / "model.safetensors", {"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 of its model's tensors, such as model\.layers\.0\.mlp\.up_proj\.weight"):
        backends.load(broken, tiny_adapter if adapted else None, precision, models_dir=tmp_path / "models")
    assert not list((tmp_path / "models").rglob("model.bin"))


def test_multimodal_sizes_get_their_own_class(tiny_that_sees: Path, tmp_path: Path) -> None:
    assert "ImageTextToText" in convert.model_class(tiny_that_sees).__name__
    backend = backends.load(tiny_that_sees, None, "fp32", models_dir=tmp_path)
    assert backend.generate(["a b"], WRITING)[0].tokens > 0


def test_a_merged_adapter_survives_the_conversion_to_ctranslate2(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    plain = backends.load(tiny_base, None, "ct2-int8", models_dir=tmp_path)
    adapted = backends.load(tiny_base, tiny_adapter, "ct2-int8", models_dir=tmp_path)
    assert plain.generate(PROMPTS, WRITING) == plain.generate(PROMPTS, WRITING)
    assert plain.generate(PROMPTS, WRITING) != adapted.generate(PROMPTS, WRITING)
    sampled = GenerationOptions(max_new_tokens=12, temperature=0.7, seed=3)
    assert plain.generate(PROMPTS, sampled) == plain.generate(PROMPTS, sampled)
    assert plain.generate([], WRITING) == []
    assert len([path for path in tmp_path.iterdir() if path.is_dir()]) == 2


def test_what_ctranslate2_cannot_convert_is_said(tiny_base: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "gpt_neo"}')
    with pytest.raises(ModelError, match=r"No conversion is registered.*: set enhancer.precision to bf16"):
        convert.to_ctranslate2(tmp_path, None, tmp_path / "out")
    quantised = json.loads((tiny_base / "config.json").read_text()) | {"quantization_config": {"quant_method": "bitsandbytes"}}
    (tmp_path / "config.json").write_text(json.dumps(quantised))
    with pytest.raises(ModelError, match=r"is quantised already.*: set enhancer.precision to bf16"):
        convert.to_ctranslate2(tmp_path, None, tmp_path / "out")
