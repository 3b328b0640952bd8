"""A store with deployments and runs of every kind, as the pages meet them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest

from scoring import settings
from scoring.runs import RunState, RunStore, client

HOSTILE = "<script>alert('x')</script>"
NIGHTS = 64
LAST_NIGHT = date(2013, 7, 10)

_DEPLOYMENT = """
name: {name}
description: "{description}"
owner: {{team: "{team}", email: [flight-data@example.com]}}
schedule: "0 3 * * *"
input: {{path: /lake/flights, partition: flight_date, keys: [flight_id]}}
output: {{path: /predictions/{name}}}
score:
  ensemble:
    combine: mean
    members:
      linear: {{model: "models:/flight_delay_linear@champion"}}
      trees: {{model: "models:/flight_delay_trees@champion"}}
drift: {{reference: {{first: 2013-01-01, last: 2013-03-31}}}}
"""


@dataclass(frozen=True)
class Seeded:
    """What was put into the store."""

    environment: dict[str, str]
    published: str
    """Run of the last night: notified, with both reports."""
    failed: str
    """Newer run of the night before, which failed its checks; it keeps a quality report only."""
    superseded: str


def fill(home: Path, *, drift_html: bytes) -> Seeded:
    """Write deployments and runs below `home`."""
    environment = {
        settings.HOME_VARIABLE: str(home),
        settings.DEPLOYMENTS_VARIABLE: str(home / "deployments"),
        settings.TRACKING_VARIABLE: f"sqlite:///{home / 'mlflow.db'}",
        settings.MLFLOW_UI_VARIABLE: "http://127.0.0.1:5000",
    }
    _write_deployment(home, "flight_delays", "Late arrivals of tomorrow's flights", "Flight data")
    _write_deployment(home, "hostile", HOSTILE, HOSTILE)
    _write_deployment(home, "never_scored", "", "Flight data")
    (home / "deployments" / "broken").mkdir()
    (home / "deployments" / "broken" / "deployment.yaml").write_text(
        f"name: broken\n'{HOSTILE.replace(chr(39), '')}': 1\n"
    )
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environment.items():
            patch.setenv(name, value)
        return _runs(environment, drift_html)


def _write_deployment(home: Path, name: str, description: str, team: str) -> None:
    folder = home / "deployments" / name
    folder.mkdir(parents=True)
    (folder / "deployment.yaml").write_text(_DEPLOYMENT.format(name=name, description=description, team=team), "utf-8")


def _champions() -> None:
    registry = client()
    for name, versions in (("flight_delay_linear", 1), ("flight_delay_trees", 2)):
        registry.create_registered_model(name)
        for _ in range(versions):
            registry.create_model_version(name, source="/nowhere")
        registry.set_registered_model_alias(name, "champion", str(versions))


def _runs(environment: dict[str, str], drift_html: bytes) -> Seeded:
    store = RunStore()
    _champions()
    last = ""
    for back in reversed(range(NIGHTS)):
        night = (LAST_NIGHT - timedelta(days=back)).isoformat()
        share = 0.46 if back == 0 else 0.04 + 0.01 * (back % 5)
        last = _run(
            store,
            night,
            tags={
                "checks": "warning" if back == 3 else "passed",
                "decision": "notify" if back == 0 else "none",
                "decision_reasons": "46 % of the columns drifted, more than the 30 % allowed.\nA second reason."
                if back == 0
                else "",
                "share_of_drifted_columns": str(share),
                "warning": f"scored 53,210 rows/s {HOSTILE}\nno GPU was found" if back == 0 else "",
                "published_version": str(NIGHTS - back - 1),
            },
        )
    store.put(last, "quality/report.html", "<!doctype html><title>Quality</title><h1>All expectations met</h1>")
    store.put_json(last, "quality/report.json", {"passed": True})
    store.put(last, "drift/report.html", drift_html)
    store.put_json(last, "drift/report.json", {"share_of_drifted_columns": 0.46})
    store.put(last, "run/report.html", "<!doctype html><title>Run report</title><h1>53,210 rows/s</h1>")
    store.put(last, "mail/message.eml", "not for everybody")

    before = (LAST_NIGHT - timedelta(days=1)).isoformat()
    error = (
        "checks of 'flight_delays' failed: expected no nulls in 'distance', got 12. Mend the input and run it again."
    )
    failed = _run(store, before, state=RunState.FAILED, tags={"checks": "failed", "error": error})
    store.put(failed, "quality/report.html", "<!doctype html><title>Quality</title><h1>12 nulls</h1>")
    superseded = _run(store, before, state=RunState.SUPERSEDED, tags={})
    _run(store, (LAST_NIGHT + timedelta(days=1)).isoformat(), state=RunState.STAGED, tags={})
    _run(
        store,
        "2013-07-09",
        deployment="hostile",
        state=RunState.FAILED,
        tags={
            "error": HOSTILE,
            "decision": HOSTILE,
            "checks": HOSTILE,
            "decision_reasons": HOSTILE,
            "dag_run_id": f'"{HOSTILE}',
            "model_versions": json.dumps({HOSTILE: 1}),
        },
    )
    return Seeded(environment, last, failed, superseded)


def _run(
    store: RunStore,
    partition: str,
    *,
    tags: dict[str, str],
    deployment: str = "flight_delays",
    state: RunState = RunState.PUBLISHED,
) -> str:
    versions = json.dumps({"flight_delay_linear": 1, "flight_delay_trees": 2})
    named = {"dag_run_id": f"manual__{partition}T03:00:00+00:00", "model_versions": versions, **tags}
    run_id = store.start(deployment, partition, tags=named)
    if state is not RunState.STAGED:
        store.log_metrics(run_id, {"rows": 937, "quarantined": 4, "rows_per_s": 53210.4, "seconds": 17.6})
    store.set_state(run_id, state)
    return run_id
