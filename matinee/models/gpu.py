"""What models do on a GPU and not on a CPU: keep to their share of its memory, and copy while it computes."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


def limit_memory(share: float) -> None:
    """Keep this process within its share of the GPU's memory: Ray reserves a share of a GPU, and enforces nothing.

    Whatever goes beyond gets an out-of-memory error of its own, instead of the other models on that GPU.
    """
    if not 0 < share < 1:
        return
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(share)


def attention(asked: str, dtype: "torch.dtype") -> str:
    """The implementation of attention: `auto` is FlashAttention 2, which leaves out the padding, where it is installed and can run."""
    import torch
    from transformers.utils import is_flash_attn_2_available

    if asked != "auto":
        return asked
    half = dtype in (torch.bfloat16, torch.float16)
    return "flash_attention_2" if half and torch.cuda.is_available() and is_flash_attn_2_available() else "sdpa"


def bucket(length: int, most: int) -> int:
    """A length rounded up, so that a compiled model sees few of them: a multiple of an eighth of the next power of two, at least 16."""
    step = max(16, (1 << (length - 1).bit_length()) // 8)
    return min(most, -(-length // step) * step)
