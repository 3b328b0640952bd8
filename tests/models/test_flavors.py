from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from scoring.errors import ModelError
from scoring.models import flavors
from scoring.models.base import LoadOptions

PROJECT = Path(__file__).parents[2]


def test_the_first_supported_flavor_is_chosen() -> None:
    assert flavors.choose(["python_function", "xgboost"], label="'m' version 1") == "xgboost"
    assert flavors.choose(["xgboost", "sklearn"], label="'m' version 1") == "sklearn"


@pytest.mark.parametrize(
    ("available", "got"), [(["python_function", "keras"], r"got python_function, keras"), ([], "got none")]
)
def test_an_unknown_flavor_is_named(available: list[str], got: str) -> None:
    sentence = (
        rf"model 'm' version 1 has no flavor that can be loaded: expected one of sklearn, xgboost, pytorch, {got}\.$"
    )
    with pytest.raises(ModelError, match=sentence):
        flavors.choose(available, label="'m' version 1")


def test_others_add_flavors_by_an_entry_point(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "constant_flavor.py").write_text("def load(model, files, options):\n    return 7\n", "utf-8")
    info = tmp_path / "constant_flavor-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: constant-flavor\nVersion: 1.0\n", "utf-8")
    (info / "entry_points.txt").write_text("[scoring.flavors]\nconstant = constant_flavor:load\n", "utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    assert flavors.supported() == ["sklearn", "xgboost", "pytorch", "constant"]
    assert flavors.choose(["constant"], label="'m' version 1") == "constant"
    assert flavors.loader("constant")(None, {}, LoadOptions()) == 7  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("flavor", "package", "extra"),
    [
        (f, *f_)
        for f, f_ in {
            "sklearn": ("skops", "sklearn"),
            "xgboost": ("xgboost", "xgboost"),
            "pytorch": ("torch", "torch"),
        }.items()
    ],
)
def test_a_framework_that_is_not_installed_says_what_to_install(flavor: str, package: str, extra: str) -> None:
    program = f"""
import sys
sys.modules[{package!r}] = None
from scoring.errors import ModelError
from scoring.models import flavors
from scoring.models.base import LoadOptions
try:
    flavors.loader({flavor!r})
except ModelError as error:
    print(error)
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, check=True, cwd=PROJECT, timeout=120, capture_output=True, text=True)
    assert done.stdout.startswith(f"flavor {flavor!r} cannot be loaded: expected the package '{package}")
    assert f"pip install 'scoring[{extra}]' on the driver and on all executors." in done.stdout
