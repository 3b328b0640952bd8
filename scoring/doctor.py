"""Finds the known traps of this machine and environment, and says how to mend each.

Every check is a pure function over facts; `diagnose` gathers the facts. Nothing heavy is imported: versions are read
from the installed packages' metadata.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import sys
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from scoring import java, settings
from scoring.errors import ScoringError, listed
from scoring.stack import processes
from scoring.stack.health import answers_http
from scoring.stack.ports import Ports, is_free, listener

PYTHONS: Final = ((3, 11), (3, 12))
SPARK_VERSION: Final = "4.2.0"
PLUGIN_FILE: Final = "scoring_plugin.py"
LEAST_FREE_GIB: Final = 2.0
INSTALL: Final = "Run `make venv`, or pip install with constraints.txt."


@dataclass(frozen=True, slots=True)
class Finding:
    """One check and what it found."""

    name: str
    ok: bool
    found: str
    """What is the case."""
    mend: str = ""
    """What to do; empty where nothing has to be done."""


@dataclass(frozen=True, slots=True)
class Range:
    """The versions of a distribution that work, and why others do not."""

    distribution: str
    least: tuple[int, ...]
    below: tuple[int, ...]
    reason: str


RANGES: Final = (
    Range("numpy", (2,), (3,), "the models are kept with numpy 2's types"),
    Range("pandas", (2, 3), (3,), "Evidently 0.7 cannot be imported with pandas 3"),
    Range("evidently", (0, 7, 23), (0, 8), "the drift reports are read in 0.7's form"),
    Range("great-expectations", (1, 24), (2,), "the suites are written for GX Core 1"),
    Range("apache-airflow", (3, 3, 2), (3, 4), "the plugin uses Airflow 3.3's interfaces"),
)


def diagnose() -> tuple[Finding, ...]:
    """Look at this machine; takes about a second."""
    given = settings.variables()
    versions = installed_versions()
    home = settings.home()
    return (
        check_python(sys.version_info[:2]),
        check_java(tuple(java.installed())),
        check_pyspark(versions),
        check_pyspark_files(*pyspark_files()),
        check_worker_python(given, sys.executable, python_version=sys.version_info[:2]),
        *(check_range(one, versions) for one in RANGES),
        check_expectations_provider(versions),
        *_stack_findings(home),
        check_home(home),
        check_store(settings.tracking_uri(), answers=answers_http),
        check_plugins(_plugins_folder(given)),
        check_execution_api(given),
    )


def installed_versions() -> Mapping[str, str]:
    """Return distribution name to version, for those that the checks know."""
    names = ("pyspark", "pyspark-client", "airflow-provider-great-expectations", *(one.distribution for one in RANGES))
    found = {}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def pyspark_files() -> tuple[str | None, tuple[str, ...]]:
    """Return the release that pyspark's own files state, and which of its Python files are gone."""
    spec = find_spec("pyspark")
    if spec is None or spec.origin is None:
        return None, ()
    stated = Path(spec.origin).with_name("version.py")
    version = (
        re.search(r"^__version__.*['\"](.+)['\"]", stated.read_text(encoding="utf-8")) if stated.exists() else None
    )
    try:
        files = metadata.files("pyspark") or []
    except metadata.PackageNotFoundError:
        files = []
    missing = tuple(str(file) for file in files if file.suffix == ".py" and not Path(str(file.locate())).exists())
    return (version[1] if version else None), missing


# ------------------------------------------------------------------------------------------------ Python and packages


def check_python(version: Sequence[int]) -> Finding:
    """Python 3.11 or 3.12."""
    text = ".".join(str(part) for part in version)
    if tuple(version) in PYTHONS:
        return Finding("python", ok=True, found=text)
    return Finding(
        "python", ok=False, found=text, mend="Use Python 3.11 or 3.12: make PYTHON=/path/to/python3.11 venv."
    )


def check_java(javas: Sequence[java.Java]) -> Finding:
    """A Java 17 or 21 that has the module Spark 4.2 needs."""
    usable = next((one for one in javas if one.is_usable), None)
    if usable is not None:
        return Finding("java", ok=True, found=f"{usable.version} in {usable.home}")
    return Finding("java", ok=False, found=java.described(javas), mend=java.ADVICE)


def check_pyspark(versions: Mapping[str, str]) -> Finding:
    """One release of pyspark and pyspark-client, which share a folder: the last one installed overwrites the other."""
    pyspark, client = versions.get("pyspark"), versions.get("pyspark-client")
    found = f"pyspark {pyspark or 'missing'}, pyspark-client {client or 'missing'}"
    if pyspark == SPARK_VERSION and client in {None, SPARK_VERSION}:
        return Finding("pyspark", ok=True, found=found)
    together = f"pyspark=={SPARK_VERSION} pyspark-client=={SPARK_VERSION}"
    mend = f"They overwrite each other's files: pip uninstall -y pyspark pyspark-client && pip install {together}."
    return Finding("pyspark", ok=False, found=found, mend=mend)


