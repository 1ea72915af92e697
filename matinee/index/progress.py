"""How far a build is, noted beside the lease that it holds, for servers that list it. Does not build (`matinee.index.build`)."""

from pydantic import BaseModel, ConfigDict, Field, ValidationError

NOTE_S = 5.0
"""A build notes its progress so often."""
FINISHING = "finishing"
"""The stage after the last item: the engine indexes, and the build is verified. Nobody knows how long it takes."""


class BuildState(BaseModel):
    """A build that is under way, as it is shown."""

    version: str
    source: str
    started: str
    stage: str = Field(description="`items`: of the source; `api items`: of the API; `finishing`: the version is indexed and verified")
    items: int = Field(description="items that are written")
    total: int | None = Field(description="items of the source, where they were counted")
    rate: float | None = Field(description="items a second")
    left_s: float | None = Field(description="seconds until the last item at this rate; unknown while it finishes")


class BuildProgress(BaseModel):
    """What a build notes."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    version: str
    source: str
    started: str
    stage: str = "items"
    items: int = 0
    total: int | None = None
    spent_s: float = 0.0

    def state(self) -> BuildState:
        """The build with its rate, and the time that is left at this rate."""
        rate = self.items / self.spent_s if self.items and self.spent_s else None
        left = None
        if rate is not None and self.total is not None and self.stage != FINISHING:
            left = round(max(0, self.total - self.items) / rate, 1)
        shown = self.model_dump(exclude={"spent_s"})
        return BuildState(**shown, rate=None if rate is None else round(rate, 1), left_s=left)


def read_progress(text: str | bytes) -> BuildProgress | None:
    """A note; None where it is of another release, which is no reason to fail."""
    try:
        return BuildProgress.model_validate_json(text)
    except ValidationError:
        return None
