# Built in two stages, so that the image holds no pip cache and no build tools. It runs as its own user.
FROM python:3.13-slim AS build
WORKDIR /build
COPY requirements.txt requirements-dev.txt ./
RUN python -m venv /venv && /venv/bin/pip install --no-cache-dir -r requirements.txt
COPY pyproject.toml README.md ./
COPY statsapi statsapi
# The extra's version comes from the tests' lock file.
RUN /venv/bin/pip install --no-cache-dir -c requirements-dev.txt '.[postgresql]'

FROM python:3.13-slim
RUN useradd --uid 10001 --no-create-home --home-dir /nonexistent statsapi \
    && install -d -o statsapi -g statsapi /data /run/statsapi
COPY --from=build /venv /venv
WORKDIR /data
ENV PATH=/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    STATSAPI_JOURNAL=sqlite:////data/events.db \
    GUNICORN_CMD_ARGS="--bind 0.0.0.0:8000"
USER statsapi
# The journal is a SQLite database in WAL mode: this must be a local file system, not NFS.
VOLUME /data
EXPOSE 8000
# The image has no curl, so Python asks. It asks /healthz, not /readyz: Swarm replaces an unhealthy container, and a
# long replay must not be interrupted. compose binds a Unix socket and has its own check.
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "-m", "statsapi.cli.healthcheck"]
CMD ["statsapi", "serve"]
