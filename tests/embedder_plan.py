"""The plan of a training whose data is not read: for tests of what a worker does with its figures."""

from pathlib import Path

from train.embedding.contrastive import ContrastiveConfig, EmbedderPlan


def embedder_plan(folder: Path, config: ContrastiveConfig) -> EmbedderPlan:
    """One worker on a CPU, all of whose folders are `folder`."""
    folders = dict.fromkeys(("out", "base", "triplets", "prepared"), folder)
    return EmbedderPlan(
        settings={},
        inputs={},
        gpu=False,
        threads=0,
        workers=1,
        max_failures=0,
        config=config,
        sets=None,
        template="plain",
        pool=10,
        **folders,
    )
