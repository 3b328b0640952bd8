"""The project's own files agree with each other and with what is installed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
BIN = Path(sys.executable).parent
HEAVY = (
    *("airflow", "catboost", "evidently", "great_expectations", "keras", "lightgbm", "matplotlib", "mlflow"),
    *("onnxruntime", "pandas", "pyspark", "safetensors", "sklearn", "skops", "tensorflow", "torch", "xgboost"),
)


@pytest.fixture(scope="module")
def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def requirements(project: dict[str, Any]) -> list[Requirement]:
    extras = project["optional-dependencies"].values()
    found = [Requirement(text) for text in (*project["dependencies"], *(one for extra in extras for one in extra))]
    return [one for one in found if one.name != project["name"]]


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pairs = [line.split("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, version in pairs}


def test_every_requirement_is_pinned_within_its_range(project: dict[str, Any]) -> None:
    pinned = pins()
    wrong = [
        str(one)
        for one in requirements(project)
        if not one.specifier.contains(pinned.get(canonicalize_name(one.name), "0"))
    ]
    assert wrong == []


def test_constraints_are_plain_pins_without_a_host() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9._]+", line)] == []
    assert lines == sorted(set(lines), key=str.lower)


def test_what_is_installed_is_what_was_pinned() -> None:
    installed: dict[str, str] = {}
    for one in metadata.distributions():
        # The first one on the path is imported; setuptools, once imported, appends copies of its own.
        installed.setdefault(canonicalize_name(one.name), Version(one.version).public)
    differing = {
        name: (version, installed[name]) for name, version in pins().items() if installed.get(name, version) != version
    }
    assert differing == {}


def test_ranges_have_an_upper_bound_and_every_dependency_its_reason(project: dict[str, Any]) -> None:
    runtime = [Requirement(text) for text in project["dependencies"]]
    assert [str(one) for one in runtime if "<" not in str(one.specifier)] == []
    pattern = r'    "[a-z0-9-]+(\[[a-z0-9,-]+\])?[>=]='
    lines = [line for line in (ROOT / "pyproject.toml").read_text().splitlines() if re.match(pattern, line)]
    assert len(lines) >= len(requirements(project))
    assert [line for line in lines if "  # " not in line and ", # " not in line] == []


def test_all_holds_every_extra_of_the_demo(project: dict[str, Any]) -> None:
    (text,) = project["optional-dependencies"]["all"]
    assert Requirement(text).extras == set(project["optional-dependencies"]) - {
        *("all", "bench", "cluster", "dev"),
        *("catboost", "frameworks", "lightgbm", "onnx", "tensorflow"),  # the demo's models are of other frameworks
    }


def test_only_scoring_is_packaged() -> None:
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    assert tool["setuptools"]["packages"]["find"]["include"] == ["scoring", "scoring.*"]


def test_importing_scoring_imports_nothing_heavy() -> None:
    modules = ("scoring", "scoring.errors", "scoring.settings", "scoring.deployment", "scoring.runs", "scoring.stack")
    code = f"import sys, {', '.join(modules)}; print(sorted(set(sys.modules) & set({HEAVY!r})))"
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout == "[]\n"


def test_imports_point_one_way() -> None:
    environment = {**os.environ, "PYTHONPATH": "plugins"}
    command = [str(BIN / "lint-imports"), "--no-cache"]
    answer = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stdout
    assert re.search(r"Contracts: \d+ kept, 0 broken\.", answer.stdout)


def test_a_broken_direction_is_seen_inside_functions_too(tmp_path: Path) -> None:
    for name in ("scoring", "jobs", "dags", "plugins"):
        (tmp_path / name).symlink_to(ROOT / name)
    (tmp_path / "scoring").unlink()
    (tmp_path / "scoring").mkdir()
    for entry in (ROOT / "scoring").iterdir():
        (tmp_path / "scoring" / entry.name).symlink_to(entry)
    (tmp_path / "scoring" / "intruder.py").write_text("def work():\n    from airflow.sdk import DAG\n    return DAG\n")
    (tmp_path / "pyproject.toml").symlink_to(ROOT / "pyproject.toml")
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{tmp_path / 'plugins'}"}
    command = [str(BIN / "lint-imports"), "--no-cache", "--contract", "library"]
    answer = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 1
    assert "scoring.intruder -> airflow" in answer.stdout


def test_make_help_lists_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text()
    phony = set(re.findall(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)[0].split())
    answer = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert set(re.findall(r"^make ([a-z-]+) ", answer.stdout, re.MULTILINE)) == phony
    assert phony >= {"demo", "test", "lint", "up", "down"}


def test_ci_runs_lint_and_tests() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    lines = script.read_text().splitlines()
    assert lines[0] == "#!/usr/bin/env bash"
    assert [line for line in lines if line.startswith(("make", "set"))] == [
        "set -euo pipefail",
        "make lint",
        "make test",
    ]


def test_the_license_is_apache_2_whole() -> None:
    text = (ROOT / "LICENSE").read_text()
    assert "Version 2.0, January 2004" in text
    assert "END OF TERMS AND CONDITIONS" in text
    assert len(text) > 11_000


def test_documents_name_files_that_exist() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    named = re.findall(r"`((?:scoring|plugins|jobs|dags|tests|\.ci)/[a-z_/]*(?:\.py|\.toml)?)`", text)
    assert len(named) > 8
    assert [name for name in named if not (ROOT / name).exists()] == []
