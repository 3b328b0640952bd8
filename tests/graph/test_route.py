from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.batch import Batch
from scoring.errors import ContractError
from scoring.testing import FunctionPredictor, Graph, example_rows, frozen_model, make_graph

SMALL, LARGE = "models:/small/1", "models:/large/1"


class Seen:
    """Two models that remember the rows that reached them."""

    def __init__(self) -> None:
        self.ids: dict[str, list[int]] = {SMALL: [], LARGE: []}

    def graph(self, *steps: dict[str, Any]) -> Graph:
        columns = {"x": "double?", "id": "long"}
        models = {
            uri: (frozen_model(uri.split("/")[1], columns), FunctionPredictor(lambda b, uri=uri: self._predict(b, uri)))
            for uri in self.ids
        }
        return make_graph({"pipeline": list(steps)} if len(steps) > 1 else steps[0], models=models)

    def _predict(self, batch: Batch, uri: str) -> np.ndarray:
        ids = batch.table["id"].to_numpy()
        self.ids[uri] += ids.tolist()
        return ids * (1.0 if uri == SMALL else 1000.0)


def route(*cases: tuple[str, dict[str, Any]], otherwise: Any) -> dict[str, Any]:
    return {"route": {"cases": [{"when": when, "then": then} for when, then in cases], "otherwise": otherwise}}


def rows_of(x: list[float | None]) -> pa.Table:
    return pa.table(
        {"id": pa.array(range(len(x)), pa.int64()), "x": pa.array(x, pa.float64()), "city": ["Oslo"] * len(x)}
    )


BY_SIZE = route(("x < 0", {"model": SMALL}), ("x > 10", {"model": LARGE}), otherwise={"values": {"score": -1}})

xs = st.lists(st.one_of(st.none(), st.floats(-20, 20)), max_size=30)


@given(x=xs)
def test_each_row_goes_where_its_first_case_says_and_comes_back_in_its_place(x: list[float | None]) -> None:
    seen, rows = Seen(), rows_of(x)
    graph = seen.graph(BY_SIZE)
    result = graph.run(rows)
    expected = [
        -1.0 if value is None or 0 <= value <= 10 else float(number) * (1 if value < 0 else 1000)
        for number, value in enumerate(x)
    ]
    assert result["score"].to_pylist() == expected
    assert result.select(rows.column_names).equals(rows)
    assert result.schema == graph.step.schema(rows.schema)
    assert seen.ids[SMALL] == [number for number, value in enumerate(x) if value is not None and value < 0]
    assert seen.ids[LARGE] == [number for number, value in enumerate(x) if value is not None and value > 10]


@given(x=xs, cut=st.integers(0, 30))
def test_the_size_of_batches_does_not_matter(x: list[float | None], cut: int) -> None:
    graph, rows = Seen().graph(BY_SIZE), rows_of(x)
    parts = pa.concat_tables([graph.run(rows.slice(0, cut)), graph.run(rows.slice(cut))])
    assert parts.equals(graph.run(rows))


def test_the_first_case_that_matches_wins_and_later_ones_are_not_even_computed() -> None:
    cases = [("x = 0", {"values": {"score": 0.0}}), ("error('computed') > 'a'", {"values": {"score": 1.0}})]
    graph = Seen().graph(route(*cases, otherwise={"values": {"score": 2.0}}))
    assert graph.run(rows_of([0.0, 0.0]))["score"].to_pylist() == [0.0, 0.0]
    with pytest.raises(ContractError, match=r"^a predicate of a route cannot be computed: .*computed"):
        graph.run(rows_of([0.0, 1.0]))


def test_rows_that_all_go_one_way_are_not_copied() -> None:
    seen: list[int] = []

    def matrix_id(batch: Batch) -> np.ndarray:
        seen.append(id(batch.matrix(("x",))))
        return np.zeros(batch.rows)

    models = {SMALL: (frozen_model("small", {"x": "double"}), FunctionPredictor(matrix_id))}
    members = {"plain": {"model": SMALL}, "routed": route(("x > -99", {"model": SMALL}), otherwise="error")}
    make_graph({"ensemble": {"combine": "mean", "members": members}}, models=models).run(example_rows(20))
    assert len(seen) == 2
    assert len(set(seen)) == 1


def test_columns_that_no_branch_touches_are_not_copied() -> None:
    rows = rows_of([-1.0, 5.0, 50.0])
    result = Seen().graph(BY_SIZE).run(rows)
    assert [b.address for b in result["x"].chunk(0).buffers() if b] == [
        b.address for b in rows["x"].chunk(0).buffers() if b
    ]


def test_a_rule_in_a_branch_may_change_a_column_of_its_rows_alone() -> None:
    rule = {"rule": {"sql": "select * replace (upper(city) as city) from batch"}}
    graph = Seen().graph(route(("x < 0", rule), otherwise={"values": {"city": "none"}}))
    assert graph.run(rows_of([-1.0, 1.0, -2.0]))["city"].to_pylist() == ["OSLO", "none", "OSLO"]


