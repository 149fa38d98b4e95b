# upsweep in a container, for the CPU or for CUDA:
#
#   docker build --tag upsweep .
#   docker build --tag upsweep --build-arg TORCH=cuda .
#   docker run --rm --user "$(id -u):$(id -g)" --volume "$PWD:/work" --shm-size=2g upsweep python /upsweep/src/train.py
#
# With CUDA add --gpus all: the host needs NVIDIA's driver and its container toolkit, the rest is in torch's packages.
# Workers of a DataLoader (data.num_workers=4) and ranks hand images over in /dev/shm, of which Docker gives 64 MB: too
# little of it ends a run with "bus error". --shm-size=2g gives more, --ipc=host gives the host's.
#
# Not tried: no Docker daemon runs where this was written. What pip and uv do here was tried in a venv, on CPU.
ARG PYTHON=3.11
FROM python:${PYTHON}-slim

# g++ is for compile=true
RUN apt-get update \
 && apt-get install --yes --no-install-recommends g++ git make \
 && rm -rf /var/lib/apt/lists/*

RUN useradd --create-home --uid 1000 upsweep \
 && mkdir --mode=777 /work \
 && mkdir /opt/venv /upsweep \
 && chown upsweep /opt/venv /upsweep
USER upsweep
WORKDIR /upsweep
ENV VIRTUAL_ENV=/opt/venv PATH=/opt/venv/bin:$PATH PIP_NO_CACHE_DIR=1 UV_NO_CACHE=1

# Layers from what rarely changes to what often does: torch, all that it needs, the code.
ARG TORCH=cpu
COPY --chown=upsweep constraints.txt ./
RUN python -m venv /opt/venv \
 && pip install --constraint constraints.txt uv \
 && case "$TORCH" in \
      cpu) pip install --index-url https://download.pytorch.org/whl/cpu "$(grep '^torch==' constraints.txt)" ;; \
      cuda) pip install --constraint constraints.txt torch ;; \
      *) echo "TORCH=$TORCH must be cpu or cuda." >&2; exit 1 ;; \
    esac

# One extra of pyproject.toml, such as export or dev
ARG EXTRA=""
COPY --chown=upsweep pyproject.toml ./
# With torch for the CPU, torchvision (of the extra fid) must be the CPU's, too.
RUN uv pip install --constraint constraints.txt --requirement pyproject.toml ${EXTRA:+--extra "$EXTRA"} \
    $([ "$TORCH" = cuda ] || echo --torch-backend=cpu)

COPY --chown=upsweep . .
RUN pip install --no-deps --editable .

# Whoever runs it (--user) may keep settings of W&B and matplotlib here.
ENV HOME=/tmp
WORKDIR /work
CMD ["python", "/upsweep/src/train.py", "--help"]
