"""What `make` does on a machine that lacks something: one clear line, or it is installed."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def bootstrap() -> ModuleType:
    spec = importlib.util.spec_from_file_location("bootstrap", ROOT / "scoring" / "stack" / "bootstrap.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("version", [(3, 9), (3, 10), (3, 13)])
def test_another_python_is_refused_with_the_way_out(version: tuple[int, int], bootstrap: ModuleType) -> None:
    sentence = rf"Python 3\.{version[1]} cannot be used: expected 3\.11 or 3\.12\. .*make PYTHON="
    with pytest.raises(bootstrap.SetupError, match=sentence):
        bootstrap.check_python(version)


def test_this_python_is_accepted(bootstrap: ModuleType) -> None:
    bootstrap.check_python(sys.version_info[:2])


def test_make_without_any_python_says_what_to_install(tmp_path: Path) -> None:
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    made = subprocess.run(["make", "PYTHON=", "venv"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert made.returncode != 0
    assert "Python was not found: expected 3.11 or 3.12." in made.stderr


def test_progress_follows_pips_words(bootstrap: ModuleType) -> None:
    progress = bootstrap.PipProgress()
    said = []
    for line in (
        "Collecting mlflow<4,>=3.17 (from scoring==0.1.0)",
        "  Downloading torch-2.13.0-cp311-cp311-manylinux_2_28_x86_64.whl (888.1 MB)",
        "Requirement already satisfied: pip in ./.venv/lib",
        "Installing collected packages: a, b, c",
    ):
        progress.read(line)
        said.append(progress.now)
    assert said == [
        "resolving: mlflow (1 packages so far)",
        "downloading torch (888.1 MB) (package 1)",
        "resolving: pip (1 packages so far)",
        "unpacking 3 packages",
    ]


def test_a_silent_pip_is_spoken_for(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "LOG", tmp_path / "install.log")
    monkeypatch.setattr(bootstrap, "SILENCE_S", 0.1)
    monkeypatch.setattr(bootstrap, "VENV", tmp_path)
    (tmp_path / "lib" / "python3.11" / "site-packages" / "a-1.dist-info").mkdir(parents=True)
    code = "import sys, time; print('Installing collected packages: a, b', flush=True); time.sleep(2); sys.exit(3)"
    assert bootstrap.run_pip([sys.executable, "-c", code], time.monotonic()) == 3
    assert "s] unpacking 2 packages, 1 are there\n" in capsys.readouterr().err
    assert (tmp_path / "install.log").read_text() == "Installing collected packages: a, b\n"


def test_without_root_the_package_is_named(bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    from scoring import java

    monkeypatch.setattr(bootstrap, "can_install", lambda: False)
    monkeypatch.setattr(java, "installed", lambda: iter(()))
    with pytest.raises(bootstrap.SetupError, match=r"Java was not found: .*got none\. Install openjdk-17-jre-headless"):
        bootstrap.ensure_java()


def test_as_root_the_first_package_that_exists_is_installed(
    bootstrap: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = tmp_path / "asked"
    apt = tmp_path / "apt-get"
    apt.write_text(f'#!/bin/sh\necho "$@" >> {asked}\ncase "$*" in *17*) exit 100 ;; esac\n')
    apt.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    bootstrap.install_one_of(bootstrap.JAVA_PACKAGES, "Java for Spark")
    assert [line.split()[-1] for line in asked.read_text().splitlines()] == ["-qq", *bootstrap.JAVA_PACKAGES]
    with pytest.raises(
        bootstrap.SetupError, match=r"Java for Spark was not found, and apt-get could not install x17\."
    ):
        bootstrap.install_one_of(("x17",), "Java for Spark")


def test_missing_test_tools_stop_nothing(
    bootstrap: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(bootstrap, "can_install", lambda: False)
    monkeypatch.setattr(bootstrap, "TEST_TOOLS", {"no-such-tool": ("a-package",)})
    monkeypatch.setattr(bootstrap, "TEST_MODULES", ("json",))
    assert bootstrap.main(["test-tools"]) == 0
    said = capsys.readouterr().err
    assert said == "no-such-tool was not found: tests that need it are skipped. Install the package a-package.\n"


@pytest.mark.parametrize(
    "case",
    [("bench-tools", "BENCH_MODULES", "bench", "benchmarks"), ("test-tools", "TEST_MODULES", "frameworks", "tests")],
    ids=lambda case: case[0],
)
def test_a_missing_extra_is_installed_and_stops_nothing(
    bootstrap: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: tuple[str, str, str, str],
) -> None:
    tools, modules, extra, purpose = case
    installed: list[str] = []

    def install(extras: str, started: float) -> None:
        installed.append(extras)
        raise bootstrap.SetupError("pip could not install it.")

    monkeypatch.setattr(bootstrap, "install", install)
    monkeypatch.setattr(bootstrap, "TEST_TOOLS", {})
    monkeypatch.setattr(bootstrap, modules, ("json",))
    assert bootstrap.main([tools]) == 0
    assert installed == []
    monkeypatch.setattr(bootstrap, modules, ("json", "no_such_module"))
    assert bootstrap.main([tools]) == 0
    assert installed == [extra]
    assert capsys.readouterr().err.splitlines() == [
        f"no_such_module for {purpose} was not found: installing the extra {extra!r}",
        "pip could not install it.",
    ]
