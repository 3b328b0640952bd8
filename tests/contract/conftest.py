"""One model per flavor and format, made when a test first asks for it; a framework that is not installed is skipped."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache

import pytest

from scoring import testing
from tests.contract.models import KINDS, SEVERAL, Case, extension_installed, frozen

Made = Callable[[str, int], Case]


@pytest.fixture(scope="module", autouse=True)
def _extension() -> Iterator[None]:
    with extension_installed():
        yield


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Return a case by name and number of outputs; each is made once."""
    rows = testing.example_rows(400, seed=11).to_pandas()

    @cache
    def make(name: str, outputs: int) -> Case:
        kind = KINDS[name]
        folder = tmp_path_factory.mktemp(name) / "model"
        native = kind.save(folder, rows, outputs)
        return Case(*frozen(folder, trusted=kind.needs_trust), native)

    def get(name: str, outputs: int) -> Case:
        pytest.importorskip(KINDS[name].library)
        return make(name, outputs)

    return get


@pytest.fixture(params=KINDS)
def case(request: pytest.FixtureRequest, made: Made) -> Case:
    """The test runs once per flavor and format, with a model of one output."""
    return made(request.param, 1)


@pytest.fixture(params=KINDS)
def several(request: pytest.FixtureRequest, made: Made) -> Case:
    """The test runs once per flavor and format, with a model of `SEVERAL` outputs."""
    return made(request.param, SEVERAL)