def check_pyspark_files(version: str | None, missing: Sequence[str]) -> Finding:
    """The shared folder is whole and of the right release, whatever the packages' metadata say."""
    name = "pyspark files"
    if version == SPARK_VERSION and not missing:
        return Finding(name, ok=True, found=f"all of {version}")
    lost = f", without {listed(missing)}" if missing else ""
    again = f"pip install --force-reinstall --no-deps pyspark=={SPARK_VERSION} pyspark-client=={SPARK_VERSION}"
    return Finding(
        name, ok=False, found=f"files of {version or 'no release'}{lost}", mend=f"Install both again: {again}."
    )


def check_worker_python(environment: Mapping[str, str], executable: str, *, python_version: Sequence[int]) -> Finding:
    """Spark's workers must run this Python; without a word they take `python3` from the PATH."""
    named = environment.get("PYSPARK_PYTHON")
    if named is None:
        return Finding("worker python", ok=True, found=f"PYSPARK_PYTHON is not set; jobs set it to {executable}")
    resolved = shutil.which(named, path=environment.get("PATH"))
    if resolved is not None and _same_environment(resolved, executable):
        return Finding("worker python", ok=True, found=named)
    version = ".".join(str(part) for part in python_version)
    mend = f"Unset PYSPARK_PYTHON or set it to {executable}: workers need this Python {version} with its packages."
    return Finding("worker python", ok=False, found=f"PYSPARK_PYTHON={named}", mend=mend)


def check_range(wanted: Range, versions: Mapping[str, str]) -> Finding:
    """An installed distribution whose version is known to work."""
    version = versions.get(wanted.distribution)
    least, below = (".".join(str(part) for part in bound) for bound in (wanted.least, wanted.below))
    if version is None:
        mend = f"{wanted.distribution} >={least},<{below} is needed. {INSTALL}"
        return Finding(wanted.distribution, ok=False, found="not installed", mend=mend)
    if wanted.least <= _release(version) < wanted.below:
        return Finding(wanted.distribution, ok=True, found=version)
    mend = f"Install {wanted.distribution} >={least},<{below}: {wanted.reason}. {INSTALL}"
    return Finding(wanted.distribution, ok=False, found=version, mend=mend)


def check_expectations_provider(versions: Mapping[str, str]) -> Finding:
    """No airflow-provider-great-expectations, whose requirements contradict Airflow 3.3's."""
    name = "airflow-provider-great-expectations"
    if name not in versions:
        return Finding("expectations provider", ok=True, found=f"{name} is not installed")
    mend = f"It needs a structlog that Airflow 3.3 cannot use: pip uninstall -y {name}. {INSTALL}"
    return Finding("expectations provider", ok=False, found=f"{name} {versions[name]}", mend=mend)


# ------------------------------------------------------------------------------------------------------------- stack


def check_ports(
    ports: Ports, *, ours: Collection[int], is_free: Callable[[int], bool] = is_free
) -> tuple[Finding, ...]:
    """Ports that are free, or used by our own running stack."""
    findings = []
    for server, (variable, port) in ports.named().items():
        name = f"port of {server}"
        if port in ours:
            findings.append(Finding(name, ok=True, found=f"{port}, used by the running stack"))
        elif is_free(port):
            findings.append(Finding(name, ok=True, found=f"{port} is free"))
        else:
            found = f"{port} is used by {listener(port) or 'another program'}"
            findings.append(Finding(name, ok=False, found=found, mend=f"Stop it, or set {variable} to a free port."))
    return tuple(findings)


