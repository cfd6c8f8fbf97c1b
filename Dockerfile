# docker build -t onnx-inspector .                                 for a processor
# docker build -t onnx-inspector:gpu --build-arg DEVICE=gpu .      for a GPU (run with --gpus all)
# docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" onnx-inspector explain model.onnx photo.jpg
FROM python:3.11-slim

# The CPU build of torch comes without the libraries of CUDA, which are most of an installation.
# What torch needs comes with the second line: its own index has not every version of it.
ARG DEVICE=cpu
WORKDIR /opt/onnx-inspector
COPY . .
RUN if [ "$DEVICE" = cpu ]; then \
        pip install --no-cache-dir --no-deps -c constraints.txt torch \
            --index-url https://download.pytorch.org/whl/cpu; \
    fi \
    && pip install --no-cache-dir -c constraints.txt '.[studies,audit]' \
    && useradd --create-home --uid 1000 inspector

# Any other user may run it too, as the owner of the folder that is mounted must.
ENV MPLCONFIGDIR=/tmp/matplotlib
USER 1000:1000
WORKDIR /work
ENTRYPOINT ["inspector"]
CMD ["--help"]
