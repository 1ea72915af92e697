"""The embedder: texts -> unit vectors, with the model's own pooling and prompts, at the fastest precision that stays faithful.

Speaks sentence-transformers' model format (Granite: CLS pooling, MiniLM: mean). Batches by tokens, sorted by length. Does not know what
the texts mean (`text.templates`), nor where the vectors go (`index`); its **fingerprint** is what ties the two together.
"""

import hashlib
import json
import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from matinee.errors import ModelError
from matinee.models import gpu
from matinee.models.backends import computes_in_bf16
from matinee.models.benchmark import pick_fastest
from matinee.models.bm25 import Bm25Encoder
from matinee.models.convert import is_whole, load_whole, quiet
from matinee.models.encoder_spec import EncoderSpec
from matinee.models.onnx import OnnxEncoder, onnx_folder
from matinee.models.precision_choice import Choice, PrecisionChoice
from matinee.models.resolve import Progress, resolve
from matinee.models.saved_model import digest
from matinee.models.torch_encoder import TorchEncoder
from matinee.models.types import Forward, Kind, Tokens
from matinee.settings.models import EmbedderSettings
from matinee.text import templates
from matinee.vectors import Matrix

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)

Workload = Literal["queries", "corpus"]

AUTO = ("onnx", "bf16")
"""What `auto` measures beside fp32."""

MIN_COSINE = 0.999
"""Below this cosine to fp32 a precision is not used, however fast it is."""

_IN_FLIGHT = 2
_TOKENISED = 2048
"""Batches that are started before the first is waited for, and texts that are tokenised and sorted by length together."""

_PROBE_SHORT = "a quiet drama about two brothers"
_PROBE_LONG = (
    "A retired engineer returns to the island of his childhood to sell the family's lighthouse, and finds that the keeper he was told had "
    "drowned still lights the lamp every night, writes letters to a daughter nobody remembers, and knows the date of the next storm. "
) * 2
_LOADS: dict[Workload, list[list[str]]] = {
    "queries": [[_PROBE_SHORT]] * 4 + [[_PROBE_SHORT] * 8],
    "corpus": [[_PROBE_LONG] * 4],
}
"""A small typical load of each, batch by batch: three slow encoders run it within two seconds."""


