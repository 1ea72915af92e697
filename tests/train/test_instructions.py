"""`train.instructions` and `train.generation.completions`: whose words are learnt, by which items, in the prompt that serving uses."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoTokenizer
from typer.testing import CliRunner, Result

from matinee.errors import SettingsError, SourceError
from matinee.evaluation import query_sets
from matinee.evaluation.splits import read_entries
from matinee.items import Item
from matinee.models.enhancer import Enhancer
from matinee.settings.models import EnhancerSettings
from train import instructions
from train.generation import completions
from train.generation.instruction_pairs import InstructionPair, read_pairs
from train.jobs import manifests

TEACHER = "{title} is a {genre} film about {overview}"
CHAT = (
    "{{ bos_token }}{% for m in messages %}<start_of_turn>{{ m['role'] }}\n{{ m['content'] }}<end_of_turn>\n{% endfor %}"
    "<start_of_turn>model\n"
)


def run(*args: object) -> Result:
    return CliRunner().invoke(instructions.app, [str(arg) for arg in args])


def made(out: Path, *args: object) -> dict[str, list[InstructionPair]]:
    result = run(*args, "--out", out)
    assert result.exit_code == 0, result.output
    return {name: read_pairs(out / f"{name}.jsonl") for name in ("train", "heldout", "dev")}


def splits(prepared: Path, pairs: list[InstructionPair]) -> set[str]:
    known = {entry.id: entry.split for entry in read_entries(prepared)}
    return {known[pair.id] for pair in pairs} | {known[str(pair.item.id)] for pair in pairs if pair.item.id}


def test_words_are_those_of_training_items_alone(eval_folder: Path, prepared: Path, tmp_path: Path) -> None:
    """The sets' qrels name dev and test films in every split; none of them is learnt from, and none of the test split is measured on."""
    found = made(tmp_path / "out", prepared, "--target", "words", "--sets", eval_folder)
    assert splits(prepared, found["train"]) == {"train"}
    assert splits(prepared, found["heldout"]) == splits(prepared, found["dev"]) == {"dev"}
    known = {entry.id: entry.split for entry in read_entries(prepared)}
    others = {id for id, split in known.items() if split != "train"}
    assert not any(f"d_train_{id}." in pair.text for pair in found["train"] for id in others)
    # A text that lacks the last kind of words has no end to learn.
    assert {pair.ends for pair in found["train"]} == {True, False}
    assert all(pair.ends == ("d_train_" in pair.text) for pair in found["train"])
    assert any(pair.text.startswith("Words of t_train_") and "d_train_" in pair.text for pair in found["train"])
    assert "complete already" in run(prepared, "--target", "words", "--sets", eval_folder, "--out", tmp_path / "out").stderr


def test_what_people_searched_for_are_words_too(eval_folder: Path, prepared: Path, tmp_path: Path) -> None:
    """A user's own set, as `matinee evalset make --clicks` makes it: without descriptions the searches are the whole text."""
    names = query_sets.set_names(eval_folder, "train")
    sets = {split: replace(query_sets.read_set(eval_folder, "text_keyword", split), name="text_click") for split in ("train", "dev")}
    assert "text_tag" in names
    query_sets.write_set(tmp_path / "sets", "text_click", sets)
    shutil.copytree(eval_folder / "text_tag", tmp_path / "sets" / "text_tag")
    found = made(tmp_path / "out", prepared, "--target", "words", "--sets", tmp_path / "sets")
    assert splits(prepared, found["train"]) == {"train"}
    assert all(pair.ends and pair.text.startswith("Words of t_train_") for pair in found["train"])
    assert not any("g_x" in pair.text for pair in found["train"])
    inputs = manifests.read(tmp_path / "out", "instructions")["inputs"]
    assert {name for name in inputs if name.startswith("sets/")} == {
        f"sets/text_click/{part}" for part in ("queries.jsonl", "set.json", "qrels/train.tsv", "qrels/dev.tsv")
    }
    shutil.rmtree(tmp_path / "sets" / "text_click")
    result = run(prepared, "--target", "words", "--sets", tmp_path / "sets", "--out", tmp_path / "none")
    assert (result.exit_code, "evalset make --clicks" in " ".join(result.stderr.split())) == (SourceError.exit_code, True)


@pytest.mark.parametrize("given", ["facts", "title"])
def test_overviews_are_learnt_without_being_told(prepared: Path, tmp_path: Path, given: str) -> None:
    found = made(tmp_path / "out", prepared, "--target", "overview", "--given", given, "--limit", 30)
    assert (len(found["train"]), len(found["heldout"]), len(found["dev"])) == (30, 3, 3)
    assert splits(prepared, found["train"]) == {"train"}
    assert splits(prepared, found["heldout"]) == {"test"}
    assert splits(prepared, found["dev"]) == {"dev"}
    overviews = {entry.id: entry.item.overview for entry in read_entries(prepared)}
    for pair in [*found["train"], *found["heldout"]]:
        assert pair.text == " ".join(overviews[pair.id].split())
        assert not pair.item.overview
        assert bool(pair.item.genres) == (given == "facts")


def test_a_limit_takes_the_same_pairs_whatever_else_there_is(prepared: Path, tmp_path: Path) -> None:
    small, large = (made(tmp_path / str(limit), prepared, "--limit", limit)["train"] for limit in (10, 30))
    assert small == large[:10]


