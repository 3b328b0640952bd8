# One image for every role of docker-compose.yml that runs our code: Airflow, Spark master and workers, MLflow.
# A Spark worker must have exactly the Python packages of the driver, so they share the environment on purpose.

FROM python:3.11.13-slim-bookworm AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python -m venv /opt/venv
WORKDIR /opt/scoring
# Dependencies first: they change less often than the code, and take minutes.
COPY pyproject.toml constraints.txt LICENSE README.md ./
RUN mkdir scoring && touch scoring/__init__.py \
    && /opt/venv/bin/pip install --constraint constraints.txt --editable '.[all,cluster]'
COPY scoring scoring
COPY jobs jobs
COPY dags dags
COPY plugins plugins

FROM python:3.11.13-slim-bookworm AS scoring
RUN apt-get update \
    && apt-get install -y --no-install-recommends openjdk-17-jre-headless procps tini libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --create-home --home-dir /home/scoring scoring \
    && install -d -o scoring -g scoring /home/scoring/state /home/scoring/airflow
COPY --from=build /opt/venv /opt/venv
COPY --from=build /opt/scoring /opt/scoring
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYSPARK_PYTHON=/opt/venv/bin/python \
    SPARK_CONF_DIR=/home/scoring/spark \
    AIRFLOW_HOME=/home/scoring/airflow \
    SCORING_HOME=/home/scoring/state \
    SCORING_DEPLOYMENTS=/opt/scoring/dags/deployments \
    MLFLOW_DISABLE_TELEMETRY=true \
    DO_NOT_TRACK=1 \
    GX_ANALYTICS_ENABLED=false
WORKDIR /opt/scoring
USER scoring
ENTRYPOINT ["tini", "--", "/opt/scoring/scoring/stack/container/entrypoint.sh"]

# MinIO's image has no folder that a user without root's rights may write; a new volume takes over this one's owner.
FROM minio/minio:RELEASE.2025-04-22T22-12-26Z AS object-store
COPY --from=scoring --chown=10001:10001 /home/scoring/state /data
USER 10001:10001
