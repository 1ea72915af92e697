"""What an encoder is beside its forward pass: tokenizer, prompts, limits, and the modules that its fingerprint names.

sentence-transformers reads it from a model's folder, which takes seconds of imports. What it read is kept, so that a later start with an
ONNX encoder imports neither that library nor PyTorch. A kept spec holds for one content of the model and one version of the libraries.
"""

import hashlib
import json
import logging
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from matinee.errors import ModelError
from matinee.models import convert

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

log = logging.getLogger(__name__)

_LIBRARIES = ("sentence-transformers", "transformers", "tokenizers")
"""They decide what is read from a model's folder."""

_TOKENIZER, _REST = "tokenizer.json", "encoder.json"


@dataclass(frozen=True)
class EncoderSpec:
    """`names` are the model's inputs, `pad` fills them up to the longest row; `max_tokens` is None where the model sets no limit."""

    tokenizer: Tokenizer
    names: list[str]
    pad: int
    max_tokens: int | None
    dimension: int
    prompts: dict[str, str]
    modules: list[object]

    @classmethod
    def of(cls, model: "SentenceTransformer") -> "EncoderSpec":
        """Of a SentenceTransformer. Its tokenizer is shared with the model."""
        modules = [[type(module).__name__, module.get_config_dict() if hasattr(module, "get_config_dict") else {}] for module in model]
        tokenizer = model.tokenizer
        return cls(
            tokenizer=tokenizer.backend_tokenizer,
            names=[name for name in tokenizer.model_input_names if name != "position_ids"],
            pad=int(tokenizer.pad_token_id or 0),
            max_tokens=int(model.max_seq_length) if model.max_seq_length else None,
            dimension=int(model.get_embedding_dimension()),
            prompts={kind: text for kind, text in (model.prompts or {}).items() if text},
            # As they are read back, so that both ways give one fingerprint.
            modules=json.loads(json.dumps(modules, default=str)),
        )

    @classmethod
    def read(cls, models_dir: Path, weights_digest: str) -> "EncoderSpec | None":
        """What `keep` kept of this model, None where it kept nothing, or a file is damaged."""
        folder = _folder(models_dir, weights_digest)
        if not convert.is_whole(folder):
            return None
        rest = json.loads((folder / _REST).read_text(encoding="utf-8"))
        return cls(tokenizer=Tokenizer.from_file(str(folder / _TOKENIZER)), **rest)

    def keep(self, models_dir: Path, weights_digest: str) -> None:
        """Keep it for `read`. Where the folder can't be written, the next start loads the whole model again."""

        def build(into: Path) -> dict[str, object]:
            self.tokenizer.save(str(into / _TOKENIZER), pretty=False)
            rest = {name: value for name, value in vars(self).items() if name != "tokenizer"}
            (into / _REST).write_text(json.dumps(rest), encoding="utf-8")
            return {"weights": weights_digest, **{name: version(name) for name in _LIBRARIES}}

        try:
            convert.once(_folder(models_dir, weights_digest), build)
        except ModelError as error:
            log.info("the encoder's tokenizer and prompts are not kept: %s", error)


def _folder(models_dir: Path, weights_digest: str) -> Path:
    key = json.dumps([weights_digest, *map(version, _LIBRARIES)])
    return models_dir / "encoders" / hashlib.sha256(key.encode()).hexdigest()[:32]
