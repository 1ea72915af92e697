"""`matinee.models.descriptions`: written once, kept on disk, gone on with after a stop; on a fake enhancer that counts what it is asked."""

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from matinee.disk_cache import DiskCache
from matinee.items import Item
from matinee.models import descriptions
from matinee.models.descriptions import Descriptions
from matinee.settings.load import load_settings
from matinee.settings.tree import Settings

FILMS = [Item(id=f"film-{i}", kind="film", title=f"Film {i}", year=2000 + i, overview=f"Overview {i}.") for i in range(20)]


class FakeEnhancer:
    """Describes an item by its title; stops with an error before batch number `stop_at`."""

    def __init__(self, digest: str = "a" * 64, adapter: str | None = None) -> None:
        self._info = {"digest": digest, "adapter_digest": adapter, "prompt_digest": "c" * 64}
        self.batches: list[list[str]] = []
        self.stop_at: int | None = None

    def info(self) -> dict[str, Any]:
        return self._info

    def describe(self, items: Sequence[Item]) -> list[Any]:
        if len(self.batches) == self.stop_at:
            raise KeyboardInterrupt
        self.batches.append([item.title for item in items])
        return [SimpleNamespace(text=f"About {item.title}.") for item in items]

    @property
    def asked(self) -> list[str]:
        return [title for batch in self.batches for title in batch]


@pytest.fixture
def enhancer(monkeypatch: pytest.MonkeyPatch) -> FakeEnhancer:
    fake = FakeEnhancer()
    monkeypatch.setattr(descriptions, "Enhancer", SimpleNamespace(load=lambda *_, **__: fake))
    return fake


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return load_settings({"home": tmp_path}, environ={})


def kept(settings: Settings) -> Path:
    [path] = (settings.home_dir / "descriptions").iterdir()
    return path


def texts(items: Sequence[Item]) -> list[str]:
    return [f"About {item.title}." for item in items]


def test_given_descriptions_need_no_model(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptions, "Enhancer", SimpleNamespace(load=lambda *_, **__: pytest.fail("a model was loaded")))
    given = {film.id or "": f"Given {film.title}" for film in FILMS}
    assert Descriptions(settings, given).write(FILMS[:3]) == ["Given Film 0", "Given Film 1", "Given Film 2"]
    assert Descriptions(settings).write([]) == []


def test_given_and_written_descriptions_stay_in_order(settings: Settings, enhancer: FakeEnhancer) -> None:
    assert Descriptions(settings, {"film-1": "Given."}).write(FILMS[:3]) == ["About Film 0.", "Given.", "About Film 2."]
    assert enhancer.asked == ["Film 0", "Film 2"]


def test_what_was_written_is_never_written_again(settings: Settings, enhancer: FakeEnhancer) -> None:
    first = Descriptions(settings)
    assert first.write(FILMS[:10]) == first.write(FILMS[:10]) == texts(FILMS[:10])
    assert Descriptions(settings).write(FILMS[5:15]) == texts(FILMS[5:15])
    assert sorted(enhancer.asked) == sorted(film.title for film in FILMS[:15])
    with closing(DiskCache(kept(settings))) as cache:
        assert len(cache) == 15


def test_items_go_to_the_model_in_its_batches(settings: Settings, enhancer: FakeEnhancer) -> None:
    Descriptions(settings).write(FILMS)
    assert [len(batch) for batch in enhancer.batches] == [8, 8, 4]


def test_items_with_the_same_facts_are_described_once(settings: Settings, enhancer: FakeEnhancer) -> None:
    twin = FILMS[0].model_copy(update={"id": "twin"})
    assert Descriptions(settings).write([FILMS[0], twin]) == ["About Film 0."] * 2
    assert enhancer.asked == ["Film 0"]


def test_changed_facts_another_model_and_another_prompt_are_described_anew(settings: Settings, enhancer: FakeEnhancer) -> None:
    Descriptions(settings).write(FILMS[:1])
    Descriptions(settings).write([FILMS[0].model_copy(update={"overview": "Other."})])
    assert len(enhancer.asked) == 2
    enhancer.info()["adapter_digest"] = "b" * 64
    Descriptions(settings).write(FILMS[:1])
    enhancer.info()["prompt_digest"] = "d" * 64
    Descriptions(settings).write(FILMS[:1])
    assert len(enhancer.asked) == 4
    assert len(list((settings.home_dir / "descriptions").iterdir())) == 3


def test_a_changed_prompt_of_one_kind_leaves_the_others_as_they_are(settings: Settings, enhancer: FakeEnhancer) -> None:
    mixed = [FILMS[0], Item(id="b", kind="book", title="Book"), FILMS[1], Item(id="x", title="Bread")]
    # A server of before has one digest for all kinds.
    assert Descriptions(settings).write(mixed) == texts(mixed)
    enhancer.info()["prompt_digests"] = {"film": "c" * 64, "book": "e" * 64, "": "f" * 64}
    assert Descriptions(settings).write(mixed) == texts(mixed)
    assert sorted(enhancer.asked[4:]) == ["Book", "Bread"]


def test_a_stopped_run_goes_on_where_it_was(settings: Settings, enhancer: FakeEnhancer) -> None:
    enhancer.stop_at = 1
    with pytest.raises(KeyboardInterrupt):
        Descriptions(settings).write(FILMS)
    enhancer.stop_at = None
    assert Descriptions(settings).write(FILMS) == texts(FILMS)
    assert sorted(enhancer.asked) == sorted(film.title for film in FILMS)


def test_items_whose_facts_read_alike_do_not_share_one(settings: Settings, enhancer: FakeEnhancer) -> None:
    """The checks of facts tell a role from another fact, and the text of the facts does not. Ratings change, and describe nothing."""
    by_role = Item(kind="film", title="Heat", people={"director": ("Michael Mann",)})
    by_fact = Item(kind="film", title="Heat", extra={"director": "Michael Mann"})
    Descriptions(settings).write([by_role, by_fact])
    assert enhancer.asked == ["Heat", "Heat"]
    Descriptions(settings).write([by_role.model_copy(update={"id": "heat", "numbers": {"rating": 8.3}})])
    assert enhancer.asked == ["Heat", "Heat"]
