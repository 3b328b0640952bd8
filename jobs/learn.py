"""Lets the models of a deployment learn from the nights whose labels have arrived."""

from __future__ import annotations

from typing import Any

from scoring.job import JobArguments, run_job
from scoring.online.learn import learn
from scoring.runs import BACKFILL


def work(arguments: JobArguments) -> dict[str, Any]:
    """Learn and return what became of each night. A backfill scores again what models did; it teaches them nothing."""
    if arguments.trigger == BACKFILL:
        return {"learned": [], "reason": "a backfill"}
    return {"learned": [outcome.to_json() for outcome in learn(arguments.deployment, arguments.partition)]}


if __name__ == "__main__":
    run_job(work)
