"""A saved model: a folder of safetensors with its configuration. Its checks, its digest, and an adapter's fit to its base.

Does not load a model for use, and does not read pickled weights.
"""

import hashlib
import json
import os
import re
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

from matinee.errors import ModelError, kind_of
from matinee.files import sha256, write_atomically
from matinee.models.convert import MANIFEST

_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")

_DIGESTED = {".safetensors", ".json", ".jinja", ".txt", ".model", ".bin"}

_SIDECAR = ".digest.json"

# Hashing less than this is quicker than looking after a sidecar.
_SIDECAR_FROM = 200_000_000

_MAX_HEADER = 100_000_000


def check_folder(folder: Path) -> None:
    """Refuse a folder that is no model (or adapter) in safetensors form, or whose files are cut off."""
    if not folder.is_dir():
        raise ModelError(f"{folder} is not a folder: give pypi:NAME, hub:OWNER/NAME, artifact:DIGEST or the folder of a model")
    adapter = is_adapter(folder)
    if not adapter and not (folder / "config.json").is_file():
        raise ModelError(f"{folder} has no config.json (a model) and no adapter_config.json (an adapter)")
    read_json(folder / ("adapter_config.json" if adapter else "config.json"))
    weights = sorted(folder.glob("*.safetensors"))
    if not weights:
        pickled = sorted(path.name for pattern in _PICKLED for path in folder.glob(pattern))
        why = f"only pickled ones ({', '.join(pickled)}), which can run code when they are read" if pickled else "none at all"
        raise ModelError(f"{folder} has no safetensors weights, {why}: save the model with save_pretrained() in safetensors form")
    if (folder / "model.safetensors.index.json").is_file():
        weight_map = read_json(folder / "model.safetensors.index.json").get("weight_map")
        parts = {str(part) for part in weight_map.values()} if isinstance(weight_map, dict) else set()
        missing = sorted(parts - {path.name for path in weights})
        if missing:
            raise ModelError(f"{folder} lacks {', '.join(missing)}, which its index lists: copy or download the model again")
    for path in weights:
        tensor_shapes(path)
    if not adapter and not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.txt")):
        raise ModelError(f"{folder} has no tokenizer (tokenizer.json, tokenizer.model or vocab.txt): save the tokenizer beside the model")


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def read_json(path: Path) -> dict[str, object]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}): copy or download the model again") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds {kind_of(values)}, not an object: copy or download the model again")
    return values


def tensor_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """Name -> shape, read from a safetensors header; refuses a file that is shorter than its header promises."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length)) if length <= _MAX_HEADER else None
        tensors = {name: entry for name, entry in header.items() if name != "__metadata__"} if header else {}
        end = max((entry["data_offsets"][1] for entry in tensors.values()), default=0)
        shapes = {name: tuple(entry["shape"]) for name, entry in tensors.items()}
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    except (struct.error, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{path} is not a safetensors file ({error}): copy or download the model again") from None
    if not tensors or path.stat().st_size != 8 + length + end:
        raise ModelError(f"{path} is cut off or damaged ({path.stat().st_size:,} bytes): copy or download the model again")
    return shapes


def check_adapter(adapter: Path, base: Path, base_name: str) -> None:
    """Refuse an adapter that was trained on another base model: by the name it gives, and by the shapes of its matrices."""
    if not is_adapter(adapter):
        raise ModelError(f"{adapter} has no adapter_config.json: enhancer.adapter must be a PEFT adapter's folder")
    check_folder(adapter)
    declared = str(read_json(adapter / "adapter_config.json").get("base_model_name_or_path") or "")
    plain, named = _drop_revision(declared), _drop_revision(base_name)
    # Only a hub or PyPI id names a model for good; a folder's path differs between the machine that trained and the one that serves.
    if re.fullmatch(r"(pypi:)?[\w.-]+(/[\w.-]+)?", plain) and not Path(declared).exists():
        known = {named, str(read_json(base / "config.json").get("_name_or_path", "")), base.name}
        hub_or_pypi = base_name.startswith(("hub:", "pypi:"))
        if hub_or_pypi and plain not in known:
            raise ModelError(
                f"{adapter} was trained on {declared}, not on {base_name}: use its own base model, or train it again on this one"
            )
    shapes = {name: shape for path in base.glob("*.safetensors") for name, shape in tensor_shapes(path).items()}
    for path in sorted(adapter.glob("*.safetensors")):
        for name, shape in tensor_shapes(path).items():
            if not _fits(name, shape, shapes):
                raise ModelError(
                    f"{adapter} does not fit {base_name}: {name} has the shape {list(shape)}; it was trained on another base model"
                )


def _drop_revision(model: str) -> str:
    """The name alone: which revision it is, the shapes can't tell, and another one of the same base fits."""
    return model.removeprefix("hub:").partition("@")[0]


def _fits(name: str, shape: tuple[int, ...], base: dict[str, tuple[int, ...]]) -> bool:
    before, _, after = name.rpartition(".lora_")
    _, layers, path = before.partition("layers.")
    side = re.fullmatch(r"([AB])\b.*weight", after)
    if not path or not side:
        return True
    module = layers + path
    column, own = (1, 1) if side[1] == "A" else (0, 0)
    # By suffix: the prefix of a multimodal model differs between its file and its modules.
    return any(key.endswith(f"{module}.weight") and len(full) == 2 and full[column] == shape[own] for key, full in base.items())


def list_digested(folder: Path) -> list[Path]:
    """The files that a model's digest is of."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in _DIGESTED and p.name not in (MANIFEST, _SIDECAR))


def digest(folder: Path, *, remembered: bool = True) -> str:
    """sha256 over the weights, configuration and tokenizer of a model's folder: the same files, the same digest, whatever their path.

    For a large model it is remembered in the folder beside the sizes and times of the files, so that a second start is quick. Without
    `remembered` it is computed from the files, whatever the folder says.
    """
    files = list_digested(folder)
    if not files:
        raise ModelError(f"{folder} holds no model files")
    known = remembered_digest(folder)
    if remembered and known is not None:
        return known
    # Before they are read: a file that is changed meanwhile is another one at the next start.
    stamps = _stamps(folder)
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.relative_to(folder).as_posix()}\0{sha256(path)}\n".encode())
    # A read-only store is fine: its digest is computed at each start.
    if known is None and _is_large(stamps) and os.access(folder, os.W_OK):
        write_atomically(folder / _SIDECAR, json.dumps({"sha256": total.hexdigest(), "files": stamps}))
    return total.hexdigest()


def remembered_digest(folder: Path) -> str | None:
    """What a large model's folder says of its digest, None where that is of other files or nothing."""
    sidecar, stamps = folder / _SIDECAR, _stamps(folder)
    if not _is_large(stamps) or not sidecar.is_file():
        return None
    known = json.loads(sidecar.read_text(encoding="utf-8"))
    return str(known["sha256"]) if known.get("files") == stamps else None


def _stamps(folder: Path) -> dict[str, list[int]]:
    """Size and time of each file that the digest is of."""
    return {p.relative_to(folder).as_posix(): [p.stat().st_size, p.stat().st_mtime_ns] for p in list_digested(folder)}


def _is_large(stamps: Mapping[str, Sequence[int]]) -> bool:
    return sum(size for size, _ in stamps.values()) >= _SIDECAR_FROM
