"""Artifacts: immutable models under `artifacts.uri`, each named by the digest of its files, with a manifest that says where it came from.

    <uri>/<digest>/files/...        what `matinee.models.resolve` accepts as a model or an adapter: safetensors and text, nothing that runs
    <uri>/<digest>/manifest.json    written last: a model whose upload was cut off does not exist

The store is a folder, s3://, gs:// or whatever else fsspec opens. A digest is never written twice with other contents, and there is no
"latest": whoever serves names a digest. Does not train, does not load models, and does not choose which one serves.
"""

import json
import re
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path, PurePath, PurePosixPath
from typing import Annotated, Literal

import fsspec
from fsspec.implementations.local import LocalFileSystem
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from matinee import files
from matinee.errors import ModelError
from matinee.models import convert, saved_model
from matinee.patterns import SHA256, message_of

SHORTEST = 8
"""Characters of a digest that name a model, where they name only one."""

_FILES = ("*.safetensors", "*.json", "*.jinja", "*.txt", "tokenizer.model", "LICENSE*", "NOTICE*")
_DIGEST = re.compile(r"[0-9a-f]{64}")


def _inside(path: str) -> str:
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\\" in path:
        raise ValueError("must be a relative path inside the model's folder")
    if not any(fnmatchcase(pure.name, pattern) for pattern in _FILES) or _ours(pure):
        raise ValueError(f"{path[:200]} is not a file of a model: artifacts hold {', '.join(_FILES)}")
    return path


class FileEntry(BaseModel):
    """Size and sha256 of one file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: Annotated[int, Field(ge=0)]
    sha256: Annotated[str, Field(pattern=SHA256)]


class ModelOrigin(BaseModel):
    """Where a model came from: enough to make it again, and to know what it was judged by."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    base: str
    base_revision: str | None = None
    base_digest: str | None = None
    data: dict[str, str] = Field({}, description="what it was trained on: name -> sha256")
    settings: dict[str, object] = {}
    git_commit: str | None = None
    metrics: dict[str, float] = {}


