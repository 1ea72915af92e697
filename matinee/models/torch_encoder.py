"""An encoder run by PyTorch: on a GPU, or on a CPU where that is faster than ONNX. Does not tokenise."""

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from matinee.models.types import Tokens
from matinee.vectors import Matrix

if TYPE_CHECKING:
    import torch
    from sentence_transformers import SentenceTransformer


class TorchEncoder:
    """A SentenceTransformer as `Forward`."""

    def __init__(self, model: "SentenceTransformer", *, compiled: bool = False) -> None:
        import torch

        self.model = model
        self.compiled = compiled
        self._forward: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] = (
            torch.compile(model, dynamic=False) if compiled else model
        )
        self._on_gpu = model.device.type == "cuda"
        # A GPU takes about as long for few tokens as for many. On two CPU cores a call takes as long as 32 tokens of MiniLM.
        self.call_tokens = math.inf if self._on_gpu else 32.0

    def __call__(self, inputs: Tokens) -> Matrix:
        return self.start(inputs)()

    def start(self, inputs: Tokens) -> Callable[[], Matrix]:
        """Begin the work, and return what waits for its result. Copies to and from a GPU do not hold up the caller."""
        import torch

        with torch.inference_mode():
            features = {name: self._on_device(torch.from_numpy(array)) for name, array in inputs.items()}
            pooled = self._forward(features)["sentence_embedding"].float()
            if not self._on_gpu:
                return lambda: _as_matrix(pooled)
            result = torch.empty(pooled.shape, dtype=torch.float32, pin_memory=True)
            result.copy_(pooled, non_blocking=True)
            done = torch.cuda.Event()
            done.record()

        def wait() -> Matrix:
            done.synchronize()
            return _as_matrix(result)

        return wait

    def _on_device(self, tensor: "torch.Tensor") -> "torch.Tensor":
        # From pinned memory a copy is asynchronous.
        return tensor.pin_memory().to(self.model.device, non_blocking=True) if self._on_gpu else tensor.to(self.model.device)


def _as_matrix(vectors: "torch.Tensor") -> Matrix:
    matrix: Matrix = vectors.cpu().numpy()
    return matrix
