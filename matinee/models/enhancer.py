"""The description enhancer: items in, descriptions out, each checked against the item's own facts.

An answer that invents is asked for again with another seed; what still invents loses those sentences and is marked; where nothing
usable remains, the facts themselves are put into a sentence. The raw text is the caller's and is never replaced here. Does not know
HTTP, queues or the index, keeps no cache, and does not train.
"""

import hashlib
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from matinee import languages
from matinee.errors import DeadlineError, ModelServerError
from matinee.items import NO_KIND, Item
from matinee.models import backends, openai_server, resolve, saved_model
from matinee.models.backends import Backend, Completion, GenerationOptions
from matinee.models.openai_server import ServerBackend
from matinee.models.types import Description
from matinee.settings.models import EnhancerSettings
from matinee.text import cleaning, fact_checks, templates

RETRY_TEMPERATURE = 0.7

log = logging.getLogger(__name__)

# The prompts made of it change whenever the template or its data do.
_EVERY_FACT = Item(
    kind=NO_KIND,
    title="Title",
    year=2000,
    genres=("Genre", "Another"),
    people={"director": ("Name",), "cast": ("Name", "Another")},
    overview="Overview.",
    language="en",
    extra={"country": "XX"},
)


@dataclass(frozen=True)
class _Attempt:
    """The best answer so far, and what it took."""

    text: str = ""
    violations: tuple[str, ...] = ("not written",)
    attempts: int = 0
    tokens: int = 0
    elapsed_s: float = 0.0

    def rank(self) -> tuple[int, int]:
        return (sum(not problem.startswith("missing") for problem in self.violations), len(self.violations))


