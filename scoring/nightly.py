"""One night of one deployment: score, check, publish. Drift follows in `scoring.watch`.

Each function is one task of the Dag, runs on the driver, and meets the others only in the run record.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import pyarrow as pa
import pyarrow.parquet as pq

from scoring import settings
from scoring.accounting import account, check_quarantine
from scoring.addresses import Report, where
from scoring.capacity import check_memory
from scoring.checks.page import render
from scoring.checks.report import ExpectationResult, QualityReport, Verdict, worst
from scoring.checks.suite import suites
from scoring.data.parts import Part, absent_parts, discard_files
from scoring.data.quarantine import SCHEMA as QUARANTINE_SCHEMA
from scoring.data.shipping import ship
from scoring.data.table import Change
from scoring.deployment import Deployment
from scoring.errors import ConfigurationError, DataError, SupersededError, TerminalError, listed
from scoring.formats import check_format
from scoring.graph.compile import remaining_members
from scoring.measurement import keep_report
from scoring.plan import FORMAT_VERSION as PLAN_FORMAT_VERSION
from scoring.plan import Plan, kept_input_folder, make_plan, output_table, partition_folder, quarantine_table
from scoring.registry import Registry
from scoring.results import FOLDER as STAGED_FOLDER
from scoring.results import SplitResult, forget_results, kept_results, read_sample
from scoring.runs import RunRecord, RunState, RunStore, recorded
from scoring.staged import StagedRows

PLAN_ARTIFACT: Final = "plan.json"
PARTS_ARTIFACT: Final = "parts.json"
SAMPLE_ARTIFACT: Final = "sample.parquet"
QUALITY_ARTIFACT: Final = "quality/report.json"
QUALITY_PAGE: Final = "quality/report.html"
PARTS_FORMAT_VERSION: Final = 1
DROPPED_TAG: Final = "dropped"
"""Tag that holds the paths of members that a run did without, one a line."""


_FORMATS: Final = {PLAN_ARTIFACT: PLAN_FORMAT_VERSION, PARTS_ARTIFACT: PARTS_FORMAT_VERSION}


@dataclass(frozen=True, slots=True)
class CheckedRun:
    """A run whose checks stop nothing."""

    run_id: str
    reports: tuple[QualityReport, ...]
    """One per suite."""


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
    from scoring.spark.query import query_of
    from scoring.spark.score import score_on_spark
    from scoring.spark.site import worker_site

    session_of = _opening(deployment, value)
    store = RunStore()
    tags = {"trigger": trigger, **({"dag_run_id": dag_run_id} if dag_run_id else {})}
    run_id = store.start(deployment.name, value, tags=tags)
    with recorded(store, run_id):
        query = None if deployment.input.path else query_of(deployment, value, run_id=run_id)
        plan, files = make_plan(deployment, value, registry=Registry(), query=query)
        store.set_tags(run_id, {"model_versions": json.dumps(plan.model_versions)})
        session = session_of()
        plan = plan.with_parallelism(session.sparkContext.defaultParallelism)
        site = worker_site(session, deployment.resources)
        if site is not None:
            check_memory(plan, site)
        store.put_json(run_id, PLAN_ARTIFACT, plan.to_json())
        try:
            start = time.perf_counter()
            limit, folder = deployment.resources.broadcast_bytes, f"{deployment.output.path}/{STAGED_FOLDER}"
            shipped = ship(files, limit_bytes=limit, shared=folder)
            while True:
                kept = kept_results(deployment.output.path, plan.key)
                done = {result.split for result in kept}
                missing = [split for split in plan.splits if split.index not in done]
                scored = score_on_spark(session, plan, run_id=run_id, files=shipped, splits=missing)
                lesser = without_failed(plan, scored)
                if lesser is None:
                    break
                # All rows of a run are scored by the same members: what the failed one saw is scored again.
                _discard(plan)
                plan = lesser
            _record_dropped(store, run_id, plan)
            seconds = time.perf_counter() - start
            results = [*kept, *scored]
            _warn_of_cpu(store, run_id, deployment, results)
            account(plan, results)
            master = session.sparkContext.master
            keep_report(store, run_id, plan, scored, resumed=kept, seconds=seconds, master=master)
            _stage(store, run_id, plan, results)
        except Exception as error:
            # Whatever else went wrong, the next attempt goes on from what there is: not with the rows of a query.
            if query is None and not isinstance(error, TerminalError):
                raise
            _discard(plan)
            raise
        forget_results(deployment.output.path, plan.key)
    return store.get(run_id)


def _discard(plan: Plan) -> None:
    """Delete what a plan's workers have written."""
    path = plan.deployment.output.path
    discard_files(path, plan.folder, plan.key)
    discard_files(path, plan.kept_input_folder, plan.key)
    forget_results(path, plan.key)


