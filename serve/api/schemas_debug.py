"""What `debug: true` adds to an answer, as OpenAPI documents it. Made by `matinee.recommend.explain`; times are the gateway's."""

from pydantic import BaseModel, Field


class Candidate(BaseModel):
    """One item that the search considered."""

    id: str
    title: str | None
    scores: dict[str, float] = Field(description="by stage (dense, sparse, fused; or taste, popularity), as if there were no conditions")
    score: float | None = Field(None, description="in the real search, under its conditions; absent where one of them dropped the item")
    rank: int | None = Field(None, description="place in the answer")
    dropped: list[str] | None = Field(
        None, description="why it is not in the answer: example, exclude, filter.CONDITION, diversity, or rank (others were better)"
    )


class Debug(BaseModel):
    """How an answer came about: candidates before filters and diversity, their scores in each stage, times and versions."""

    stages: list[str] = Field(description="of the search, in order; the last one's list is the ranking before filters")
    items: int = Field(description="in the index")
    items_passing_filter: int
    candidates_found: int
    dropped: dict[str, int] = Field(description="how many of the candidates for each reason")
    candidates: list[Candidate] = Field(description="the first 100, best first before filters")
    index: dict[str, object] = Field(description="version, fingerprint of the encoder, recipe and models of the index that answered")
    times_ms: dict[str, float] = Field(description="of the stages; `forensics` is what this report took, and is part of retrieve")
