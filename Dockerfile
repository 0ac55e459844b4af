# foreloom in a container, with what a GPU needs but its driver, which the host's NVIDIA container toolkit brings:
#   docker build -t foreloom:latest .
#   docker run --rm --gpus all --ipc=host -v "$PWD:/work" foreloom doctor
FROM python:3.12-slim-bookworm

# Open MPI starts ranks on several machines, a C compiler serves torch.compile, git tells a run's commit.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends openmpi-bin gcc libc6-dev git \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /opt/foreloom
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
COPY recipes recipes
COPY pretrained pretrained
COPY examples examples
COPY docs docs
# PyPI's torch for Linux is built for CUDA. For another driver: --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu126
ARG TORCH_INDEX=https://pypi.org/simple
RUN pip install --no-cache-dir --constraint constraints.txt --extra-index-url "$TORCH_INDEX" ".[hub,lab,text]"

ENV HF_HOME=/work/.cache/huggingface FORELOOM_CACHE=/work/.cache/foreloom
WORKDIR /work
ENTRYPOINT ["foreloom"]
CMD ["doctor"]
