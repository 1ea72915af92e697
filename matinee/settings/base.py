"""What the parts of the settings have in common: their strictness, the kinds of numbers in them, and how a deployment is sized."""

from typing import Annotated, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(ge=0)]


class Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Deployment(Part):
    """Replicas and limits of one deployment."""

    min_replicas: Positive = Field(1, description="replicas that always run")
    max_replicas: Positive = Field(1, description="most replicas that autoscaling starts")
    target_ongoing_requests: float = Field(16, gt=0, description="requests under way in each replica that autoscaling aims at")
    max_ongoing_requests: Positive = Field(64, description="most requests that a replica takes at once")
    max_queued_requests: Positive = Field(
        256, description="most requests that wait for a replica at each caller; further ones get 503 with Retry-After"
    )
    num_cpus: Share = Field(0.1, description="CPUs that Ray reserves for a replica")
    num_gpus: Share = Field(0, description="GPUs, or the share of one, that Ray reserves for a replica")
    memory_gib: Share = Field(0, description="memory in GiB that Ray reserves for a replica; 0: memory does not decide where it runs")
    max_replicas_per_node: int = Field(0, ge=0, le=100, description="most replicas of it on one machine or pod; 0: no limit")
    upscale_delay_s: float = Field(10, ge=0, description="seconds of load before a replica is added")
    downscale_delay_s: float = Field(300, ge=0, description="seconds of low load before a replica is removed")

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
