from __future__ import annotations

import pytest

from scoring import settings
from scoring.addresses import Report, deployment_page, mlflow_run, report_page


@pytest.mark.parametrize(
    ("airflow", "start"),
    [
        ("", "/plugin/scoring/scoring"),
        ("http://host:8080", "http://host:8080/plugin/scoring/scoring"),
        ("https://host/air/", "https://host/air/plugin/scoring/air/scoring"),
    ],
)
def test_pages_are_framed_by_airflow(airflow: str, start: str) -> None:
    assert report_page("a1", Report.DRIFT, airflow=airflow) == f"{start}/runs/a1/drift"
    assert deployment_page("flights", airflow=airflow) == f"{start}/deployments/flights"


def test_names_cannot_leave_their_place_in_an_address() -> None:
    assert report_page("../x?y", Report.QUALITY, airflow="").endswith("/runs/..%2Fx%3Fy/quality")


def test_mlflows_ui_is_known_only_where_people_can_open_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(settings.TRACKING_VARIABLE, "sqlite:////tmp/mlflow.db")
    assert mlflow_run("a1") is None
    monkeypatch.setenv(settings.TRACKING_VARIABLE, "http://tracking:5000/")
    assert mlflow_run("a1") == "http://tracking:5000/#/runs/a1"
    monkeypatch.setenv(settings.MLFLOW_UI_VARIABLE, "https://mlflow.example.com")
    assert mlflow_run("a1") == "https://mlflow.example.com/#/runs/a1"
