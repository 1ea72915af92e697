"""The request and the answer of `POST /v1/feedback`, as OpenAPI documents them."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from serve.graph.requests import Id, StrictModel

MAX_SEEN = 1000
MAX_TOKEN = 32_768

Seen = Annotated[tuple[Id, ...], Field(max_length=MAX_SEEN)]


class FeedbackRequest(StrictModel):
    """What a user did with an answer: ids of items that it showed, the index' or the catalogue's own; at least one."""

    token: Annotated[str, StringConstraints(min_length=1, max_length=MAX_TOKEN)] = Field(
        description="the feedback_token of the answer; it says for whom the answer was. Sending the same again counts once"
    )
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
        json_schema_extra={"examples": [{"token": "WzEsImRlbW8iLCI4N2Y0Il0.c2lnbmVk", "liked": ["memento-2000"]}]},
    )


class FeedbackResponse(BaseModel):
    """How many events were accepted: they are written within seconds."""

    accepted: int
    request_id: str
