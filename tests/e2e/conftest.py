"""A deployment with a real model and real suites, and one good night in its lake."""

from __future__ import annotations

from pathlib import Path

import pytest

from scoring.deployment import Deployment
from scoring.testing import FEATURES, MODEL, example_rows, register_sklearn, write_deployment
from tests.e2e.example import INPUT_SUITE, OUTPUT_SUITE, RULES, Site, night_rows


@pytest.fixture
def site(home: Path) -> Site:
    """A deployment whose input contract is declared, with one good night in the lake."""
    rows = example_rows(2_000, seed=1)
    frame = rows.select(list(FEATURES)).to_pandas()
    model = register_sklearn(MODEL, frame, rows["label"].to_numpy())
    files = {
        "rules.py": RULES,
        "expectations/input.yaml": INPUT_SUITE,
        "expectations/output.yaml": OUTPUT_SUITE,
    }
    contract = {"id": "int64", "x": "double", "y": "double", "city": "string?"}

    def rewrite(**overrides: object) -> Deployment:
        sections: dict[str, object] = {
            "input": {"columns": contract},
            "output": {"keep": ["city"]},
            "score": {
                "pipeline": [
                    {"rule": {"python": "rules:add_sum"}},
                    {"model": f"models:/{MODEL}@champion"},
                    {"rule": {"sql": "select *, score >= 0.5 as is_positive from batch"}},
                ]
            },
            "checks": {"input": "expectations/input.yaml", "output": "expectations/output.yaml"},
            "resources": {"split_bytes": 1, "batch_rows": 64},
        }
        return write_deployment(home / "deployments" / "example", files=files, **{**sections, **overrides})

    site = Site(rewrite(), model, home / "lake", rewrite)
    site.put(night_rows(), files=3, row_group_rows=50)
    return site
