"""What the parts of the settings have in common: their strictness, the kinds of numbers in them, and how a deployment is sized."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Deployment(Part):
    """How many replicas of one deployment run, what each takes, and how much may wait for it."""

    min_replicas: Annotated[int, Field(ge=1)] = 1
    max_replicas: Positive = 1
    target_ongoing_requests: Annotated[float, Field(gt=0)] = 16
    max_ongoing_requests: Positive = 64
    max_queued_requests: Positive = 256
    num_cpus: Share = 0.1
    num_gpus: Share = 0
    upscale_delay_s: Annotated[float, Field(ge=0)] = 10
    downscale_delay_s: Annotated[float, Field(ge=0)] = 300

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.max_replicas < self.min_replicas:
            raise ValueError(f"max_replicas {self.max_replicas} is below min_replicas {self.min_replicas}")
        if self.target_ongoing_requests > self.max_ongoing_requests:
            raise ValueError(
                f"target_ongoing_requests {self.target_ongoing_requests:g} is above max_ongoing_requests "
                f"{self.max_ongoing_requests}: the deployment would refuse work before it scales up"
            )
        return self
