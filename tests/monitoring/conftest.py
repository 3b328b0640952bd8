from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from scoring.deployment import Drift


@pytest.fixture
def drift() -> Callable[..., Drift]:
    """Makes drift settings from what differs from the defaults."""

    def make(**settings: Any) -> Drift:
        return Drift.model_validate({"reference": {"first": "2013-01-01", "last": "2013-03-31"}, **settings})

    return make