def without_failed(plan: Plan, results: Sequence[SplitResult]) -> Plan | None:
    """Return the plan without the members that failed; None if none did, or the run cannot do without them.

    Any other failure stops the run first: with it nothing is gained by scoring again.
    """
    errors = [(result.failed_member, error) for result in results if (error := result.error()) is not None]
    if not errors or not all(member for member, _ in errors):
        return None
    # Several splits may tell of one member: the same sentence in every attempt.
    return plan.without({member: str(error) for member, error in sorted(errors, key=lambda e: (e[0], str(e[1])))})


def _record_dropped(store: RunStore, run_id: str, plan: Plan) -> None:
    if not plan.dropped:
        return
    store.set_tags(run_id, {DROPPED_TAG: "\n".join(sorted(plan.dropped))})
    store.put_json(run_id, PLAN_ARTIFACT, plan.to_json())
    for path, sentence in plan.dropped.items():
        others = listed(remaining_members(plan.graph, path))
        store.warn(run_id, f"member {path} failed and was dropped for the whole run, scored by {others}: {sentence}")


def _opening(deployment: Deployment, value: str) -> Callable[[], Any]:
    """Return a function that returns the Spark session, which may be opened already while the plan is made."""
    from scoring.spark.session import open_session

    opening = partial(open_session, f"scoring {deployment.name} {value}", deployment.resources)
    if not settings.is_spark_submit() or deployment.input.path is None:
        return opening
    # Java runs already, and needs seconds more; elsewhere nothing is started before the plan is good.
    return ThreadPoolExecutor(1).submit(opening).result


def check(
    deployment: Deployment, value: str, *, dag_run_id: str | None = None, run_id: str | None = None
) -> CheckedRun:
    """Run the expectation suites on a staged run.

    Args:
        deployment: whose suites.
        value: the partition.
        dag_run_id: Airflow's; None: of any.
        run_id: which run; None: the newest.

    Raises:
        DataError: a critical expectation failed, so the run cannot be published.
        ConfigurationError: there is no staged run, or a suite is not valid.
    """
    from scoring.checks.gx import run_suite

    store = RunStore()
    run = scored_run(store, deployment, value, dag_run_id=dag_run_id, run_id=run_id)
    with recorded(store, run.run_id):
        rows = StagedRows(deployment, _read(store, run, PLAN_ARTIFACT), _read(store, run, PARTS_ARTIFACT))
        reports = tuple(
            run_suite(suite, (rows.input if name == "input" else rows.output)(suite.columns))
            for name, suite in suites(deployment).items()
        )
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
        store.set_tags(run.run_id, {"checks": worst(reports)})
        failed = [(report.suite, result) for report in reports for result in report.failures if result.blocks]
        if failed:
            raise _failed_checks(deployment, run, failed)
        if run.state is not RunState.PUBLISHED:
            store.set_state(run.run_id, RunState.CHECKED)
    return CheckedRun(run.run_id, reports)


