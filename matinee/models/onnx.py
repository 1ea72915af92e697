"""An encoder exported to ONNX, run by onnxruntime: the fastest fp32 form of small encoders on a CPU.

The file is made here, from the safetensors, its attention and normalisation fused into onnxruntime's own operators, and cached under the
weights' digest; none is ever downloaded. Does not tokenise, and imports PyTorch for the export alone.
"""

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from matinee.models import convert
from matinee.models.types import Tokens
from matinee.vectors import Matrix

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

FILE = "model.onnx"


def onnx_folder(models_dir: Path, weights_digest: str) -> Path:
    """Where `OnnxEncoder.load` is to keep the encoder with these weights."""
    return models_dir / "onnx" / f"{weights_digest}-fused"


class OnnxEncoder:
    """A `Forward` of ONNX."""

    call_tokens = 8.0
    """Measured with MiniLM on two cores: 4 to 8 tokens."""

    def __init__(self, path: Path, *, threads: int = 0) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # Spinning threads steal the cores that the gateway and the index share with the encoder.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    @classmethod
    def load(cls, model: "SentenceTransformer", folder: Path, *, threads: int = 0) -> "OnnxEncoder":
        """The encoder of a SentenceTransformer, exported into `folder` unless that was done before."""

        def build(into: Path) -> dict[str, object]:
            _export(model, into / FILE)
            return {"torch": version("torch")}

        return cls(convert.once(folder, build) / FILE, threads=threads)

    @classmethod
    def reopen(cls, folder: Path, *, threads: int = 0) -> "OnnxEncoder | None":
        """What `load` exported into `folder` before, None where it did not, or the file is damaged."""
        return cls(folder / FILE, threads=threads) if convert.is_whole(folder) else None

    def __call__(self, inputs: Tokens) -> Matrix:
        vectors: Matrix = self._session.run(None, inputs)[0]
        return vectors


def _export(model: "SentenceTransformer", path: Path) -> None:
    import torch

    class Pooled(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
            pooled: torch.Tensor = self.model(dict(zip(names, tensors, strict=True)))["sentence_embedding"]
            return pooled

    names = [name for name in model.tokenizer.model_input_names if name != "position_ids"]
    # Rows of different length, so that the mask is not traced away as constant.
    example = model.tokenizer(["a short text", "a text that is a little longer"], padding=True, return_tensors="pt")
    with warnings.catch_warnings(), torch.inference_mode():
        # The tracing exporter is deprecated, but the new one needs minutes and a package more for the same graph.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            # In evaluation mode from the start, because the exporter restores the mode that it found in the whole model.
            Pooled().eval(),
            tuple(example[name] for name in names),
            str(path),
            input_names=names,
            output_names=["vector"],
            dynamic_axes={name: {0: "batch", 1: "length"} for name in names} | {"vector": {0: "batch"}},
            opset_version=17,
            dynamo=False,
        )
        _fuse(model, path)


def _fuse(model: "SentenceTransformer", path: Path) -> None:
    """Fuse the graph in `path` in place. What onnxruntime has no fused operator for stays as it is."""
    from onnxruntime.transformers.optimizer import optimize_model

    config = model.transformers_model.config
    # Level 0: the session does the rest at its start, for the processor that it runs on.
    graph = optimize_model(str(path), "bert", num_heads=config.num_attention_heads, hidden_size=config.hidden_size, opt_level=0)
    graph.save_model_to_file(str(path))
