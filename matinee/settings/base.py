"""What the parts of the settings have in common: their strictness, the kinds of numbers in them, and how a deployment is sized."""

import re
from typing import Annotated, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator
from pydantic_core import PydanticCustomError

Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, le=86_400)]
Share = Annotated[float, Field(ge=0)]
HIDDEN = "hidden"
"""Type of an error whose input must not be shown."""
_HTTP_URL = r"^https?://[^\s?#@]+$"


def _plain_url(url: str) -> str:
    if set("@?#") & set(url):
        raise PydanticCustomError(
            HIDDEN,
            "a URL of a server has no user, password or query, since it is kept and shown in clear text: "
            "give the server's key in the setting for it (index.api_key, enhancer.api_key, probe.key)",
        )
    return url


def _http_url(url: str) -> str:
    # `_plain_url` ran before: the value has no secret, and a message may show it.
    if not re.fullmatch(_HTTP_URL, url):
        raise ValueError("not the URL of a server, such as http://vllm:8000/v1")
    return url


def _store_uri(uri: str) -> str:
    user, at, _ = uri.partition("://")[2].rpartition("@")
    # A password may hold slashes. A user alone may stand there: sftp://films@host, abfs://container@account.
    if at and ":" in user.partition("/")[0]:
        raise PydanticCustomError(
            HIDDEN,
            "a URI of a store has no password, since it is kept and shown in clear text: give its credentials in the store's own "
            "environment variables (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS), or by the machine's role",
        )
    return uri


Url = Annotated[str, AfterValidator(_plain_url)]
HttpUrl = Annotated[Url, AfterValidator(_http_url), WithJsonSchema({"type": "string", "pattern": _HTTP_URL})]
StoreUri = Annotated[str, AfterValidator(_store_uri)]


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


class ModelDeployment(Deployment):
    """Replicas and limits of a model's deployment, which may have no replica while nobody uses the model."""

    min_replicas: int = Field(
        1,
        ge=0,
        description="replicas that always run; 0: none after downscale_delay_s without work. Requests for the model then start one, and "
        "are answered without it or get 503 with Retry-After until it is up (placement ray only)",
    )
