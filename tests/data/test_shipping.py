"""Big models travel by a shared folder, small ones as they are."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from scoring.data.shipping import SharedFiles, ship
from scoring.errors import StorageError
from scoring.models.base import Files, digest_of

SMALL: Files = {"MLmodel": b"small"}
BIG: Files = {"MLmodel": b"big", "data/model.pt2": b"x" * 100, "notes.gz": b"not really compressed"}


def shipped(shared: str, *, limit_bytes: int = 50) -> dict[str, Files]:
    return ship({"s": SMALL, "b": BIG}, limit_bytes=limit_bytes, shared=shared)


def test_only_models_above_the_limit_are_stored(tmp_path: Path) -> None:
    found = shipped(str(tmp_path))
    assert found["s"] is SMALL
    assert found["b"] == SharedFiles(f"{tmp_path}/models/b", {path: len(data) for path, data in BIG.items()})
    assert dict(found["b"]) == BIG
    assert digest_of(found["b"]) == digest_of(BIG)
    assert sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()) == [
        "models/b/MLmodel",
        "models/b/data/model.pt2",
        "models/b/notes.gz",
    ]
    total = sum(map(len, BIG.values()))
    assert shipped(str(tmp_path), limit_bytes=total)["b"] is BIG


def test_what_travels_is_small(tmp_path: Path) -> None:
    files = {"weights": bytes(1_000_000)}
    (found,) = ship({"d": files}, limit_bytes=10, shared=str(tmp_path)).values()
    travelled = pickle.dumps(found)
    assert len(travelled) < 1000
    assert dict(pickle.loads(travelled)) == files


def test_a_url_and_a_path_are_the_same_folder(tmp_path: Path) -> None:
    assert dict(shipped(tmp_path.as_uri() + "/")["b"]) == dict(shipped(str(tmp_path))["b"]) == BIG


def test_a_model_is_stored_once_and_repaired_when_a_file_is_cut(tmp_path: Path) -> None:
    shipped(str(tmp_path))
    file = tmp_path / "models" / "b" / "data" / "model.pt2"
    before = file.stat().st_ino
    shipped(str(tmp_path))
    assert file.stat().st_ino == before
    file.write_bytes(b"cut")
    assert shipped(str(tmp_path))["b"]["data/model.pt2"] == BIG["data/model.pt2"]


def test_a_folder_that_is_not_shared_is_named(tmp_path: Path) -> None:
    found = shipped(str(tmp_path))["b"]
    (tmp_path / "models" / "b" / "MLmodel").unlink()
    with pytest.raises(StorageError, match=r"file MLmodel of a model is not in .*/models/b: expected a folder"):
        found["MLmodel"]
    with pytest.raises(KeyError):
        found["other"]