class Embedder:
    """A loaded encoder. `encode` is deterministic for a given precision; vectors are float32 and of unit length."""

    def __init__(self, spec: EncoderSpec, settings: EmbedderSettings, forward: Forward, precision: str, weights_digest: str) -> None:
        self._spec = spec
        self._tokenizer = spec.tokenizer
        self._tokenizer.no_padding()
        self.max_tokens = min(settings.max_tokens, spec.max_tokens or settings.max_tokens)
        self._tokenizer.enable_truncation(self.max_tokens)
        self._batch_tokens = settings.batch_tokens
        self._forward = forward
        # Tokens of a batch are padded to one of few lengths where each length is compiled for.
        self._few_lengths = isinstance(forward, TorchEncoder) and forward.compiled
        self.precision = precision
        self.model_id = settings.model if settings.revision is None else f"{settings.model}@{settings.revision}"
        self.dimension = spec.dimension
        self.tokens_read = 0
        self.language = settings.language
        self.fingerprint = _fingerprint(spec, weights_digest, self.max_tokens, settings.language)

    @classmethod
    def load(
        cls, settings: EmbedderSettings, models_dir: Path, *, artifacts: str | None = None, workload: Workload = "queries"
    ) -> "Embedder":
        """Load the model and choose its precision; `workload` says what `auto` optimises: single short texts, or many long ones.

        Raises `ModelError` when files are missing or broken, or when the asked precision is not faithful to fp32 here.
        """
        folder = resolve(settings.model, settings.revision, models_dir=models_dir, artifacts=artifacts)
        weights_digest = digest(folder)
        choice = PrecisionChoice(models_dir, weights_digest, workload, settings.threads)
        kept = choice.read() if settings.precision == "auto" else None
        if kept is not None and kept.precision == "onnx":
            light = cls._without_torch(models_dir, settings, weights_digest, kept.threads)
            if light is not None:
                return light
        # It takes seconds to import: only who needs it waits for it, and not every command or job that loads a model.
        import torch

        if settings.threads:
            torch.set_num_threads(settings.threads)
        known = kept.precision if kept is not None else settings.precision
        if known == "fp32":
            return cls._in_fp32(folder, settings, weights_digest)
        if settings.precision == "auto" and known in AUTO:
            # It was faithful when it was chosen.
            remembered = cls._at(known, folder, models_dir, settings, weights_digest)
            if remembered is not None:
                return remembered
        reference = cls._in_fp32(folder, settings, weights_digest)
        candidates = [reference]
        for precision in AUTO if settings.precision == "auto" else [settings.precision]:
            candidate = cls._at(precision, folder, models_dir, settings, weights_digest)
            if candidate is not None and candidate._faithful(reference):
                candidates.append(candidate)
            elif settings.precision != "auto":
                if candidate is None:
                    raise ModelError(f"{settings.model} can't be run at {precision} here (the log says why): use precision auto or fp32")
                raise ModelError(f"{settings.model} at {precision} differs from fp32 on this machine: use precision auto or fp32")
        if settings.precision != "auto":
            return candidates[-1]
        loads = _LOADS[workload]
        chosen = pick_fastest(candidates, lambda e: e.encode(loads[0][:1]), lambda e: [e.encode(texts) for texts in loads])
        choice.write(Choice(chosen.precision, torch.get_num_threads()))
        return chosen

    @classmethod
    def export(cls, folder: Path, models_dir: Path, settings: EmbedderSettings, progress: Progress) -> None:
        """Convert the model in `folder` to ONNX for `load`, unless that was done before, or `auto` chose another precision here."""
        weights_digest = digest(folder)
        kept = PrecisionChoice(models_dir, weights_digest, "queries", settings.threads).read() if settings.precision == "auto" else None
        there = is_whole(onnx_folder(models_dir, weights_digest)) and EncoderSpec.read(models_dir, weights_digest) is not None
        if there or (kept is not None and kept.precision != "onnx"):
            return
        progress(f"converting {settings.model} to ONNX: once, some seconds")
        cls._at("onnx", folder, models_dir, settings, weights_digest)

    @classmethod
    def _without_torch(cls, models_dir: Path, settings: EmbedderSettings, weights_digest: str, threads: int) -> "Embedder | None":
        """The ONNX encoder of an earlier start with what that start kept of the model; None where one of the two is missing."""
        spec = EncoderSpec.read(models_dir, weights_digest)
        encoder = OnnxEncoder.reopen(onnx_folder(models_dir, weights_digest), threads=threads) if spec is not None else None
        return cls(spec, settings, encoder, "onnx", weights_digest) if spec is not None and encoder is not None else None

    @classmethod
    def _in_fp32(cls, folder: Path, settings: EmbedderSettings, weights_digest: str) -> "Embedder":
        import torch

        model = load_model(folder, torch.float32)
        return cls(EncoderSpec.of(model), settings, TorchEncoder(model), "fp32", weights_digest)

    @classmethod
    def _at(cls, precision: str, folder: Path, models_dir: Path, settings: EmbedderSettings, weights_digest: str) -> "Embedder | None":
        import torch

        if precision == "bf16":
            if settings.precision == "auto" and not computes_in_bf16("cuda" if torch.cuda.is_available() else "cpu"):
                return None
            model = load_model(folder, torch.bfloat16, attention=gpu.attention(settings.attention, torch.bfloat16))
            compiled = settings.compile and torch.cuda.is_available()
            return cls(EncoderSpec.of(model), settings, TorchEncoder(model, compiled=compiled), precision, weights_digest)
        if torch.cuda.is_available():
            return None
        model = load_model(folder, torch.float32, attention="eager")
        try:
            encoder = OnnxEncoder.load(model, onnx_folder(models_dir, weights_digest), threads=torch.get_num_threads())
        except Exception as error:  # noqa: BLE001
            # The exporter does not know every architecture; which errors it raises then is not documented.
            log.warning("no ONNX form of %s: %s", settings.model, error)
            return None
        spec = EncoderSpec.of(model)
        spec.keep(models_dir, weights_digest)
        return cls(spec, settings, encoder, precision, weights_digest)

    def encode(self, texts: Sequence[str], *, kind: Kind = "document") -> Matrix:
        """float32[len(texts), dimension], unit rows. Texts over `max_tokens` are cut."""
        if not texts:
            return np.zeros((0, self.dimension), np.float32)
        prompt = self._spec.prompts.get(kind, "")
        out = np.empty((len(texts), self.dimension), np.float32)
        started: deque[tuple[list[int], Callable[[], Matrix]]] = deque()
        # A GPU computes one batch while the next is tokenised, packed and copied. On a CPU, each is computed when it is started.
        for rows, tokens in self._pack_texts([prompt + text for text in texts]):
            started.append((rows, self._start(tokens)))
            if len(started) == _IN_FLIGHT:
                rows, result = started.popleft()
                out[rows] = result()
        for rows, result in started:
            out[rows] = result()
        norms = np.linalg.norm(out, axis=1, keepdims=True)
        if not np.isfinite(norms).all() or (norms == 0).any():
            raise ModelError(f"{self.model_id} gave a vector that is zero or not finite: its weights are broken")
        unit: Matrix = out / norms
        return unit

    def _pack_texts(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Tokens]]:
        """Batches of rows of similar length with their tokens; further texts are tokenised when those are used up."""
        for start in range(0, len(texts), _TOKENISED):
            encodings = self._tokenizer.encode_batch(list(texts[start : start + _TOKENISED]))
            lengths = [len(encoding.ids) for encoding in encodings]
            self.tokens_read += sum(lengths)
            for rows in self._batches(sorted(range(len(lengths)), key=lengths.__getitem__), lengths):
                yield [start + row for row in rows], self._pack([encodings[row].ids for row in rows])

    def _start(self, tokens: Tokens) -> Callable[[], Matrix]:
        if isinstance(self._forward, TorchEncoder):
            return self._forward.start(tokens)
        vectors = self._forward(tokens)
        return lambda: vectors

    def info(self) -> dict[str, object]:
        return {
            "model": self.model_id,
            "precision": self.precision,
            "dimension": self.dimension,
            "max_tokens": self.max_tokens,
            "language": self.language,
            "fingerprint": self.fingerprint,
        }

    def _batches(self, order: list[int], lengths: list[int]) -> list[list[int]]:
        """Runs of `order` (ascending length) whose padded size stays within the token budget, and whose padding costs less than a call."""
        batches: list[list[int]] = []
        rows: list[int] = []
        padding = 0
        for row in order:
            if rows:
                padding += len(rows) * (lengths[row] - lengths[rows[-1]])
                if padding > self._forward.call_tokens or (len(rows) + 1) * lengths[row] > self._batch_tokens:
                    batches.append(rows)
                    rows, padding = [], 0
            rows.append(row)
        return [*batches, rows]

    def _pack(self, ids: list[list[int]]) -> Tokens:
        length = max(len(row) for row in ids)
        if self._few_lengths:
            length = gpu.bucket(length, self.max_tokens)
        tokens = np.full((len(ids), length), self._spec.pad, np.int64)
        mask = np.zeros((len(ids), length), np.int64)
        for i, row in enumerate(ids):
            tokens[i, : len(row)] = row
            mask[i, : len(row)] = 1
        known = {"input_ids": tokens, "attention_mask": mask, "token_type_ids": np.zeros_like(mask)}
        return {name: known[name] for name in self._spec.names}

    def _faithful(self, reference: "Embedder") -> bool:
        texts = [_PROBE_SHORT, _PROBE_LONG, "12 Angry Men (1957)", "été à Paris", "x"]
        cosine = float((self.encode(texts) * reference.encode(texts)).sum(axis=1).min())
        if cosine < MIN_COSINE:
            log.warning("%s at %s has cosine %.4f to fp32: not used", self.model_id, self.precision, cosine)
        return cosine >= MIN_COSINE


