"""Processes are stopped by identity, with all they had started, and never someone else's."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from scoring.errors import ConfigurationError
from scoring.stack import processes
from scoring.stack.ports import Ports
from scoring.stack.processes import Record, ServerProcess

DEADLINE_S = 20
SLEEP = "import time; time.sleep(600)"
WITH_A_CHILD = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); time.sleep(600)"
STUBBORN = (
    "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[str], ServerProcess]]:
    started = []

    def run(code: str) -> ServerProcess:
        server, popen = processes.start(
            "test", [sys.executable, "-c", code], environment={}, folder=tmp_path, log=tmp_path / "test.log"
        )
        started.append(popen)
        return server

    yield run
    for popen in started:
        popen.kill()
        popen.wait()


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_process_is_found_until_it_is_stopped(start: Callable[[str], ServerProcess]) -> None:
    server = start(SLEEP)
    assert server.find() is not None
    processes.stop([server])
    assert server.find() is None


def test_children_are_stopped_too(start: Callable[[str], ServerProcess]) -> None:
    server = start(WITH_A_CHILD)
    until(lambda: psutil.Process(server.pid).children())
    (child,) = psutil.Process(server.pid).children()
    processes.stop([server])
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_who_does_not_listen_is_killed(
    start: Callable[[str], ServerProcess], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "GRACE_S", 1)
    server = start(STUBBORN)
    until(lambda: (tmp_path / "test.log").read_text() == "deaf\n")
    processes.stop([server])
    assert server.find() is None


def test_a_process_id_that_now_belongs_to_another_program_is_left_alone(start: Callable[[str], ServerProcess]) -> None:
    server = start(SLEEP)
    earlier = replace(server, started=server.started - 60)
    assert earlier.find() is None
    processes.stop([earlier])
    assert server.find() is not None


def test_stopping_what_is_gone_does_nothing(start: Callable[[str], ServerProcess]) -> None:
    server = start("")
    until(lambda: server.find() is None)
    processes.stop([server])


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    record = Record(Ports(1, 2, 3), (ServerProcess("mlflow", 12, 3.5),))
    record.save(tmp_path / "stack.json")
    assert processes.load(tmp_path / "stack.json") == record
    assert [file.name for file in tmp_path.iterdir()] == ["stack.json"]


def test_without_a_record_nothing_was_started(tmp_path: Path) -> None:
    assert processes.load(tmp_path / "stack.json") is None


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("{", r"expected a JSON document with ports and servers, got JSONDecodeError"),
        ('{"format_version": 1}', r"got KeyError"),
        ('{"format_version": 1, "ports": {"nntp": 119}, "servers": []}', r"got TypeError"),
        (json.dumps({"format_version": 2}), r"expected format_version 1, got 2"),
    ],
)
def test_a_damaged_or_foreign_record_gives_one_sentence(content: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "stack.json").write_text(content)
    with pytest.raises(ConfigurationError, match=sentence):
        processes.load(tmp_path / "stack.json")
