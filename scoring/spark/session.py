"""The Spark session of a job. Runs on the driver."""

from __future__ import annotations

import os
import sys
from typing import Final

from pyspark.resource import ResourceProfile, ResourceProfileBuilder, TaskResourceRequests
from pyspark.sql import SparkSession

from scoring import java, settings
from scoring.deployment import Resources
from scoring.errors import ConfigurationError

WORKER_VARIABLES: Final = {
    # Huge pages save a worker 4 % in the long run, but on a virtual machine their first use costs it half a second.
    "MIMALLOC_ALLOW_THP": "0",
}
"""What Spark's Python workers are started with; Arrow reads it."""


def open_session(name: str, resources: Resources, *, reads_rows: bool = False) -> SparkSession:
    """Return a session named `name` with what one task of the deployment needs.

    Under `spark-submit` its master and settings win; else the master is `settings.spark_master()`.

    Args:
        name: what Spark calls the application.
        resources: of the deployment.
        reads_rows: whether Spark itself reads the input.

    Raises:
        ConfigurationError: there is no Java that Spark can use.
    """
    # Without it Spark's workers would use the first python3 on PATH, which is rarely this environment.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    if not settings.is_spark_submit():
        # Before Spark starts: without a usable Java it ends in a long traceback.
        found = java.find()
        if found is None:
            raise ConfigurationError("Spark cannot start", f"Java 17 or 21 with {java.MODULE}", "none", java.ADVICE)
        os.environ["JAVA_HOME"] = str(found.home)
    builder = SparkSession.builder.appName(name)
    if not settings.is_spark_submit():
        builder = builder.master(settings.spark_master()).config("spark.ui.enabled", "false")
        builder = builder.config("spark.ui.showConsoleProgress", "false")
        builder = builder.config("spark.driver.extraJavaOptions", java.driver_options(reads_rows=reads_rows))
        if settings.spark_master().startswith("local"):
            os.environ.setdefault("SPARK_LOCAL_IP", "127.0.0.1")
    builder = builder.config("spark.task.cpus", resources.cpus_per_task)
    # Over TCP a Python task waits 40 ms for a delayed acknowledgement.
    builder = builder.config("spark.python.unix.domain.socket.enabled", "true")
    if resources.gpus_per_task:
        builder = builder.config("spark.executor.resource.gpu.amount", resources.gpus_per_task)
    session = builder.getOrCreate()
    # Workers, wherever they are, open the store as this process does; settings of Spark would show in its UI.
    session.sparkContext.environment.update(settings.store_variables() | WORKER_VARIABLES)
    session.sparkContext.setLogLevel("WARN")
    return session


def resource_profile(session: SparkSession, resources: Resources) -> ResourceProfile | None:
    """Return the profile of a task that needs a GPU; None where Spark schedules none (CPU only, or local mode)."""
    if resources.gpus_per_task == 0 or session.sparkContext.master.startswith("local"):
        return None
    requests = TaskResourceRequests().cpus(resources.cpus_per_task).resource("gpu", resources.gpus_per_task)
    return ResourceProfileBuilder().require(requests).build
