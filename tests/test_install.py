"""A folder is replaced whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from scoring import deployment
from scoring.errors import StorageError
from scoring.install import install
from scoring.testing import FEATURES, MODEL, example_rows, register_sklearn, write_deployment


@pytest.fixture
def source(home: Path) -> Path:
    """A folder as it comes from version control."""
    rows = example_rows(100, seed=1)
    register_sklearn(MODEL, rows.select(list(FEATURES)).to_pandas(), rows["label"].to_numpy())
    folder = home / "repository" / "tiny"
    write_deployment(folder, description="first")
    return folder


@pytest.mark.parametrize(
    ("failing", "is_there"),
    [("copy", True), ("copy", False), ("first rename", True), ("second rename", True), ("second rename", False)],
)
def test_a_failure_leaves_what_was_there(
    source: Path, home: Path, monkeypatch: pytest.MonkeyPatch, failing: str, *, is_there: bool
) -> None:
    target = home / "deployments" / "tiny"
    if is_there:
        install(source)
    write_deployment(source, description="second")
    rename = Path.rename

    def broken_rename(self: Path, to: Path) -> Path:
        is_fresh = to == target and not self.name.endswith(".old")
        if (failing == "second rename" and is_fresh) or (failing == "first rename" and self == target):
            raise OSError(28, "No space left on device")
        return rename(self, to)

    if failing == "copy":
        # A link to nothing cannot be copied; what was copied before it must go, too.
        (source / "rules.py").symlink_to(source / "nothing.py")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", broken_rename)
        with pytest.raises(StorageError):
            install(source)
    assert deployment.names() == (["tiny"] if is_there else [])
    assert [path.name for path in (home / "deployments").iterdir()] == (["tiny"] if is_there else [])
    if is_there:
        assert deployment.load("tiny").description == "first"