class Enhancer:
    """A model that describes items. Of the engines, only `openai` is safe for concurrent calls."""

    def __init__(
        self,
        backend: Backend,
        settings: EnhancerSettings,
        *,
        model_digest: str,
        adapter_digest: str | None = None,
        language: str = languages.ENGLISH,
    ) -> None:
        self.backend = backend
        self._language = language
        self._settings = settings
        self._digests = (model_digest, adapter_digest)
        self._remote = settings.engine == "openai"
        self._chat = bool(getattr(backend.tokenizer, "chat_template", None))
        # A base model needs to be shown the form and helped into the first sentence; one that was trained on the form, or to chat, doesn't.
        self._guided = not self._chat and adapter_digest is None

    @property
    def name(self) -> str:
        """The model and, by content, the adapter: another name, other descriptions."""
        model, adapter = self._settings.model, self._digests[1]
        if self._remote and self._settings.revision:
            model = f"{model}@{self._settings.revision}"
        return f"{model}+{adapter[:12]}" if adapter else model

    @property
    def calls_at_once(self) -> int:
        """How many calls of `describe` may be under way."""
        return self._settings.batch_size if self._remote else 1

    @property
    def trouble(self) -> str | None:
        """Why the server of engine `openai` does not write now."""
        return self.backend.trouble if isinstance(self.backend, ServerBackend) else None

    @classmethod
    def load(
        cls,
        settings: EnhancerSettings,
        models_dir: Path,
        *,
        artifacts: str | None = None,
        language: str = languages.ENGLISH,
        progress: resolve.Progress | None = None,
        count_failure: Callable[[str], None] = lambda reason: None,
    ) -> Self:
        """Fetch or convert what is needed, then load; or find the server of engine `openai`. Raises `ModelError`.

        `language`: of the prompts and the checks, as the setting `language`.

        A server that can't be reached yet is asked again by the first `describe`. `count_failure` gets the reason of each failed request.
        """
        if settings.engine == "openai":
            server = ServerBackend(settings, count_failure=count_failure)
            try:
                server.check()
            except ModelServerError as error:
                log.warning("%s It is asked again when it is needed.", error)
            model_digest, adapter_digest = openai_server.digests(settings)
            return cls(server, settings, model_digest=model_digest, adapter_digest=adapter_digest, language=language)
        model_dir, adapter = resolve.resolve_enhancer(settings, models_dir=models_dir, artifacts=artifacts, progress=progress)
        backend = backends.load(model_dir, adapter, settings.precision, models_dir=models_dir, threads=settings.threads, progress=progress)
        return cls(
            backend,
            settings,
            model_digest=saved_model.digest(model_dir),
            adapter_digest=saved_model.digest(adapter) if adapter else None,
            language=language,
        )

    def describe(self, items: Sequence[Item], *, deadline: float | None = None) -> list[Description]:
        """One description for each item, in order.

        `deadline` is a `time.monotonic()` moment: nothing is begun or asked again after it, and what is not written by then is
        made of the facts. Raises `DeadlineError` when it has passed already.
        """
        if deadline is not None and time.monotonic() >= deadline:
            raise DeadlineError("the deadline passed before the enhancer could begin")
        best = {place: _Attempt() for place, item in enumerate(items) if _is_describable(item)}
        size = self._batch(len(items))
        for attempt in range(self._settings.retries + 1):
            pending = [place for place, kept in best.items() if kept.violations]
            # Of like length together, here and in `write`: a batch is as slow as its longest row.
            pending.sort(key=lambda place: len(items[place].overview))
            for start in range(0, len(pending), size):
                if deadline is not None and time.monotonic() >= deadline:
                    break
                places = pending[start : start + size]
                for place, tried in zip(places, self._try([items[p] for p in places], attempt, deadline), strict=True):
                    best[place] = _better(best[place], tried)
        return [self._finish(item, best.get(place)) for place, item in enumerate(items)]

    def write(self, items: Sequence[Item]) -> list[str]:
        """What the model itself says of each item: plain prose, but unchecked, even from a title alone. To measure it, not to serve it."""
        texts: dict[int, str] = {}
        order = sorted(range(len(items)), key=lambda place: len(items[place].overview))
        size = self._batch(len(items))
        for start in range(0, len(order), size):
            places = order[start : start + size]
            batch = [items[place] for place in places]
            for place, item, answer in zip(places, batch, self._answers(batch, 0, None), strict=True):
                text = self._whole_answer(item, answer)
                # Keywords and taglines end without a full stop, and would pass for a sentence that was cut off.
                texts[place] = self._clean(text) or self._clean(f"{text.strip()}.")
        return [texts[place] for place in range(len(items))]

    def info(self) -> dict[str, object]:
        """What is loaded, by content. `prompt_digests`: for each kind of item that has data of its own, and "" for all others."""
        prompts = {kind: self.prompt(_EVERY_FACT.model_copy(update={"kind": kind or NO_KIND})) for kind in languages.kinds(self._language)}
        return {
            **({"engine": self._settings.engine} if self._remote else {}),
            "model": self._settings.model,
            "revision": self._settings.revision,
            "digest": self._digests[0],
            "adapter": self._settings.adapter,
            "adapter_digest": self._digests[1],
            "precision": self.backend.precision,
            "device": self.backend.device,
            "prompt": "chat" if self._chat else "guided form" if self._guided else "form",
            "prompt_digest": _digest("".join(prompts.values())),
            "prompt_digests": {kind: _digest(prompt) for kind, prompt in prompts.items()},
            "text_version": templates.TEXT_VERSION,
        }

    def prompt(self, item: Item) -> str:
        """What the model reads for `item`, shortened to `max_input_tokens`: the overview first, then the worked examples."""
        for examples in (2, 0) if self._guided else (0,):
            for share in templates.OVERVIEW_SHARES:
                text = self._prompt(templates.shorten_overview(item, share), examples)
                if self._fits(text):
                    return text
        # Only facts of absurd length come here: a token is a quarter of a character at worst.
        facts = templates.facts_text(item, self._language)[: self._settings.max_input_tokens // 4]
        return self._prompt(item.model_copy(update={"title": item.title[:100], "overview": ""}), 0, facts)

    def _prompt(self, item: Item, examples: int, facts: str | None = None) -> str:
        if self._chat:
            return templates.enhancer_prompt(item, self.backend.tokenizer, facts=facts, language=self._language)
        text = templates.enhancer_prompt(item, examples=examples, facts=facts, language=self._language)
        return f"{text} {templates.lead(item, self._language)}" if self._guided else text

    def _fits(self, text: str) -> bool:
        # A token is at least one character most of the time: short prompts need no count.
        limit = self._settings.max_input_tokens
        return len(text) <= limit or len(self.backend.tokenizer(text).input_ids) <= limit

    def _batch(self, items: int) -> int:
        """How many are handed to the backend together. A server starts the next one as soon as one is done: it gets them all."""
        return max(1, items) if self._remote else self._settings.batch_size

    def _try(self, items: Sequence[Item], attempt: int, deadline: float | None) -> list[_Attempt]:
        began = time.perf_counter()
        answers = self._answers(items, attempt, deadline)
        elapsed = time.perf_counter() - began
        return [self._judge(item, answer, elapsed) for item, answer in zip(items, answers, strict=True)]

    def _answers(self, items: Sequence[Item], attempt: int, deadline: float | None) -> list[Completion]:
        settings = self._settings
        options = GenerationOptions(
            max_new_tokens=settings.max_new_tokens,
            temperature=max(settings.temperature, RETRY_TEMPERATURE) if attempt else settings.temperature,
            repetition_penalty=settings.repetition_penalty,
            seed=settings.seed + attempt,
            one_line=not self._chat,
            sentences=cleaning.MAX_SENTENCES,
            deadline=deadline,
        )
        return self.backend.generate([self.prompt(item) for item in items], options)

    def _whole_answer(self, item: Item, answer: Completion) -> str:
        return f"{templates.lead(item, self._language)}{answer.text}" if self._guided else answer.text

    def _clean(self, answer: str) -> str:
        return cleaning.clean(answer, self._language)

    def _judge(self, item: Item, answer: Completion, elapsed: float) -> _Attempt:
        text = self._clean(self._whole_answer(item, answer))
        return _Attempt(text, fact_checks.violations(text, item, self._language), 1, answer.tokens, elapsed)

    def _finish(self, item: Item, kept: _Attempt | None) -> Description:
        """The description of an item from its best attempt; without one (nothing to tell), from its facts."""
        if kept is None:
            kept = _Attempt(violations=("no overview",))
        invented = any(not problem.startswith("missing") for problem in kept.violations)
        text = fact_checks.grounded_part(kept.text, item, self._language) if invented else kept.text
        source: Literal["model", "template"] = "model" if text else "template"
        text = text or templates.template_description(item, self._language)
        return Description(
            text=text,
            source=source,
            violations=kept.violations,
            adherence=fact_checks.adherence(text, item, self._language).score,
            attempts=kept.attempts,
            tokens=kept.tokens,
            model=self.name,
            marked=bool(kept.violations),
            elapsed_s=round(kept.elapsed_s, 4),
        )


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _is_describable(item: Item) -> bool:
    """Whether there is something to describe: from a title alone a small model invents plot and cast."""
    return bool(item.overview or item.extra)


def _better(known: _Attempt, tried: _Attempt) -> _Attempt:
    winner = tried if not known.attempts or tried.rank() < known.rank() else known
    return _Attempt(winner.text, winner.violations, known.attempts + 1, known.tokens + tried.tokens, known.elapsed_s + tried.elapsed_s)
