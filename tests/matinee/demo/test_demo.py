"""`matinee.demo`: the bundled catalogue is complete, clean, varied, and read without a complaint."""

import re
from collections import Counter

import pytest

from matinee import demo
from matinee.catalogue.reader import ItemReader, read_items
from matinee.items import Item

GENRES = {"Action", "Adventure", "Animation", "Comedy", "Crime", "Documentary", "Drama", "Family", "Fantasy", "History", "Horror"}
GENRES |= {"Music", "Mystery", "Romance", "Science Fiction", "Thriller", "War", "Western"}
REQUIRED = [
    ("Metropolis", 1927),
    ("Casablanca", 1942),
    ("Seven Samurai", 1954),
    ("Psycho", 1960),
    ("The Godfather", 1972),
    ("Jaws", 1975),
    ("Alien", 1979),
    ("Pulp Fiction", 1994),
    ("Toy Story", 1995),
    ("Titanic", 1997),
    ("The Matrix", 1999),
    ("Amélie", 2001),
    ("Spirited Away", 2001),
    ("Inception", 2010),
    ("Interstellar", 2014),
    ("Parasite", 2019),
    ("Dune", 2021),
    ("Oppenheimer", 2023),
]


@pytest.fixture(scope="module")
def reader() -> ItemReader:
    return read_items(str(demo.FILMS))


@pytest.fixture(scope="module")
def films(reader: ItemReader) -> list[Item]:
    return list(reader)


def test_it_is_read_without_a_complaint(reader: ItemReader, films: list[Item]) -> None:
    assert len(films) >= 400
    assert (reader.report.rejects, reader.report.warnings, reader.report.duplicates) == ([], [], 0)


def test_each_film_has_its_own_id_and_title_with_year(films: list[Item]) -> None:
    assert len({film.id for film in films}) == len({film.uid("demo") for film in films}) == len(films)
    assert len({(film.title.casefold(), film.year) for film in films}) == len(films)
    assert all(film.id and re.fullmatch(r"[a-z0-9-]+", film.id) for film in films)


@pytest.mark.parametrize(("title", "year"), REQUIRED)
def test_what_examples_and_documents_name_is_there(films: list[Item], title: str, year: int) -> None:
    assert [film.year for film in films if film.title == title] == [year]


def test_every_film_is_whole(films: list[Item]) -> None:
    for film in films:
        assert film.kind == "film"
        assert film.genres
        assert film.language
        assert film.people["director"], film.title
        assert len(film.people["cast"]) >= 3, film.title
        assert len(set(film.people["cast"])) == len(film.people["cast"]), film.title


def test_overviews_are_short_texts_of_their_own(films: list[Item]) -> None:
    for film in films:
        assert 30 <= len(film.overview.split()) <= 60, film.title
        assert film.overview[-1] in '.!?”"', film.title
        assert "\n" not in film.overview, film.title
    assert len({film.overview for film in films}) == len(films)


def test_all_decades_are_there(films: list[Item]) -> None:
    decades = Counter((film.year or 0) // 10 * 10 for film in films)
    assert set(decades) == set(range(1920, 2030, 10))
    assert min(decades.values()) >= 10


def test_all_genres_are_there_and_no_other(films: list[Item]) -> None:
    genres = Counter(genre for film in films for genre in film.genres)
    assert set(genres) == GENRES
    assert min(genres.values()) >= 10


def test_many_languages_are_there(films: list[Item]) -> None:
    languages = Counter(film.language for film in films)
    assert len(languages) >= 20
    assert all(language and re.fullmatch(r"[a-z]{2}", language) for language in languages)


def test_no_ratings_or_votes_are_invented(films: list[Item]) -> None:
    assert not [film.title for film in films if film.numbers]


def test_shipped_descriptions_belong_to_films(films: list[Item]) -> None:
    assert set(demo.descriptions()) <= {film.id for film in films}
    assert all(text.strip() for text in demo.descriptions().values())
