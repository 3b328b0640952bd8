"""Which module loads which flavor. Add a framework here, or through the entry-point group `scoring.flavors`."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final

from scoring.errors import ModelError, listed
from scoring.models.base import FLOAT32, FrozenModel, Loader


@dataclass(frozen=True, slots=True)
class Flavor:
    """What we know of a framework without importing it."""

    module: str
    """Dotted path of the module that holds `load`."""
    extra: str
    """Of our package; installs the framework."""
    memory_factor: float
    """Memory of a loaded model by size of its artifact; the largest that was measured."""
    has_options: bool = False
    """Whether it knows `precision` and `compile`."""


FLAVORS: Final[dict[str, Flavor]] = {
    "sklearn": Flavor("scoring.models.sklearn", "sklearn", memory_factor=3),
    "xgboost": Flavor("scoring.models.xgboost", "xgboost", memory_factor=4),
    "pytorch": Flavor("scoring.models.torch", "torch", memory_factor=1, has_options=True),
}
"""By MLflow's name."""
ENTRY_POINTS: Final = "scoring.flavors"


def supported() -> list[str]:
    """Return the flavors that can be loaded, ours before others'."""
    return [*FLAVORS, *sorted(point.name for point in entry_points(group=ENTRY_POINTS))]


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
    flavor = FLAVORS.get(model.flavor)
    if flavor is None or flavor.has_options:
        return
    given = [f"precision: {precision}"] * (precision != FLOAT32) + ["compile: true"] * compile
    if given:
        able = [name for name, other in FLAVORS.items() if other.has_options]
        raise ModelError(
            f"model {model.label} of flavor {model.flavor!r} cannot be used as the step says",
            f"flavor {listed(able)}",
            listed(given),
            "Remove it from the step.",
        )


def memory_bytes(model: FrozenModel) -> int:
    """Return about how much memory the loaded model takes; for a flavor of others, what the hungriest of ours does."""
    flavor = FLAVORS.get(model.flavor)
    factor = max(known.memory_factor for known in FLAVORS.values()) if flavor is None else flavor.memory_factor
    return int(model.size_bytes * factor)


def loader(flavor: str) -> Loader:
    """Return the function that loads models of `flavor`; imports the framework.

    Raises:
        ModelError: the framework is not installed.
    """
    if flavor not in FLAVORS:
        (point,) = entry_points(group=ENTRY_POINTS, name=flavor)
        other: Loader = point.load()
        return other
    known = FLAVORS[flavor]
    try:
        load: Loader = import_module(known.module).load
    except ImportError as error:
        raise ModelError(
            f"flavor {flavor!r} cannot be loaded",
            f"the package {error.name!r}",
            "none",
            f"pip install 'scoring[{known.extra}]' on the driver and on all executors.",
        ) from error
    return load
