"""A backfill asked for in Airflow's own form, in a real browser whose clock is not UTC."""

from __future__ import annotations

from pathlib import Path

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support import expected_conditions
from selenium.webdriver.support.ui import WebDriverWait

from tests.airflow import deployments
from tests.airflow.running import StartAirflow

pytestmark = [pytest.mark.browser, pytest.mark.stack]

PATIENCE_S = 60


@pytest.mark.timeout(300)
def test_five_nights_asked_for_in_the_form_are_five_runs(
    start_airflow: StartAirflow, browser: webdriver.Chrome, tmp_path: Path
) -> None:
    # Midnight in New York is four in the morning, UTC.
    browser.execute_cdp_cmd("Emulation.setTimezoneOverride", {"timezoneId": "America/New_York"})
    folder = tmp_path / "deployments"
    deployments.write(folder, "flights")
    # What becomes of the runs is of no matter here: Airflow makes all of them when the form is sent.
    airflow = start_airflow(
        {"SCORING_HOME": str(tmp_path), "SCORING_DEPLOYMENTS": str(folder), "AIRFLOW__CORE__PARALLELISM": "1"}
    )
    airflow.wait_for_dag("score_flights")
    browser.get(f"{airflow.url}/dags/score_flights")
    click(browser, "//button[contains(., 'Trigger')]")
    click(browser, "//*[@role='dialog']//label[contains(., 'Backfill')]")
    pick(browser, 1, "2013/07/01")
    pick(browser, 2, "2013/07/05")
    click(browser, "//*[@role='dialog']//button[contains(., 'Run Backfill')]")

    runs = airflow.wait_for("runs of the backfill", lambda: airflow.runs("score_flights"), PATIENCE_S)
    assert sorted(run["partition_key"] for run in runs) == [f"2013-07-0{day}" for day in range(1, 6)]
    assert {run["run_type"] for run in runs} == {"backfill"}


def click(browser: webdriver.Chrome, path: str) -> None:
    """Wait until an element can be clicked, and click it."""
    WebDriverWait(browser, PATIENCE_S).until(expected_conditions.element_to_be_clickable((By.XPATH, path))).click()


def pick(browser: webdriver.Chrome, number: int, day: str) -> None:
    """Type a day into the form's first or second date field, without a time."""
    field = f"(//*[@data-testid='datetime-input'])[{number}]"
    click(browser, field)
    date = (By.XPATH, "//input[@placeholder='YYYY/MM/DD']")
    WebDriverWait(browser, PATIENCE_S).until(expected_conditions.visibility_of_element_located(date)).send_keys(day)
    year = day[:4]
    WebDriverWait(browser, PATIENCE_S).until(lambda driver: year in driver.find_element(By.XPATH, field).text)
    click(browser, "//*[text()='Date Range']")
    WebDriverWait(browser, PATIENCE_S).until(expected_conditions.invisibility_of_element_located(date))
