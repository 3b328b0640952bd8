"""The command line as people and pipelines use it: stdout, stderr, JSON, exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result
from typer.main import get_command
from typer.testing import CliRunner

from scoring.cli import app
from scoring.testing import (
    FEATURES,
    MODEL,
    PARTITION,
    example_rows,
    register_sklearn,
    write_deployment,
    write_partition,
)

NIGHT = "2024-02-29"
ROOT = Path(__file__).resolve().parents[2]
CONTRACT = {"id": "int64", "x": "double", "y": "double", "city": "string?"}


def call(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments))


def document(*arguments: str) -> Any:
    done = call(*arguments, "--json")
    assert done.exit_code == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def example(home: Path) -> Path:
    """The folder of a deployment that can be scored."""
    rows = example_rows(500, seed=1)
    register_sklearn(MODEL, rows.select(list(FEATURES)).to_pandas(), rows["label"].to_numpy())
    write_partition(home / "lake", PARTITION, NIGHT, example_rows(100, seed=2).drop_columns(["label"]))
    folder = home / "deployments" / "example"
    write_deployment(folder, input={"columns": CONTRACT})
    return folder


def test_every_command_is_in_the_readme() -> None:
    commands = set(get_command(app).commands)  # type: ignore[attr-defined]
    documented = set(re.findall(r"^\| `scoring (\w+)", (ROOT / "README.md").read_text("utf-8"), re.MULTILINE))
    assert documented == commands
    for command in commands:
        assert call(command, "--help").exit_code == 0


def test_validate_says_what_is_wrong_with_each(example: Path) -> None:
    assert document("validate") == [{"deployment": "example", "error": None}]
    broken = example.parent / "broken"
    broken.mkdir()
    (broken / "deployment.yaml").write_text("name: broken\nownr: {}\n", encoding="utf-8")
    done = call("validate", "--json")
    assert done.exit_code == 2
    found = {row["deployment"]: row["error"] for row in json.loads(done.stdout)}
    assert found["example"] is None
    assert re.search(r"broken/deployment\.yaml:2: unknown key 'ownr'.*Did you mean 'owner'\?", found["broken"])


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        ({"python": "rules:apply"}, r"rule module 'rules' cannot be loaded: .*no_such_lib"),
        ({"sql": "selec * from batch"}, r"is not a query: expected one SELECT, got ParserException"),
        ({"sql": "drop table batch"}, r"is not a query: expected one SELECT, got DROP"),
    ],
)
@pytest.mark.parametrize("command", ["validate", "deploy"])
def test_rules_are_loaded_before_any_row(
    example: Path, tmp_path: Path, command: str, rule: dict[str, str], sentence: str
) -> None:
    folder = tmp_path / "repository" / "ruled"
    texts = {"rules.py": "import no_such_library\ndef apply(batch):\n    return batch\n"}
    write_deployment(folder, files=texts, score={"pipeline": [{"rule": rule}, {"model": f"models:/{MODEL}@champion"}]})
    done = call(command, str(folder), "--json")
    assert done.exit_code == 2
    assert re.search(sentence, done.stdout + done.stderr)
    assert not (example.parent / "ruled").exists()


def test_an_overview_shows_the_others_beside_a_broken_one(example: Path) -> None:
    assert [row["error"] for row in document("status")] == [None]
    assert "error" not in call("status").stdout
    broken = example.parent / "broken"
    broken.mkdir()
    (broken / "deployment.yaml").write_text("name: broken\n", encoding="utf-8")
    found = {row["deployment"]: row for row in document("status")}
    assert "is missing" in found["broken"]["error"]
    assert (found["broken"]["owner"], found["broken"]["partitions"]) == (None, None)
    assert (found["example"]["error"], found["example"]["partitions"]) == (None, 0)
    assert "is missing" in call("status").stdout


def test_a_deployment_without_owner(example: Path) -> None:
    text = (example / "deployment.yaml").read_text("utf-8")
    lines = re.sub(r"owner:\n(  .*\n)+", "", text)
    (example / "deployment.yaml").write_text(lines, encoding="utf-8")
    done = call("run", "example", "-p", NIGHT)
    assert done.exit_code == 2
    assert re.fullmatch(r"ConfigurationError: .*deployment\.yaml:\d+: 'owner' is missing\. Add it\.\n", done.stderr)
    assert done.stdout == ""


def test_an_unknown_deployment_gets_the_nearest_name(example: Path) -> None:
    done = call("plan", "exampel", "-p", NIGHT)
    assert done.exit_code == 2
    assert "deployment 'exampel' was not found" in done.stderr
    assert "Did you mean 'example'?" in done.stderr


def test_plan_reads_footers_only(example: Path) -> None:
    found = document("plan", "example", "-p", NIGHT)
    assert (found["rows"], found["splits"], found["models"][0]["version"]) == (100, 1, 1)
    assert list(found["columns"]) == ["id", "score"]
    assert "graph digest" in call("plan", "example", "-p", NIGHT).stdout


def test_a_missing_partition_is_temporary(example: Path) -> None:
    done = call("plan", "example", "-p", "2024-03-01", "--json")
    assert done.exit_code == 75
    assert "partition '2024-03-01' is missing" in done.stderr
    error = json.loads(done.stdout)["error"]
    assert (error["type"], error["exit_code"]) == ("PartitionMissingError", 75)
    assert error["sentence"] in done.stderr


@pytest.mark.parametrize("value", ["2024-3-1", "2024-02-30", "tonight"])
def test_a_partition_that_never_comes_is_not_temporary(example: Path, value: str) -> None:
    done = call("plan", "example", "-p", value)
    assert done.exit_code == 2
    assert f"partition '{value}' cannot exist: expected a date like those of the others" in done.stderr


def test_an_input_without_partitions_is_not_temporary(example: Path) -> None:
    write_deployment(example, input={"columns": CONTRACT, "path": "${SCORING_HOME}/elsewhere"})
    done = call("plan", "example", "-p", NIGHT)
    assert done.exit_code == 2
    assert "elsewhere has no partition at all" in done.stderr


def test_no_deployments_at_all(home: Path) -> None:
    for command in ("validate", "status"):
        done = call(command)
        assert done.exit_code == 2
        assert "holds no deployment" in done.stderr


def test_without_java_spark_is_not_started(example: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scoring.java.find", lambda: None)
    done = call("run", "example", "-p", NIGHT)
    assert done.exit_code == 2
    assert re.search(r"Spark cannot start: expected Java 17 or 21 .*Install openjdk-17-jre-headless", done.stderr)


@pytest.mark.parametrize("value", ["../2024", "", "a/b", "x;y"])
def test_a_partition_cannot_leave_its_folder(example: Path, value: str) -> None:
    done = call("plan", "example", "-p", value)
    assert done.exit_code == 2
    assert "the partition is not valid" in done.stderr


@pytest.mark.spark
def test_run_then_status(example: Path) -> None:
    done = call("run", "example", "-p", NIGHT, "--json")
    assert done.exit_code == 0, done.stderr
    found = json.loads(done.stdout)
    assert (found["rows"], found["quarantined"], found["checks"]) == (100, 0, "passed")
    assert "Scoring example 2024-02-29" in done.stderr
    (row,) = document("status", "example")
    assert row.pop("rows_per_s") == pytest.approx(100 / row.pop("seconds"))
    assert row == {
        "partition": NIGHT,
        "rows": 100,
        "quarantined": 0,
        "run_id": found["run_id"],
        "model_versions": {MODEL: 1},
        "checks": "passed",
        "drift": None,
        "decision": None,
        "published_version": found["published_version"],
        "warnings": [],
    }
    (alone,) = document("status", "example", "-p", NIGHT)
    assert alone["report"]["totals"]["rows"] == 100
    assert f"artifact run/report.html of MLflow run {found['run_id']}" == found["run_report"]
    assert "loading models" in call("status", "example", "-p", NIGHT).stdout
    (overview,) = document("status")
    assert (overview["deployment"], overview["partitions"], overview["last"]) == ("example", 1, NIGHT)
    assert NIGHT in call("status", "example").stdout
    assert call("drift", "example", "-p", NIGHT).exit_code == 2


def test_deploy_installs_a_folder_whole(example: Path, tmp_path: Path) -> None:
    source = tmp_path / "repository" / "fresh"
    write_deployment(source, input={"columns": CONTRACT})
    (source / "__pycache__").mkdir()
    found = document("deploy", str(source))
    target = example.parent / "fresh"
    assert found["folder"] == str(target)
    assert found["model_versions"] == {MODEL: 1}
    assert sorted(path.name for path in target.iterdir()) == ["deployment.yaml"]
    again = document("deploy", str(source))
    assert again["digest"] == found["digest"]
    assert sorted(path.name for path in example.parent.iterdir()) == ["example", "fresh"]


def test_deploy_refuses_models_that_are_not_registered(example: Path, tmp_path: Path) -> None:
    source = tmp_path / "repository" / "fresh"
    write_deployment(source, score={"model": "models:/unheard_of@champion"})
    done = call("deploy", str(source))
    assert done.exit_code == 2
    assert "model 'unheard_of' is not registered" in done.stderr
    assert not (example.parent / "fresh").exists()


def test_deploy_refuses_a_folder_without_a_deployment(example: Path, tmp_path: Path) -> None:
    done = call("deploy", str(tmp_path))
    assert done.exit_code == 2
    assert "is not a deployment: expected a file deployment.yaml in it" in done.stderr


def test_promotion_needs_something_to_promote(example: Path) -> None:
    done = call("promote", "example", "--version", "example")
    assert done.exit_code == 2
    assert "'--version' is not valid: expected MODEL=N, got 'example'" in done.stderr
    assert call("rollback", "example").exit_code == 2
    assert call("train", "example").exit_code == 2


def test_doctor_lists_what_it_looked_at(example: Path) -> None:
    done = call("doctor", "--json")
    found = {row["name"]: row for row in json.loads(done.stdout)}
    assert {"java", "pyspark", "pandas", "home"} <= set(found)
    assert done.exit_code == (0 if all(row["ok"] for row in found.values()) else 2)
