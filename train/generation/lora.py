"""LoRA on a Gemma: the base as it is trained (NF4, 8 bit, bf16 or fp32), its adapter, and the adapter's form on disk.

Knows PEFT and bitsandbytes, not Ray, data or trainers. Does not load models to serve (`matinee.models.backends`) and does not merge
adapters (`matinee.models.convert`).
"""

import json
import shutil
from pathlib import Path
from typing import Any, cast

import torch

from matinee.errors import ModelError, SettingsError
from matinee.files import write_atomically
from matinee.models import backends, convert, saved_model

# Named, since PEFT's own choice for Gemma is q and v alone.
TARGETS = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
# The sizes from 4B on see pictures too, and the layers of their eyes have the same names.
VISION = ("vision_tower", "multi_modal_projector")
PRECISIONS = ("nf4", "int8", "bf16", "fp32")


def check_precision(precision: str) -> None:
    problem = backends.precision_problem(precision, PRECISIONS)
    if problem is not None:
        raise SettingsError(problem)


def load_base(folder: Path, precision: str, device: str) -> Any:
    """The base model, frozen and ready to be adapted. Raises `ModelError`."""
    check_precision(precision)
    try:
        with convert.quiet():
            model = convert.load_whole(
                convert.model_class(folder),
                folder,
                dtype=backends.compute_dtype(precision, device),
                quantization_config=backends.quantization(precision, device),
                device_map={"": device},
            )
    except (OSError, ValueError, RuntimeError, KeyError, ImportError) as error:
        raise ModelError(f"cannot load {folder} in {precision} to train it: {error}") from error
    _without_vision(model)
    _keep_gradients(model)
    model.requires_grad_(False)
    return model


def _without_vision(model: Any) -> None:
    """Descriptions need no eyes, and they would take memory."""
    for part in VISION:
        if getattr(model.model, part, None) is not None:
            setattr(model.model, part, None)


def _keep_gradients(model: Any) -> None:
    """On CPUs with AVX512-BF16 an evaluation repacks 4-bit layers, and every later step would silently get wrong gradients."""
    import bitsandbytes

    for module in model.modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            module.support_avx512bf16_for_cpu = False


def adapt(model: Any, *, rank: int, alpha: int, dropout: float, seed: int) -> Any:
    """`model` with a fresh adapter on attention and projection layers, in fp32: small steps would be lost to bf16's rounding."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=list(TARGETS), bias="none", task_type="CAUSAL_LM")
    with torch.random.fork_rng():
        # The same on every worker, whatever each has drawn before.
        torch.manual_seed(seed)
        adapted = get_peft_model(model, config)
    if hasattr(model.config, "vision_config"):
        # For whoever loads the adapter with eyes. Not before: PEFT warns of what is not there.
        adapted.peft_config["default"].exclude_modules = rf".*({'|'.join(VISION)}).*"
    return adapted


def readapt(model: Any, adapter: Path) -> Any:
    """`model` with an adapter from disk, to train it on."""
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter), is_trainable=True, use_safetensors=True)


def shape(adapter: Path) -> dict[str, Any]:
    """Rank, alpha and dropout of an adapter on disk: going on with it keeps them."""
    from peft import LoraConfig

    config = LoraConfig.from_pretrained(str(adapter))
    return {"rank": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout}


def in_fp32(model: Any) -> None:
    """What is trained, in fp32: TRL puts the adapters of quantised models in bf16, where steps of 2e-4 are lost to rounding."""
    for weight in model.parameters():
        if weight.requires_grad:
            weight.data = weight.data.float()


def export(checkpoint: Path, into: Path, base: str) -> None:
    """A trainer's checkpoint as the adapter that serves: its weights, and a configuration that names the base as the settings do."""
    shutil.rmtree(into, ignore_errors=True)
    into.mkdir(parents=True)
    shutil.copyfile(checkpoint / "adapter_model.safetensors", into / "adapter_model.safetensors")
    config = saved_model.read_json(checkpoint / "adapter_config.json")
    # PEFT writes a set, in an order of the day: the same adapter would have another digest.
    config |= {"base_model_name_or_path": base, "target_modules": sorted(cast(list[str], config["target_modules"]))}
    write_atomically(into / "adapter_config.json", json.dumps(config, indent=2, sort_keys=True))
    saved_model.check_folder(into)
