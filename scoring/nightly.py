"""One night of one deployment: score, check, publish. Drift follows in `scoring.watch`.

Each function is one task of the Dag, runs on the driver, and meets the others only in the run record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scoring.accounting import account, check_quarantine
from scoring.checks.page import render
from scoring.checks.report import QualityReport, Verdict, worst
from scoring.checks.suite import Suite, load_suite
from scoring.data.contract import Contract
from scoring.data.parts import Part, read_parts
from scoring.data.storage import open_storage, storage_errors
from scoring.deployment import Deployment
from scoring.errors import ConfigurationError, DataError
from scoring.plan import Plan, make_plan, output_table, quarantine_table
from scoring.registry import Registry
from scoring.runs import RunRecord, RunState, RunStore, recorded
from scoring.scorer import SplitResult, read_sample

PLAN_ARTIFACT: Final = "plan.json"
PARTS_ARTIFACT: Final = "parts.json"
SAMPLE_ARTIFACT: Final = "sample.parquet"
QUALITY_ARTIFACT: Final = "quality/report.json"
QUALITY_PAGE: Final = "quality/report.html"
PARTS_FORMAT_VERSION: Final = 1


def score(deployment: Deployment, value: str, *, dag_run_id: str | None = None, trigger: str = "manual") -> RunRecord:
    """Score one partition into staged parts that no reader sees yet.

    Args:
        deployment: what to score and how.
        value: the partition.
        dag_run_id: Airflow's, by which later tasks find the run.
        trigger: `manual`, `scheduled` or `backfill`.

    Returns:
        The record of the run, in state `staged`.

    Raises:
        ScoringError: see `scoring.errors`; the run record says so too, and nothing is published.
    """
    from scoring.spark.score import score_on_spark
    from scoring.spark.session import open_session

    store = RunStore()
    tags = {"trigger": trigger, **({"dag_run_id": dag_run_id} if dag_run_id else {})}
    run_id = store.start(deployment.name, value, tags=tags)
    with recorded(store, run_id):
        plan, files = make_plan(deployment, value, registry=Registry())
        store.put_json(run_id, PLAN_ARTIFACT, plan.to_json())
        store.set_tags(run_id, {"model_versions": json.dumps(plan.model_versions)})
        session = open_session(f"scoring {deployment.name} {value}", deployment.resources)
        plan = plan.with_parallelism(session.sparkContext.defaultParallelism)
        start = time.perf_counter()
        results = score_on_spark(session, plan, run_id=run_id, files=files)
        seconds = time.perf_counter() - start
        _warn_of_cpu(store, run_id, deployment, results)
        _stage(store, run_id, plan, results, seconds=seconds)
    return store.get(run_id)


def check(deployment: Deployment, value: str, *, dag_run_id: str | None = None) -> tuple[QualityReport, ...]:
    """Run the expectation suites on a staged run.

    Returns:
        One report per suite.

    Raises:
        DataError: a critical expectation failed; the partition is not published.
        ConfigurationError: there is no staged run, or a suite is not valid.
    """
    from scoring.checks.gx import run_suite

    store = RunStore()
    run = staged_run(store, deployment, value, dag_run_id)
    with recorded(store, run.run_id):
        plan, staged = _read(store, run, PLAN_ARTIFACT), _read(store, run, PARTS_ARTIFACT)
        reports = []
        for name, path in (("input", deployment.checks.input), ("output", deployment.checks.output)):
            if path is not None:
                suite = load_suite(deployment.folder / path, name=name)
                rows = _input_rows if name == "input" else _output_rows
                reports.append(run_suite(suite, rows(deployment, plan, staged, suite)))
        verdict = worst(reports)
        store.put_json(run.run_id, QUALITY_ARTIFACT, [report.to_json() for report in reports])
        page = render(
            reports,
            deployment=deployment.name,
            partition=value,
            run_id=run.run_id,
            rows=int(run.metrics["rows"]),
            quarantined=int(run.metrics["quarantined"]),
        )
        store.put(run.run_id, QUALITY_PAGE, page)
        store.set_tags(run.run_id, {"checks": verdict})
        failed = [result for report in reports for result in report.failures if result.blocks]
        if failed:
            raise DataError(
                f"partition {value!r} of {deployment.name!r} failed {len(failed)} critical checks",
                failed[0].expected,
                failed[0].observed,
                "Nothing was published; readers keep the version before. See the check result.",
            )
        store.set_state(run.run_id, RunState.CHECKED)
    return tuple(reports)


def publish(deployment: Deployment, value: str, *, dag_run_id: str | None = None) -> RunRecord:
    """Replace the partition by the run's parts in one transaction. Doing it again changes nothing.

    Returns:
        The record of the run, in state `published`.

    Raises:
        SupersededError: another run published the partition first.
        ConfigurationError: there is no run that passed its checks.
        ContractError, StorageError: the table does not take the parts.
    """
    store = RunStore()
    run = staged_run(store, deployment, value, dag_run_id)
    if run.tags.get("checks") not in (Verdict.PASSED, Verdict.WARNING):
        raise ConfigurationError(
            f"run {run.run_id!r} of partition {value!r} may not be published",
            "checks that passed",
            f"checks {run.tags.get('checks', 'not run')!r}",
            "Check it first, or correct the data and score it again.",
        )
    table = output_table(deployment)
    with recorded(store, run.run_id):
        plan, staged = _read(store, run, PLAN_ARTIFACT), _read(store, run, PARTS_ARTIFACT)
        parts = [Part.from_json(part) for part in staged["parts"]]
        current = table.published().get(value)
        # A task may die between the commit and its record: then the table already names our parts.
        if current is None or set(current.paths) != {part.path for part in parts}:
            table.publish(
                value,
                parts,
                schema=pa.ipc.read_schema(pa.BufferReader(bytes.fromhex(staged["schema"]))),
                generation=plan["generation"],
                facts={"run_id": run.run_id, "graph_digest": plan["graph_digest"], "rows": staged["rows"]},
            )
        # An attempt at this or an earlier task may have failed before.
        store.set_tags(run.run_id, {"published_version": str(table.version()), "error": ""})
        store.set_state(run.run_id, RunState.PUBLISHED)
    return store.get(run.run_id)


def staged_run(store: RunStore, deployment: Deployment, value: str, dag_run_id: str | None) -> RunRecord:
    """Return the newest run of a partition (of an Airflow run) that has staged parts.

    Raises:
        ConfigurationError: there is none.
    """
    runs = store.find(deployment.name, limit=1, partition=value, dag_run_id=dag_run_id)
    if not runs or runs[0].state is RunState.RUNNING:
        raise ConfigurationError(
            f"partition {value!r} of {deployment.name!r} has no staged run",
            "a run that has scored it",
            f"state {str(runs[0].state)!r}" if runs else "none",
            "Score it first.",
        )
    return runs[0]


def _stage(store: RunStore, run_id: str, plan: Plan, results: Sequence[SplitResult], *, seconds: float) -> None:
    """Account for all rows, keep the quarantined ones, and record the parts."""
    account(plan, results)
    quarantined = [result.quarantined for result in results if result.quarantined]
    _publish_quarantine(plan, run_id, quarantined)
    rows = sum(result.rows_out for result in results)
    store.log_metrics(
        run_id,
        {
            "rows": rows,
            "quarantined": sum(result.rows_quarantined for result in results),
            "seconds": seconds,
            "rows_per_s": rows / seconds,
            "splits": len(results),
            "model_loads": sum(result.model_loads for result in results),
            "read_s": sum(result.timings.read_s for result in results),
            "predict_s": sum(result.timings.predict_s for result in results),
            "write_s": sum(result.timings.write_s for result in results),
            "load_s": sum(result.timings.load_s for result in results),
        },
    )
    check_quarantine(plan, results)
    store.put_json(
        run_id,
        PARTS_ARTIFACT,
        {
            "format_version": PARTS_FORMAT_VERSION,
            "rows": rows,
            "schema": plan.schema.serialize().to_pybytes().hex(),
            "parts": [result.part.to_json() for result in results if result.part],
            "quarantined": [part.to_json() for part in quarantined],
        },
    )
    sample = read_sample(list(results))
    if sample is not None:
        sink = pa.BufferOutputStream()
        pq.write_table(sample, sink)
        store.put(run_id, SAMPLE_ARTIFACT, sink.getvalue().to_pybytes())
    store.set_state(run_id, RunState.STAGED)


def _publish_quarantine(plan: Plan, run_id: str, parts: Sequence[Part]) -> None:
    """Replace the partition's quarantined rows, also by none; the newest run wins, published or not."""
    from scoring.data.quarantine import SCHEMA

    table, value = quarantine_table(plan.deployment), plan.partition.value
    if not parts and value not in table.published():
        return
    table.publish(value, parts, schema=SCHEMA, generation=table.generation(value), facts={"run_id": run_id})


