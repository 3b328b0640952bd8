"""Reads what a run left behind, its record and its reports, and makes the facts of a night of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any, Final, TypeVar
from urllib.parse import quote, urlsplit, urlunsplit

from scoring import settings
from scoring.addresses import Report, report_page
from scoring.checks.report import QualityReport, Verdict, worst
from scoring.deployment import Deployment
from scoring.errors import ScoringError
from scoring.monitoring.report import Decision, DecisionKind, DriftReport, Performance
from scoring.monitoring.window import past_nights
from scoring.notify.night import Night
from scoring.runs import RunRecord, RunState, RunStore
from scoring.throughput.report import Totals

QUALITY_REPORT: Final = "quality/report.json"
DRIFT_REPORT: Final = "drift/report.json"
PAGES: Final = {"Drift report": Report.DRIFT, "Check results": Report.QUALITY, "Run report": Report.RUN}
"""Reports for people, by the label of their link."""
HISTORY_RUNS: Final = 100
"""How many runs before this one are looked at for the chart."""

T = TypeVar("T")

_log = logging.getLogger(__name__)


def night_of(deployment: Deployment, record: RunRecord, store: RunStore) -> Night:
    """Return the facts of the night that `record` is about.

    Reports that are missing or cannot be read leave out what they would say: the mail goes out without it.
    """
    artifacts = frozenset(store.artifacts(record.run_id))
    quality = _quality(_json(store, record, QUALITY_REPORT, artifacts))
    found = _json(store, record, DRIFT_REPORT, artifacts)
    documents = found if isinstance(found, dict) else {}
    drift = _parsed(documents.get("drift"), DriftReport.from_json)
    performance = _parsed(documents.get("performance"), Performance.from_json)
    decision = _parsed(documents.get("decision"), Decision.from_json) or _tagged_decision(record)
    limits = deployment.drift
    return Night(
        deployment=deployment.name,
        partition=record.partition,
        run_id=record.run_id,
        team=deployment.owner.team,
        recipients=deployment.owner.email,
        is_published=record.state is RunState.PUBLISHED or bool(record.tags.get("published_version")),
        error=record.tags.get("error", ""),
        rows=_whole(record.metrics.get("rows")),
        quarantined=_whole(record.metrics.get("quarantined")),
        max_quarantined_share=deployment.input.max_quarantined_share,
        quarantine_path=deployment.output.quarantine_path,
        rows_per_s=record.metrics.get("rows_per_s"),
        seconds=record.metrics.get("seconds"),
        totals=Totals.from_metrics(record.metrics),
        devices=tuple(filter(None, record.tags.get("devices", "").split(", "))),
        warnings=record.warnings,
        model_versions=record.model_versions,
        checks=_verdict(record, quality),
        failed_expectations=tuple(
            sorted(
                (failure for report in quality for failure in report.failures), key=lambda failure: not failure.blocks
            )
        ),
        decision=decision.kind,
        reasons=decision.reasons,
        reference=f"{drift.reference_first} to {drift.reference_last}" if drift else "",
        share_of_drifted_columns=drift.share_of_drifted_columns if drift else None,
        drift_share_threshold=limits.drift_share_threshold if limits else None,
        drifted_columns=drift.drifted_columns if drift else (),
        roc_auc=performance.roc_auc if performance else None,
        log_loss=performance.log_loss if performance else None,
        baseline_roc_auc=performance.baseline_roc_auc if performance else None,
        max_roc_auc_drop=limits.max_roc_auc_drop if limits else None,
        needs_approval=deployment.retrain is not None and deployment.retrain.approval,
        links=links(record, artifacts),
        chart=_chart(deployment, record, store, drift),
    )


def links(record: RunRecord, artifacts: Collection[str]) -> dict[str, str]:
    """Return where to look: addresses where Airflow and MLflow have one that is known, else words."""
    airflow, mlflow = _public(settings.ui()), _public(settings.mlflow_ui())
    found: dict[str, str] = {}
    for label, report in PAGES.items():
        path = f"{report}/report.html"
        if path in artifacts:
            found[label] = (
                report_page(record.run_id, report, airflow=airflow)
                if airflow
                else f"artifact {path} of MLflow run {record.run_id}"
            )
    dag_run_id = record.tags.get("dag_run_id")
    if airflow and dag_run_id:
        found["Tasks and their logs"] = f"{airflow}/dags/score_{record.deployment}/runs/{quote(dag_run_id, safe='')}"
    found["Run record"] = f"{mlflow}/#/runs/{record.run_id}" if mlflow else f"MLflow run {record.run_id}"
    return found


def _public(address: str | None) -> str | None:
    """Return an address without user and password: a mail is read by many."""
    if address is None:
        return None
    parts = urlsplit(address)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def _json(store: RunStore, record: RunRecord, path: str, artifacts: Collection[str]) -> Any:
    if path not in artifacts:
        return None
    try:
        return store.read_json(record.run_id, path)
    except ValueError as error:
        _log.warning("artifact %s of run %s is left out of the mail: %s", path, record.run_id, error)
        return None


def _parsed(document: Any, parse: Callable[[Any], T]) -> T | None:
    if document is None:
        return None
    try:
        return parse(document)
    except (ScoringError, AttributeError, KeyError, TypeError, ValueError) as error:
        _log.warning("a report is left out of the mail: %s", error)
        return None


def _quality(documents: Any) -> tuple[QualityReport, ...]:
    found = documents if isinstance(documents, list) else ()
    reports = (_parsed(document, QualityReport.from_json) for document in found)
    return tuple(report for report in reports if report is not None)


def _verdict(record: RunRecord, reports: Collection[QualityReport]) -> Verdict | None:
    """Return the verdict on record; the reports tell it where a run ended before it was recorded."""
    if "checks" in record.tags:
        return Verdict(record.tags["checks"])
    return worst(reports) if reports else None


def _tagged_decision(record: RunRecord) -> Decision:
    kind = DecisionKind(record.tags.get("decision", DecisionKind.NONE))
    return Decision(kind, tuple(record.tags.get("decision_reasons", "").splitlines()))


def _chart(deployment: Deployment, record: RunRecord, store: RunStore, drift: DriftReport | None) -> bytes | None:
    if drift is None or deployment.drift is None:
        return None
    # Draws with matplotlib and numpy: only where there is something to draw.
    from scoring.monitoring.chart import drift_chart

    history = past_nights(store.find(deployment.name, limit=HISTORY_RUNS), before=record.partition)
    return drift_chart(drift, history, drift_share_threshold=deployment.drift.drift_share_threshold)


def _whole(number: float | None) -> int | None:
    return None if number is None else int(number)
