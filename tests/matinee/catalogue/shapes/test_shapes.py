"""Catalogues in the shapes of well-known data sets and exports: each gives the items that a person would expect, with one flag at most."""

# One row of a catalogue is one line here, as it is in the catalogue.
# ruff: noqa: E501

import csv
import io
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import pandas
import pyarrow
import pyarrow.parquet
import pytest

from matinee.catalogue.reader import ReadOptions, read_items
from matinee.items import Item

from .works import WORKS, Work

Cells = Mapping[str, object]


@dataclass(frozen=True)
class Shape:
    """`content` is the file; `reads` are the facts that must come out: names of `Work`, or `makers:ROLE`. `flag` is the one flag."""

    name: str
    content: str | bytes
    reads: str
    flag: Mapping[str, Any] = field(default_factory=dict)
    # What a person would see as one of the facts: `key=value` of the first item.
    also: Mapping[str, Any] = field(default_factory=dict)


def table(row: Callable[[Work], Cells], *, delimiter: str = ",", quoting: Any = csv.QUOTE_MINIMAL, end: str = "\n", start: str = "") -> str:
    out = io.StringIO(newline="")
    out.write(start)
    rows = [row(work) for work in WORKS]
    escape = {"escapechar": "\\"} if quoting == csv.QUOTE_NONE else {}
    writer = csv.DictWriter(out, list(rows[0]), delimiter=delimiter, quoting=quoting, lineterminator=end, **escape)
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def lines(row: Callable[[Work], Cells]) -> str:
    return "".join(json.dumps(row(work), ensure_ascii=False) + "\n" for work in WORKS)


def array(row: Callable[[Work], Cells]) -> str:
    return json.dumps([row(work) for work in WORKS])


def parquet(columns: Mapping[str, Any], **options: Any) -> bytes:
    out = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table(dict(columns)), out, **options)
    return out.getvalue()


def names(values: tuple[str, ...]) -> str:
    return json.dumps([{"id": n, "name": value} for n, value in enumerate(values)], ensure_ascii=False)


def numpy(values: tuple[str, ...]) -> str:
    return f"[{' '.join(map(repr, values))}]"


def r_vector(values: tuple[str, ...]) -> str:
    return f"c({', '.join(json.dumps(value, ensure_ascii=False) for value in values)})" if len(values) > 1 else values[0]


def postgres(values: tuple[str, ...]) -> str:
    return "{" + ",".join(f'"{value}"' if " " in value else value for value in values) + "}"


def month(work: Work, how: str) -> str:
    return datetime.fromisoformat(work.date).strftime(how)


FILM, BOOK, GAME, PRODUCT = ({"kind": kind} for kind in ("film", "book", "game", "product"))

