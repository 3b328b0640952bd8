"""What every job and command does around its work: arguments in, one JSON document out, a telling exit code."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from scoring import deployment as deployments
from scoring.data.partition import check_value
from scoring.deployment import Deployment
from scoring.errors import ScoringError

TRIGGERS: Final = ("manual", "scheduled", "backfill")


@dataclass(frozen=True, slots=True)
class JobArguments:
    """The command line of a job: `NAME --partition P [--dag-run-id ID] [--trigger T] [--training-run-id ID]`."""

    deployment: Deployment
    partition: str
    dag_run_id: str | None
    trigger: str
    training_run_id: str | None


def run_job(work: Callable[[JobArguments], Mapping[str, Any]]) -> None:
    """Run a job of `jobs/`: print `work`'s result as the last line on stdout, or end with the error's exit code."""
    parser = argparse.ArgumentParser()
    parser.add_argument("name")
    parser.add_argument("--partition", required=True, type=str)
    parser.add_argument("--dag-run-id")
    parser.add_argument("--trigger", choices=TRIGGERS, default="manual")
    parser.add_argument("--training-run-id")
    parsed = parser.parse_args()
    with exit_codes():
        arguments = JobArguments(
            deployment=deployments.load(parsed.name),
            partition=check_value(parsed.partition),
            dag_run_id=parsed.dag_run_id or None,
            trigger=parsed.trigger,
            training_run_id=parsed.training_run_id or None,
        )
        result = work(arguments)
        sys.stdout.write(f"{json.dumps(result)}\n")


@contextmanager
def exit_codes(*, as_json: bool = False) -> Iterator[None]:
    """Turn a `ScoringError` into its sentence on stderr and its exit code; all else stays a traceback and code 1.

    Args:
        as_json: also print the error as one JSON document on stdout.
    """
    try:
        yield
    except ScoringError as error:
        if as_json:
            facts = {"what": error.what, "expected": error.expected, "got": error.got, "hint": error.hint}
            found = {"type": type(error).__name__, "exit_code": error.exit_code, "sentence": str(error), **facts}
            sys.stdout.write(f"{json.dumps({'error': found}, indent=2)}\n")
        lines = [f"{type(error).__name__}: {error}", *getattr(error, "__notes__", ())]
        sys.stdout.flush()
        sys.stderr.write("\n".join(lines) + "\n")
        raise SystemExit(error.exit_code) from None
