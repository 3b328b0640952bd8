"""What each command does; returns plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from scoring import deployment as deployments
from scoring import settings
from scoring.cli import show
from scoring.deployment import Deployment, Period
from scoring.errors import ConfigurationError, ScoringError, cause, listed
from scoring.models.soup.method import Method

if TYPE_CHECKING:
    from scoring.promotion import Promotion
    from scoring.runs import RunRecord

STATUS_KEYS: Final = (
    *("partition", "rows", "quarantined", "run_id", "model_versions", "checks", "drift", "decision"),
    *("published_version", "rows_per_s", "seconds", "warnings"),
)
"""The contract of `scoring status NAME --json`."""
SHOWN_ROWS: Final = 10
"""Rows of an inspected step that are printed; the artifact has all of the sample."""
MAX_PARTITIONS: Final = 10_000
"""More than 27 years of nights."""


def validate(names: Sequence[str]) -> list[dict[str, Any]]:
    """Load deployments, their rules and suites; an error is a value, so that one bad file does not hide the others."""
    from scoring.checks.suite import suites
    from scoring.validation import check_graph

    rows = []
    for name in names or _all_names():
        try:
            found = deployments.load(name)
            suites(found)
            check_graph(found)
            rows.append({"deployment": name, "error": None})
        except ScoringError as error:
            rows.append({"deployment": name, "error": str(error)})
    return rows


def plan(name: str, partition: str) -> dict[str, Any]:
    """Return the plan of one run."""
    from scoring.plan import make_plan
    from scoring.registry import Registry

    deployment = deployments.load(name)
    query = None
    if deployment.input.path is None:
        from scoring.spark.query import query_of

        query = query_of(deployment, partition)
    made, _ = make_plan(deployment, partition, registry=Registry(), query=query)
    document = made.to_json()
    return {key: value for key, value in document.items() if key not in ("contract", "dropped", "format_version")}


def run(name: str, partition: str, *, inspect: str | None = None) -> dict[str, Any]:
    """Score, check, publish and watch one partition in this process; keep a sample of one step's output if wanted."""
    from scoring import inspection, nightly
    from scoring.addresses import Report, where
    from scoring.checks.report import worst
    from scoring.watch import watch

    deployment = deployments.load(name)
    if inspect is not None:
        inspection.check_path(deployment, inspect)
    with show.step(f"Scoring {name} {partition}"):
        record = nightly.score(deployment, partition)
    inspected = {}
    if inspect is not None:
        # Before the checks: a run that fails them is the one to look into.
        with show.step(f"Inspecting {inspect}"):
            seen_step = inspection.inspect(deployment, record, inspect)
        sample = seen_step.rows.slice(0, SHOWN_ROWS).to_pylist()
        show.note(f"{seen_step.rows.num_rows} rows are kept as {seen_step.artifact} of run {record.run_id}")
        inspected = {"inspected": {"step": inspect, "artifact": seen_step.artifact, "rows": sample}}
    with show.step("Checking"):
        checked = nightly.check(deployment, partition, run_id=record.run_id)
    with show.step("Publishing"):
        record = nightly.publish(deployment, partition, run_id=record.run_id)
    found: dict[str, Any] = {
        **inspected,
        "run_id": record.run_id,
        "rows": int(record.metrics["rows"]),
        **({"rows_per_s": round(record.metrics["rows_per_s"])} if "rows_per_s" in record.metrics else {}),
        "quarantined": int(record.metrics["quarantined"]),
        "model_versions": record.model_versions,
        "checks": worst(checked.reports),
        "published_version": int(record.tags["published_version"]),
        "table": deployment.output.path,
        "check_result": where(record.run_id, Report.QUALITY),
        "run_report": where(record.run_id, Report.RUN),
        **({"warnings": list(record.warnings)} if record.warnings else {}),
    }
    if deployment.drift is not None:
        with show.step("Watching for drift"):
            seen = watch(deployment, partition, run_id=record.run_id)
        if seen is not None:
            found |= {
                "drift": seen.drift.share_of_drifted_columns,
                "decision": seen.decision.kind,
                "reasons": list(seen.decision.reasons),
                "drift_report": where(record.run_id, Report.DRIFT),
            }
    return found


