# lcbench for NVIDIA GPUs (and CPUs), as docs/installation.md describes it.
FROM python:3.12-slim-bookworm

ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1

# Triton needs a compiler (engine.compile=true).
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/lcbench
COPY constraints.txt ./
# Several GiB, and seldom changed, so a layer of its own: torch's wheel brings the libraries of CUDA.
# hadolint ignore=DL3013
RUN pip install --constraint constraints.txt torch
COPY pyproject.toml README.md LICENSE ./
COPY conf conf
COPY results/longembed results/longembed
COPY results/paper results/paper
COPY scripts/slurm_array.sbatch scripts/slurm_array.sbatch
COPY src src
RUN pip install --constraint constraints.txt .

RUN useradd --create-home --uid 1000 lcbench \
    && mkdir /cache /work \
    && chown lcbench:lcbench /cache /work
ENV HF_HOME=/cache/huggingface \
    LCBENCH_CACHE=/cache/lcbench
USER 1000:1000
WORKDIR /work
# Models, datasets and stored embeddings; results/runs is in /work.
VOLUME ["/cache", "/work"]

ENTRYPOINT ["lcbench"]
CMD ["doctor"]
