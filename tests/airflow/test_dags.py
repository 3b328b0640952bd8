"""The Dag files: what they load, what they import, and that one broken deployment hides no other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.airflow import deployments

PROJECT = Path(__file__).parents[2]
HEAVY = (
    *("pyspark", "pandas", "numpy", "pyarrow", "mlflow", "deltalake", "duckdb", "great_expectations", "evidently"),
    *("sklearn", "skops", "xgboost", "torch", "matplotlib"),
)
PARSE = """
import json, sys
from airflow.dag_processing.dagbag import DagBag
from airflow.plugins_manager import get_timetables_plugins
from airflow.serialization.serialized_objects import DagSerialization

get_timetables_plugins()
bag = DagBag(sys.argv[1])
imported = sorted({name.split(".")[0] for name in sys.modules})
dags = {dag_id: DagSerialization.to_dict(dag) for dag_id, dag in bag.dags.items()}
again = {dag_id: DagSerialization.from_dict(dag).timetable.summary for dag_id, dag in dags.items()}
print(json.dumps({"imported": imported, "errors": bag.import_errors, "dags": dags, "again": again}))
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "deployments"


def parse(folder: Path, *, dags: Path = PROJECT / "dags", **environment: str) -> Any:
    """Parse the Dag files in a process of its own and return what it found."""
    variables = {
        **os.environ,
        "AIRFLOW__CORE__PLUGINS_FOLDER": str(PROJECT / "plugins"),
        "AIRFLOW__LOGGING__LOGGING_LEVEL": "CRITICAL",
        "PYTHONPATH": str(PROJECT),
        "SCORING_DEPLOYMENTS": str(folder),
        **environment,
    }
    command = [sys.executable, "-c", PARSE, str(dags)]
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_every_deployment_of_this_project_has_its_dags() -> None:
    found = parse(PROJECT / "dags" / "deployments")
    assert found["errors"] == {}
    assert {"score_flight_delays", "retrain_flight_delays", "redeploy_flight_delays"} <= found["dags"].keys()


def test_parsing_imports_nothing_heavy(folder: Path) -> None:
    deployments.write(folder, "flights", approval=True)
    found = parse(folder)
    assert len(found["dags"]) == 3
    assert not set(found["imported"]) & set(HEAVY)


def test_dags_survive_serialisation_and_look_the_same_in_every_process(folder: Path) -> None:
    """Else Airflow would make a new version of each Dag again and again."""
    deployments.write(folder, "flights", approval=True)
    deployments.write(folder, "by_hand", schedule=None)
    one, other = (parse(folder, PYTHONHASHSEED=seed) for seed in ("1", "2"))
    for dag_id, dag in one["dags"].items():
        assert json.dumps(dag, sort_keys=True) == json.dumps(other["dags"][dag_id], sort_keys=True)
    assert one["again"]["score_flights"] == "0 3 * * *"
    assert one["again"]["score_by_hand"] == "by hand"


def test_a_broken_deployment_is_an_import_error_and_the_others_load(folder: Path) -> None:
    deployments.write(folder, "flights")
    deployments.write(folder, "trains").write_text("name: trains\nownr: {}\n")
    found = parse(folder)
    assert sorted(found["dags"]) == ["redeploy_flights", "retrain_flights", "score_flights"]
    ((file, error),) = found["errors"].items()
    # Airflow takes the Dags of a file with an error out of service: it must not be theirs.
    assert Path(file).name == "deployment_errors.py"
    assert "trains/deployment.yaml:2: unknown key 'ownr'" in error
    assert "Did you mean 'owner'?" in error
    assert "pydantic" not in error


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (b"\xff\xfe\x00", "deployment 'bad' cannot become a Dag: got UnicodeDecodeError: "),
        (None, "deployment 'bad' cannot become a Dag: got ValueError: tag cannot be longer than 100 characters"),
    ],
    ids=["not text", "a team that Airflow takes for no tag"],
)
def test_whatever_is_wrong_with_a_deployment_hides_no_other(folder: Path, content: bytes | None, sentence: str) -> None:
    deployments.write(folder, "flights", retrain=False)
    bad = deployments.write(folder, "bad", team="x" * 101)
    if content is not None:
        bad.write_bytes(content)
    found = parse(folder)
    assert list(found["dags"]) == ["score_flights"]
    assert sentence in "".join(found["errors"].values())


def test_all_broken_deployments_are_named(folder: Path) -> None:
    for name in ("ships", "trains"):
        deployments.write(folder, name).write_text(f"name: {name}\n")
    (error,) = parse(folder)["errors"].values()
    assert "2 deployments are not valid" in error
    assert "1. " in error
    assert "ships/deployment.yaml" in error
    assert "trains/deployment.yaml" in error


def test_a_task_parses_only_its_own_deployment(folder: Path) -> None:
    for name in ("flights", "trains"):
        deployments.write(folder, name)
    found = parse(folder, _AIRFLOW_PARSING_CONTEXT_DAG_ID="retrain_trains")
    assert sorted(found["dags"]) == ["redeploy_trains", "retrain_trains", "score_trains"]


def test_files_of_deployments_are_no_dag_files(folder: Path, tmp_path: Path) -> None:
    """A rules.py that mentions Airflow and a Dag would else be executed by every parse."""
    dags = tmp_path / "dags"
    home = deployments.write(dags / "deployments", "flights").parent
    (home / "rules.py").write_text("# airflow dag\nraise RuntimeError('executed')\n")
    for name in (".airflowignore", "scoring_dags.py", "deployment_errors.py"):
        (dags / name).write_text((PROJECT / "dags" / name).read_text())
    assert parse(dags / "deployments", dags=dags)["errors"] == {}


def test_the_score_dag(folder: Path) -> None:
    deployments.write(folder, "flights")
    dag = parse(folder)["dags"]["score_flights"]["dag"]
    assert dag["timetable"]["__type"] == "scoring_airflow.timetable.NightlyTimetable"
    assert not dag["catchup"]
    assert dag["max_active_runs"] == 2
    tasks = {task["__var"]["task_id"]: task["__var"] for task in dag["tasks"]}
    order = ["score", "check", "publish", "drift", "trigger_retrain", "notify"]
    assert [tasks[task_id]["downstream_task_ids"] for task_id in order[:-1]] == [[after] for after in order[1:]]
    assert tasks["notify"]["is_teardown"]
    assert tasks["notify"]["trigger_rule"] == "all_done_setup_success"
    assert not tasks["notify"].get("on_failure_fail_dagrun", False)
    assert tasks["drift"]["max_active_tis_per_dag"] == 1
    assert tasks["score"]["retries"] == 2
