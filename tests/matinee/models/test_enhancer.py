"""`matinee.models.enhancer`: the policy on a fake model and on a tiny Gemma 3, and the real one."""

import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from matinee import languages
from matinee.errors import DeadlineError, ModelError
from matinee.items import Item
from matinee.models.backends import Completion, GenerationOptions
from matinee.models.enhancer import Enhancer
from matinee.models.types import Description
from matinee.settings.models import EnhancerSettings
from matinee.settings.tree import Settings

FILM = Item(
    kind="film", title="Tenet", year=2020, genres=("Thriller",), overview="An agent fights for the survival of the world through time."
)
GOOD = " an agent who fights for the survival of the world."
BAD = f"{GOOD} It was directed by Steven Spielberg."


class Fake:
    """A backend that answers from a list of rounds; the last one repeats."""

    precision = "fake"
    device = "cpu"

    def __init__(self, *rounds: str) -> None:
        self.rounds = rounds
        self.calls: list[tuple[list[str], GenerationOptions]] = []
        self.tokenizer = WordTokenizer()

    def generate(self, prompts: Sequence[str], writing: GenerationOptions) -> list[Completion]:
        self.calls.append((list(prompts), writing))
        text = self.rounds[min(len(self.calls), len(self.rounds)) - 1]
        return [Completion(text, 7) for _ in prompts]


class WordTokenizer:
    """A tokenizer of words, without a chat template."""

    chat_template = None

    def __call__(self, text: str) -> SimpleNamespace:
        return SimpleNamespace(input_ids=text.split())


def enhancer(backend: Any, **settings: Any) -> Enhancer:
    return Enhancer(backend, EnhancerSettings(**settings), model_digest="d")


def test_a_grounded_answer_is_kept() -> None:
    (told,) = enhancer(Fake(GOOD)).describe([FILM])
    assert told.text == "Tenet (2020) is a thriller film about an agent who fights for the survival of the world."
    assert (told.source, told.violations, told.marked, told.attempts, told.tokens, told.adherence) == ("model", (), False, 1, 7, 1.0)


def test_an_invention_is_asked_for_again_with_another_seed() -> None:
    fake = Fake(BAD, GOOD)
    (told,) = enhancer(fake, seed=5).describe([FILM])
    assert (told.attempts, told.tokens, told.marked) == (2, 14, False)
    assert [(writing.seed, writing.temperature) for _, writing in fake.calls] == [(5, 0.0), (6, 0.7)]


def test_what_still_invents_loses_the_sentence_and_is_marked() -> None:
    (told,) = enhancer(Fake(BAD), retries=2).describe([FILM])
    assert "Spielberg" not in told.text
    assert told.text.endswith("the survival of the world.")
    assert told.marked
    assert told.attempts == 3
    assert "name: Steven Spielberg" in told.violations


def test_where_nothing_usable_remains_the_facts_speak() -> None:
    (told,) = enhancer(Fake("")).describe([FILM])
    assert (told.source, told.marked) == ("template", True)
    assert told.text == "Tenet (2020), film: thriller. An agent fights for the survival of the world through time."


def test_a_title_alone_is_never_given_to_the_model() -> None:
    fake = Fake(GOOD)
    (told,) = enhancer(fake).describe([Item(title="Tenet")])
    assert fake.calls == []
    assert (told.text, told.source, told.violations, told.attempts) == ("Tenet.", "template", ("no overview",), 0)


def test_batches_have_the_set_size_and_answers_keep_their_order() -> None:
    fake = Fake(GOOD)
    films = [FILM.model_copy(update={"title": f"Film {n}", "overview": FILM.overview + " again" * (9 - n)}) for n in range(5)]
    told = enhancer(fake, batch_size=2, retries=0).describe(films)
    assert [len(prompts) for prompts, _ in fake.calls] == [2, 2, 1]
    assert [description.text.split(" (")[0] for description in told] == [film.title for film in films]
    assert enhancer(fake).describe([]) == []


def test_a_passed_deadline_is_an_error_and_a_late_batch_gets_the_facts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("matinee.models.enhancer.time", SimpleNamespace(monotonic=lambda: now[0], perf_counter=lambda: now[0]))

    class Slow(Fake):
        def generate(self, prompts: Sequence[str], writing: GenerationOptions) -> list[Completion]:
            now[0] += 5
            return super().generate(prompts, writing)

    with pytest.raises(DeadlineError):
        enhancer(Fake(GOOD)).describe([FILM], deadline=99)
    told = enhancer(Slow(GOOD), batch_size=1).describe([FILM, FILM], deadline=102)
    assert [description.source for description in told] == ["model", "template"]
    assert told[1].violations == ("not written",)


