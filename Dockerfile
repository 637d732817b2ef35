FROM python:3.12-slim

# Where torch and torchvision come from; empty means PyPI, whose Linux wheels carry CUDA.
# https://download.pytorch.org/whl/cpu makes an image for CPUs, several GB smaller.
ARG TORCH_INDEX_URL=""

RUN useradd --create-home --uid 1000 mhist

WORKDIR /opt/mhist-tune
COPY pyproject.toml ./
# The dependencies make a layer of their own, so that a change of the code rebuilds in seconds.
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['s3'], sep='\n')" > requirements.txt \
    && grep -E '^torch(vision)?[^a-z]' requirements.txt > torch.txt \
    && if [ -n "$TORCH_INDEX_URL" ]; then pip install --no-cache-dir --index-url "$TORCH_INDEX_URL" -r torch.txt; fi \
    && pip install --no-cache-dir -r requirements.txt
COPY README.md LICENSE ./
COPY mhist_tune mhist_tune
COPY studies studies
RUN pip install --no-cache-dir --no-deps .

# New volumes take over the owner of these folders.
WORKDIR /srv/mhist
RUN mkdir storage /run/credentials && chown mhist: storage /run/credentials
# Downloaded weights outlive the container, and workers share them; other caches may be lost with it.
ENV HF_HOME=/srv/mhist/storage/hub XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1
# As a number: Kubernetes cannot tell of a name that it is not root.
USER 1000
ENTRYPOINT ["mhist-tune"]
CMD ["--help"]