def _failed_checks(
    deployment: Deployment, run: RunRecord, failed: Sequence[tuple[str, ExpectationResult]]
) -> DataError:
    suite, first = failed[0]
    column = f", column {first.column}" if first.column else ""
    more = f", and {len(failed) - 1} more" if len(failed) > 1 else ""
    after = (
        "It was published before: correct the data and score it again."
        if run.state is RunState.PUBLISHED
        else "Nothing was published; readers keep the version before."
    )
    return DataError(
        f"partition {run.partition!r} of {deployment.name!r} failed a critical check ({suite} suite{column}){more}",
        first.expected,
        first.observed,
        f"{after} See {where(run.run_id, Report.QUALITY)}.",
    )


def publish(
    deployment: Deployment, value: str, *, dag_run_id: str | None = None, run_id: str | None = None
) -> RunRecord:
    """Replace the partition by a run's parts in one transaction. Doing it again changes nothing.

    Args:
        deployment: whose table.
        value: the partition.
        dag_run_id: Airflow's; None: of any.
        run_id: which run; None: the newest.

    Returns:
        The record of the run, in state `published`.

    Raises:
        SupersededError: another run published the partition first.
        ConfigurationError: there is no run that passed its checks.
        ContractError, StorageError: the table does not take the parts.
    """
    store = RunStore()
    run = scored_run(store, deployment, value, dag_run_id=dag_run_id, run_id=run_id)
    if run.state is RunState.PUBLISHED:
        return run
    if run.tags.get("checks") not in (Verdict.PASSED, Verdict.WARNING):
        raise ConfigurationError(
            f"run {run.run_id!r} of partition {value!r} may not be published",
            "checks that passed",
            f"checks {run.tags.get('checks', 'not run')!r}",
            "Check it first, or correct the data and score it again.",
        )
    with recorded(store, run.run_id):
        plan, staged = _read(store, run, PLAN_ARTIFACT), _read(store, run, PARTS_ARTIFACT)
        try:
            version = _publish_parts(deployment, value, run.run_id, plan, staged)
        except SupersededError:
            _discard_superseded(deployment, value, plan)
            raise
        quarantined = [Part.from_json(part) for part in staged["quarantined"]]
        _publish_quarantine(deployment, value, run.run_id, quarantined, is_added=False)
        # Those of runs that failed their checks too: this one is newer.
        discard_files(deployment.output.path, kept_input_folder(deployment, value), "")
        # An attempt at this or an earlier task may have failed before.
        store.set_tags(run.run_id, {"published_version": str(version), "error": ""})
        store.set_state(run.run_id, RunState.PUBLISHED)
    return store.get(run.run_id)


def scored_run(
    store: RunStore,
    deployment: Deployment,
    value: str,
    *,
    dag_run_id: str | None = None,
    run_id: str | None = None,
    state: RunState | None = None,
) -> RunRecord:
    """Return a run of a partition that has been scored: the given one, or else the newest (of an Airflow run).

    Raises:
        ConfigurationError: there is none, or none in the asked state.
    """
    if run_id is not None:
        runs = [store.get(run_id)]
    else:
        runs = store.find(deployment.name, limit=1, partition=value, dag_run_id=dag_run_id, state=state)
    if not runs or runs[0].state is RunState.RUNNING:
        raise ConfigurationError(
            f"partition {value!r} of {deployment.name!r} has no {state or 'staged'} run",
            "a run that has scored it" if state is None else f"state {str(state)!r}",
            f"state {str(runs[0].state)!r}" if runs else "none",
            "Score it first." if state is None else f"Run: scoring run {deployment.name} -p {value}.",
        )
    return runs[0]