class ModelManifest(BaseModel):
    """What the store knows of one model."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    digest: Annotated[str, Field(pattern=SHA256)]
    kind: Literal["model", "adapter"]
    created: str
    origin: ModelOrigin
    files: dict[Annotated[str, AfterValidator(_inside)], FileEntry]

    @property
    def size(self) -> int:
        return sum(entry.size for entry in self.files.values())


class ArtifactStore:
    """The models under one URI."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        try:
            self._fs, root = fsspec.core.url_to_fs(uri)
        except (ImportError, ValueError) as error:
            raise ModelError(f"artifacts.uri {uri}: {error}") from None
        self._root = str(root).rstrip("/")

    def publish(self, folder: Path, origin: ModelOrigin) -> ModelManifest:
        """Copy a model's folder into the store. The same files again are the same model: its first manifest stays."""
        saved_model.check_folder(folder)
        _refuse_links(folder)
        digest = saved_model.digest(folder)
        known = self._read(digest)
        if known is not None:
            return known
        paths = sorted({path for pattern in _FILES for path in folder.rglob(pattern) if path.is_file() and not _ours(path)})
        # What is part of the digest and does not travel could never be verified.
        odd = sorted(path.relative_to(folder).as_posix() for path in saved_model.list_digested(folder) if path not in paths)
        if odd:
            raise ModelError(
                f"{folder} holds {', '.join(odd)}, which artifacts don't carry: remove it, or save the model in safetensors form"
            )
        entries = {p.relative_to(folder).as_posix(): FileEntry(size=p.stat().st_size, sha256=files.sha256(p)) for p in paths}
        kind: Literal["model", "adapter"] = "adapter" if saved_model.is_adapter(folder) else "model"
        created = datetime.now(UTC).isoformat(timespec="seconds")
        manifest = ModelManifest(digest=digest, kind=kind, created=created, origin=origin, files=entries)
        try:
            for name in entries:
                target = f"{self._root}/{digest}/files/{name}"
                self._fs.makedirs(target.rpartition("/")[0], exist_ok=True)
                self._fs.put_file(str(folder / name), target)
            self._write(digest, manifest.model_dump_json(indent=2))
            if isinstance(self._fs, LocalFileSystem):
                files.make_readable(Path(self._root, digest))
        except OSError as error:
            raise ModelError(f"cannot write the model to {self.uri}: {error}; what was there before is untouched") from error
        return manifest

    def _write(self, digest: str, text: str) -> None:
        target = f"{self._root}/{digest}/manifest.json"
        aside = f"{target}.partial"
        self._fs.pipe_file(aside, text.encode())
        self._fs.mv(aside, target)

    def models(self) -> list[ModelManifest]:
        """Every complete model, newest first."""
        try:
            self._fs.invalidate_cache()
            names = [str(entry).rstrip("/").rpartition("/")[2] for entry in self._fs.ls(self._root, detail=False)]
        except FileNotFoundError:
            return []
        except OSError as error:
            raise ModelError(f"cannot read artifacts.uri {self.uri}: {error}") from error
        manifests = [self._read(name) for name in names if _DIGEST.fullmatch(name)]
        return sorted((model for model in manifests if model is not None), key=lambda model: model.created, reverse=True)

    def find(self, digest: str) -> ModelManifest:
        """The model of a digest, or of its first characters where they name only one."""
        prefix = digest.removeprefix("artifact:").lower()
        if not re.fullmatch(rf"[0-9a-f]{{{SHORTEST},64}}", prefix):
            raise ModelError(f"{digest!r} is not a digest: give its 64 hex characters, or the first {SHORTEST} or more")
        exact = self._read(prefix)
        matches = [exact] if exact is not None else [model for model in self.models() if model.digest.startswith(prefix)]
        if len(matches) != 1:
            why = f"{len(matches)} models begin with it" if matches else "no such model there"
            raise ModelError(f"{digest} under {self.uri}: {why}. `matinee models list` shows what is there")
        return matches[0]

    def fetch(self, digest: str, models_dir: Path) -> Path:
        """A verified local copy of a model; what was fetched once is not fetched again."""
        local = _local(digest, models_dir)
        if local is not None:
            return local
        manifest = self.find(digest)

        def build(into: Path) -> dict[str, object]:
            self._download(manifest, into)
            return {"artifact": manifest.digest}

        return convert.once(models_dir / f"artifact-{manifest.digest}", build)

    def _download(self, manifest: ModelManifest, into: Path) -> None:
        for name, entry in manifest.files.items():
            target = into / name
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                source = f"{self._root}/{manifest.digest}/files/{name}"
                if self._fs.info(source).get("islink"):
                    raise ModelError(f"{name} of {manifest.digest} under {self.uri} is a symbolic link: models hold plain files only")
                self._fs.get_file(source, str(target))
            except OSError as error:
                raise ModelError(f"cannot fetch {name} of {manifest.digest} from {self.uri}: {error}") from error
            if target.stat().st_size != entry.size or files.sha256(target) != entry.sha256:
                raise ModelError(f"{name} of {manifest.digest} under {self.uri} is not what its manifest says: it was changed or cut off")
        # The manifest could have been changed with the files; the digest that was asked for could not.
        if saved_model.digest(into) != manifest.digest:
            raise ModelError(f"the files of {manifest.digest} under {self.uri} have another digest: they were changed")

    def _read(self, digest: str) -> ModelManifest | None:
        try:
            manifest = ModelManifest.model_validate_json(self._fs.cat_file(f"{self._root}/{digest}/manifest.json"))
        except FileNotFoundError:
            return None
        except OSError as error:
            raise ModelError(f"cannot read artifacts.uri {self.uri}: {error}") from error
        except ValidationError as error:
            problem = error.errors(include_url=False)[0]
            field = ".".join(map(str, problem["loc"])) or "the file"
            raise ModelError(
                f"{self.uri}/{digest}/manifest.json is not the manifest of a model: {field}: {message_of(problem)}; "
                "copy the model there again"
            ) from None
        if manifest.digest != digest:
            raise ModelError(f"{self.uri}/{digest}/manifest.json is the manifest of {manifest.digest}: models were moved by hand")
        return manifest


def resolve(digest: str, *, models_dir: Path, uri: str | None) -> Path:
    """The local folder of `artifact:DIGEST`; without a URI only what `matinee models fetch` has put there."""
    local = _local(digest, models_dir)
    if local is not None:
        return local
    if uri is None:
        raise ModelError(f"artifact:{digest} is not in {models_dir}: run `matinee models fetch {digest}`")
    return ArtifactStore(uri).fetch(digest, models_dir)


def _local(digest: str, models_dir: Path) -> Path | None:
    full = digest.removeprefix("artifact:").lower()
    folder = models_dir / f"artifact-{full}"
    if not _DIGEST.fullmatch(full) or not (folder / convert.MANIFEST).is_file():
        return None
    held = json.loads((folder / convert.MANIFEST).read_text(encoding="utf-8"))
    whole = all((folder / name).is_file() and (folder / name).stat().st_size == entry["size"] for name, entry in held["files"].items())
    if whole:
        _verify(folder, full, set(held["files"]))
    return folder if whole else None


def _verify(folder: Path, digest: str, names: set[str]) -> None:
    """Refuse a local copy that was changed after it was fetched: at every use, because another program can change it at any time."""
    again = f"remove {folder}, and fetch the model again"
    _refuse_links(folder)
    more = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and not _ours(path)} - names
    if more:
        raise ModelError(f"{folder} holds {', '.join(sorted(more))}, which is not part of the model: {again}")
    # Others read what the folder remembers: it must not say anything else.
    if saved_model.digest(folder, remembered=False) != digest or saved_model.remembered_digest(folder) not in (None, digest):
        raise ModelError(f"the files in {folder} were changed since they were fetched: {again}")


def _refuse_links(folder: Path) -> None:
    links = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_symlink())
    if links:
        raise ModelError(f"{folder} holds symbolic links ({', '.join(links[:5])}): a model's files are plain files; copy what they name")


def _ours(path: PurePath) -> bool:
    return path.name == convert.MANIFEST or path.name.startswith(".")
