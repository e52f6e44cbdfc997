# A CUDA machine: bgaug_d2 with the versions of constraints.txt, and Detectron2's main branch at the
# pinned commit, compiled with its CUDA operators. The image of CUDA fits the torch in
# constraints.txt. The build needs GitHub, PyPI, about 25 GB of disk and no GPU.
#
#   docker build -t bgaug_d2 .
#   docker run --rm --gpus all --shm-size=8g --user "$(id -u):$(id -g)" \
#       -v "$PWD:/work" -v "$HOME/.cache/huggingface:/models" bgaug_d2 doctor
#
# --shm-size is for the loader processes, /models for the models of the Hugging Face hub.
FROM nvidia/cuda:13.0.1-devel-ubuntu24.04

ARG DEBIAN_FRONTEND=noninteractive
RUN apt-get update \
    && apt-get install -y --no-install-recommends \
        g++ git libgl1 libglib2.0-0t64 python3.12 python3.12-dev python3.12-venv \
    && rm -rf /var/lib/apt/lists/*

ENV PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1
WORKDIR /opt/bgaug_d2
COPY constraints.txt pyproject.toml setup.py README.md LICENSE ./
COPY bgaug_d2 bgaug_d2
COPY configs configs
RUN python3.12 -m venv /opt/venv \
    && pip install -c constraints.txt setuptools wheel \
    && pip install -c constraints.txt .

# The GPUs: A100, A10 and RTX 30, L4 and RTX 40, H100 and H200, B200, RTX 50.
ARG CUDA_ARCHITECTURES="8.0;8.6;8.9;9.0;10.0;12.0"
RUN FORCE_CUDA=1 TORCH_CUDA_ARCH_LIST="$CUDA_ARCHITECTURES" \
    bgaug install-detectron2 --source upstream

# Any user may run it (--user), so what libraries write goes to folders that everybody may write.
RUN useradd --create-home bgaug && mkdir -p /models /work /home/bgaug/.cache \
    && chmod -R a+rwX /models /work /home/bgaug
ENV HF_HOME=/models HOME=/home/bgaug
USER bgaug
WORKDIR /work
ENTRYPOINT ["bgaug"]
CMD ["--help"]
