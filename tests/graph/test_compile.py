from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from scoring import settings
from scoring.errors import ContractError
from scoring.graph.compile import graph_schema, graph_source, leading_rules, output_columns
from scoring.testing import FunctionPredictor, Graph, example_rows, frozen_model, make_graph, write_deployment

RULES = """\
def first(batch):
    return batch.append_column('f', batch['x'])

def last(batch):
    return batch.append_column('is_high', batch['score'])
"""
FIRST, LAST = {"rule": {"python": "rules:first"}}, {"rule": {"python": "rules:last"}}
MODEL = {"model": "models:/m/1"}
SCHEMA = example_rows(0).schema


def graph(*steps: dict[str, Any], rules: str = RULES, digest: str = "d", keys: tuple[str, ...] = ("id",)) -> Graph:
    frozen = replace(frozen_model("m", {"x": "double"}), digest=digest)
    predictor = FunctionPredictor(lambda batch: np.zeros(batch.rows))
    score = {"pipeline": list(steps)} if len(steps) != 1 else steps[0]
    return make_graph(score, models={"models:/m/1": (frozen, predictor)}, modules={"rules": rules}, keys=keys)


# ------------------------------------------------------------------------------------------------------ outputs


@pytest.mark.parametrize(
    ("steps", "outputs"),
    [
        ((MODEL,), ["score"]),
        ((FIRST, MODEL), ["score"]),
        ((FIRST, MODEL, LAST), ["score", "is_high"]),
        ((FIRST,), ["f"]),
        (({"rule": {"sql": "select id, x, 1 as one, 2 as two from batch"}},), ["one", "two"]),
        ((MODEL, FIRST), ["score", "f"]),
        (({"pipeline": [FIRST, MODEL]},), ["score"]),
        ((FIRST, {"pipeline": [{"rule": {"sql": "select *, x * y as xy from batch"}}, MODEL]}), ["score"]),
    ],
)
def test_outputs_are_what_the_graph_adds_from_its_first_model_on(
    steps: tuple[dict[str, Any], ...], outputs: list[str]
) -> None:
    assert output_columns(graph(*steps).source, SCHEMA) == outputs


def test_a_graph_that_adds_nothing_is_refused() -> None:
    with pytest.raises(ContractError, match=r"the graph adds no column: expected a model, an ensemble or a rule"):
        output_columns(graph({"rule": {"sql": "select * from batch"}}).source, SCHEMA)


def test_the_schema_is_known_without_a_model_and_is_the_one_of_the_rows() -> None:
    whole = graph(FIRST, MODEL, LAST)
    assert graph_schema(whole.source, SCHEMA) == whole.run(example_rows(5)).schema


def test_leading_rules_are_a_graph_of_their_own() -> None:
    rules = leading_rules(graph(FIRST, {"rule": {"sql": "select *, 1 as one from batch"}}, MODEL, LAST).source)
    assert rules is not None
    assert not rules.models
    assert graph_schema(rules, SCHEMA).names == [*SCHEMA.names, "f", "one"]


def test_leading_rules_are_found_however_deep_in_pipelines() -> None:
    inner = {"pipeline": [{"rule": {"sql": "select *, 1 as one from batch"}}, MODEL, LAST]}
    rules = leading_rules(graph({"pipeline": [FIRST]}, inner, LAST).source)
    assert rules is not None
    assert graph_schema(rules, SCHEMA).names == [*SCHEMA.names, "f", "one"]


@pytest.mark.parametrize("steps", [(MODEL,), (MODEL, LAST)])
def test_a_graph_that_starts_with_a_model_has_no_leading_rules(steps: tuple[dict[str, Any], ...]) -> None:
    assert leading_rules(graph(*steps).source) is None


# ------------------------------------------------------------------------------------------------------ digest


def test_the_digest_is_the_same_for_the_same_graph_in_every_process() -> None:
    source = graph(FIRST, MODEL).source
    assert source.digest == graph(FIRST, MODEL).source.digest
    assert source.digest == "2fe216b7ac14effbc6f4fddf7aadcaed571eb91d430d72b3bc137888b9dfb7b1"


def weighted(first: float, second: float) -> dict[str, Any]:
    weights = {"a": first, "b": second}
    return {"ensemble": {"combine": "weighted_mean", "weights": weights, "members": {"a": MODEL, "b": MODEL}}}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (graph(FIRST, MODEL), graph(MODEL, FIRST)),
        (graph(FIRST, MODEL), graph(FIRST, MODEL, rules=RULES.replace("'f'", "'g'"))),
        (graph(FIRST, MODEL), graph(FIRST, MODEL, digest="other")),
        (graph(FIRST, MODEL), graph(FIRST, MODEL, keys=("id", "city"))),
        (graph(MODEL), graph({**MODEL, "output": "p"})),
        (graph(MODEL), graph({**MODEL, "method": "predict"})),
        (graph(weighted(1, 2)), graph(weighted(1, 3))),
        (graph({"rule": {"sql": "select 1"}}), graph({"rule": {"sql": "select 2"}})),
    ],
)
def test_the_digest_changes_with_what_decides_the_values(one: Graph, other: Graph) -> None:
    assert one.source.digest != other.source.digest


def test_the_digest_does_not_change_with_what_does_not_touch_the_graph(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.HOME_VARIABLE, str(tmp_path))
    frozen = {"models:/example@champion": frozen_model("example", {"x": "double"})}
    folder = tmp_path / "deployments" / "one"
    one = graph_source(write_deployment(folder, files={"rules.py": RULES}), frozen)
    owner = {"team": "Others", "email": ["other@example.com"]}
    other = write_deployment(folder, files={"rules.py": "# not used\n"}, owner=owner, resources={"split_bytes": 10})
    assert graph_source(other, frozen).digest == one.digest
    renamed = {"models:/example@champion": frozen_model("example", {"x": "double"}, version=2)}
    assert graph_source(other, renamed).digest != one.digest


# ------------------------------------------------------------------------------------------------------ travelling


def test_a_graph_travels_to_executors_with_the_text_of_its_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(settings.HOME_VARIABLE, str(tmp_path))
    found = write_deployment(
        tmp_path / "deployments" / "one", files={"rules.py": RULES}, score={"pipeline": [FIRST, MODEL]}
    )
    source = graph_source(found, {"models:/m/1": frozen_model("m", {"x": "double"})})
    assert source.modules == {"rules": RULES}
    copy = pickle.loads(pickle.dumps(source))
    (found.folder / "rules.py").unlink()
    assert copy == source
    assert graph_schema(copy, SCHEMA) == SCHEMA.append(pa.field("f", pa.float64())).append(
        pa.field("score", pa.float64())
    )
