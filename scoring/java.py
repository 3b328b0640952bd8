"""Finds a Java that Spark can use: release 17 or 21 with the module `jdk.incubator.vector`."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from scoring import settings

RELEASES: Final = (17, 21)
MODULE: Final = "jdk.incubator.vector"
ADVICE: Final = (
    "Install openjdk-17-jre-headless (Debian, Ubuntu), java-17-openjdk-headless (Fedora) or openjdk@17 (Homebrew), "
    "or set JAVA_HOME."
)
LOGGING_OPTION: Final = (
    f"-Dlog4j2.configurationFile={Path(__file__).with_name('spark').joinpath('log4j2.properties').as_uri()}"
)
"""Option of the driver's Java: Spark logs some hundred INFO lines for a small job, and a job's log is for the job."""
CONTROL_OPTIONS: Final = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
"""Options of a Java that touches no rows: optimising its code for long use costs more than all that it does."""
FOLDERS: Final = ("/usr/lib/jvm", "/Library/Java/JavaVirtualMachines")


def driver_options(*, reads_rows: bool) -> str:
    """Return the options of the driver's Java; in local mode it is the executors' too.

    Args:
        reads_rows: whether Spark itself reads the input, as for a query; files are read by the Python workers.
    """
    return LOGGING_OPTION if reads_rows else f"{LOGGING_OPTION} {CONTROL_OPTIONS}"


@dataclass(frozen=True, slots=True)
class Java:
    """One installed Java."""

    home: Path
    version: str
    """As in `17.0.18`."""
    has_vector_module: bool

    @property
    def is_usable(self) -> bool:
        """Whether Spark runs on it."""
        return int(self.version.split(".")[0]) in RELEASES and self.has_vector_module


def find() -> Java | None:
    """Return the first usable Java of `$JAVA_HOME`, the PATH and the usual folders."""
    return next((java for java in installed() if java.is_usable), None)


def installed() -> Iterator[Java]:
    """Yield every Java found on this machine, in the order in which Spark would look, then the usual folders."""
    seen: set[Path] = set()
    for home in _homes():
        resolved = home.resolve()
        if resolved not in seen and (java := inspect(resolved)) is not None:
            yield java
        seen.add(resolved)


def inspect(home: Path) -> Java | None:
    """Ask the Java in `home` what it is; None if there is none that runs."""
    try:
        command = [str(home / "bin" / "java"), "--list-modules"]
        answer = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    version = re.search(r"^java\.base@(\S+)", answer, re.MULTILINE)
    has_vector_module = re.search(rf"^{re.escape(MODULE)}(@|$)", answer, re.MULTILINE) is not None
    return Java(home, version[1], has_vector_module) if version else None


def described(javas: Sequence[Java]) -> str:
    """Return what was found as `17.0.15 in /usr/lib/jvm/...`, for sentences."""
    return (
        ", ".join(
            f"{java.version} in {java.home}" + ("" if java.has_vector_module else f" without {MODULE}")
            for java in javas
        )
        or "none"
    )


def missing() -> str:
    """Return the sentence for a machine without a usable Java."""
    expected = f"expected release 17 or 21 with the module {MODULE}"
    return f"Java was not found: {expected}, got {described(tuple(installed()))}. {ADVICE}"


def _homes() -> Iterator[Path]:
    if named := settings.variables().get("JAVA_HOME"):
        yield Path(named)
    if on_path := shutil.which("java"):
        yield Path(on_path).resolve().parent.parent
    for folder in FOLDERS:
        for home in sorted(Path(folder).glob("*")):
            yield home / "Contents" / "Home" if (home / "Contents").is_dir() else home