def test_constants_take_the_type_of_the_other_branches() -> None:
    reasons = route(
        ("x < 0", {"values": {"score": 1, "reason": "negative"}}),
        ("x > 10", {"pipeline": [{"model": LARGE}, {"values": {"reason": None}}]}),
        otherwise={"values": {"score": None, "reason": None}},
    )
    graph = Seen().graph(reasons)
    for x in ([-1.0, 20.0, 5.0], [-1.0], [20.0], [5.0], []):
        result = graph.run(rows_of(x))
        assert result.schema.field("score").type == pa.float64()
        assert result.schema.field("reason").type == pa.string()
    assert graph.run(rows_of([-1.0, 20.0, 5.0])).select(["score", "reason"]).to_pylist() == [
        {"score": 1.0, "reason": "negative"},
        {"score": 1000.0, "reason": None},
        {"score": None, "reason": None},
    ]


def test_routes_nest_and_overrides_replace_the_score_of_a_model() -> None:
    inner = route(("x > 10", {"values": {"score": 0.99, "reason": "cap"}}), otherwise={"values": {"reason": "model"}})
    outer = route(("x < 0", {"values": {"score": 0.0, "reason": "blocked"}}), otherwise=inner)
    result = Seen().graph({"model": SMALL}, outer).run(rows_of([-1.0, 5.0, 50.0, 6.0]))
    assert result["score"].to_pylist() == [0.0, 1.0, 0.99, 3.0]
    assert result["reason"].to_pylist() == ["blocked", "model", "cap", "model"]


def test_a_routed_member_is_combined_like_others() -> None:
    members = {"one": {"model": SMALL}, "two": BY_SIZE}
    result = Seen().graph({"ensemble": {"combine": "mean", "members": members}}).run(rows_of([-1.0, 5.0, 50.0]))
    assert result["score"].to_pylist() == [0.0, 0.0, (2 + 2000) / 2]


def test_a_row_that_no_case_takes_stops_the_run_where_that_is_declared() -> None:
    graph = Seen().graph(route(("x < 0", {"model": SMALL}), otherwise="error"))
    assert graph.run(rows_of([-1.0]))["score"].to_pylist() == [0.0]
    sentence = r"^a row matches no case of a route: expected each row in one of x < 0, got 2 of 3 rows in none\."
    with pytest.raises(ContractError, match=sentence):
        graph.run(rows_of([-1.0, 1.0, None]))


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (
            route(("xx < 0", {"model": SMALL}), otherwise="error"),
            r"^predicate 'xx < 0' of a route names unknown columns: expected some of id, x, city, got xx\. Did you",
        ),
        (
            route(("x < 0", {"model": SMALL}), otherwise={"values": {"skore": 0}}),
            r"^branch 'otherwise' of a route lacks columns .* ends with: expected also score, got columns .*skore\.",
        ),
        (
            route(("x < 0", {"values": {"a": 1}}), otherwise={"values": {"a": 1, "b": 1}}),
            r"^branch 'x < 0' of a route lacks columns that another branch ends with: expected also b, got ",
        ),
        (
            route(("x < 0", {"model": SMALL}), otherwise={"values": {"score": "none"}}),
            r"^branch 'otherwise' of a route ends with other types: expected those of branch 'x < 0', got .*score",
        ),
        (
            route(("count(*) > 1", {"model": SMALL}), otherwise="error"),
            r"^a predicate of a route is an aggregate: expected expressions over one row, got count\(\*\) > 1\.$",
        ),
    ],
)
def test_what_does_not_fit_is_found_before_any_row(step: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ContractError, match=sentence):
        Seen().graph(step).step.schema(rows_of([]).schema)


@pytest.mark.parametrize(
    ("predicate", "got"),
    [
        ("x >", r"syntax error at or near \"\)\""),
        ("x > 1; drop table batch", r"syntax error at or near \";\""),
        ("x > 1) , (y > 2", "more than that"),
        ("true) from batch where (x > 1", "syntax error .*"),
        ("x > (select 3)", "a subquery"),
        ("x > avg(x) over ()", "a window function"),
        ("*", r"'\*'"),
    ],
)
def test_a_predicate_is_one_expression_over_a_row(predicate: str, got: str) -> None:
    sentence = rf"is not a predicate: expected one SQL expression over the columns of a row, got {got}\.$"
    with pytest.raises(ContractError, match=sentence):
        Seen().graph(route((predicate, {"model": SMALL}), otherwise="error"))


@pytest.mark.parametrize("predicate", ["x < (select max(x) from '/etc/passwd')", "len(read_text('/etc/passwd')) > 1"])
def test_a_predicate_reaches_no_file(predicate: str) -> None:
    with pytest.raises(ContractError):
        Seen().graph(route((predicate, {"model": SMALL}), otherwise="error")).run(rows_of([1.0]))


def test_the_parameter_of_a_lambda_is_no_column() -> None:
    predicate = "len(list_filter([x], lambda v: v < 0)) > 0"
    graph = Seen().graph(route((predicate, {"model": SMALL}), otherwise={"model": LARGE}))
    assert graph.run(rows_of([1.0, -1.0]))["score"].to_pylist() == [0.0, 1.0]


def test_a_comment_ends_with_its_predicate() -> None:
    graph = Seen().graph(route(("x < 0 -- debts", {"values": {"a": 1}}), otherwise={"values": {"a": 2}}))
    assert graph.run(rows_of([-1.0, 1.0]))["a"].to_pylist() == [1, 2]
