"""The bundled catalogue: well-known films, facts and overviews in our own words, and the descriptions that the enhancer wrote for them."""

from pathlib import Path

import orjson

FILMS = Path(__file__).parent / "films.jsonl"
DESCRIPTIONS = Path(__file__).parent / "descriptions.jsonl"
MANIFEST = Path(__file__).parent / "descriptions.manifest.json"


def descriptions() -> dict[str, str]:
    """The shipped descriptions, by the film's own id."""
    if not DESCRIPTIONS.exists():
        return {}
    return {row["id"]: row["description"] for row in map(orjson.loads, DESCRIPTIONS.read_bytes().splitlines())}