def test_a_teacher_is_believed_where_the_metadata_bears_it_out(prepared: Path, tmp_path: Path) -> None:
    rows, kinds = [], ["good", "invents", "template"]
    for number, entry in enumerate(read_entries(prepared)):
        item, kind = entry.item, kinds[number % 3]
        text = TEACHER.format(title=item.title, genre=item.genres[0].lower(), overview=item.overview)
        text += " It was directed by Zyx Qwerty." if kind == "invents" else ""
        rows.append({"id": entry.id, "description": text, "source": "template" if kind == "template" else "model"})
    path = tmp_path / "teacher.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, {"id": "unknown", "description": "x"}]))
    found = made(tmp_path / "out", prepared, "--target", "teacher", "--teacher", path)
    good = {row["id"] for row in rows[::3]}
    assert found["train"]
    assert {pair.id for pair in found["train"]} <= good
    assert splits(prepared, found["train"]) == {"train"}
    assert splits(prepared, found["heldout"]) == {"test"}
    assert all(pair.item.overview for pair in found["train"])
    counts = json.loads((tmp_path / "out" / "manifest.json").read_text())["counts"]
    assert sum(counts["train"]["refused"].values()) > 0
    path.write_text("".join(json.dumps(row) + "\n" for row in rows[::3] if row["id"] in {pair.id for pair in found["train"]}))
    of_training = run(prepared, "--target", "teacher", "--teacher", path, "--out", tmp_path / "again")
    assert "`train.describe` has to describe items of that split too" in " ".join(of_training.stderr.split())
    path.write_text('{"id": "a"}\n')
    refused = run(prepared, "--target", "teacher", "--teacher", path, "--out", tmp_path / "again")
    assert refused.exit_code == SourceError.exit_code
    assert "line 1: not a JSON object with id and description" in " ".join(refused.stderr.split())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--target", "best"), "use overview, teacher, words"),
        (("--target", "words"), "--sets go together"),
        (("--target", "teacher"), "--teacher go together"),
        (("--given", "year"), "use facts, title"),
    ],
)
def test_options_that_do_not_fit_are_refused(prepared: Path, tmp_path: Path, options: tuple[str, ...], message: str) -> None:
    result = run(prepared, *options, "--out", tmp_path / "out")
    assert result.exit_code == SettingsError.exit_code
    assert message in " ".join(result.stderr.split())


FILM = Item(kind="film", title="a b", year=2001, genres=("c",), overview="d e f g h i j k l m n o p q r s")


@pytest.fixture(scope="module")
def tokenizer(tiny_gemma: Any, tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("tokenizer")
    tiny_gemma.save_tokenizer(folder)
    return AutoTokenizer.from_pretrained(folder)


@pytest.fixture
def chat(tokenizer: Any, tmp_path: Path) -> Any:
    tokenizer.save_pretrained(tmp_path)
    chat = AutoTokenizer.from_pretrained(tmp_path)
    chat.add_special_tokens({"additional_special_tokens": ["<start_of_turn>", "<end_of_turn>"]})
    chat.chat_template = CHAT
    return chat


def served(tokenizer: Any, item: Item) -> str:
    """What an enhancer with an adapter asks."""
    backend: Any = SimpleNamespace(tokenizer=tokenizer, precision="", device="")
    return Enhancer(backend, EnhancerSettings(), model_digest="a", adapter_digest="b").prompt(item)


def test_the_prompt_is_the_one_that_serving_uses(tokenizer: Any, chat: Any) -> None:
    for each in (tokenizer, chat):
        assert completions.prompt(FILM, each) == served(each, FILM)
    assert completions.prompt(FILM, chat) != completions.prompt(FILM, tokenizer)


def test_the_loss_is_on_the_text_and_its_end(tokenizer: Any, chat: Any) -> None:
    """A base model ends a text, one that chats ends its turn; a text that is not whole has no end."""
    for each, end in ((tokenizer, "<eos>"), (chat, "<end_of_turn>")):
        row = completions.tokenise(InstructionPair("1", FILM, "x y."), each, 256)
        assert row is not None
        asked = each(served(each, FILM)).input_ids
        assert row.input_ids[: len(asked)] == asked
        assert row.labels == [completions.IGNORED] * len(asked) + row.input_ids[len(asked) :]
        assert each.convert_ids_to_tokens(row.input_ids[len(asked) :]) == ["x", "y", ".", end]
        cut = completions.tokenise(InstructionPair("1", FILM, "x y.", ends=False), each, 256)
        assert cut is not None
        assert cut.input_ids == row.input_ids[:-1]


def test_what_is_too_long_loses_its_overview_then_sentences_then_its_place(tokenizer: Any) -> None:
    pair = InstructionPair("1", FILM, "X y z. A b c.")
    whole = completions.tokenise(pair, tokenizer, 256)
    assert whole is not None
    size = len(whole.input_ids)
    shorter = completions.tokenise(pair, tokenizer, size - 1)
    assert shorter is not None
    assert len(shorter.input_ids) < size
    assert shorter.input_ids[-1] == tokenizer.eos_token_id
    bare = completions.tokenise(InstructionPair("1", FILM.model_copy(update={"overview": ""}), pair.text), tokenizer, 256)
    assert bare is not None
    sentence = completions.tokenise(pair, tokenizer, len(bare.input_ids) - 1)
    assert sentence is not None
    assert sum(label != completions.IGNORED for label in sentence.labels) == 4
    assert sentence.input_ids[-1] != tokenizer.eos_token_id
    assert completions.tokenise_all([pair, pair], tokenizer, 8) == ([], 2)
