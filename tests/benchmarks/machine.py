"""What results depend on: machine, versions, command."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.measure import find_java
from tests.benchmarks.places import ROOT

PACKAGES = ("pyspark", "pyarrow", "mlflow", "ray", "scikit-learn", "xgboost", "torch", "numpy", "pandas", "duckdb")


def describe(arguments: Sequence[str], *, cores: int) -> dict[str, Any]:
    """Return plain data about this machine and this run."""
    found = find_java()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m tests.benchmarks", *arguments]),
        "commit": commit(),
        "cpu": cpu(),
        "cores": cores,
        "cores_of_machine": os.cpu_count(),
        "memory_gb": round(psutil.virtual_memory().total / 2**30, 1),
        "load_before": round(psutil.getloadavg()[0], 2),
        "system": platform.platform(terse=True),
        "python": sys.version.split()[0],
        "java": found.version if found else None,
        "versions": {name: installed for name in PACKAGES if (installed := installed_version(name))},
    }


def cpu() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def installed_version(name: str) -> str | None:
    """Return the installed version of a package; None if it is missing."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def commit() -> str | None:
    """Return the commit that is measured, with `+` where files were changed; None outside a checkout."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    return answer.stdout.strip() or None