SHAPES = [
    Shape(
        "movielens.csv",
        table(lambda w: {"movieId": w.id, "title": f"{w.moved} ({w.year})", "genres": "|".join(w.genres)}),
        "id year genres", FILM,
    ),
    Shape(
        "tmdb_5000_movies.csv",
        table(lambda w: {
            "budget": 1_000_000, "genres": names(w.genres), "homepage": "", "id": w.id, "keywords": names(("lamp", "street")),
            "original_language": "en", "original_title": w.title, "overview": w.overview, "popularity": w.rating * 10,
            "production_companies": names(("Lamp Works",)), "release_date": w.date, "revenue": 0, "runtime": 90,
            "status": "Released", "tagline": "", "title": w.title, "vote_average": w.rating, "vote_count": w.votes,
        }),
        "id title year genres overview rating votes", FILM, {"language": "en"},
    ),
    Shape(
        "title.basics.tsv",
        table(lambda w: {
            "tconst": f"tt00000{w.id}", "titleType": "movie", "primaryTitle": w.title, "originalTitle": w.title, "isAdult": 0,
            "startYear": w.year, "endYear": "\\N", "runtimeMinutes": 90, "genres": ",".join(w.genres),
        }, delimiter="\t"),
        "title year genres", {}, {"kind": "movie"},
    ),
    Shape(
        "imdb_top_1000.csv",
        table(lambda w: {
            "Poster_Link": "https://img.example/1.jpg", "Series_Title": w.title, "Released_Year": w.year if w.id != 14 else "PG",
            "Certificate": "A", "Runtime": "142 min", "Genre": ", ".join(w.genres), "IMDB_Rating": w.rating, "Overview": w.overview,
            "Meta_score": 80, "Director": w.makers[0], "Star1": w.cast[0], "Star2": w.cast[1], "No_of_Votes": w.votes,
            "Gross": f"{w.votes * 1000:,}",
        }),
        "title genres overview cast rating votes", FILM, {"year": 1987},
    ),
    Shape(
        "n_movies.csv",
        table(lambda w: {
            "title": w.title, "year": f"({w.year}– )" if w.id % 2 else f"({w.year})", "certificate": "TV-14", "duration": "30 min",
            "genre": f"\n{', '.join(w.genres)}            ", "rating": w.rating, "description": f"\n{w.overview}",
            "stars": str([f"{name}, " for name in w.cast]), "votes": f"{w.votes:,}",
        }),
        "title year genres overview rating votes", FILM,
    ),
    Shape(
        "netflix_titles.csv",
        table(lambda w: {
            "show_id": f"s{w.id}", "type": "Movie", "title": w.title, "director": ", ".join(w.makers), "cast": ", ".join(w.cast),
            "country": "Norway", "date_added": month(w, "%B %d, %Y"), "release_year": w.year, "rating": "TV-MA", "duration": "90 min",
            "listed_in": ", ".join(w.genres), "description": w.overview,
        }),
        "title year genres overview makers:director cast", {}, {"kind": "Movie"},
    ),
    Shape(
        "goodreads_books.csv",
        table(lambda w: {
            "bookID": w.id, "title": f"{w.title} (The Quay, #{w.id})", "authors": "/".join(w.makers), "average_rating": w.rating,
            "isbn": f"04397859{w.id}", "isbn13": f"97804397859{w.id}", "language_code": "eng", "  num_pages": 652, "ratings_count": w.votes,
            "text_reviews_count": 3, "publication_date": month(w, "%m/%d/%Y"), "publisher": "Lamp Press",
        }),
        "year makers:author rating votes", BOOK, {"language": "eng"},
    ),
    Shape(
        "goodreads_ucsd.jsonl",
        lines(lambda w: {
            "isbn": f"04397859{w.id}", "series": [], "country_code": "US", "language_code": "", "popular_shelves": [{"count": "3", "name": "to-read"}],
            "average_rating": str(w.rating), "similar_books": [], "description": w.overview, "authors": [{"author_id": "1", "role": ""}],
            "publisher": "Lamp Press", "num_pages": "256" if w.id % 2 else "", "isbn13": f"97804397859{w.id}", "publication_year": str(w.year),
            "book_id": str(w.id), "ratings_count": str(w.votes), "title": w.title, "title_without_series": w.title,
        }),
        "title year overview rating votes", BOOK,
    ),
    Shape(
        "goodbooks_10k.csv",
        table(lambda w: {
            "book_id": w.id, "goodreads_book_id": w.id * 7, "books_count": 3, "isbn": f"04397859{w.id}", "isbn13": f"9.7804397859{w.id}e+12",
            "authors": ", ".join(w.makers), "original_publication_year": f"{w.year}.0", "original_title": w.title,
            "title": f"{w.title} (The Quay, #1)", "language_code": "eng", "average_rating": w.rating, "ratings_count": w.votes,
            "work_ratings_count": w.votes + 5, "image_url": "https://img.example/1.jpg",
        }),
        "year makers:author rating votes", BOOK,
    ),
    Shape(
        "BX-Books.csv",
        table(lambda w: {
            "ISBN": f"04397859{w.id}", "Book-Title": w.title, "Book-Author": w.makers[0], "Year-Of-Publication": w.year if w.id != 14 else 0,
            "Publisher": "Lamp Press &amp; Sons", "Image-URL-S": "http://img.example/1.jpg",
        }, delimiter=";", quoting=csv.QUOTE_ALL, end="\r\n").encode("latin-1"),
        "title", BOOK, {"year": 1987, "people": {"author": ["Ann Fell"], "publisher": ["Lamp Press & Sons"]}},
    ),
    Shape(
        "amazon_meta_2023.jsonl",
        lines(lambda w: {
            "main_category": "Books", "title": w.title, "average_rating": w.rating, "rating_number": w.votes, "features": [w.overview * 6],
            "description": [w.overview] if w.id % 2 else [], "price": 8.23 if w.id % 2 else None,
            "images": [{"large": "https://img.example/1.jpg", "variant": "MAIN"}], "videos": [], "store": w.makers[0],
            "categories": list(w.genres), "details": {"Publisher": "Lamp Press"}, "parent_asin": f"B00N17AV{w.id}", "bought_together": None,
        }),
        "title genres rating votes", BOOK, {"overview": WORKS[0].overview},
    ),
    Shape(
        "anime_with_synopsis.csv",
        table(lambda w: {
            "MAL_ID": w.id, "Name": w.title, "Score": w.rating if w.id != 12 else "Unknown", "Genres": ", ".join(w.genres), "sypnopsis": w.overview,
        }),
        "id title genres overview", {"kind": "anime"}, {"numbers": {"rating": 7.5}},
    ),
    Shape(
        "jikan.json",
        json.dumps({"pagination": {"last_visible_page": 1, "items": {"count": 5}}, "data": [{
            "mal_id": w.id, "url": "https://anime.example/1", "images": {"jpg": {"image_url": "https://img.example/1.jpg"}},
            "titles": [{"type": "Default", "title": w.title}], "title": w.title, "type": "TV", "episodes": 12,
            "aired": {"from": f"{w.date}T00:00:00+00:00", "to": None, "string": month(w, "%b %d, %Y to ?")},
            "score": w.rating, "scored_by": w.votes, "synopsis": w.overview, "year": w.year if w.id % 2 else None,
            "genres": [{"mal_id": 1, "type": "anime", "name": name, "url": "https://anime.example/g"} for name in w.genres],
        } for w in WORKS]}),
        "id title genres overview rating votes", {}, {"kind": "TV", "year": 1987},
    ),
    Shape(
        "steam_appdetails.json",
        json.dumps({str(w.id): {"success": True, "data": {
            "type": "game", "name": w.title, "steam_appid": w.id, "short_description": w.overview, "developers": list(w.makers),
            "genres": [{"id": "1", "description": name} for name in w.genres], "categories": [{"id": 2, "description": "Single-player"}],
            "release_date": {"coming_soon": False, "date": month(w, "%d %b, %Y")}, "metacritic": {"score": 80, "url": "https://m.example"},
        }} for w in WORKS}),
        "id title year genres overview makers:developer", {}, {"kind": "game"},
    ),
    Shape(
        "steam_kaggle.csv",
        table(lambda w: {
            "appid": w.id, "name": w.title, "release_date": w.date, "english": 1, "developer": ";".join(w.makers), "publisher": "Lamp Works, Inc.",
            "platforms": "windows;mac", "categories": "Single-player;Online", "genres": ";".join(w.genres), "positive_ratings": w.votes,
            "owners": "10000000-20000000", "price": 7.19,
        }),
        "id title year genres makers:developer", GAME,
    ),
    Shape(
        "open_library_search.json",
        json.dumps({"numFound": 5, "start": 0, "q": "lamp", "docs": [{
            "key": f"/works/OL{w.id}W", "title": w.title, "author_name": list(w.makers), "first_publish_year": w.year, "edition_count": 3,
            "language": ["eng", "fre"], "subject": list(w.genres), "ratings_average": w.rating,
        } for w in WORKS]}),
        "title year genres makers:author", BOOK, {"language": "eng"},
    ),
    Shape(
        "open_library_works.jsonl",
        lines(lambda w: {
            "key": f"/works/OL{w.id}W", "title": w.title, "type": {"key": "/type/work"}, "subjects": list(w.genres),
            "authors": [{"type": {"key": "/type/author_role"}, "author": {"key": "/authors/OL1A"}}], "first_publish_date": month(w, "%B %Y"),
            "description": {"type": "/type/text", "value": w.overview} if w.id % 2 else w.overview,
            "created": {"type": "/type/datetime", "value": "2009-12-11T01:57:19"}, "revision": 3,
        }),
        "title year genres overview", BOOK,
    ),
    Shape(
        "omdb.jsonl",
        lines(lambda w: {
            "Title": w.title, "Year": str(w.year), "Rated": "N/A", "Released": month(w, "%d %b %Y"), "Runtime": "90 min",
            "Genre": ", ".join(w.genres), "Director": ", ".join(w.makers), "Writer": "N/A", "Actors": ", ".join(w.cast), "Plot": w.overview,
            "Language": "English, Norwegian", "Country": "Norway", "Awards": "N/A", "Ratings": [{"Source": "X", "Value": "7/10"}],
            "Metascore": "N/A", "imdbRating": f"{w.rating}", "imdbVotes": f"{w.votes:,}", "imdbID": f"tt00000{w.id}", "Type": "movie",
        }),
        "title year genres overview makers:director cast rating votes", {}, {"language": "English", "kind": "movie"},
    ),
    Shape(
        "tvmaze.json",
        array(lambda w: {
            "id": w.id, "url": "https://tv.example/1", "name": w.title, "type": "Scripted", "language": "English", "genres": list(w.genres),
            "status": "Ended", "runtime": 60, "premiered": w.date, "rating": {"average": w.rating if w.id != 12 else None}, "weight": 97,
            "network": {"id": 2, "name": "CBS", "country": {"name": "Norway"}}, "summary": f"<p><b>{w.overview}</b></p>",
        }),
        "id title year genres overview", {"kind": "series"}, {"numbers": {"rating": 7.5}},
    ),
    Shape(
        "rotten_tomatoes_movies.csv",
        table(lambda w: {
            "rotten_tomatoes_link": f"m/{w.id}", "movie_title": w.title, "movie_info": w.overview, "critics_consensus": "", "content_rating": "PG",
            "genres": ", ".join(w.genres), "directors": ", ".join(w.makers), "authors": w.makers[0], "actors": ", ".join(w.cast),
            "original_release_date": w.date, "streaming_release_date": "2015-11-25", "runtime": 119, "production_company": "Lamp Works",
            "tomatometer_status": "Rotten", "tomatometer_rating": 49, "audience_rating": w.rating, "audience_count": w.votes,
        }),
        "title year genres overview makers:director cast rating votes", FILM,
    ),
    Shape(
        "wikidata.csv",
        table(lambda w: {
            "item": f"http://www.wikidata.org/entity/Q{w.id}", "itemLabel": w.title, "itemDescription": w.overview,
            "publication_date": f"{w.date}T00:00:00Z", "directorLabel": ", ".join(w.makers), "genreLabel": ", ".join(w.genres),
        }, quoting=csv.QUOTE_MINIMAL, end="\r\n"),
        "title year genres overview makers:director", FILM,
    ),
    Shape(
        "wikidata_sparql.json",
        json.dumps({"head": {"vars": ["item", "itemLabel"]}, "results": {"bindings": [{
            "item": {"type": "uri", "value": f"http://www.wikidata.org/entity/Q{w.id}"},
            "itemLabel": {"xml:lang": "en", "type": "literal", "value": w.title},
            "publicationDate": {"datatype": "http://www.w3.org/2001/XMLSchema#dateTime", "type": "literal", "value": f"{w.date}T00:00:00Z"},
            "genreLabel": {"xml:lang": "en", "type": "literal", "value": ", ".join(w.genres)},
        } for w in WORKS]}}),
        "title year genres", FILM,
    ),
    Shape(
        "flipkart.csv",
        table(lambda w: {
            "uniq_id": f"c2d766ca982eca8304150849735ffe{w.id}", "crawl_timestamp": "2016-03-25 22:59:23 +0000", "product_url": "http://shop.example/1",
            "product_name": w.title, "product_category_tree": json.dumps([" >> ".join(("Home", *w.genres))]), "pid": f"SRTEH2FF9KEDEF{w.id}",
            "retail_price": 999.0, "discounted_price": 379.0, "image": json.dumps(["http://img.example/1.jpg"]), "description": w.overview,
            "product_rating": "No rating available", "overall_rating": "No rating available", "brand": "Lamp Works",
        }),
        "title overview", PRODUCT, {"genres": ["Home", "Drama", "History"]},
    ),
    Shape(
        "food_com_recipes.csv",
        table(lambda w: {
            "RecipeId": w.id, "Name": w.title, "AuthorId": 1533, "AuthorName": w.makers[0], "CookTime": "PT24H", "DatePublished": f"{w.date}T21:46:00Z",
            "Description": w.overview, "Images": r_vector(("https://img.example/1.jpg", "https://img.example/2.jpg")) if w.id % 2 else "character(0)",
            "RecipeCategory": "Frozen Desserts", "Keywords": r_vector(w.genres), "AggregatedRating": w.rating, "ReviewCount": w.votes,
        }),
        "id title year genres overview rating votes", {"mapping": {"genres": "Keywords"}},
    ),
    Shape(
        "shopify_products.csv",
        table(lambda w: {
            "Handle": f"lamp-{w.id}", "Title": w.title, "Body (HTML)": f"<p>{w.overview}</p>", "Vendor": "Lamp Works",
            "Product Category": " > ".join(("Home", *w.genres)), "Type": "Lamp", "Tags": "oil, brass", "Published": "true", "Option1 Name": "Title",
            "Variant SKU": f"L{w.id}", "Variant Price": 12.5, "Image Src": "https://img.example/1.jpg", "Status": "active",
        }),
        "title overview", PRODUCT, {"genres": ["Home", "Drama", "History"]},
    ),
    Shape(
        "google_merchant.tsv",
        table(lambda w: {
            "id": w.id, "title": w.title, "description": w.overview, "link": "https://shop.example/1", "condition": "new", "price": "15.00 USD",
            "availability": "in stock", "image link": "https://img.example/1.jpg", "gtin": "", "brand": "Lamp Works",
            "google product category": " > ".join(w.genres),
        }, delimiter="\t"),
        "id title genres overview", PRODUCT,
    ),
    Shape(
        "woocommerce.csv",
        table(lambda w: {
            "ID": w.id, "Type": "simple", "SKU": f"L{w.id}", "Name": w.title, "Published": 1, "Is featured?": 0, "Short description": "",
            "Description": f"<p>{w.overview}</p>\\n", "Date sale price starts": "", "In stock?": 1, "Regular price": 12.5,
            "Categories": ", ".join(f"Home > {name}" for name in w.genres), "Tags": "oil, brass", "Images": "https://img.example/1.jpg",
        }, start="\ufeff"),
        "id title", PRODUCT, {"genres": ["Home", "Drama", "History"]},
    ),
    Shape(
        "library_marc.csv",
        table(lambda w: {
            "Bib ID": w.id, "Title": w.title, "Author": f"{w.makers[0].split()[1]}, {w.makers[0].split()[0]}",
            "Publication Date": f"[{w.year}]" if w.id % 2 else f"©{w.year}", "Publisher": "Lamp Press", "Subjects": " ; ".join(w.genres),
            "Summary": w.overview, "Language": "eng", "ISBN": "",
        }),
        "title year genres overview", BOOK, {"people": {"author": ["Fell, Ann"], "publisher": ["Lamp Press"]}},
    ),
    Shape(
        "postgres_copy.csv",
        table(lambda w: {
            "id": w.id, "title": w.title, "released": f"{w.date} 00:00:00+00", "genres": postgres(w.genres), "cast": postgres(w.cast),
            "overview": w.overview, "active": "t", "rating": w.rating,
        }),
        "id title year genres overview rating cast", FILM,
    ),
    Shape(
        "postgres_copy.txt",
        table(lambda w: {
            "id": w.id, "title": w.title, "year": w.year, "genres": postgres(w.genres), "director": "\\N", "overview": w.overview,
        }, delimiter="\t"),
        "id title year genres overview", FILM,
    ),
    Shape(
        "mongodb_export.json",
        lines(lambda w: {
            "_id": {"$oid": f"573a1390f29313caabcd42{w.id}"}, "title": w.title, "year": {"$numberInt": str(w.year)}, "genres": list(w.genres),
            "directors": list(w.makers), "cast": list(w.cast), "plot": w.overview, "released": {"$date": {"$numberLong": "-2418768000000"}},
            "imdb": {"rating": {"$numberDouble": str(w.rating)}, "votes": {"$numberInt": str(w.votes)}},
        }),
        "title year genres overview makers:director cast", FILM,
    ),
    Shape(
        "pandas.csv",
        pandas.DataFrame([{
            "title": w.title, "year": float(w.year) if w.id != 12 else None, "genres": list(w.genres), "overview": w.overview, "rating": w.rating,
            "released": pandas.Timestamp(w.date),
        } for w in WORKS]).to_csv(),
        "title genres overview rating", FILM, {"year": 1987},
    ),
    Shape(
        "pandas_twice.csv",
        table(lambda w: {"Unnamed: 0": w.id, "title": w.title, "year": w.year, "genres": numpy(w.genres), "cast": str(set(w.cast))}),
        "title year genres", FILM,
    ),
    Shape(
        "r_write_csv.csv",
        table(lambda w: {
            "": w.id - 10, "title": w.title, "year": w.year, "genres": r_vector(w.genres), "rating": w.rating if w.id != 12 else "NA", "seen": "TRUE",
        }, quoting=csv.QUOTE_NONNUMERIC),
        "title year genres", FILM, {"numbers": {"rating": 7.5}},
    ),
    Shape(
        "excel_german.csv",
        table(lambda w: {
            "Title": w.title, "Released": month(w, "%d.%m.%Y"), "Genre": ", ".join(w.genres), "Rating": str(w.rating).replace(".", ","),
            "Votes": f"{w.votes:,}".replace(",", "."), "Overview": w.overview,
        }, delimiter=";", end="\r\n", start="\ufeffsep=;\r\n"),
        "title year genres overview rating votes", FILM,
    ),
    Shape(
        "excel_unicode.txt",
        table(lambda w: {"Title": w.title, "Year": w.year, "Genre": ", ".join(w.genres), "Overview": w.overview}, delimiter="\t", end="\r\n")
        .encode("utf-16"),
        "title year genres overview", FILM,
    ),
    Shape(
        "bigquery.json",
        lines(lambda w: {
            "id": str(w.id), "title": w.title, "year": str(w.year), "genres": list(w.genres), "rating": w.rating, "votes": str(w.votes),
            "credits": [{"role": "director", "person": w.makers[0]}], "loaded_at": "2024-05-01 10:00:00 UTC",
        }),
        "id title year genres rating votes", FILM,
    ),
    Shape(
        "spark.snappy.parquet",
        parquet({
            "id": [w.id for w in WORKS], "title": [w.title for w in WORKS], "release_date": [datetime.fromisoformat(w.date).date() for w in WORKS],
            "genres": pyarrow.array([[{"id": 1, "name": name} for name in w.genres] for w in WORKS]),
            "people": pyarrow.array([[("director", list(w.makers))] for w in WORKS], pyarrow.map_(pyarrow.string(), pyarrow.list_(pyarrow.string()))),
            "overview": [w.overview for w in WORKS], "rating": pyarrow.array([w.rating for w in WORKS]).cast(pyarrow.decimal128(6, 2)),
        }, use_deprecated_int96_timestamps=True),
        "id title year genres overview makers:director rating", FILM,
    ),
    Shape(
        "hive_000000_0.parquet",
        parquet({
            "films.id": [str(w.id).encode() for w in WORKS], "films.title": [w.title.encode() for w in WORKS],
            "films.release_year": pyarrow.array([w.year for w in WORKS], pyarrow.int32()),
            "films.genres": [", ".join(w.genres).encode() for w in WORKS], "films.overview": [w.overview.encode() for w in WORKS],
        }),
        "id title year genres overview", FILM,
    ),
    Shape(
        "polars.parquet",
        parquet({
            "title": pyarrow.array([w.title for w in WORKS], pyarrow.large_string()), "year": pyarrow.array([w.year for w in WORKS], pyarrow.int16()),
            "genres": pyarrow.array([list(w.genres) for w in WORKS], pyarrow.large_list(pyarrow.large_string())),
            "kind": pyarrow.array(["film"] * 5).dictionary_encode(), "rating": [w.rating for w in WORKS],
            "released": pyarrow.array([datetime.fromisoformat(w.date) for w in WORKS], pyarrow.timestamp("us")),
            "scores": pyarrow.array([{"critics": 3} for _ in WORKS]),
        }, compression="zstd"),
        "title year genres rating", {}, {"kind": "film"},
    ),
]  # fmt: skip


