"""Query parameters read as one model: what they take, what they refuse, and what the OpenAPI document says of them."""

from typing import Annotated

import pytest
from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field

from serve.api.query_parameters import document_query, read_query


class Options(BaseModel):
    k: Annotated[int, Field(ge=1, le=5)] = 3
    name: Annotated[str | None, Field(max_length=4, description="whose")] = None


def request(query: str) -> Request:
    return Request({"type": "http", "query_string": query.encode(), "headers": []})


@pytest.mark.parametrize(
    ("query", "read"),
    [("", (3, None)), ("k=5&name=a%20b", (5, "a b")), ("k=1&k=2", (2, None)), ("name=", (3, "")), ("other=1", (3, None))],
)
def test_what_is_sent_is_read(query: str, read: tuple[int, str | None]) -> None:
    options = read_query(request(query), Options)
    assert (options.k, options.name) == read


@pytest.mark.parametrize(("query", "where"), [("k=6", "k"), ("k=", "k"), ("k=1.5", "k"), ("k=x", "k"), ("name=abcde", "name")])
def test_what_is_wrong_is_refused_and_named(query: str, where: str) -> None:
    with pytest.raises(RequestValidationError) as refused:
        read_query(request(query), Options)
    assert [error["loc"] for error in refused.value.errors()] == [("query", where)]


def test_they_are_documented_as_the_framework_does_it() -> None:
    app = FastAPI()

    @app.get("/")
    def declared(
        k: Annotated[int, Query(ge=1, le=5)] = 3, name: Annotated[str | None, Query(max_length=4, description="whose")] = None
    ) -> None:
        pass

    assert document_query(Options) == app.openapi()["paths"]["/"]["get"]["parameters"]
