"""Patterns of names, each with what it means in words. Errors say the words: nobody has to read a regular expression."""

from pydantic_core import ErrorDetails

WORDS: dict[str, str] = {}
"""Pattern -> what may be written there."""


def pattern(expression: str, words: str) -> str:
    """`expression`, for pydantic; errors say: use `words`."""
    WORDS[expression] = words
    return expression


NAME = pattern(r"^[a-z][a-z0-9_]{0,39}$", "lower-case letters, digits and _, beginning with a letter, up to 40 characters")
"""The name of an attribute, or of a fact in an item's `people`, `numbers` or `extra`."""
SHA256 = pattern(r"^[0-9a-f]{64}$", "the 64 hexadecimal digits of a sha256")


# Forms of JSON by their own names: pydantic names Python's.
_FORMS = {
    "tuple_type": "a list",
    "list_type": "a list",
    "frozen_set_type": "a list",
    "dict_type": "an object",
    "model_type": "an object",
    "model_attributes_type": "an object",
}


def message_of(problem: ErrorDetails) -> str:
    """What is wrong with a value, as people are told."""
    if problem["type"] == "string_pattern_mismatch":
        words = WORDS.get(problem.get("ctx", {}).get("pattern", ""))
        if words is not None:
            return f"use {words}"
    if problem["type"] in _FORMS:
        return f"Input should be {_FORMS[problem['type']]}"
    return str(problem["msg"]).removeprefix("Value error, ")
