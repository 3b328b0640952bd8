"""What Airflow loads: the plugin that registers the package `scoring_airflow` beside this file."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin

from scoring_airflow.timetable import ByHandTimetable, NightlyTimetable
from scoring_airflow.web import EXTERNAL_VIEWS, FASTAPI_APPS


class ScoringPlugin(AirflowPlugin):
    """Timetables, page and REST API of the deployments. Links of tasks need no registration: operators name them."""

    name = "scoring"
    timetables = (NightlyTimetable, ByHandTimetable)
    fastapi_apps = FASTAPI_APPS
    external_views = EXTERNAL_VIEWS
