"""The bundled catalogue: well-known films, facts and overviews in our own words, and the descriptions that the enhancer wrote for them."""

import hashlib
from pathlib import Path

import orjson

FILMS = Path(__file__).parent / "films.jsonl"
DESCRIPTIONS = Path(__file__).parent / "descriptions.jsonl"
MANIFEST = Path(__file__).parent / "descriptions.manifest.json"


def source() -> str:
    """What an index of these films says it was built from; another edition of them says something else, another folder does not."""
    return f"bundled films, sha256 {hashlib.sha256(FILMS.read_bytes()).hexdigest()[:16]}"


def descriptions() -> dict[str, str]:
    """The shipped descriptions, by the film's own id."""
    if not DESCRIPTIONS.exists():
        return {}
    return {row["id"]: row["description"] for row in map(orjson.loads, DESCRIPTIONS.read_bytes().splitlines())}
