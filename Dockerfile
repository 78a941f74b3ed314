# vlmlens with every adapter.
#   docker build -t vlmlens .                                      with the torch that pip chooses: it brings CUDA
#   docker build -t vlmlens:cpu --build-arg TORCH_INDEX=URL .      URL: the index of torch's builds for CPUs
#   docker run --rm -v "$PWD":/work vlmlens run --data photos/
# Not tried by the developers yet: they had no container engine.
FROM python:3.11-slim
ARG TORCH_INDEX=
ENV PIP_NO_CACHE_DIR=1 PYTHONDONTWRITEBYTECODE=1
WORKDIR /opt/vlmlens
COPY . .
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install "torch==$(sed -n 's/^torch==//p' constraints.txt)" --index-url "$TORCH_INDEX"; \
    fi && \
    pip install -c constraints.txt ".[devices,zarr,s3,video]" ./adapters/*/
RUN useradd --create-home user
USER user
WORKDIR /work
ENTRYPOINT ["vlmlens"]
CMD ["--help"]