def _publish_parts(
    deployment: Deployment, value: str, run_id: str, plan: Mapping[str, Any], staged: Mapping[str, Any]
) -> int:
    """Publish a run's parts and return the table's version that has them."""
    table = output_table(deployment)
    parts = [Part.from_json(part) for part in staged["parts"]]
    current = table.published().get(value)
    # A task may die between the commit and its record: then the table already names our parts as ours.
    if current is not None and current.run_ids == {run_id}:
        return table.version_of(value, plan["generation"] + 1)
    absent = absent_parts(deployment.output.path, parts)
    if absent:
        raise ConfigurationError(
            f"part files of run {run_id!r} are gone",
            f"the {len(parts)} files that it wrote to {deployment.output.path}",
            f"no {listed(absent)}",
            "Score the partition again.",
        )
    return table.publish(
        Change(
            value,
            parts,
            schema=pa.ipc.read_schema(pa.BufferReader(bytes.fromhex(staged["schema"]))),
            run_id=run_id,
            generation=plan["generation"],
            facts={"graph_digest": plan["graph_digest"], "rows": staged["rows"]},
        )
    )


def _discard_superseded(deployment: Deployment, value: str, plan: Mapping[str, Any]) -> None:
    """Delete the parts of a run that lost, unless the run that won has published just these."""
    table = output_table(deployment)
    winner = table.published(table.version_of(value, plan["generation"] + 1))[value]
    if not any(plan["key"] in path for path in winner.paths):
        discard_files(deployment.output.path, partition_folder(deployment, value), plan["key"])
        discard_files(deployment.output.path, kept_input_folder(deployment, value), plan["key"])


def _publish_quarantine(
    deployment: Deployment, value: str, run_id: str, parts: Sequence[Part], *, is_added: bool
) -> None:
    """Publish a run's quarantined rows.

    Those of a published run replace all others of the partition, also by none. Those of a run that failed are added,
    so that nothing is lost and the rows of the published run stay.
    """
    table = quarantine_table(deployment)
    if parts or (not is_added and value in table.published()):
        table.publish(Change(value, parts, QUARANTINE_SCHEMA, run_id, generation=None, is_added=is_added))


def _stage(store: RunStore, run_id: str, plan: Plan, results: Sequence[SplitResult]) -> None:
    """Keep the quarantined rows, and record the parts."""
    quarantined = [result.quarantined for result in results if result.quarantined]
    try:
        check_quarantine(plan, results)
    except DataError:
        _publish_quarantine(plan.deployment, plan.partition.value, run_id, quarantined, is_added=True)
        raise
    store.put_json(
        run_id,
        PARTS_ARTIFACT,
        {
            "format_version": PARTS_FORMAT_VERSION,
            "rows": sum(result.rows_out for result in results),
            "schema": plan.schema.serialize().to_pybytes().hex(),
            "parts": [result.part.to_json() for result in results if result.part],
            "quarantined": [part.to_json() for part in quarantined],
            "kept_input": [result.kept_input.to_json() for result in results if result.kept_input],
        },
    )
    sample = read_sample(results)
    if sample is not None:
        sink = pa.BufferOutputStream()
        pq.write_table(sample, sink)
        store.put(run_id, SAMPLE_ARTIFACT, sink.getvalue().to_pybytes())
    store.set_state(run_id, RunState.STAGED)


def _warn_of_cpu(store: RunStore, run_id: str, deployment: Deployment, results: Sequence[SplitResult]) -> None:
    devices = sorted({result.device for result in results})
    store.set_tags(run_id, {"devices": ", ".join(devices)})
    if deployment.resources.gpus_per_task and "cpu" in devices:
        store.warn(run_id, "no GPU was found on the Spark executors: scored on the CPU, as 'resources.allow_cpu' says")


def _read(store: RunStore, run: RunRecord, artifact: str) -> Any:
    document = store.read_json(run.run_id, artifact)
    if document is None:
        raise ConfigurationError(
            f"run {run.run_id!r} of partition {run.partition!r} has no {artifact}",
            "a run that was scored to its end",
            run.tags.get("error", "none"),
            "Score the partition again.",
        )
    check_format(document, _FORMATS[artifact], artifact)
    return document
