"""Which module loads which flavor. Add a framework here, or through the entry-point group `scoring.flavors`."""

from __future__ import annotations

from collections.abc import Iterable
from importlib import import_module
from importlib.metadata import entry_points
from typing import Final

from scoring.errors import ModelError, listed
from scoring.models.base import Loader

FLAVORS: Final[dict[str, tuple[str, str]]] = {
    "sklearn": ("scoring.models.sklearn", "sklearn"),
    "xgboost": ("scoring.models.xgboost", "xgboost"),
    "pytorch": ("scoring.models.torch", "torch"),
}
"""MLflow flavor to (module that holds `load`, extra that installs the framework)."""
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


def loader(flavor: str) -> Loader:
    """Return the function that loads models of `flavor`; imports the framework.

    Raises:
        ModelError: the framework is not installed.
    """
    if flavor not in FLAVORS:
        (point,) = entry_points(group=ENTRY_POINTS, name=flavor)
        other: Loader = point.load()
        return other
    module, extra = FLAVORS[flavor]
    try:
        load: Loader = import_module(module).load
    except ImportError as error:
        raise ModelError(
            f"flavor {flavor!r} cannot be loaded",
            f"the package {error.name!r}",
            "none",
            f"pip install 'scoring[{extra}]' on the driver and on all executors.",
        ) from error
    return load
