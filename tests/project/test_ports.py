"""Ports of the embedded stack: chosen by variables, refused with a sentence where taken."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator

import pytest

from scoring.errors import ConfigurationError
from scoring.stack.ports import Ports, is_free


@pytest.fixture
def taken() -> Iterator[int]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        yield listening.getsockname()[1]


def test_ports_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORING_AIRFLOW_PORT", "18080")
    assert Ports.from_environment() == Ports(airflow=18080, mlflow=5000, smtp=1025)


@pytest.mark.parametrize("text", ["http", "0", "65536", "-1", "80 80", "८०"])
def test_what_is_not_a_port_is_refused_by_the_variables_name(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SCORING_MLFLOW_PORT", text)
    with pytest.raises(ConfigurationError, match=r"SCORING_MLFLOW_PORT: expected a port from 1 to 65535, got '"):
        Ports.from_environment()


def test_a_taken_port_says_who_has_it_and_what_to_set(taken: int) -> None:
    sentence = rf"port {taken} for mlflow is taken: .* process {os.getpid()}\)\. .*SCORING_MLFLOW_PORT={taken + 1}"
    with pytest.raises(ConfigurationError, match=sentence.replace(" process", r" \(process")):
        Ports(airflow=Ports.free().airflow, mlflow=taken).check_free()


def test_free_ports_are_free_and_differ() -> None:
    ports = Ports.free()
    numbers = [port for _, port in ports.named().values()]
    assert len(set(numbers)) == 3
    assert all(is_free(port) for port in numbers)