def check_home(home: Path) -> Finding:
    """A folder for all state that can be written and has room."""
    existing = next(folder for folder in (home, *home.parents) if folder.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        mend = f"Make it writable, or set {settings.HOME_VARIABLE} to another folder."
        return Finding("home", ok=False, found=f"{existing} cannot be written", mend=mend)
    free_gib = shutil.disk_usage(existing).free / 2**30
    found = f"{home}, {free_gib:.1f} GiB free"
    if free_gib < LEAST_FREE_GIB:
        mend = f"Free {LEAST_FREE_GIB:.0f} GiB, or set {settings.HOME_VARIABLE} to a folder on a larger disk."
        return Finding("home", ok=False, found=found, mend=mend)
    return Finding("home", ok=True, found=found)


def check_store(uri: str, *, answers: Callable[[str], bool]) -> Finding:
    """An MLflow store that answers."""
    name = "mlflow store"
    if uri.startswith(("http://", "https://")):
        if answers(f"{uri.rstrip('/')}/health"):
            return Finding(name, ok=True, found=uri)
        mend = f"Start the server, or unset {settings.TRACKING_VARIABLE} to use SQLite under {settings.HOME_VARIABLE}."
        return Finding(name, ok=False, found=f"no answer from {uri}", mend=mend)
    if not uri.startswith("sqlite:///"):
        return Finding(name, ok=True, found=f"{uri.partition('://')[0]} store, asked at first use")
    database = Path(uri.removeprefix("sqlite:///"))
    if not database.exists():
        return Finding(name, ok=True, found=f"{uri}, made at first use")
    try:
        with closing(sqlite3.connect(f"{database.as_uri()}?mode=ro", uri=True, timeout=2)) as connection:
            runs = connection.execute("SELECT count(*) FROM runs").fetchone()[0]
    except sqlite3.Error as error:
        mend = f"Move {database} away to start with an empty store, or restore it from a copy."
        return Finding(name, ok=False, found=f"{uri}: {error}", mend=mend)
    return Finding(name, ok=True, found=f"{uri}, {runs} runs")


# ----------------------------------------------------------------------------------------------------------- Airflow


def check_plugins(folder: Path) -> Finding:
    """One loadable file: Airflow runs every other one under its bare name, in place of a module of that name."""
    name = "airflow plugins"
    if not folder.is_dir():
        return Finding(
            name, ok=False, found=f"{folder} is missing", mend="Set AIRFLOW__CORE__PLUGINS_FOLDER to our plugins/."
        )
    others = sorted(file.name for file in folder.glob("*.py") if file.name != PLUGIN_FILE)
    shadowing = [file for file in others if file.removesuffix(".py") in sys.stdlib_module_names]
    if shadowing:
        mend = f"Airflow loads them instead of Python's own modules: move {listed(shadowing)} into a package."
        return Finding(name, ok=False, found=f"{listed(shadowing)} in {folder}", mend=mend)
    if others:
        mend = f"Airflow runs each of them as a plugin under its bare name: move {listed(others)} into a package."
        return Finding(name, ok=False, found=f"{listed(others)} in {folder}", mend=mend)
    if not (folder / PLUGIN_FILE).exists():
        return Finding(
            name, ok=False, found=f"no {PLUGIN_FILE} in {folder}", mend="Airflow shows no links and no page without it."
        )
    return Finding(name, ok=True, found=str(folder))


def check_execution_api(environment: Mapping[str, str]) -> Finding:
    """Tasks report to the port on which the API server listens."""
    name = "execution api"
    port = environment.get("AIRFLOW__API__PORT", "8080")
    address = environment.get("AIRFLOW__CORE__EXECUTION_API_SERVER_URL")
    if address is None and port == "8080":
        return Finding(name, ok=True, found="Airflow's usual port")
    if address is not None and _port_of(address) == port:
        return Finding(name, ok=True, found=address)
    if address is not None and "AIRFLOW__API__PORT" not in environment:
        return Finding(name, ok=True, found=f"{address}, a server elsewhere")
    mend = (
        f"Set AIRFLOW__CORE__EXECUTION_API_SERVER_URL=http://127.0.0.1:{port}/execution/, "
        "else Airflow kills every task after ten seconds."
    )
    return Finding(name, ok=False, found=f"API on port {port}, tasks report to {address or 'port 8080'}", mend=mend)


def _stack_findings(home: Path) -> Iterable[Finding]:
    try:
        record = processes.load(home / "stack.json")
        ports = Ports.from_environment()
    except ScoringError as error:
        return (Finding("ports", ok=False, found=error.what, mend=str(error)),)
    running = record is not None and record.running()
    ours = {port for _, port in record.ports.named().values()} if record is not None and running else set()
    return check_ports(ports, ours=ours)


def _plugins_folder(environment: Mapping[str, str]) -> Path:
    named = environment.get("AIRFLOW__CORE__PLUGINS_FOLDER")
    return Path(named) if named else Path(__file__).resolve().parent.parent / "plugins"


def _same_environment(one: str, other: str) -> bool:
    # A virtual environment's python is a link to the system's: the folders tell them apart, the files do not.
    return Path(one).parent.resolve() == Path(other).parent.resolve()


def _release(version: str) -> tuple[int, ...]:
    numbers = []
    for part in version.split("."):
        if not part.isdigit():
            break
        numbers.append(int(part))
    return tuple(numbers)


def _port_of(address: str) -> str:
    try:
        port = urlsplit(address).port
    except ValueError:
        return ""
    return str(port) if port is not None else ("443" if address.startswith("https:") else "80")
