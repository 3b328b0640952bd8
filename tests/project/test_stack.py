"""The real embedded stack: started once on free ports, used, stopped."""

from __future__ import annotations

import json
import smtplib
import socket
import stat
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import psutil
import pytest

from scoring import settings
from scoring.errors import ConfigurationError, TransientError
from scoring.runs import RunStore
from scoring.stack import Ports, Stack, embedded, environment, processes
from scoring.stack.environment import PROJECT

SERVERS = ("smtp", "mlflow", "api-server", "scheduler", "dag-processor", "triggerer")
DEADLINE_S = 30


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    said: list[str] = []
    with Stack(tmp_path_factory.mktemp("home"), Ports.free(), report=said.append) as stack:
        assert {line.split(" is ready")[0] for line in said if " is ready (" in line} == {*SERVERS, "airflow-db"}
        yield stack
    assert stack.running() == ()


def get(url: str, headers: dict[str, str] | None = None) -> Any:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as response:
        return json.load(response)


def log_in(stack: Stack, password: str) -> str:
    body = json.dumps({"username": stack.username, "password": password}).encode()
    request = urllib.request.Request(f"{stack.airflow_url}/auth/token", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as response:
        token: str = json.load(response)["access_token"]
    return token


def command(stack: Stack, verb: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "scoring.stack", verb],
        env={**settings.variables(), settings.HOME_VARIABLE: str(stack.home)},
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.stack
def test_every_server_runs_and_answers(stack: Stack) -> None:
    assert stack.running() == SERVERS
    health = get(f"{stack.airflow_url}/api/v2/monitor/health")
    assert {part["status"] for part in health.values()} == {"healthy"}
    with urllib.request.urlopen(stack.mlflow_url, timeout=10) as page:
        assert b"MLflow" in page.read()


@pytest.mark.stack
def test_airflow_asks_for_the_generated_password(stack: Stack) -> None:
    token = log_in(stack, stack.password)
    dags = get(f"{stack.airflow_url}/api/v2/dags", {"Authorization": f"Bearer {token}"})
    assert not any(dag["dag_id"].startswith("example") for dag in dags["dags"])
    with pytest.raises(urllib.error.HTTPError, match="401"):
        log_in(stack, "not the password").close()
    with pytest.raises(urllib.error.HTTPError, match="401"):
        get(f"{stack.airflow_url}/api/v2/dags")


@pytest.mark.stack
def test_nothing_listens_beyond_loopback(stack: Stack) -> None:
    record = processes.load(stack.record_file)
    assert record is not None
    parents = [psutil.Process(server.pid) for server in record.servers]
    family = {process for parent in parents for process in (parent, *parent.children(recursive=True))}
    listening = {
        (connection.laddr.ip, connection.laddr.port)
        for process in family
        for connection in process.net_connections("inet")
        if connection.status == psutil.CONN_LISTEN
    }
    assert listening == {("127.0.0.1", port) for _, port in stack.ports.named().values()}


@pytest.mark.stack
def test_a_mail_is_kept_as_it_was_sent(stack: Stack) -> None:
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "scoring@localhost", "flight-data@example.com", "Grüße von der Nacht"
    mail.set_content("Drift in distance: 0.4.\n.\nA line with a single dot ends no mail.\n")
    before = set(stack.mails_folder.glob("*.eml"))
    with smtplib.SMTP("127.0.0.1", stack.smtp_port, timeout=10) as server:
        server.send_message(mail)
    (kept,) = set(stack.mails_folder.glob("*.eml")) - before
    assert kept.read_bytes().replace(b"\r\n", b"\n").rstrip() == mail.as_bytes().rstrip()
    assert not list(stack.mails_folder.glob("*.part"))


@pytest.mark.stack
def test_mlflows_server_shows_what_a_task_records(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(settings.HOME_VARIABLE, str(stack.home))
    monkeypatch.setenv(settings.TRACKING_VARIABLE, stack.environment()[settings.TRACKING_VARIABLE])
    store = RunStore()
    run_id = store.start("flight_delays", "2013-02-03")
    store.put(run_id, "drift/report.html", "<p>drift</p>")
    found = get(f"{stack.mlflow_url}/api/2.0/mlflow/runs/get?run_id={run_id}")
    assert found["run"]["info"]["artifact_uri"].startswith((stack.home / "artifacts").as_uri())
    address = f"{stack.mlflow_url}/get-artifact?run_uuid={run_id}&path=drift/report.html"
    with urllib.request.urlopen(address, timeout=10) as page:
        assert page.read() == b"<p>drift</p>"


@pytest.mark.stack
def test_a_second_start_is_refused_and_up_says_that_it_runs(stack: Stack) -> None:
    with pytest.raises(ConfigurationError, match=r"already running: expected none, got smtp, mlflow, .* `make down`"):
        Stack(stack.home, Ports.free()).start()
    up = command(stack, "up")
    assert (up.returncode, up.stderr) == (0, "the stack is already running\n")
    assert stack.airflow_url in up.stdout
    assert stack.password in up.stdout
    status = command(stack, "status")
    assert status.stdout.startswith(f"running: {', '.join(SERVERS)}\n")


@pytest.mark.stack
def test_secrets_are_for_their_owner_only(stack: Stack) -> None:
    for name in ("secrets.json", "passwords.json"):
        assert stat.S_IMODE((stack.home / "airflow" / name).stat().st_mode) == 0o600


def test_down_where_nothing_runs_is_fine(tmp_path: Path) -> None:
    down = command(Stack(tmp_path, Ports.free()), "down")
    assert (down.returncode, down.stdout) == (0, "nothing was running\n")


def test_an_unknown_command_shows_the_usage(tmp_path: Path) -> None:
    wrong = command(Stack(tmp_path, Ports.free()), "restart")
    assert (wrong.returncode, wrong.stderr) == (2, "usage: python -m scoring.stack up|down|status\n")


def test_a_taken_port_starts_nothing(tmp_path: Path) -> None:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        ports = Ports(smtp=listening.getsockname()[1], airflow=Ports.free().airflow, mlflow=Ports.free().mlflow)
        with pytest.raises(ConfigurationError, match=r"port \d+ for smtp is taken.*SCORING_SMTP_PORT="):
            Stack(tmp_path, ports).start()
    assert list(tmp_path.iterdir()) == []


def test_a_server_that_ends_stops_the_others_and_shows_its_last_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = (sys.executable, "-c", "raise SystemExit('the database is from the future')")
    monkeypatch.setattr(Stack, "_migration", lambda _: embedded.Server("airflow-db", broken, lambda: False))
    stack = Stack(tmp_path, Ports.free(), report=lambda _: None)
    with pytest.raises(TransientError, match=r"(?s)airflow-db did not start: .*exit code 1\..*from the future"):
        stack.start()
    assert stack.running() == ()
    deadline = time.monotonic() + DEADLINE_S
    while any(str(tmp_path) in " ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_the_environment_keeps_the_callers_variables_and_sends_everything_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GREETING", "hello")
    monkeypatch.setenv("NO_PROXY", "example.com")
    monkeypatch.setenv("AIRFLOW__CORE__EXECUTOR", "CeleryExecutor")
    variables = environment(tmp_path, Ports(airflow=18080, mlflow=15000, smtp=11025))
    assert variables["GREETING"] == "hello"
    assert variables["NO_PROXY"] == "example.com,127.0.0.1,localhost"
    assert variables["AIRFLOW__CORE__EXECUTOR"] == "LocalExecutor"
    assert variables["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:18080/execution/"
    assert variables["PYSPARK_PYTHON"] == sys.executable
    assert variables["MLFLOW_TRACKING_URI"] == f"sqlite:///{tmp_path}/mlflow.db"
    assert json.loads(variables["AIRFLOW_CONN_SMTP_DEFAULT"])["port"] == 11025
    assert json.loads(variables["AIRFLOW_CONN_SPARK_DEFAULT"])["host"] == "local[*]"


def test_secrets_stay_the_same_for_one_home_and_differ_between_homes(tmp_path: Path) -> None:
    ports = Ports()
    one, again, other = (environment(tmp_path / name, ports) for name in ("a", "a", "b"))
    secret = [f"AIRFLOW__{name}" for name in ("API__SECRET_KEY", "API_AUTH__JWT_SECRET", "CORE__FERNET_KEY")]
    assert [one[name] for name in secret] == [again[name] for name in secret]
    assert not {one[name] for name in secret} & {other[name] for name in secret}
