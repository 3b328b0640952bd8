"""The report of real runs: its numbers add up, and a slow run is told wherever people look."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any, cast

import pytest
from typer.testing import CliRunner

from scoring import nightly
from scoring.cli import app
from scoring.errors import StorageError
from scoring.notify.outbox import MAIL, compose_for
from scoring.runs import RunRecord, RunState, RunStore
from scoring.status import partitions, run_report
from scoring.throughput.page import PAGE
from scoring.throughput.report import PARTS, RunReport, Totals
from tests.e2e.example import NIGHT, ROWS, Site

pytestmark = pytest.mark.spark


def report_of(run: RunRecord) -> RunReport:
    found = run_report(run.run_id)
    assert found is not None
    return found


def like(
    run: RunRecord, count: int, *, state: RunState = RunState.PUBLISHED, conditions: str = "", **facts: Any
) -> None:
    """Put runs into the store that differ from a real one in what they took only."""
    store, totals = RunStore(), Totals.from_metrics(run.metrics)
    assert totals is not None
    for number in range(count):
        tags = {"conditions": conditions or run.tags["conditions"]}
        run_id = store.start(run.deployment, f"2024-01-{number + 1:02d}", tags=tags)
        store.log_metrics(run_id, replace(totals, **facts).metrics())
        store.set_state(run_id, state)


def call(*arguments: str) -> str:
    done = CliRunner().invoke(app, list(arguments))
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_a_report_adds_up(site: Site) -> None:
    run = site.run()
    report = report_of(run)
    totals = report.totals
    assert (report.deployment, report.partition, report.run_id) == ("example", NIGHT, run.run_id)
    assert totals == Totals.from_metrics(run.metrics)
    assert totals.rows == sum(split.rows for split in report.splits) == ROWS
    plan = RunStore().read_json(run.run_id, nightly.PLAN_ARTIFACT)
    assert [split.split for split in report.splits] == list(range(plan["splits"]))
    assert totals.splits == plan["splits"] == 9
    assert run.metrics["rows_per_s"] == pytest.approx(ROWS / run.metrics["seconds"])
    for name in ("wall_s", *PARTS):
        assert getattr(totals, name) == pytest.approx(sum(getattr(split, name) for split in report.splits))
    for split in report.splits:
        assert split.read_s > 0
        assert split.predict_s > 0
        assert split.write_s > 0
        assert split.wall_s >= max(split.read_s, split.predict_s, split.write_s)
        assert 0 < split.batch_rows <= 64
        assert split.peak_rss_mb > 20
        assert split.worker
        assert not split.is_resumed
    assert totals.model_loads >= 1
    assert totals.load_s > 0
    assert totals.skew >= 1
    assert totals.workers == len({split.worker for split in report.splits})
    assert report.devices == ("cpu",)
    assert (report.usual, report.warnings) == (None, ())
    assert b"400" in (RunStore().read(run.run_id, PAGE) or b"")


def test_a_slow_run_is_told_wherever_people_look(site: Site) -> None:
    first = site.run()
    like(first, 10, seconds=first.metrics["seconds"] / 1000, predict_s=first.metrics["predict_s"] / 1000)
    run = site.run()
    (warning,) = run.warnings
    assert "less than half of the median of the last 10 runs like it" in warning
    report = report_of(run)
    assert report.warnings == run.warnings
    assert report.usual is not None
    assert report.usual.rows_per_s == pytest.approx(1000 * first.metrics["rows_per_s"])
    assert b'<p class="warning">scored ' in (RunStore().read(run.run_id, PAGE) or b"")

    newest = partitions(site.deployment)[0]
    assert (newest.run_id, newest.warnings, newest.needs_attention) == (run.run_id, (warning,), True)
    assert re.search(rf"│ {NIGHT} │.*│\s+1 │\n", call("status", "example"))
    assert json.loads(call("status", "example", "--json"))[0]["warnings"] == [warning]
    shown = " ".join(call("status", "example", "-p", NIGHT).replace("│", " ").split())
    assert warning in shown
    assert "runs like it)" in shown
    (entry,) = json.loads(call("status", "example", "-p", NIGHT, "--json"))
    assert entry["warnings"] == [warning]
    assert RunReport.from_json(entry["report"]) == report

    # No mail for it alone; in one that is sent for another reason it is told.
    assert not compose_for(site.deployment, NIGHT, trigger="manual")
    assert compose_for(site.deployment, NIGHT, trigger="manual", failure="the drift report failed.")
    content = RunStore().read(run.run_id, MAIL)
    assert content is not None
    mail = cast("EmailMessage", message_from_bytes(content, policy=cast("Any", policy.default)))
    body = mail.get_body(("plain",))
    assert body is not None
    said = " ".join(body.get_content().split())
    assert warning[1:] in said
    assert "Work: reading" in said
    assert f"artifact {PAGE} of MLflow run {run.run_id}" in said


def test_runs_that_are_not_like_it_are_not_compared_with(site: Site) -> None:
    first = site.run()
    fast = first.metrics["seconds"] / 1000
    like(first, 3, seconds=fast, conditions="cuda")
    like(first, 3, seconds=fast, conditions=f"{first.tags['conditions']}, backfill")
    like(first, 3, seconds=fast, state=RunState.FAILED)
    like(first, 3, seconds=fast, rows=3 * ROWS)
    like(first, 3, seconds=fast, splits_resumed=1)
    run = site.run()
    assert run.warnings == ()
    assert report_of(run).usual is None
    # Those of a backfill are compared with each other.
    backfilled = site.run(trigger="backfill")
    assert backfilled.tags["conditions"] == f"{first.tags['conditions']}, backfill"
    assert len(backfilled.warnings) == 1


def _store_away(*_: object, **__: object) -> None:
    raise StorageError("accounting failed", "an answer of the store", "none")


def test_splits_that_were_taken_over_are_told_apart(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Path(site.deployment.output.path)
    for left in (9, 6):
        with monkeypatch.context() as dying:
            dying.setattr(nightly, "account", _store_away)
            with pytest.raises(StorageError):
                nightly.score(site.deployment, NIGHT)
        for kept in sorted(folder.rglob("*.result"))[left:]:
            kept.unlink()
        run = nightly.score(site.deployment, NIGHT)
        report = report_of(run)
        assert [split.is_resumed for split in report.splits] == [True] * left + [False] * (9 - left)
        assert (report.totals.rows, report.totals.splits_resumed) == (ROWS, left)
        assert report.usual is None
        scored = sum(split.rows for split in report.splits if not split.is_resumed)
        expected = scored / report.totals.seconds if left < 9 else None
        assert run.metrics.get("rows_per_s") == expected
        shown = call("status", "example", "-p", NIGHT)
        assert re.findall(r"│\s+(\d) │.*│\s+(yes|no) │", shown) == [
            (str(split.split), "yes" if split.is_resumed else "no") for split in report.slowest(9)
        ]


def test_status_of_a_partition_without_a_report(site: Site) -> None:
    done = CliRunner().invoke(app, ["status", "example", "-p", NIGHT])
    assert done.exit_code == 2
    assert "partition '2024-02-29' of 'example' has no run" in done.stderr
    store = RunStore()
    published = store.start("example", NIGHT, tags={"published_version": "3"})
    store.set_state(published, RunState.PUBLISHED)
    failed = store.start("example", NIGHT, tags={"error": "it broke."})
    store.set_state(failed, RunState.FAILED)
    found = json.loads(call("status", "example", "-p", NIGHT, "--json"))
    assert [(run["run_id"], run["state"], run["report"]) for run in found] == [
        (failed, "failed", None),
        (published, "published", None),
    ]
    shown = call("status", "example", "-p", NIGHT)
    assert shown.index("it broke.") < shown.index("published, version 3")
    for wrong in (["status", "-p", NIGHT], ["status", "example", "-p", "../x"]):
        assert CliRunner().invoke(app, wrong).exit_code == 2
