FROM python:3.12-slim

# The index of torch and torchvision. Empty means PyPI, whose Linux wheels include CUDA.
# https://download.pytorch.org/whl/cpu gives an image for CPUs that is several GB smaller.
ARG TORCH_INDEX_URL=""

RUN useradd --create-home --uid 1000 mhist

WORKDIR /opt/mhist-tune
COPY pyproject.toml ./
# The dependencies are a layer of their own: after a change of the code the image is rebuilt in seconds.
RUN python -c "import tomllib; p = tomllib.load(open('pyproject.toml', 'rb'))['project']; print(*p['dependencies'], *p['optional-dependencies']['s3'], sep='\n')" > requirements.txt \
    && grep -E '^torch(vision)?[^a-z]' requirements.txt > torch.txt \
    && if [ -n "$TORCH_INDEX_URL" ]; then pip install --no-cache-dir --index-url "$TORCH_INDEX_URL" -r torch.txt; fi \
    && pip install --no-cache-dir -r requirements.txt
COPY README.md LICENSE ./
COPY mhist_tune mhist_tune
COPY studies studies
RUN pip install --no-cache-dir --no-deps .

# New volumes get the owner of these folders.
WORKDIR /srv/mhist
RUN mkdir storage /run/credentials && chown mhist: storage /run/credentials
# Workers share the downloaded weights, which outlive the container. Other caches are lost with it.
ENV HF_HOME=/srv/mhist/storage/hub XDG_CACHE_HOME=/tmp/cache MPLCONFIGDIR=/tmp/matplotlib PYTHONUNBUFFERED=1
# A number, since Kubernetes cannot check that a name is not root.
USER 1000
ENTRYPOINT ["mhist-tune"]
CMD ["--help"]
