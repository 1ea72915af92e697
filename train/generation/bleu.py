"""What a model writes of held-out items while it is being trained: BLEU against their texts, and what the metadata checks say.

It writes as serving does: the same prompt, the same stops, greedily, and cleaned the same way; nothing is asked for again and nothing is
replaced. Does not choose the items and does not train.
"""

from collections.abc import Sequence
from typing import Any

from matinee.languages import ENGLISH
from matinee.models.backends import GenerationOptions, TransformersBackend
from matinee.text import cleaning, fact_checks
from train.generation import completions
from train.generation.config import SftConfig
from train.generation.instruction_pairs import InstructionPair

BATCH = 8


def measure(
    model: Any, tokenizer: Any, pairs: Sequence[InstructionPair], max_new_tokens: int, config: SftConfig
) -> tuple[dict[str, float], list[str]]:
    """BLEU (0 to 1), mean adherence, the share of texts without a violation; and the texts."""
    import sacrebleu

    texts = write(model, tokenizer, pairs, max_new_tokens, config.precision, config.language)
    bleu = sacrebleu.corpus_bleu(texts, [[pair.text for pair in pairs]]).score / 100
    adherence = [fact_checks.adherence(text, pair.item, config.language).score for text, pair in zip(texts, pairs, strict=True)]
    clean = [not fact_checks.violations(text, pair.item, config.language) for text, pair in zip(texts, pairs, strict=True)]
    return {"bleu": bleu, "adherence": sum(adherence) / len(pairs), "clean": sum(clean) / len(pairs)}, texts


def write(
    model: Any, tokenizer: Any, pairs: Sequence[InstructionPair], max_new_tokens: int, precision: str, language: str = ENGLISH
) -> list[str]:
    """A text for each pair's item, in order."""
    training, settings = model.training, model.generation_config
    model.eval()
    # What a model's own file says about sampling would compete with `GenerationOptions`, and warn about it.
    model.generation_config = type(settings)()
    try:
        backend = TransformersBackend(model, tokenizer, precision)
        chat = bool(getattr(tokenizer, "chat_template", None))
        options = GenerationOptions(max_new_tokens=max_new_tokens, one_line=not chat, sentences=cleaning.MAX_SENTENCES)
        prompts = [completions.prompt(pair.item, tokenizer, language) for pair in pairs]
        # Of like length together: a batch is as slow as its longest row.
        order = sorted(range(len(prompts)), key=lambda place: len(prompts[place]))
        texts = [""] * len(prompts)
        for start in range(0, len(order), BATCH):
            places = order[start : start + BATCH]
            for place, answer in zip(places, backend.generate([prompts[place] for place in places], options), strict=True):
                # Keywords and taglines may end without a full stop, and would pass for a sentence that was cut off.
                texts[place] = cleaning.clean(answer.text, language) or cleaning.clean(f"{answer.text.strip()}.", language)
        return texts
    finally:
        model.generation_config = settings
        model.train(training)
