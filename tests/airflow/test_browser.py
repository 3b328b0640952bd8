"""The page in a real browser, inside a real Airflow with logins, from the login form to a kept report."""

from __future__ import annotations

import functools
import json
import os
import urllib.parse
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from tests.airflow.seed import HOSTILE, Seeded, fill

if TYPE_CHECKING:
    from tests.airflow.conftest import RunningAirflow, StartAirflow

pytestmark = [pytest.mark.browser, pytest.mark.stack]

PATIENCE_S = 60
USERS = {"ann": "viewer", "root": "admin"}
# A night whose check fails before it can return its run.
DAG = """
from airflow.sdk import DAG, BaseOperator
from airflow.sdk.exceptions import AirflowFailException

from scoring_airflow.links import LINKS


class Task(BaseOperator):
    operator_extra_links = LINKS

    def __init__(self, *, returned=None, **kwargs):
        super().__init__(**kwargs)
        self.deployment = "flight_delays"
        self.returned = returned

    def execute(self, context):
        if self.returned is None:
            raise AirflowFailException("the data failed its checks")
        return {"run_id": self.returned}


with DAG("score_flight_delays", schedule=None):
    Task(task_id="score", returned="%s") >> Task(task_id="check")
"""


def _evidently_page(folder: Path) -> bytes:
    """Return a report as Evidently writes it: megabytes of inline scripts."""
    import numpy as np
    import pandas as pd
    from evidently import Report
    from evidently.presets import DataDriftPreset

    columns = {name: np.arange(300.0) for name in ("distance", "plane_age")}
    reference = pd.DataFrame(columns)
    path = folder / "report.html"
    Report([DataDriftPreset()]).run(reference.assign(distance=reference["distance"] + 150), reference).save_html(
        str(path)
    )
    return path.read_bytes()


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    home = tmp_path_factory.mktemp("seeded")
    return fill(home, drift_html=_evidently_page(home))


@pytest.fixture(scope="module")
def airflow(start_airflow: StartAirflow, seeded: Seeded, tmp_path_factory: pytest.TempPathFactory) -> RunningAirflow:
    """An Airflow in which people sign in with a password, over the seeded store."""
    folder = tmp_path_factory.mktemp("logins")
    passwords = folder / "passwords.json"
    passwords.write_text(json.dumps({user: user for user in USERS}))
    dags = folder / "dags"
    dags.mkdir()
    (dags / "night.py").write_text(DAG % seeded.failed)
    environment = {
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "False",
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{user}:{role}" for user, role in USERS.items()),
        "AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": str(passwords),
    }
    running = start_airflow(seeded.environment | environment, dags=dags)
    running.token = functools.partial(_token, running.url, "root")
    return running


