"""Whether a run fits into memory, added up before any task starts: models x workers, and the batches they hold."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from scoring.errors import ConfigurationError
from scoring.models.flavors import memory_bytes
from scoring.plan import Plan

WORKER_BYTES: Final = 300 * 1024 * 1024
"""A Python worker with its libraries, before the first model and batch."""
BATCHES: Final = 6
"""Being read (while batches are joined, two), read ahead, in the graph, and being written."""


@dataclass(frozen=True, slots=True)
class Site:
    """Where workers share memory: this machine, or one Spark executor."""

    name: str
    workers: int
    """How many run at once."""
    memory_bytes: int


@dataclass(frozen=True, slots=True)
class Need:
    """What one worker needs at most, about."""

    models_bytes: int
    batches_bytes: int

    @property
    def total_bytes(self) -> int:
        """All that one worker needs."""
        return WORKER_BYTES + self.models_bytes + self.batches_bytes


def need_of(plan: Plan) -> Need:
    """Return what one worker of a plan needs."""
    # A worker holds a model's files while it loads them, and what came of them.
    models = {model.digest: model.size_bytes + memory_bytes(model) for model in plan.graph.models.values()}
    # A whole partition may be smaller than one batch.
    limit, read = plan.deployment.resources.batch_bytes, plan.partition.size_bytes
    batches = BATCHES * (limit if read is None else min(limit, read))
    return Need(sum(models.values()), batches)


def check_memory(plan: Plan, site: Site) -> None:
    """Refuse a run whose workers cannot share the memory of a site.

    Raises:
        ConfigurationError: they need more than it has.
    """
    need, workers = need_of(plan), min(site.workers, len(plan.splits) or site.workers)
    if workers * need.total_bytes <= site.memory_bytes:
        return
    raise ConfigurationError(
        f"the workers of {plan.deployment.name!r} do not fit into memory",
        f"at most {_gib(site.memory_bytes)} on {site.name}",
        f"{workers} x {_gib(need.total_bytes)} = {_gib(workers * need.total_bytes)} (models {_gib(need.models_bytes)}, "
        f"batches {_gib(need.batches_bytes)}, libraries {_gib(WORKER_BYTES)})",
        "Raise 'resources.cpus_per_task': fewer workers, each with more threads; or lower 'resources.batch_bytes'; "
        "or give it more memory.",
    )


def _gib(size_bytes: int) -> str:
    return f"{size_bytes / 2**30:.1f} GiB"
