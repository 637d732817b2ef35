ARG PYTHON_IMAGE=python:3.12.11-slim-bookworm
FROM ${PYTHON_IMAGE}

# The index of torch and torchvision. Empty means PyPI, whose Linux wheels include CUDA.
# https://download.pytorch.org/whl/cpu gives an image for CPUs that is several GB smaller.
ARG TORCH_INDEX_URL=""

RUN useradd --create-home --uid 1000 mhist

WORKDIR /opt/mhist-tune
COPY locks locks
# The dependencies are a layer of their own: after a change of the code the image is rebuilt in seconds. The lock files name
# the hash of every package. Only torch from another index is pinned without one, since its wheels differ.
RUN if [ -n "$TORCH_INDEX_URL" ]; then \
      grep -oE '^torch(vision)?==[^ ]+' locks/cuda.txt > torch.txt \
      && pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX_URL" -r torch.txt \
      && pip install --no-cache-dir --no-deps --require-hashes -r locks/cpu.txt -r locks/build.txt; \
    else pip install --no-cache-dir --no-deps --require-hashes -r locks/cuda.txt -r locks/build.txt; fi \
    && pip check
COPY pyproject.toml README.md LICENSE ./
COPY mhist_tune mhist_tune
COPY studies studies
RUN pip install --no-cache-dir --no-deps --no-build-isolation .

# New volumes get the owner of these folders.
WORKDIR /srv/mhist
RUN for service in db roles schema worker dashboard; do mkdir -p "/run/credentials-for/$service"; done \
    && mkdir storage /run/credentials && chown -R mhist: storage /run/credentials /run/credentials-for
# Workers share the downloaded weights, which outlive the container. Other caches are lost with it.
ENV HF_HOME=/srv/mhist/storage/hub XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1
# A number, since Kubernetes cannot check that a name is not root.
USER 1000
ENTRYPOINT ["mhist-tune"]
CMD ["--help"]
