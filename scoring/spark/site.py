"""Where the Python workers of a session run, and how much memory they share. Runs on the driver."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from pyspark.sql import SparkSession

from scoring.capacity import Site
from scoring.deployment import Resources

CGROUP_LIMIT: Final = Path("/sys/fs/cgroup/memory.max")
"""Of this container; holds `max` where there is none."""
_UNITS: Final = {"": 2**20, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
"""Bytes by the first letter of Spark's units; a bare number is in MiB."""


def worker_site(session: SparkSession, resources: Resources) -> Site | None:
    """Return what the workers of one machine or Spark executor share; None where Spark is not told.

    In local mode it is this machine's memory. On a cluster it is `spark.executor.pyspark.memory`: what the rest of an
    executor's memory leaves to Python differs between cluster managers.
    """
    context = session.sparkContext
    if context.master.startswith("local"):
        return Site("this machine", max(context.defaultParallelism // resources.cpus_per_task, 1), machine_bytes())
    memory, cores = (
        context.getConf().get("spark.executor.pyspark.memory"),
        context.getConf().get("spark.executor.cores"),
    )
    if memory is None or cores is None:
        return None
    workers = max(int(cores) // resources.cpus_per_task, 1)
    return Site("each Spark executor (spark.executor.pyspark.memory)", workers, spark_bytes(memory))


def machine_bytes() -> int:
    """Return the memory of this machine, or of the container."""
    import psutil

    total = int(psutil.virtual_memory().total)
    limit = CGROUP_LIMIT.read_text("ascii").strip() if CGROUP_LIMIT.is_file() else "max"
    return total if limit == "max" else min(total, int(limit))


def spark_bytes(text: str) -> int:
    """Return the bytes of a size as Spark writes it: `512m`, `2g`, `1gb`."""
    found = re.fullmatch(r"(\d+)([kmgt]?)b?", text.strip().lower())
    if found is None:
        raise ValueError(f"{text!r} is no size")
    return int(found[1]) * _UNITS[found[2]]
