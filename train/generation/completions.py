"""Training pairs as token ids: the prompt that serving would use, the text as its completion, and the token that ends an answer.

The loss is taken on the completion alone. A pair that is too long loses words of its overview, as at serving, then whole sentences of its
text; what still does not fit is left out and counted. Knows neither models nor trainers.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from matinee.items import Item
from matinee.languages import ENGLISH
from matinee.text import cleaning, templates
from train.generation.instruction_pairs import InstructionPair

IGNORED = -100
"""The label that takes no part in a loss."""


SHARES = (*templates.OVERVIEW_SHARES, 0.0)
"""How much of an overview is tried in turn: training goes on without one where serving would cut the facts."""


@dataclass(frozen=True, slots=True)
class TokenisedPair:
    """A pair as the trainer reads it."""

    input_ids: list[int]
    labels: list[int]


def prompt(item: Item, tokenizer: Any, language: str = ENGLISH) -> str:
    """What an enhancer with an adapter reads: a chat turn, or the form without examples."""
    return templates.enhancer_prompt(item, tokenizer if _chats(tokenizer) else None, examples=0, language=language)


def stop_token(tokenizer: Any) -> int:
    """`<end_of_turn>` for a model that chats, the end of the text for one that doesn't: serving stops at both."""
    turn = tokenizer.get_vocab().get("<end_of_turn>") if _chats(tokenizer) else None
    return int(tokenizer.eos_token_id if turn is None else turn)


def tokenise_all(
    pairs: Iterable[InstructionPair], tokenizer: Any, max_tokens: int, language: str = ENGLISH
) -> tuple[list[TokenisedPair], int]:
    """All pairs that fit, and how many don't."""
    rows = [tokenise(pair, tokenizer, max_tokens, language) for pair in pairs]
    kept = [row for row in rows if row is not None]
    return kept, len(rows) - len(kept)


def tokenise(pair: InstructionPair, tokenizer: Any, max_tokens: int, language: str = ENGLISH) -> TokenisedPair | None:
    sentences = cleaning.whole_sentences(pair.text, language) or [pair.text]
    shares = SHARES if pair.item.overview.strip() else (1.0,)
    cuts = [(share, len(sentences)) for share in shares] + [(shares[-1], count) for count in range(len(sentences) - 1, 0, -1)]
    for share, count in cuts:
        question = list(tokenizer(prompt(templates.shorten_overview(pair.item, share), tokenizer, language)).input_ids)
        answer = _completion(pair, sentences[:count], whole=count == len(sentences), tokenizer=tokenizer)
        if len(question) + len(answer) <= max_tokens:
            return TokenisedPair([*question, *answer], [IGNORED] * len(question) + answer)
    return None


def _completion(pair: InstructionPair, sentences: list[str], *, whole: bool, tokenizer: Any) -> list[int]:
    kept = pair.text if whole else " ".join(sentences)
    text = templates.one_line(kept) if _chats(tokenizer) else templates.training_completion(kept)
    ids = list(tokenizer(text, add_special_tokens=False).input_ids)
    # A text that was cut, or of which a part is unknown, is no example of where to stop.
    return [*ids, stop_token(tokenizer)] if whole and pair.ends else ids


def _chats(tokenizer: Any) -> bool:
    return bool(getattr(tokenizer, "chat_template", None))
