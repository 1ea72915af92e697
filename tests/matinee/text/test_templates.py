"""`matinee.text.templates`: texts without holes, prompts of a bounded size, reasons that name only what is shared."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matinee import languages
from matinee.items import Item
from matinee.text import templates
from matinee.text.templates import Shared

ANSWER = languages.language().answer

FILM = Item(
    kind="film",
    title="Mad Max: Fury Road",
    year=2015,
    genres=("Action", "Science Fiction"),
    people={"director": ("George Miller",), "cast": ("Tom Hardy", "Charlize Theron")},
    overview="Max runs\nacross the desert.",
    language="en",
    extra={"tagline": "What a lovely day"},
)
BARE = Item(title="E.T.")

words = st.text(alphabet="abc ABC.,!?\"'’)-\n", max_size=40)
items = st.builds(
    Item,
    title=words.filter(lambda text: bool(text.strip())),
    year=st.none() | st.integers(1900, 2030),
    genres=st.lists(st.sampled_from(["Drama", "War", "Comedy"]), max_size=3).map(tuple),
    overview=words,
    kind=st.sampled_from(["film", "book", "item"]),
)


def test_raw_text_has_the_two_templates() -> None:
    assert templates.raw_text(FILM, "full") == "Mad Max: Fury Road (2015). Action, Science Fiction. Max runs across the desert."
    assert templates.raw_text(FILM, "plain") == "Mad Max: Fury Road. Max runs across the desert."


@pytest.mark.parametrize(
    ("title", "overview", "expected"),
    [
        ("E.T.", "", "E.T."),
        ("Airplane!", "Who flies?", "Airplane! Who flies?"),
        ("Wait...", 'He said "stop."', 'Wait... He said "stop."'),
        ("Plan (B)", "no end,", "Plan (B). no end."),
        ("A", " . ", "A."),
    ],
)
def test_raw_text_ends_each_sentence_once(title: str, overview: str, expected: str) -> None:
    assert templates.raw_text(Item(title=title, overview=overview)) == expected


@given(items)
def test_texts_have_no_holes(item: Item) -> None:
    texts = [
        templates.raw_text(item, "full"),
        templates.raw_text(item, "plain"),
        templates.facts_text(item),
        templates.template_description(item),
    ]
    for text in [*texts, templates.lead(item)]:
        assert "None" not in text
        assert "()" not in text
        assert text == text.strip()
    assert all(line.split(":", 1)[1].strip() for line in templates.facts_text(item).splitlines())


def test_recipes_say_which_text_is_embedded() -> None:
    raw = templates.raw_text(FILM)
    told = "Mad Max: Fury Road is a chase."
    assert templates.embedded_text(FILM, told, "raw") == raw
    assert templates.embedded_text(FILM, told, "enhanced") == told
    assert templates.embedded_text(FILM, told, "both") == f"{raw} {told}"
    assert templates.embedded_text(FILM, "A chase.", "enhanced") == "Mad Max: Fury Road. A chase."


@pytest.mark.parametrize("recipe", ["raw", "enhanced", "both"])
@pytest.mark.parametrize("description", [None, "", " \n"])
def test_an_item_without_description_has_its_raw_text(recipe: templates.Recipe, description: str | None) -> None:
    assert templates.embedded_text(FILM, description, recipe) == templates.raw_text(FILM)


def test_words_are_found_that_vectors_leave_out() -> None:
    assert "2015" not in templates.embedded_text(FILM, None, "raw")
    assert "2015" in templates.embedded_text(FILM, None, "raw", template=templates.SPARSE_TEMPLATE)


def test_a_query_is_only_put_in_order() -> None:
    assert templates.query_text("  a film\n about  trust ") == "a film about trust"


def test_the_facts_hold_everything_there_is() -> None:
    assert templates.facts_text(FILM).splitlines() == [
        "Title: Mad Max: Fury Road",
        "Kind: film",
        "Year: 2015",
        "Genres: Action, Science Fiction",
        "Director: George Miller",
        "Cast: Tom Hardy, Charlize Theron",
        "Language: English",
        "Tagline: What a lovely day",
        "Overview: Max runs across the desert.",
    ]


def test_a_form_prompt_shows_examples_and_ends_where_the_answer_begins() -> None:
    text = templates.enhancer_prompt(FILM)
    assert text.count(ANSWER) == 3
    assert text.endswith(f"Overview: Max runs across the desert.\n{ANSWER}")
    assert templates.enhancer_prompt(FILM, examples=0).startswith("Title: Mad Max")


class Chat:
    bos_token = "<bos>"

    def apply_chat_template(self, conversation: list[dict[str, str]], **kwargs: object) -> str:
        assert kwargs == {"tokenize": False, "add_generation_prompt": True}
        return f"<bos><turn>{conversation[0]['content']}</turn>"


def test_a_chat_prompt_asks_and_gives_the_facts() -> None:
    text = templates.enhancer_prompt(FILM, Chat())
    assert text.startswith("<turn>Write two or three sentences that describe this film")
    assert "Director: George Miller" in text
    assert "Salt Road" not in text


@pytest.mark.parametrize(
    ("item", "expected"),
    [
        (FILM, "Mad Max: Fury Road (2015) is an action and science fiction film directed by George Miller about"),
        (
            Item(title="Dune", kind="book", genres=("Epic",), people={"author": ("F. Herbert",)}),
            "Dune is an epic book written by F. Herbert about",
        ),
        (Item(title="X", kind="item", genres=("TV Movie", "Drama")), "X is a tv movie and drama title that"),
        (Item(title="X"), "X is a title that"),
    ],
)
def test_the_lead_is_made_of_facts(item: Item, expected: str) -> None:
    assert templates.lead(item) == expected


@pytest.mark.parametrize(
    ("shared", "expected"),
    [
        (Shared(), "for its similar story and themes."),
        (Shared(language="en"), "for its similar story and themes."),
        (Shared(genres=("Drama", "War")), "for its drama and war story."),
        (Shared(decade=1990), "for its story and similar 1990s execution."),
        (Shared(genres=("Drama",), decade=1990, language="fr"), "for its drama story and similar French-language 1990s execution."),
        (
            Shared(genres=("Drama",), people={"director": ("A B",), "cast": ("C D", "E F", "G H")}),
            "for its drama story and similar execution, both directed by A B and with C D and E F.",
        ),
        (Shared(people={"voice_coach": ("A B",)}), "for its story and similar execution, both with voice coach A B."),
    ],
)
def test_a_reason_names_only_what_is_shared(shared: Shared, expected: str) -> None:
    assert templates.reason_sentence("One", "Two", shared) == f"If you enjoyed One, you might love Two {expected}"


@pytest.mark.parametrize("language", ["english", "german"])
def test_the_titles_of_a_reason_are_kept_as_they_are(language: str) -> None:
    shared = Shared(genres=("Drama",))
    sentence = templates.reason_sentence("{{ title }} %s {0}", "Who\\1?  \t <b>", shared, language)
    assert "{{ title }} %s {0}" in sentence
    assert "Who\\1? <b>" in sentence
    assert sentence == templates.reason_sentence("A", "B", shared, language).replace("A", "{{ title }} %s {0}", 1).replace(
        "B", "Who\\1? <b>", 1
    )


def test_the_template_description_states_the_facts() -> None:
    text = templates.template_description(FILM)
    assert text.startswith(
        "Mad Max: Fury Road (2015), film: action and science fiction, directed by George Miller, with Tom Hardy and Charlize"
    )
    assert templates.template_description(BARE) == "E.T."