def graph(name: str, svg: Path | None) -> dict[str, Any]:
    """Draw a deployment as Mermaid text and, if a file is given, as SVG."""
    from scoring.diagram.blocks import chain
    from scoring.diagram.mermaid import mermaid
    from scoring.diagram.svg import svg as drawn
    from scoring.registry import Registry

    deployment = deployments.load(name)
    versions = Registry().versions(deployment)
    found = chain(deployment, versions)
    if svg is not None:
        try:
            svg.write_text(drawn(found, title=f"Graph of {deployment.name}"), encoding="utf-8")
        except OSError as error:
            raise ConfigurationError(
                f"{svg} cannot be written", "a file in a folder that exists", cause(error)
            ) from error
        show.note(f"Picture: {svg}")
    return {"deployment": deployment.name, "versions": versions, "mermaid": mermaid(found)}


def train(
    name: str,
    *,
    first: date | None,
    last: date | None,
    holdout_last: date | None,
    as_of: str | None,
    promote: bool,
) -> dict[str, Any]:
    """Train challengers and compare them with the champions."""
    from scoring import training
    from scoring.promotion import redeploy

    deployment = deployments.load(name)
    if as_of is not None:
        window, holdout = training.windows(deployment, as_of)
    else:
        window, holdout = _chosen_windows(deployment, first, last, holdout_last)
    message = f"Training {name} on {window.first} to {window.last}, comparing on {holdout.first} to {holdout.last}"
    with show.step(message):
        record = training.train(deployment, window, holdout, as_of=as_of or "")
    found = {
        "training_run_id": record.run_id,
        "model_versions": record.model_versions,
        **_compared(record),
    }
    if promote:
        found |= _promotion(redeploy(deployment, record.run_id))
    return found


def soup(
    name: str,
    versions: Sequence[int],
    *,
    model: str | None,
    method: Method,
    holdout: tuple[date | None, date | None],
    promote: bool,
) -> dict[str, Any]:
    """Average versions of a model, register the soup and compare it with its parents and the champions."""
    from scoring.promotion import redeploy
    from scoring.runs import RunStore
    from scoring.soup import SOUP_ARTIFACT, make_soup

    deployment = deployments.load(name)
    period = _holdout(*holdout)
    with show.step(f"Making a {method} soup for {name} of versions {listed(versions)}"):
        record = make_soup(deployment, versions, method=method, model=model, holdout=period)
    made = RunStore().read_json(record.run_id, SOUP_ARTIFACT)
    parts = {"soup": made["soup"], **{f"v{parent['version']}": parent for parent in made["parents"]}}
    found = {
        "training_run_id": record.run_id,
        "model": made["model"],
        "version": made["version"],
        "method": made["method"],
        "weights": {f"v{parent['version']}": parent["weight"] for parent in made["parents"]},
        # The mixture was chosen on the former nights: only the latter say what it is worth.
        "roc_auc_on_choosing_nights": {part: measured["choosing"]["roc_auc"] for part, measured in parts.items()},
        "roc_auc_on_comparing_nights": {part: measured["comparing"]["roc_auc"] for part, measured in parts.items()},
        **_compared(record),
    }
    if promote:
        found |= _promotion(redeploy(deployment, record.run_id))
    return found


def learn(name: str, as_of: str) -> list[dict[str, Any]]:
    """Let models learn online."""
    from scoring.online.learn import learn

    deployment = deployments.load(name)
    with show.step(f"Looking for nights of {name} to learn from, as of {as_of}"):
        return [outcome.to_json() for outcome in learn(deployment, as_of)]


def deploy(source: Path) -> dict[str, Any]:
    """Install a deployment's folder."""
    from scoring.install import install

    return asdict(install(source))


def promote(name: str, versions: Sequence[str], *, force: bool) -> dict[str, Any]:
    """Promote the newest training's challengers, or given versions."""
    from scoring.promotion import promote_versions, redeploy

    deployment = deployments.load(name)
    if versions:
        return _promotion(promote_versions(deployment, dict(_version(text) for text in versions)))
    return _promotion(redeploy(deployment, is_forced=force))


def rollback(name: str) -> dict[str, Any]:
    """Undo the last promotion."""
    from scoring import promotion

    return _promotion(promotion.rollback(deployments.load(name)))


def status(name: str) -> list[dict[str, Any]]:
    """Return the published partitions of a deployment."""
    return _published(deployments.load(name))


