"""What is decided for a GPU, as far as it goes without one."""

import pytest
import torch

from matinee.models.gpu import attention, bucket, limit_memory


def test_lengths_are_rounded_up_to_few() -> None:
    assert [bucket(length, 512) for length in (1, 16, 17, 100, 129, 300, 511)] == [16, 16, 32, 112, 160, 320, 512]
    assert bucket(500, 505) == 505, "never beyond what the model takes"
    assert len({bucket(length, 8192) for length in range(1, 8193)}) < 60


def test_attention_that_is_not_there_is_not_chosen() -> None:
    assert attention("auto", torch.float32) == "sdpa"
    assert attention("flash_attention_2", torch.bfloat16) == "flash_attention_2", "who asks for it gets it, or an error that says why not"


@pytest.mark.parametrize(("share", "limited"), [(0, []), (0.25, [0.25]), (1, []), (2, [])])
def test_a_share_of_a_gpu_is_a_limit_of_its_memory(share: float, limited: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    limits: list[float] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", limits.append)
    limit_memory(share)
    assert limits == limited
