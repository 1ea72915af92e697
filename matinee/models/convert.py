"""Weights change their form once: GGUF to safetensors, base + adapter to one model, safetensors to CTranslate2 int8 or ONNX.

`once` builds a folder aside under a file lock and renames it in one step, so a kill leaves nothing half made and two processes never
convert at the same time. Does not know where weights come from or which are wanted: that is `resolve`.
"""

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import ERROR, getLogger
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock

from matinee.errors import ModelError
from matinee.files import make_readable, sha256, write_atomically

if TYPE_CHECKING:
    from transformers import PreTrainedModel

log = getLogger(__name__)

MANIFEST = "manifest.json"

_TALKATIVE = (
    # At its import it warns that it would like a package that fetches compiled code from the hub.
    "bitsandbytes.backends.cpu.ops",
    # And at every single multiplication in int8 that it rounds to fp16 on the way.
    "bitsandbytes.autograd._functions",
)


def once(target: Path, build: Callable[[Path], dict[str, object]]) -> Path:
    """`target`, built by `build(folder) -> manifest` unless it is there already, whole.

    Whole means: every file has the sha256 that its manifest lists; this is checked at each call. `folder` is empty, and what is written
    beside it goes away with the build, even when it is killed: the next one clears it.
    """
    if is_whole(target):
        return target
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(target.parent / f".{target.name}.lock"):
            # Another process may have built it while this one waited for the lock.
            if not is_whole(target):
                _build(target, build)
    except OSError as error:
        raise ModelError(
            f"cannot write the converted model {target}: {error.strerror or error}; check its disk and its permissions"
        ) from error
    return target


def _build(target: Path, build: Callable[[Path], dict[str, object]]) -> None:
    aside = target.parent / f".{target.name}.partial"
    for leftover in (aside, target):
        if leftover.exists():
            shutil.rmtree(leftover)
    folder = aside / "model"
    folder.mkdir(parents=True)
    try:
        manifest = build(folder)
        paths = sorted(path for path in folder.rglob("*") if path.is_file())
        manifest["files"] = {p.relative_to(folder).as_posix(): {"size": p.stat().st_size, "sha256": sha256(p)} for p in paths}
        write_atomically(folder / MANIFEST, json.dumps(manifest, indent=2))
        make_readable(folder)
        folder.rename(target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def is_whole(target: Path) -> bool:
    """Whether `once` has built `target`, and each of its files is still as it was."""
    if not target.exists():
        return False
    try:
        files = json.loads((target / MANIFEST).read_text(encoding="utf-8"))["files"]
        whole = all(sha256(target / name) == entry["sha256"] for name, entry in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        log.warning("%s is not as it was converted: it is made again", target)
    return whole


def gguf_to_safetensors(assemble: Callable[[Path], Path], into: Path) -> None:
    """The GGUF file that `assemble(path)` writes, as a bf16 model and its tokenizer in `into`."""
    # torch and transformers take seconds to import: only a conversion pays for them.
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    scratch = into.parent / "gguf"
    scratch.mkdir()
    name = assemble(scratch / "model.gguf").name
    with quiet():
        tokenizer = AutoTokenizer.from_pretrained(scratch, gguf_file=name)
        model = AutoModelForCausalLM.from_pretrained(
            scratch, gguf_file=name, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
        )
        # Else `save_pretrained` takes the unpacked weights for packed ones, and refuses.
        if hasattr(model.config, "quantization_config"):
            del model.config.quantization_config
        model.hf_quantizer = None
        model.is_quantized = False
        model.save_pretrained(into)
        tokenizer.save_pretrained(into)


def merge(model_dir: Path, adapter: Path, into: Path) -> None:
    """Base + adapter as one bf16 model in `into`, in the layout of the base."""
    import torch

    with quiet():
        from peft import PeftModel

        # Merged in fp32: the sum of a bf16 weight and a small update loses most of the update when it is rounded on the way.
        model = load_whole(model_class(model_dir), model_dir, dtype=torch.float32)
        merged = PeftModel.from_pretrained(model, adapter, use_safetensors=True).merge_and_unload()
        merged.to(torch.bfloat16).save_pretrained(into)
    for path in model_dir.iterdir():
        if path.is_file() and path.suffix in {".json", ".jinja", ".model"} and not (into / path.name).exists():
            shutil.copyfile(path, into / path.name)


def to_ctranslate2(model_dir: Path, adapter: Path | None, into: Path) -> None:
    """CTranslate2 int8 in `into`, which is replaced. The tokenizer stays with the model: only there it is read as Gemma's own."""
    from ctranslate2.converters import TransformersConverter
    from transformers import AutoConfig

    class Converter(TransformersConverter):  # type: ignore[misc]
        def load_model(self, kind: "type[PreTrainedModel]", folder: str, **options: object) -> "PreTrainedModel":
            return load_whole(kind, Path(folder), **options)

    advice = "set enhancer.precision to bf16"
    # Its loader trips over such a model's configuration, and merging would round the adapter away.
    if getattr(AutoConfig.from_pretrained(model_dir), "quantization_config", None):
        raise ModelError(f"{model_dir.name} is quantised already, and CTranslate2 converts plain weights only: {advice}")
    source = model_dir
    if adapter is not None:
        source = into.parent / "merged"
        merge(model_dir, adapter, source)
    try:
        with quiet():
            Converter(str(source), low_cpu_mem_usage=True).convert(str(into), quantization="int8", force=True)
    except ValueError as error:
        # An architecture that it has no loader for. Files that can't be read fail as in every precision, and are `backends`' to explain.
        raise ModelError(f"CTranslate2 can't convert {model_dir.name} ({error}): {advice}") from error


def load_whole(kind: "type[PreTrainedModel]", folder: Path, **options: object) -> "PreTrainedModel":
    """`kind.from_pretrained(folder)`. Raises `ModelError` where weights are missing: transformers would draw them at random and go on."""
    model, report = kind.from_pretrained(folder, use_safetensors=True, output_loading_info=True, **options)
    # BERT's and RoBERTa's own pooler is often left out of encoders, whose vectors it has no part in.
    missing = sorted(name for name in report["missing_keys"] if "pooler" not in name.split("."))
    if missing:
        raise ModelError(f"{folder} lacks {len(missing)} of its model's tensors, such as {missing[0]}: save it whole, or fetch it again")
    return model


def model_class(model_dir: Path) -> "type[PreTrainedModel]":
    """The `transformers` class of a Gemma: text-only sizes (1B and below) and multimodal ones (4B and up) have different ones."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

    config = AutoConfig.from_pretrained(model_dir)
    kind: type[PreTrainedModel] = AutoModelForImageTextToText if hasattr(config, "vision_config") else AutoModelForCausalLM
    return kind


def silence_bitsandbytes() -> None:
    """Leave out its warnings, also those of a model that works. To be called before whatever imports it, as PEFT and TRL do."""
    for name in _TALKATIVE:
        getLogger(name).setLevel(ERROR)


@contextmanager
def quiet() -> Iterator[None]:
    """Without the progress bars of `transformers`: a terminal shows our own, a log none. bitsandbytes is silenced for good."""
    from transformers.utils import logging

    silence_bitsandbytes()
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