def _token(url: str, user: str) -> str:
    body = json.dumps({"username": user, "password": user}).encode()
    headers = {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{url}/auth/token", body, headers), timeout=30) as answer:
        token: str = json.load(answer)["access_token"]
    return token


def found(browser: webdriver.Chrome, by: str, value: str) -> WebElement:
    """Wait for an element and return it."""
    return WebDriverWait(browser, PATIENCE_S).until(lambda driver: driver.find_element(by, value))


def sign_in(browser: webdriver.Chrome) -> None:
    """Fill the login form that Airflow shows."""
    found(browser, By.NAME, "username").send_keys("ann")
    found(browser, By.NAME, "password").send_keys("ann")
    found(browser, By.CSS_SELECTOR, "button[type=submit]").click()
    WebDriverWait(browser, PATIENCE_S).until(lambda driver: "/auth/login" not in driver.current_url)


def enter_frame(browser: webdriver.Chrome, title: str) -> None:
    browser.switch_to.frame(found(browser, By.CSS_SELECTOR, f"iframe[title='{title}']"))


def keep_picture(browser: webdriver.Chrome, name: str) -> None:
    """Keep a picture where `$SCORING_SCREENSHOTS` says, for people to look at."""
    folder = os.environ.get("SCORING_SCREENSHOTS")
    if folder:
        browser.save_screenshot(f"{folder}/{name}.png")


def test_from_login_over_the_nav_to_a_drift_report(
    browser: webdriver.Chrome, airflow: RunningAirflow, seeded: Seeded
) -> None:
    browser.get(airflow.url)
    sign_in(browser)
    found(browser, By.CSS_SELECTOR, "a[href$='/plugin/scoring']").click()
    enter_frame(browser, "Scoring")
    assert "Flight data" in found(browser, By.XPATH, "//tr[th/a='flight_delays']").text
    keep_picture(browser, "deployments")

    found(browser, By.LINK_TEXT, "flight_delays").click()
    row = found(browser, By.XPATH, "//tr[starts-with(normalize-space(th), '2013-07-10')]")
    for text in ("937", "53,210", "passed", "46 %", "notify", "flight_delay_trees v2"):
        assert text in row.text
    browser.switch_to.default_content()
    # Airflow's address names the page within the frame: it can be bookmarked and reloaded.
    WebDriverWait(browser, PATIENCE_S).until(lambda driver: driver.current_url.endswith("/deployments/flight_delays"))
    browser.get(browser.current_url)
    enter_frame(browser, "Scoring")
    found(browser, By.PARTIAL_LINK_TEXT, "46 %")
    keep_picture(browser, "partitions")

    found(browser, By.PARTIAL_LINK_TEXT, "46 %").click()
    enter_frame(browser, "Drift report")
    found(browser, By.XPATH, "//*[text()='Dataset Drift']")
    found(browser, By.CSS_SELECTOR, "button[aria-label^='Detail panel']").click()
    found(browser, By.CSS_SELECTOR, ".js-plotly-plot")
    # The report's scripts run, but in an origin of their own.
    assert browser.execute_script("return self.origin") == "null"
    keep_picture(browser, "drift")

    browser.switch_to.default_content()
    enter_frame(browser, "Scoring")
    found(browser, By.LINK_TEXT, "flight_delays").click()
    found(browser, By.XPATH, "//tr[starts-with(normalize-space(th), '2013-07-10')]//a[.='MLflow']").click()
    WebDriverWait(browser, PATIENCE_S).until(lambda driver: len(driver.window_handles) == 2)
    browser.switch_to.window(browser.window_handles[1])
    assert browser.current_url == f"http://127.0.0.1:5000/#/runs/{seeded.published}"


def test_who_is_not_signed_in_comes_back_after_login(browser: webdriver.Chrome, airflow: RunningAirflow) -> None:
    address = f"{airflow.url}/scoring/deployments/hostile"
    browser.get(address)
    sign_in(browser)
    WebDriverWait(browser, PATIENCE_S).until(lambda driver: driver.current_url == address)
    # Text from outside is text: a script in it would have opened a dialogue, and nothing breaks the policy.
    assert found(browser, By.TAG_NAME, "main").text.count(HOSTILE) >= 3
    refused = [entry["message"] for entry in browser.get_log("browser") if "Content Security" in entry["message"]]
    assert refused == []


def test_the_page_follows_airflows_dark_mode(browser: webdriver.Chrome, airflow: RunningAirflow) -> None:
    browser.get(f"{airflow.url}/plugin/scoring/scoring/deployments/flight_delays")
    sign_in(browser)
    grounds = []
    for theme in ("light", "dark"):
        browser.execute_script("localStorage.setItem('theme', arguments[0])", theme)
        browser.get(browser.current_url)
        enter_frame(browser, "Scoring")
        found(browser, By.PARTIAL_LINK_TEXT, "46 %")
        grounds.append(browser.execute_script("return getComputedStyle(document.body).backgroundColor"))
        keep_picture(browser, f"partitions-{theme}")
        browser.switch_to.default_content()
    assert grounds == ["rgb(255, 255, 255)", "rgb(17, 17, 19)"]


def test_a_task_links_to_its_check_result(browser: webdriver.Chrome, airflow: RunningAirflow, seeded: Seeded) -> None:
    airflow.wait_for_dag("score_flight_delays")
    dag_run_id = airflow.trigger("score_flight_delays")
    assert airflow.wait_for_run("score_flight_delays", dag_run_id) == "failed"
    run = f"dags/score_flight_delays/{{}}/{urllib.parse.quote(dag_run_id, safe='')}"
    report = f"/plugin/scoring/scoring/runs/{seeded.failed}"
    for task_id in ("score", "check"):
        links: dict[str, Any] = airflow.api("GET", f"{run.format('dagRuns')}/taskInstances/{task_id}/links")
        assert links["extra_links"] == {
            "Drift report": f"{report}/drift",
            "Check result": f"{report}/quality",
            "Run report": f"{report}/run",
            "MLflow run": f"http://127.0.0.1:5000/#/runs/{seeded.failed}",
        }

    browser.get(f"{airflow.url}/{run.format('runs')}/tasks/check/details")
    sign_in(browser)
    keep_picture(browser, "task")
    found(browser, By.LINK_TEXT, "Check result").click()
    enter_frame(browser, "Scoring")
    enter_frame(browser, "Quality report")
    assert found(browser, By.TAG_NAME, "h1").text == "12 nulls"
    keep_picture(browser, "quality")
