"""`matinee.index.vector_cache`: vectors come back as they were written, and the file lives as long as the build is not done."""

from pathlib import Path

import numpy as np
import pytest

from matinee.index.vector_cache import VectorCache


def test_a_stopped_build_goes_on_and_a_finished_one_removes_the_file(tmp_path: Path) -> None:
    path = tmp_path / "ingest" / "vectors.sqlite"
    vectors = np.arange(8, dtype=np.float32).reshape(2, 4)
    stopped = VectorCache(path, 4).__enter__()
    stopped.add(["a", "b"], vectors)
    stopped.__exit__(KeyboardInterrupt, KeyboardInterrupt(), None)
    with VectorCache(path, 4) as cache:
        assert (cache.missing(["b", "c", "c"]), len(cache)) == (["c"], 2)
        cache.add(["c"], vectors[:1] + 10)
        assert cache.get(["b", "c", "b"]).tolist() == [[4, 5, 6, 7], [10, 11, 12, 13], [4, 5, 6, 7]]
        assert cache.get([]).shape == (0, 4)
        with pytest.raises(KeyError):
            cache.get(["d"])
    assert list(path.parent.iterdir()) == []
