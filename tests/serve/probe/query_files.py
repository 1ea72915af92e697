"""Query sets in files, as people write them for the probe."""

import json
from collections.abc import Mapping
from pathlib import Path

from matinee.items import item_uid

LABELS = {"one": ["a"], "two": ["b", "c"], "three": ["gone"]}


def uid(id: str) -> str:
    return item_uid("films", id)


def write_set(folder: Path, labels: Mapping[str, list[str]] = LABELS, *, split: str = "test", items: bool = False) -> Path:
    (folder / "qrels").mkdir(parents=True)
    rows = [{"_id": text, "text": text} | ({"metadata": {"item": text}} if items else {}) for text in labels]
    (folder / "queries.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if items:
        (folder / "set.json").write_text(json.dumps({"kind": "item"}))
    lines = [f"{text}\t{id}\t1" for text, ids in labels.items() for id in ids]
    (folder / "qrels" / f"{split}.tsv").write_text("\n".join(["query-id\tcorpus-id\tscore", *lines, ""]))
    return folder
