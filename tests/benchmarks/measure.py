"""Runs one way of one case in a process of its own, watches its memory, and checks what it wrote."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import psutil

from scoring import java, settings
from tests.benchmarks.cases import Case, Way
from tests.benchmarks.places import ROOT, Places

TIMEOUT_S = 1_800.0
SAMPLE_EVERY_S = 0.25
"""Seldom, since looking takes CPU from what is measured, and the kernel remembers maxima."""


class WayError(Exception):
    """A way failed, or predicted something else; one sentence."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One scoring."""

    seconds: float
    peak_rss_mb: float
    details: Mapping[str, float]


def measure(case: Case, way: Way, places: Places, *, cores: int, scale: float) -> Measurement:
    """Run a way once.

    Raises:
        WayError: the process failed.
    """
    shutil.rmtree(places.output(case, way), ignore_errors=True)
    places.output(case, way).mkdir(parents=True)
    log = places.log(case, way)
    log.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        command = [sys.executable, "-m", "tests.benchmarks.process", case.name, way, str(cores), str(scale)]
        with log.open("w") as handle:
            process = subprocess.Popen(
                [*command, str(result)], cwd=ROOT, env=environment(way, cores, places), stdout=handle, stderr=handle
            )
            peak_rss_mb = watch(process)
        if process.returncode != 0 or not result.exists():
            raise WayError(f"{way} of case {case.name} ended with exit code {process.returncode}: {last_words(log)}")
        document = json.loads(result.read_text())
    return Measurement(document["seconds"], peak_rss_mb, document["details"])


def environment(way: Way, cores: int, places: Places) -> dict[str, str]:
    """Return the variables of a process: native libraries use all cores in one process, else one in each."""
    # Without bytecode every process compiles all that it imports, which is seconds for some ways.
    forgotten = ("PYTHONDONTWRITEBYTECODE", "SPARK_HOME", "SPARK_CONF_DIR", settings.SPARK_MASTER_VARIABLE)
    found = find_java()
    return {
        **{name: value for name, value in os.environ.items() if name not in forgotten},
        **({"JAVA_HOME": str(found.home)} if found else {}),
        settings.HOME_VARIABLE: str(settings.home()),
        settings.DEPLOYMENTS_VARIABLE: str(places.deployments),
        "MIMALLOC_ALLOW_THP": "0",  # as our workers have it; it makes the limit's short runs faster, too
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "OMP_NUM_THREADS": str(cores if way is Way.LIMIT else 1),
        "PYSPARK_PYTHON": sys.executable,
        "PYTHONPATH": str(ROOT),
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",  # else Ray listens on the machine's address, not on loopback
        "RAY_USAGE_STATS_ENABLED": "0",
        "SPARK_LOCAL_IP": "127.0.0.1",
    }


@cache
def find_java() -> java.Java | None:
    """Return a Java for Spark, looked for once."""
    return java.find()


def watch(process: subprocess.Popen[bytes]) -> float:
    """Wait for the end of a process; return the largest resident size that one Python process of its tree reached."""
    root, peak, deadline = psutil.Process(process.pid), 0.0, time.monotonic() + TIMEOUT_S
    pythons: dict[psutil.Process, bool] = {}
    try:
        while process.poll() is None and time.monotonic() < deadline:
            for found in tree(root):
                with suppress(psutil.Error, OSError):
                    # Until a process has replaced itself by Java, it counts as what it was.
                    if not pythons.get(found):
                        pythons[found] = Path(found.exe()).name.startswith("python")
                    if pythons[found]:
                        peak = max(peak, peak_rss_bytes(found) / 2**20)
            with suppress(subprocess.TimeoutExpired):
                process.wait(SAMPLE_EVERY_S)
    finally:
        # What it started may outlive it, and would disturb the next measurement.
        for found in {*tree(root), *pythons}:
            with suppress(psutil.Error):
                found.kill()
        process.wait()
    return round(peak, 1)


def tree(root: psutil.Process) -> list[psutil.Process]:
    """Return a process and all that it started."""
    try:
        return [root, *root.children(recursive=True)]
    except psutil.Error:
        return []


def peak_rss_bytes(process: psutil.Process) -> int:
    """Return the largest resident size so far: as Linux counted it, else the size at this moment."""
    with suppress(OSError, AttributeError):
        status = Path(f"/proc/{process.pid}/status").read_text()
        if found := re.search(r"^VmHWM:\s+(\d+) kB", status, re.MULTILINE):
            return int(found[1]) * 1024
    return int(process.memory_info().rss)


def last_words(log: Path) -> str:
    """Return the line of a log that says best what went wrong."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
    return (errors or lines or ["it said nothing"])[-1][:300]