def standing(name: str, partition: str) -> list[dict[str, Any]]:
    """Return the newest run of one partition, and the published one if that is older, each with its run report."""
    from scoring import status
    from scoring.data.partition import check_value

    deployment, value = deployments.load(name), check_value(partition)
    found = status.standing(deployment, value)
    if not found:
        raise ConfigurationError(
            f"partition {value!r} of {deployment.name!r} has no run",
            "one that is published, failed or goes on",
            "none",
            f"Run: scoring run {deployment.name} -p {value}.",
        )
    reports = (status.run_report(entry.run_id) for entry in found)
    return [
        {**entry.document(), "report": report.to_json() if report else None}
        for entry, report in zip(found, reports, strict=True)
    ]


def overview() -> list[dict[str, Any]]:
    """Return all deployments with how much of each is published; an error is a value, as in `validate`."""
    rows: list[dict[str, Any]] = []
    for name in _all_names():
        row = {"deployment": name, **dict.fromkeys(("owner", "schedule", "partitions", "last", "error"))}
        try:
            found = deployments.load(name)
        except ConfigurationError as error:
            rows.append({**row, "error": str(error)})
            continue
        published = _published(found)
        rows.append(
            {
                **row,
                "owner": found.owner.team,
                "schedule": found.schedule,
                "partitions": len(published),
                "last": max((entry["partition"] for entry in published), default=None),
            }
        )
    return rows


def drift(name: str, partition: str) -> dict[str, Any]:
    """Watch a published partition again."""
    from scoring.watch import watch

    seen = watch(deployments.load(name), partition)
    if seen is None:
        raise ConfigurationError(f"deployment {name!r} has no 'drift'", hint="Add the section to watch it.")
    return {
        "run_id": seen.run_id,
        "drift": seen.drift.to_json(),
        "performance": seen.performance.to_json() if seen.performance else None,
        "decision": seen.decision.to_json(),
    }


def doctor() -> list[dict[str, Any]]:
    """Return what is right and wrong with this machine."""
    from scoring.doctor import diagnose

    return [asdict(finding) for finding in diagnose()]


def _published(deployment: Deployment) -> list[dict[str, Any]]:
    from scoring.status import partitions

    found = (asdict(entry) for entry in partitions(deployment, limit=MAX_PARTITIONS) if entry.is_published)
    return [{key: entry[key] for key in STATUS_KEYS} for entry in found]


def _all_names() -> list[str]:
    found = deployments.names()
    if not found:
        raise ConfigurationError(
            f"{settings.deployments_folder()} holds no deployment",
            "folders with a deployment.yaml",
            "none",
            f"Set {settings.DEPLOYMENTS_VARIABLE}.",
        )
    return found


def _chosen_windows(
    deployment: Deployment, first: date | None, last: date | None, holdout_last: date | None
) -> tuple[Period, Period]:
    """Return the given windows; by default train on the reference window and hold out the nights after it."""
    if deployment.drift is None or deployment.retrain is None:
        raise ConfigurationError(
            f"deployment {deployment.name!r} cannot be trained", "sections 'drift' and 'retrain'", "none"
        )
    reference = deployment.drift.reference
    end = last or reference.last
    until = holdout_last or end + timedelta(days=deployment.retrain.holdout_days)
    try:
        return Period(first=first or reference.first, last=end), Period(first=end + timedelta(days=1), last=until)
    except ValueError:
        raise ConfigurationError(
            "the windows are not valid",
            "first <= last < holdout-last",
            f"{first or reference.first}, {end} and {until}",
        ) from None


def _version(text: str) -> tuple[str, int]:
    name, _, number = text.partition("=")
    if not name or not number.isdigit():
        raise ConfigurationError("'--version' is not valid", "MODEL=N", repr(text))
    return name, int(number)


def _compared(record: RunRecord) -> dict[str, float]:
    """Return the metrics of a training that compare challengers and champions."""
    return {
        key: value
        for key, value in sorted(record.metrics.items())
        if key.startswith(("challenger", "champion", "holdout"))
    }


def _holdout(first: date | None, last: date | None) -> Period | None:
    if first is None and last is None:
        return None
    if first is None or last is None or last < first:
        raise ConfigurationError(
            "the hold-out nights are not valid",
            "--holdout-first and --holdout-last, in this order",
            f"{first} and {last}",
        )
    return Period(first=first, last=last)


def _promotion(promotion: Promotion) -> dict[str, Any]:
    found = promotion.to_json()
    return {"promoted": promotion.is_promoted, **{key: found[key] for key in found if key != "format_version"}}
