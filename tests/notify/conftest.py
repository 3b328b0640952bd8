from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.message import EmailMessage
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from scoring.deployment import Deployment
from scoring.monitoring.chart import drift_chart
from scoring.monitoring.report import DecisionKind
from scoring.notify.mail import render
from scoring.notify.night import Night
from scoring.runs import RunStore
from tests.notify.mail_server import MailServer
from tests.notify.nights import drift_report, make_deployment


@pytest.fixture
def server() -> Iterator[MailServer]:
    running = MailServer()
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="session")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One MLflow store for all tests: to make one takes 20 seconds. Tests are kept apart by their deployment."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def store(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> RunStore:
    monkeypatch.setenv("SCORING_HOME", str(shared_home))
    for name in ("MLFLOW_TRACKING_URI", "SCORING_MLFLOW_UI", "SCORING_UI", "SCORING_MAIL_FROM"):
        monkeypatch.delenv(name, raising=False)
    return RunStore()


_numbers = count(1)


@pytest.fixture
def deployment(store: RunStore, tmp_path: Path) -> Deployment:
    return make_deployment(tmp_path / f"night_{next(_numbers)}")


@pytest.fixture
def night() -> Callable[..., Night]:
    """Makes a quiet good night of what is told about it."""

    def make(**facts: Any) -> Night:
        return Night(
            **{
                "deployment": "flight_delays",
                "partition": "2013-07-05",
                "run_id": "a3f1c09be9d04f27a6ad1e2c0f5b7d11",
                "team": "Flight data",
                "recipients": ("anna@example.com",),
                "is_published": True,
                **facts,
            }
        )

    return make


@pytest.fixture
def drifting(night: Callable[..., Night]) -> Night:
    """A night with everything a mail can tell about drift."""
    report = drift_report()
    return night(
        rows=978,
        quarantined=3,
        max_quarantined_share=0.05,
        rows_per_s=412.3,
        seconds=142.4,
        model_versions={"trees": 2, "linear": 1},
        decision=DecisionKind.RETRAIN,
        reasons=("4 of 10 columns drifted (40 %, limit 30 %), for 2 nights in a row",),
        reference="2013-01-01 to 2013-03-31",
        share_of_drifted_columns=0.4,
        drift_share_threshold=0.3,
        drifted_columns=report.drifted_columns,
        roc_auc=0.652,
        log_loss=0.51,
        baseline_roc_auc=0.721,
        max_roc_auc_drop=0.05,
        links={"Drift report": "https://airflow.example.com/scoring/runs/a3f1/drift/report.html"},
        chart=drift_chart(report, [], drift_share_threshold=0.3),
    )


@pytest.fixture
def rendered() -> Callable[[Night], EmailMessage]:
    """Renders a night at a fixed time."""

    def make(night: Night) -> EmailMessage:
        return render(night, sender="scoring@localhost", date=datetime(2013, 7, 6, 3, 10, tzinfo=UTC))

    return make