def read_value(item: Item, name: str) -> object:
    what, _, role = name.partition(":")
    if what in ("rating", "votes"):
        return item.numbers.get(what)
    if what in ("makers", "cast"):
        return item.people.get(role or what)
    return getattr(item, what)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_well_known_shape_gives_the_items_that_a_person_expects(tmp_path: Path, shape: Shape) -> None:
    path = tmp_path / shape.name
    path.write_bytes(shape.content if isinstance(shape.content, bytes) else shape.content.encode())
    flag = dict(shape.flag)
    assert len(flag) <= 1
    known = {name: flag.pop(name) for name in ("mapping", "kind") if name in flag}
    reader = read_items(path, **known, options=ReadOptions(**flag))
    items = list(reader)
    assert reader.report.rejects == []
    assert len(items) == len(WORKS)
    for name in shape.reads.split():
        expected = [str(work.id) if name == "id" else getattr(work, name.partition(":")[0]) for work in WORKS]
        assert [read_value(item, name) for item in items] == expected, name
    for item, work in zip(items, WORKS, strict=True):
        assert re.match(re.escape(work.title.removeprefix("The ")), item.title.removeprefix("The "))
    facts = items[0].facts()
    assert {name: facts.get(name) for name in shape.also} | dict(shape.also) == {
        name: {key: facts[name][key] for key in value} if isinstance(value, dict) else facts.get(name) for name, value in shape.also.items()
    }


def test_there_are_thirty_shapes_and_most_need_no_flag() -> None:
    assert len({shape.name for shape in SHAPES}) == len(SHAPES) >= 30
