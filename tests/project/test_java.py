"""Which Java is found, and what is said where none is."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scoring import java


@pytest.fixture
def nowhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without any Java; its usual folder is returned."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.setattr(java, "FOLDERS", (str(tmp_path / "jvm"),))
    return tmp_path / "jvm"


def install(home: Path, *modules: str, code: int = 0) -> Path:
    binary = home / "bin" / "java"
    binary.parent.mkdir(parents=True)
    listed = "\n".join(f"echo {module}" for module in modules)
    binary.write_text(f"#!/bin/sh\n{listed}\nexit {code}\n")
    binary.chmod(0o755)
    return home


def test_a_java_in_the_usual_folder_is_found(nowhere: Path) -> None:
    install(nowhere / "java-11", "java.base@11.0.27")
    home = install(nowhere / "java-17", "java.base@17.0.15", "jdk.incubator.vector@17.0.15")
    assert java.find() == java.Java(home, "17.0.15", has_vector_module=True)


def test_java_home_comes_first(nowhere: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(nowhere / "java-17", "java.base@17.0.15", "jdk.incubator.vector@17.0.15")
    chosen = install(tmp_path / "mine", "java.base@21", "jdk.incubator.vector@21")
    monkeypatch.setenv("JAVA_HOME", str(chosen))
    assert java.find() == java.Java(chosen, "21", has_vector_module=True)


@pytest.mark.parametrize(
    ("modules", "found"),
    [
        (("java.base@25.0.3", "jdk.incubator.vector@25.0.3"), "25.0.3 in "),
        (("java.base@17.0.15", "jdk.incubator.vectorised@17.0.15"), "17.0.15 in .* without jdk.incubator.vector"),
        (("nothing that is known",), "none"),
    ],
)
def test_others_are_named_in_the_sentence(modules: tuple[str, ...], found: str, nowhere: Path) -> None:
    install(nowhere / "one", *modules)
    assert java.find() is None
    sentence = java.missing()
    assert sentence.startswith(
        "Java was not found: expected release 17 or 21 with the module jdk.incubator.vector, got "
    )
    assert re.search(f"got {found}", sentence)


def test_a_java_that_does_not_run_counts_as_none(nowhere: Path) -> None:
    install(nowhere / "broken", "java.base@17.0.15", "jdk.incubator.vector@17.0.15", code=1)
    (nowhere / "empty").mkdir()
    assert list(java.installed()) == []