def _warn_of_cpu(store: RunStore, run_id: str, deployment: Deployment, results: Sequence[SplitResult]) -> None:
    devices = sorted({result.device for result in results})
    tags = {"devices": ", ".join(devices)}
    if deployment.resources.gpus_per_task and "cpu" in devices:
        tags["warning"] = "no GPU was found on the Spark executors: scored on the CPU, as 'resources.allow_cpu' says"
    store.set_tags(run_id, tags)


def _read(store: RunStore, run: RunRecord, artifact: str) -> Any:
    document = store.read_json(run.run_id, artifact)
    if document is None:
        raise ConfigurationError(
            f"run {run.run_id!r} of partition {run.partition!r} has no {artifact}",
            "a run that was scored to its end",
            run.tags.get("error", "none"),
            "Score the partition again.",
        )
    return document


def _input_rows(deployment: Deployment, plan: Any, staged: Any, suite: Suite) -> pa.Table:
    """Return the input rows that were scored, without the quarantined ones, in the contract's types."""
    contract = Contract.from_json(plan["contract"])
    if suite.columns is not None:
        contract = contract.only(suite.columns)
    filesystem, _ = open_storage(deployment.input.path)
    excluded = _quarantined_positions(deployment, staged)
    tables = []
    for file in plan["files"]:
        with storage_errors(file["path"]), filesystem.open_input_file(file["path"]) as handle:
            raw = pq.read_table(handle, columns=[column.name for column in contract.columns])
        if file["path"] in excluded:
            keep = np.ones(raw.num_rows, dtype=bool)
            keep[excluded[file["path"]]] = False
            raw = raw.filter(pa.array(keep))
        tables.append(contract.apply(raw)[0])
    return pa.concat_tables(tables)


def _quarantined_positions(deployment: Deployment, staged: Any) -> dict[str, list[int]]:
    paths = [part["path"] for part in staged["quarantined"]]
    if not paths:
        return {}
    positions: dict[str, list[int]] = {}
    for row in read_parts(deployment.output.quarantine_path, paths, ["file", "row_in_file"]).to_pylist():
        positions.setdefault(row["file"], []).append(row["row_in_file"])
    return positions


def _output_rows(deployment: Deployment, plan: Any, staged: Any, suite: Suite) -> pa.Table:
    paths = [part["path"] for part in staged["parts"]]
    columns = None if suite.columns is None else sorted(suite.columns & set(plan["columns"]))
    return read_parts(deployment.output.path, paths, columns)
