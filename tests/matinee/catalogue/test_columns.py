import pytest

from matinee.catalogue.columns import assign, count_recognised, key, squash
from matinee.errors import SourceError

PAPER = ("Release_Date", "Title", "Overview", "Popularity", "Vote_Count", "Vote_Average", "Original_Language", "Genre", "Poster_Url")


def targets(*columns: str, mapping: dict[str, str] | None = None) -> dict[str, str]:
    return assign(columns, mapping, [])


def test_the_papers_columns() -> None:
    assert targets(*PAPER) == {
        "Release_Date": "year",
        "Title": "title",
        "Overview": "overview",
        "Popularity": "numbers.popularity",
        "Vote_Count": "numbers.votes",
        "Vote_Average": "numbers.rating",
        "Original_Language": "language",
        "Genre": "genres",
        "Poster_Url": "other.poster_url",
    }


@pytest.mark.parametrize(
    ("column", "target"),
    [
        ("releaseDate", "year"), ("release date", "year"), ("FIRST-AIR-DATE", "year"), ("Published", "year"),
        ("Plot", "overview"), ("Synopsis", "overview"), ("description", "overview"), ("Catégories", "other.categories"),
        ("Directors", "people.director"), ("Author(s)", "people.author"), ("Actors", "people.cast"), ("developer", "people.developer"),
        ("average_rating", "numbers.rating"), ("ratings_count", "numbers.votes"), ("tmdb_id", "id"), ("media type", "kind"),
        ("people", "people"), ("numbers", "numbers"), ("extra", "extra"),
    ],
)  # fmt: skip
def test_names_are_compared_without_case_and_separators(column: str, target: str) -> None:
    found = targets("name", column)[column]
    assert found == ("genres" if column == "Catégories" else target) or found == target


@pytest.mark.parametrize(
    ("column", "fits"), [("book_title", True), ("showTitle", True), ("Game Title", True), ("director_name", False), ("subtitle", False)]
)
def test_some_title_will_do_when_it_is_the_only_one(column: str, fits: bool) -> None:
    if fits:
        assert targets(column, "year")[column] == "title"
    else:
        with pytest.raises(SourceError, match="no column is the title"):
            targets(column, "year")


def test_two_possible_titles_are_asked_about() -> None:
    with pytest.raises(SourceError, match="the columns are 'book_title', 'series_title': pass --map title=COLUMN"):
        targets("book_title", "series_title")


def test_a_first_column_that_ends_in_id_is_the_id() -> None:
    assert targets("bookId", "title")["bookId"] == "id"
    assert targets("title", "collection_id")["collection_id"] == "other.collection_id"
    assert targets("collection_id", "title", "id")["collection_id"] == "other.collection_id"


def test_several_fits_are_told() -> None:
    warnings: list[str] = []
    assert assign(("description", "title", "Overview"), None, warnings)["Overview"] == "overview"
    assert warnings == ["column 'Overview' was taken as overview; 'description' would fit too: choose with --map"]


def test_a_mapping_is_stronger_than_names() -> None:
    found = targets(
        "title", "name", "plot", "A b", "c", "d", "e",
        mapping={"title": "name", "overview": "", "people.editor": "a_B", "extra_field": "c", "numbers.pages": "d", "rating": "e"},
    )  # fmt: skip
    assert found == {
        "name": "title",
        "title": "other.title",
        "plot": "other.plot",
        "A b": "people.editor",
        "c": "extra.field",
        "d": "numbers.pages",
        "e": "numbers.rating",
    }


@pytest.mark.parametrize(
    ("mapping", "message"),
    [
        ({"overveiw": "Plot"}, "there is no target 'overveiw'; use title, overview, genres"),
        ({"extra.": "Plot"}, "there is no target"),
        ({"numbers.A-B": "Plot"}, "there is no target"),
        ({"overview": "Polt"}, "--map overview=Polt: there is no column 'Polt'; the columns are 'Title', 'Plot'"),
        ({"overview": "Plot", "title": "Plot"}, "already mapped"),
        ({"rating": "Plot", "numbers.rating": "Title"}, "already mapped"),
        ({"title": ""}, "no column is the title"),
    ],
)
def test_a_wrong_mapping_is_refused(mapping: dict[str, str], message: str) -> None:
    with pytest.raises(SourceError, match=message):
        targets("Title", "Plot", mapping=mapping)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("Poster URL", "poster_url"), ("posterUrl", "poster_url"), ("2nd Côde!", "column_2nd_code"), ("鸟", "column"), ("x" * 50, "x" * 40)],
)
def test_key(name: str, expected: str) -> None:
    assert key(name) == expected


def test_other_columns_get_keys_of_their_own() -> None:
    assert targets("title", "a b", "a-b", "鸟", "犬") == {
        "title": "title", "a b": "other.a_b", "a-b": "other.a_b_2", "鸟": "other.column", "犬": "other.column_2",
    }  # fmt: skip


def test_recognised_tells_headers_from_rows() -> None:
    assert count_recognised(PAPER) > 100
    assert count_recognised(["Title;Overview;Year"]) == 0
    assert count_recognised(["a", "b"], {"title": "A"}) == 10
    assert squash("Émile_ Zola-9") == "emilezola9"


@pytest.mark.parametrize(
    ("column", "target"),
    [
        ("Book-Author", "people.author"), ("sypnopsis", "overview"), ("Released_Year", "year"), ("No_of_Votes", "numbers.votes"),
        ("movie_info", "overview"), ("rating_number", "numbers.votes"), ("premiered", "year"), ("Body (HTML)", "overview"),
        ("first_publish_year", "year"), ("subjects", "genres"), ("directorLabel", "people.director"), ("scored_by", "numbers.votes"),
    ],
)  # fmt: skip
def test_names_of_well_known_catalogues(column: str, target: str) -> None:
    assert targets("name", column)[column] == target


def test_a_tables_name_in_front_of_all_columns_is_ignored() -> None:
    assert targets("films.title", "films.release_year", "films.box office") == {
        "films.title": "title", "films.release_year": "year", "films.box office": "other.box_office",
    }  # fmt: skip


def test_numbers_of_rows_are_not_used() -> None:
    assert targets("Unnamed: 0", "title", "__index_level_0__") == {"title": "title"}


def test_a_label_is_the_title_where_nothing_else_is() -> None:
    assert targets("item", "itemLabel")["itemLabel"] == "title"
    assert targets("label", "book_title")["label"] == "other.label"


def test_numbered_columns_are_one_list() -> None:
    assert targets("title", "Star1", "Star2", "actor_3_name", "genre_1", "part1") == {
        "title": "title", "Star1": "people.cast", "Star2": "people.cast", "actor_3_name": "people.cast", "genre_1": "genres",
        "part1": "other.part1",
    }  # fmt: skip
    assert targets("title", "cast", "Star1")["Star1"] == "other.star1"
