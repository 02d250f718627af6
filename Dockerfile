# m2e in a container: CPU by default, CUDA by build arguments.
#
#   docker build -t m2e .
#   docker build -t m2e:cuda --build-arg TORCH=torch --build-arg PIP_INDEX_URL=<index with a CUDA build> .
#   docker run --rm -v "$PWD/data:/data:ro" -v m2e-caches:/caches m2e m2e-extract --dataset emomusic
#
# PIP_EXTRA_INDEX_URL names an index that offers PyTorch's CPU build; without it the package index's own build is
# taken, which runs on a CPU too but brings the CUDA libraries with it.
ARG BASE=python:3.11-slim
FROM ${BASE}

ARG TORCH=torch==2.13.0
ARG PIP_INDEX_URL=
ARG PIP_EXTRA_INDEX_URL=

RUN useradd --create-home --uid 1000 m2e \
    && mkdir -p /caches /data \
    && chown m2e:m2e /caches

WORKDIR /app
# torch first: it is by far the largest layer, and changes least.
RUN PIP_INDEX_URL="${PIP_INDEX_URL}" PIP_EXTRA_INDEX_URL="${PIP_EXTRA_INDEX_URL}" \
    bash -c 'for name in PIP_INDEX_URL PIP_EXTRA_INDEX_URL; do [ -n "${!name}" ] || unset $name; done; \
             pip install --no-cache-dir "$0"' "${TORCH}"
COPY pyproject.toml README.md LICENSE ./
COPY cache cache
COPY common common
COPY extract extract
COPY manifests manifests
COPY predict predict
COPY synthetic synthetic
COPY train train
RUN pip install --no-cache-dir '.[all]'

USER m2e
# Features, models and downloaded weights live on the volume; data sets are mounted read-only.
ENV M2E_DATA=/data \
    M2E_CACHE=/caches/features \
    XDG_CACHE_HOME=/caches/.cache \
    HF_HOME=/caches/.cache/huggingface
VOLUME /caches
WORKDIR /caches
CMD ["m2e-extract", "--help"]
