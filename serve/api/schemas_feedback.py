"""The request and the answer of `POST /v1/feedback`, as OpenAPI documents them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from serve.graph.requests import Id, User

MAX_SEEN = 1000

Seen = Annotated[tuple[Id, ...], Field(max_length=MAX_SEEN)]


class FeedbackRequest(BaseModel):
    """What a user saw of an answer and did with it: ids of items, the index' or the catalogue's own; at least one."""

    request_id: Id | None = Field(
        None, description="the request_id of the answer; without it nothing ties this to what was asked and shown"
    )
    user_id: User = None
    shown: Seen = ()
    clicked: Seen = ()
    liked: Seen = ()
    disliked: Seen = ()

    @model_validator(mode="after")
    def _something(self) -> "FeedbackRequest":
        if not (self.shown or self.clicked or self.liked or self.disliked):
            raise ValueError("name at least one item that was shown, clicked, liked or disliked")
        return self

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [{"request_id": "5f36bf6e-a783-4fd5-8124-a646e26b421e", "user_id": "u-17", "liked": ["memento-2000"]}]
        },
    )


class FeedbackResponse(BaseModel):
    """How many events were accepted: they are written within seconds."""

    accepted: int
    request_id: str
