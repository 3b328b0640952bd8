"""What could run code in a `torch.export` file is found before PyTorch opens it."""

from __future__ import annotations

import contextlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from scoring.errors import ModelError
from scoring.models.base import FrozenModel, SignatureColumn, digest_of
from scoring.models.cache import PredictorCache
from tests.contract.conftest import Made
from tests.contract.payload import Touches

CODE = "__import__('pathlib').Path('code-ran').touch()"
PATH = "data/model.pt2"


@pytest.fixture
def marker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that exists when the payload ran."""
    monkeypatch.chdir(tmp_path)
    return tmp_path / "code-ran"


def load(content: bytes) -> object:
    files = {PATH: content}
    columns = (SignatureColumn("x", "double", False), SignatureColumn("y", "double", False))
    model = FrozenModel("bad", 1, digest_of(files), "pytorch", {"model_data": "data"}, columns, 0)
    return PredictorCache().get(model, files)


Change = Callable[[dict[str, bytes]], None]


def repacked(content: bytes, change: Change) -> bytes:
    """Return an archive whose files, by path below its root, were changed."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        root = archive.namelist()[0].split("/")[0]
        files = {name.removeprefix(f"{root}/"): archive.read(name) for name in archive.namelist()}
    change(files)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, part in files.items():
            archive.writestr(f"{root}/{name}", part)
    return packed.getvalue()


def described(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the description of the program."""

    def changed(files: dict[str, bytes]) -> None:
        document = json.loads(files["models/model.json"])
        change(document)
        files["models/model.json"] = json.dumps(document).encode()

    return changed


def saved(value: object) -> bytes:
    content = io.BytesIO()
    torch.save(value, content)
    return content.getvalue()


@pytest.fixture
def exported(made: Made) -> bytes:
    """A `torch.export` file as MLflow writes it."""
    return made("pytorch", 1).files[PATH]


def test_a_pickle_that_calls_itself_an_exported_program_is_refused(marker: Path) -> None:
    with pytest.raises(ModelError, match=r"model 'bad' version 1 holds what could run code"):
        load(saved((torch.nn.Linear(2, 1), Touches(marker))))
    assert not marker.exists()


def test_pickled_example_inputs_are_left_out(exported: bytes, marker: Path) -> None:
    def change(files: dict[str, bytes]) -> None:
        files["data/sample_inputs/model.pt"] = saved((Touches(marker),))

    bad = repacked(exported, change)
    with contextlib.suppress(Exception):
        torch.export.load(io.BytesIO(bad))
    assert marker.exists(), "PyTorch alone would run it"
    marker.unlink()
    load(bad)
    assert not marker.exists()


def _graph(description: dict[str, Any]) -> dict[str, Any]:
    return description["graph_module"]["graph"]


def _node(description: dict[str, Any]) -> dict[str, Any]:
    return _graph(description)["nodes"][0]


def _size(description: dict[str, Any]) -> dict[str, Any]:
    values = _graph(description)["tensor_values"].values()
    return next(size["as_expr"] for value in values for size in value["sizes"] if "as_expr" in size)


def pickled_weights(files: dict[str, bytes]) -> None:
    config = files["data/weights/model_weights_config.json"]
    files["data/weights/model_weights_config.json"] = config.replace(b'"use_pickle": false', b'"use_pickle": true')


@pytest.mark.parametrize(
    ("change", "found"),
    [
        (described(lambda d: d.update(guards_code=[CODE])), "guards, which are code"),
        (described(lambda d: _size(d).update(expr_str=CODE)), "expr_str"),
        (described(lambda d: _size(d).update(expr_str=f"Symbol({CODE!r})")), "expr_str"),
        (described(lambda d: _size(d).update(expr_str=f"sympify({CODE!r})")), "expr_str"),
        (described(lambda d: _node(d).update(target="torch.os.system")), r"target 'torch\.os\.system'"),
        (described(lambda d: _node(d).update(target="_operator.methodcaller")), "target '_operator"),
        (described(lambda d: _node(d).update(target="torch.ops.aten.__class__")), "target 'torch"),
        (described(lambda d: _node(d).update(target="torch.ops.aten.from_file.default")), r"aten\.from_file"),
        (described(lambda d: _node(d).update(target="torch.ops.aten.save")), r"aten\.save"),
        (described(lambda d: _node(d).update(name=f"x={CODE}")), "name"),
        (described(lambda d: _graph(d)["tensor_values"].update({CODE: {}})), "name"),
        (described(lambda d: _graph(d)["tensor_values"].update(metadata={"expr_str": CODE})), "expr_str"),
        (described(lambda d: d.update(as_operator="torch.os.system")), "as_operator 'torch"),
        (lambda files: files.update({"data/constants/opaque_obj_0": b""}), "file 'data/constants/opaque_obj_0'"),
        (lambda files: files.update({"data/constants/custom_obj_0": b""}), "file 'data/constants/custom_obj_0'"),
        (lambda files: files.update({"data/weights/model.pt": b""}), r"file 'data/weights/model\.pt'"),
        (lambda files: files.update({"data/aotinductor/model/x.so": b""}), "file 'data/aotinductor"),
        (lambda files: files.pop("models/model.json"), "cannot be read"),
        (lambda files: files.update({"models/model.json": b"{"}), "cannot be read"),
        (pickled_weights, "pickled weights"),
    ],
)
def test_an_exported_program_that_could_run_code_is_refused(
    exported: bytes, marker: Path, change: Change, found: str
) -> None:
    bad = repacked(exported, change)
    with pytest.raises(ModelError, match=rf"(?s)'bad' version 1 holds what could run code: expected .* got .*{found}"):
        load(bad)
    assert not marker.exists()


@pytest.mark.parametrize(
    "change",
    [
        described(lambda d: d.update(guards_code=[f"{CODE} is None"])),
        described(lambda d: _size(d).update(expr_str=f"{CODE} or {_size(d)['expr_str']}")),
    ],
)
def test_pytorch_alone_would_run_it(exported: bytes, marker: Path, change: Change) -> None:
    with contextlib.suppress(Exception):
        torch.export.load(io.BytesIO(repacked(exported, change))).module()(torch.zeros(3, 2))
    assert marker.exists()
