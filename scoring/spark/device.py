"""Which GPU a Spark task may use. Runs on Spark executors."""

from __future__ import annotations

import ctypes

from pyspark import TaskContext

from scoring.deployment import Resources
from scoring.errors import ConfigurationError
from scoring.models.base import CPU


def visible_gpus() -> int:
    """Return how many CUDA devices this process can use, asked of the driver library: no framework is imported."""
    try:
        cuda = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def task_device(resources: Resources) -> str:
    """Return `cuda:N` for the GPU that Spark assigned to this task, or `cpu`.

    Raises:
        ConfigurationError: the deployment needs a GPU and has none, or got more than one.
    """
    if resources.gpus_per_task == 0:
        return CPU
    context = TaskContext.get()
    assigned = context.resources().get("gpu") if context is not None else None
    if assigned is not None and len(assigned.addresses) != 1:
        raise ConfigurationError(
            "Spark assigned several GPUs to one task",
            "one address",
            ", ".join(assigned.addresses),
            "Start executors with spark.task.resource.gpu.amount=1.",
        )
    gpus = visible_gpus()
    if gpus == 0:
        if resources.allow_cpu:
            return CPU
        raise ConfigurationError(
            "the deployment asks for a GPU",
            "a CUDA device on every Spark executor",
            "none that the driver library sees",
            "Set 'resources.allow_cpu: true' to score on the CPU, or start GPU executors.",
        )
    if assigned is not None:
        return f"cuda:{assigned.addresses[0]}"
    # Local mode has no resource scheduling: tasks take turns.
    return f"cuda:{context.partitionId() % gpus}" if context is not None else "cuda:0"
