"""Which flavor of an artifact is used, what others add, and what is said when a framework is missing."""

from __future__ import annotations

import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from scoring.errors import ModelError
from scoring.models import flavors

PROJECT = Path(__file__).parents[2]
NATIVE = ["sklearn", "xgboost", "lightgbm", "catboost", "pytorch", "safetensors", "tensorflow", "keras", "onnx"]


def test_the_first_supported_flavor_is_chosen_and_python_function_last() -> None:
    assert flavors.choose(["python_function", "xgboost"], label="'m' version 1") == "xgboost"
    assert flavors.choose(["xgboost", "sklearn"], label="'m' version 1") == "sklearn"
    assert flavors.choose(["python_function", "weighted_sum"], label="'m' version 1") == "weighted_sum"
    assert flavors.choose(["prophet", "python_function"], label="'m' version 1") == "python_function"


@pytest.mark.parametrize(("available", "got"), [(["mleap", "fastai"], "got mleap, fastai"), ([], "got none")])
def test_an_unknown_flavor_is_named(available: list[str], got: str) -> None:
    expected = ", ".join([*NATIVE, "weighted_sum"])
    sentence = rf"model 'm' version 1 has no flavor that can be loaded: expected one of {expected} and 1 more, {got}\.$"
    with pytest.raises(ModelError, match=sentence):
        flavors.choose(available, label="'m' version 1")


def test_others_add_flavors_by_an_entry_point_of_their_distribution() -> None:
    (point,) = metadata.distribution("scoring-extension").entry_points.select(group="scoring.flavors")
    assert flavors.supported() == [*NATIVE, point.name, "python_function"]
    assert flavors.loader(point.name) is point.load()


@pytest.mark.parametrize(
    ("flavor", "package", "extra"),
    [
        ("sklearn", "skops", "scoring[sklearn]"),
        ("xgboost", "xgboost", "scoring[xgboost]"),
        ("lightgbm", "lightgbm", "scoring[lightgbm]"),
        ("catboost", "catboost", "scoring[catboost]"),
        ("pytorch", "torch", "scoring[torch]"),
        ("safetensors", "safetensors", "scoring[torch]"),
        ("tensorflow", "keras", "scoring[tensorflow]"),
        ("keras", "keras", "scoring[tensorflow]"),
        ("onnx", "onnxruntime", "scoring[onnx]"),
        ("python_function", "mlflow", "scoring"),
    ],
)
def test_a_framework_that_is_not_installed_says_what_to_install(flavor: str, package: str, extra: str) -> None:
    program = f"""
import sys
sys.modules[{package!r}] = None
from scoring.errors import ModelError
from scoring.models import flavors
try:
    flavors.loader({flavor!r})
except ModelError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], check=True, cwd=PROJECT, timeout=120, capture_output=True, text=True
    )
    assert done.stdout.startswith(f"flavor {flavor!r} cannot be loaded: expected the package '{package}")
    assert f"pip install '{extra}' on the driver and on all executors." in done.stdout