def test_a_long_overview_is_shortened_to_the_limit() -> None:
    long = FILM.model_copy(update={"overview": "word " * 4000, "people": {"cast": tuple(f"Name {n}" for n in range(60))}})
    for limit in (64, 512):
        text = enhancer(Fake(GOOD), max_input_tokens=limit).prompt(long)
        assert len(text.split()) <= limit
        assert "Tenet" in text


def test_what_is_measured_is_unchecked_and_comes_even_from_a_title() -> None:
    told = enhancer(Fake(BAD), batch_size=2).write([FILM, Item(title="Heat"), FILM])
    assert told[0] == told[2] == f"Tenet (2020) is a thriller film about{BAD}"
    assert told[1].startswith("Heat is a title that an agent")
    # Keywords end without a full stop, and are no sentence that was cut off.
    assert enhancer(Fake(" heist, dreams")).write([FILM]) == ["Tenet (2020) is a thriller film about heist, dreams."]


def test_info_says_what_is_loaded() -> None:
    info = enhancer(Fake(GOOD)).info()
    assert (info["digest"], info["precision"], info["prompt"]) == ("d", "fake", "guided form")


def test_another_wording_of_the_prompt_has_another_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    def digest(adapter: str | None = None) -> Any:
        return Enhancer(Fake(GOOD), EnhancerSettings(), model_digest="d", adapter_digest=adapter).info()["prompt_digest"]

    as_it_is, bare = digest(), digest("a")
    short = languages.language().model_copy(update={"answer": "In short:"})
    monkeypatch.setattr(languages, "language", lambda name: short)
    assert len({as_it_is, bare, digest(), digest("a")}) == 4


def test_an_enhancer_with_an_adapter_asks_without_examples(tiny_base: Path, tiny_adapter: Path, tmp_path: Path) -> None:
    settings = EnhancerSettings(model=str(tiny_base), adapter=str(tiny_adapter), precision="bf16", max_new_tokens=8)
    loaded = Enhancer.load(settings, tmp_path)
    assert loaded.info()["prompt"] == "form"
    assert loaded.prompt(FILM).startswith("Title: Tenet")
    assert loaded.describe([FILM])[0].text


def test_an_adapter_that_is_missing_is_named(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="nowhere is not a folder"):
        Enhancer.load(EnhancerSettings(model=str(tiny_base), adapter=str(tmp_path / "nowhere"), precision="bf16"), tmp_path)


@pytest.fixture(scope="module")
def gemma() -> Enhancer:
    """The real 270M base model in the default precision of a CPU, from the user's own store of converted models."""
    return Enhancer.load(
        EnhancerSettings(precision="ct2-int8", repetition_penalty=1.0, max_new_tokens=TOKENS, retries=0), Settings().models_dir
    )


TOKENS = 32
FILMS = [
    FILM,
    Item(kind="book", title="The Salt Path", genres=("Memoir",), overview="A couple lose their home and walk along the coast of England."),
]


@pytest.fixture(scope="module")
def told(gemma: Enhancer) -> list[Description]:
    return gemma.describe(FILMS)


def test_the_real_model_describes_within_its_limits(told: list[Description]) -> None:
    assert told[0].text.startswith("Tenet (2020) is a thriller film about")
    for description in told:
        assert description.adherence == 1
        assert description.text.endswith((".", "!", "?", '"'))
        assert "\x00" not in description.text
        assert len(description.text) < 800
        assert description.tokens <= TOKENS


def test_the_real_model_is_deterministic_and_alone_as_good_as_in_company(gemma: Enhancer, told: list[Description]) -> None:
    # Int8 matrices of another size round differently, so the words may differ from a batch's; what is promised may not.
    again, alone = gemma.describe(FILMS), gemma.describe(FILMS[:1])
    assert [description.text for description in told] == [description.text for description in again]
    assert alone[0].adherence == told[0].adherence == 1


def test_the_real_model_stops_at_a_deadline(gemma: Enhancer) -> None:
    answers = gemma.backend.generate(
        [gemma.prompt(film) for film in FILMS], GenerationOptions(max_new_tokens=TOKENS, deadline=time.monotonic())
    )
    assert all(answer.tokens <= 1 for answer in answers)
