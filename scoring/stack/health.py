"""Whether a server answers: small probes that never raise."""

from __future__ import annotations

import json
import smtplib
from http.client import HTTPException
from typing import Any
from urllib.request import ProxyHandler, build_opener

from scoring.stack.ports import LOOPBACK

PROBE_S = 5.0


def answers_http(url: str) -> bool:
    """Return whether a GET of `url` succeeds."""
    return _get(url) is not None


def answers_smtp(port: int) -> bool:
    """Return whether a mail server greets on a loopback port."""
    try:
        with smtplib.SMTP(LOOPBACK, port, timeout=PROBE_S) as server:
            return server.noop()[0] == 250
    except (OSError, smtplib.SMTPException):
        return False


def airflow_part_is_healthy(url: str, part: str) -> bool:
    """Return whether Airflow says that a part (scheduler, dag_processor, triggerer) has a fresh heartbeat."""
    content = _get(f"{url}/api/v2/monitor/health")
    if content is None:
        return False
    try:
        document: Any = json.loads(content)
        return bool(document[part]["status"] == "healthy")
    except (ValueError, KeyError, TypeError):
        return False


def _get(url: str) -> bytes | None:
    opener = build_opener(ProxyHandler({}))  # never through a proxy: all of it is on this machine
    try:
        with opener.open(url, timeout=PROBE_S) as response:
            return bytes(response.read())
    except (OSError, HTTPException):
        return None