def load_model(folder: Path, dtype: "torch.dtype", *, attention: str = "sdpa", device: str | None = None) -> "SentenceTransformer":
    """The SentenceTransformer in `folder`, with its own pooling and prompts; on a GPU where there is one, or on `device`.

    Raises `ModelError` where files or tensors are missing or broken.
    """
    import torch
    from sentence_transformers import SentenceTransformer

    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        with quiet():
            model = SentenceTransformer(
                str(folder),
                device=device,
                trust_remote_code=False,
                local_files_only=True,
                model_kwargs={"dtype": dtype, "attn_implementation": attention, "use_safetensors": True},
            )
            encoder = model.transformers_model
            load_whole(type(encoder), Path(encoder.name_or_path), device_map="meta")
    except ModelError:
        raise
    except Exception as error:
        # Broken files surface as whatever the layer that first trips over them raises, attribute and type errors among them.
        raise ModelError(f"cannot load the embedding model in {folder}: {error}") from error
    if any(model.prompts.values()) and any(getattr(module, "include_prompt", True) is False for module in model):
        # One graph pools all texts, and does not know where a prompt ends.
        raise ModelError(
            f"{folder} has prompts that its pooling leaves out (include_prompt: false), which is not supported: use another model"
        )
    return model.eval()


def _fingerprint(spec: EncoderSpec, weights_digest: str, max_tokens: int, language: str | None) -> str:
    """sha256 over all that decides which vector a text gets, and which terms: two equal fingerprints may share an index."""
    described = {
        "weights": weights_digest,
        "modules": spec.modules,
        "prompts": spec.prompts,
        "max_tokens": max_tokens,
        "text": templates.TEXT_VERSION,
        "sparse": Bm25Encoder(language).fingerprint(),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
