"""Which module loads which flavor. Add a framework here, or through the entry-point group `scoring.flavors`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final

from scoring.errors import ModelError, listed
from scoring.models import trust
from scoring.models.base import FLOAT32, Files, FrozenModel, Loader


@dataclass(frozen=True, slots=True)
class Flavor:
    """What we know of a framework without importing it."""

    module: str
    """Dotted path of the module that holds `load`."""
    extra: str
    """Of our package; installs the framework. Empty: the package alone brings it along."""
    memory_factor: float
    """Memory of a loaded model by size of its artifact; the largest that was measured."""
    has_options: bool = False
    """Whether it knows `precision` and `compile`."""
    code: trust.Search | None = None
    """Finds what in a model's files could run code; None: no file of this flavor can."""


FLAVORS: Final[dict[str, Flavor]] = {
    "sklearn": Flavor("scoring.models.sklearn", "sklearn", memory_factor=3, code=trust.pickled_estimator),
    "xgboost": Flavor("scoring.models.xgboost", "xgboost", memory_factor=4),
    "lightgbm": Flavor("scoring.models.lightgbm", "lightgbm", memory_factor=1, code=trust.pickled_wrapper),
    "catboost": Flavor("scoring.models.catboost", "catboost", memory_factor=1),
    "pytorch": Flavor("scoring.models.torch", "torch", memory_factor=1, has_options=True, code=trust.torch_program),
    "safetensors": Flavor("scoring.models.safetensors", "torch", memory_factor=1, has_options=True),
    "tensorflow": Flavor("scoring.models.tensorflow", "tensorflow", memory_factor=1.2, code=trust.tensorflow_program),
    "keras": Flavor("scoring.models.tensorflow", "tensorflow", memory_factor=1.2, code=trust.tensorflow_program),
    "onnx": Flavor("scoring.models.onnx", "onnx", memory_factor=5),
}
"""By MLflow's name, but for `safetensors`, which is ours."""
ANY: Final = "python_function"
"""MLflow's name for models of any kind, which nearly every artifact has beside its own: the last resort."""
FALLBACK: Final = Flavor("scoring.models.python_function", "", memory_factor=5, code=trust.any_python)
ENTRY_POINTS: Final = "scoring.flavors"


def supported() -> list[str]:
    """Return the flavors that can be loaded, ours before others', and last the one that every model has."""
    return [*FLAVORS, *sorted(point.name for point in entry_points(group=ENTRY_POINTS)), ANY]


def known(flavor: str) -> Flavor | None:
    """Return what we know of a flavor; None for those of others."""
    return FALLBACK if flavor == ANY else FLAVORS.get(flavor)


def choose(available: Iterable[str], *, label: str) -> str:
    """Return the first supported flavor among those an artifact has.

    Raises:
        ModelError: none is supported.
    """
    found = list(available)
    for flavor in supported():
        if flavor in found:
            return flavor
    raise ModelError(
        f"model {label} has no flavor that can be loaded", f"one of {listed(supported())}", listed(found) or "none"
    )


def check_options(model: FrozenModel, *, precision: str, compile: bool) -> None:  # noqa: A002 - the key's name
    """Check that the model's flavor knows the options that a step sets; others' flavors check for themselves.

    Raises:
        ModelError: it does not.
    """
    flavor = known(model.flavor)
    if flavor is None or flavor.has_options:
        return
    given = [f"precision: {precision}"] * (precision != FLOAT32) + ["compile: true"] * compile
    if given:
        able = [name for name, other in FLAVORS.items() if other.has_options]
        raise ModelError(
            f"model {model.label} of flavor {model.flavor!r} cannot be used as the step says",
            f"one of the flavors {listed(able)}",
            listed(given),
            "Remove it from the step.",
        )


def memory_bytes(model: FrozenModel) -> int:
    """Return about how much memory the loaded model takes; for a flavor of others, what the hungriest of ours does."""
    flavor = known(model.flavor)
    factor = max(ours.memory_factor for ours in FLAVORS.values()) if flavor is None else flavor.memory_factor
    return int(model.size_bytes * factor)


def check_trust(model: FrozenModel, files: Files) -> None:
    """Check that the files cannot run code, or that the deployment trusts them; others' flavors check for themselves.

    Raises:
        ModelError: they could, and it does not.
    """
    flavor = known(model.flavor)
    if model.trusted or flavor is None or flavor.code is None:
        return
    finding = flavor.code(model.conf, files)
    if finding is not None:
        raise trust.refused(model, "is stored in a format that can run code", finding)


def loader(flavor: str) -> Loader:
    """Return the function that loads models of `flavor`; imports the framework.

    Raises:
        ModelError: the framework is not installed.
    """
    ours = known(flavor)
    if ours is None:
        (point,) = entry_points(group=ENTRY_POINTS, name=flavor)
        other: Loader = point.load()
        return other
    try:
        load: Loader = import_module(ours.module).load
    except ImportError as error:
        package = f"scoring[{ours.extra}]" if ours.extra else "scoring"
        raise ModelError(
            f"flavor {flavor!r} cannot be loaded",
            f"the package {error.name!r}",
            "none",
            f"pip install '{package}' on the driver and on all executors.",
        ) from error
    return load
