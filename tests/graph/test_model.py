from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.batch import Batch
from scoring.errors import ContractError, DataError, ModelError
from scoring.testing import FunctionPredictor, Graph, example_rows, frozen_model, make_graph

COLUMNS = {"x": "double", "y": "double"}


def graph(predictor: FunctionPredictor, *, columns: dict[str, str] = COLUMNS, **step: object) -> Graph:
    uri = "models:/delay/7"
    return make_graph({"model": uri, **step}, models={uri: (frozen_model("delay", columns, version=7), predictor)})


def batch_size(batch: Batch) -> np.ndarray:
    return np.full(batch.rows, batch.rows)


@given(rows=st.integers(1, 50), size=st.integers(1, 60))
def test_a_model_is_given_at_most_its_batch_size(rows: int, size: int) -> None:
    predictor = FunctionPredictor(batch_size)
    result = graph(predictor, batch_size=size).run(example_rows(rows))
    assert predictor.batches == [size] * (rows // size) + ([rows % size] if rows % size else [])
    assert result.column("score").to_pylist() == [float(n) for n in predictor.batches for _ in range(n)]


def test_without_a_batch_size_a_model_is_given_the_whole_batch() -> None:
    predictor = FunctionPredictor(batch_size)
    graph(predictor).run(example_rows(1000))
    assert predictor.batches == [1000]


def test_no_rows_do_not_load_the_model() -> None:
    predictor = FunctionPredictor(batch_size)
    result = graph(predictor).run(example_rows(0))
    assert predictor.batches == []
    assert result.schema.field("score").type == pa.float64()


@pytest.mark.parametrize("kind", [np.float32, np.int64, np.uint8, np.bool_])
def test_every_number_is_a_double_in_the_output(kind: type) -> None:
    result = graph(FunctionPredictor(lambda batch: np.ones(batch.rows, kind)), output="p").run(example_rows(3))
    assert result.column("p").equals(pa.chunked_array([[1.0, 1.0, 1.0]]))


def test_a_column_of_the_outputs_name_is_replaced_in_place() -> None:
    table = pa.table({"id": [1], "score": ["old"], "x": [1.0], "y": [2.0]})
    model = graph(FunctionPredictor(lambda batch: np.zeros(batch.rows)))
    result = model.run(table)
    assert result.to_pylist() == [{"id": 1, "score": 0.0, "x": 1.0, "y": 2.0}]
    assert model.step.schema(table.schema) == result.schema


@pytest.mark.parametrize("shape", [(3, 1), (3, 2), (2,), (4,), ()])
def test_a_wrong_shape_is_refused_and_the_model_is_named(shape: tuple[int, ...]) -> None:
    model = graph(FunctionPredictor(lambda _: np.zeros(shape)))
    with pytest.raises(ModelError, match=r"model 'delay' version 7 predicted a wrong shape: expected \(3,\), got \("):
        model.run(example_rows(3))


def test_a_model_that_raises_is_named() -> None:
    def fails(_: Batch) -> np.ndarray:
        raise ZeroDivisionError("no weather")

    sentence = (
        r"model 'delay' version 7 raised while predicting 3 rows: got ZeroDivisionError: no weather\. Nothing was"
    )
    with pytest.raises(ModelError, match=sentence) as caught:
        graph(FunctionPredictor(fails)).run(example_rows(3))
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_predictions_that_are_no_numbers_are_refused() -> None:
    model = graph(FunctionPredictor(lambda batch: np.array(["late"] * batch.rows)))
    with pytest.raises(
        ModelError, match=r"model 'delay' version 7 raised while predicting 3 rows: got ValueError: .*late"
    ):
        model.run(example_rows(3))


def test_our_own_errors_pass_through_a_model() -> None:
    def fails(_: Batch) -> np.ndarray:
        raise DataError("the model says no")

    with pytest.raises(DataError, match=r"^the model says no\.$"):
        graph(FunctionPredictor(fails)).run(example_rows(3))


@pytest.mark.parametrize(
    ("columns", "sentence"),
    [
        (
            {"x": "double", "yy": "double"},
            r"'delay' version 7 does not fit its input: expected columns yy,.*mean 'y'\?$",
        ),
        (
            {"zzzz": "double"},
            r"does not fit its input: expected columns zzzz, got columns id, x, y, city, label\. Provide",
        ),
        ({"city": "double"}, r"column 'city' does not fit model 'delay' version 7: expected double, got string\.$"),
        ({"x": "string"}, r"column 'x' does not fit model 'delay' version 7: expected string, got double\.$"),
    ],
)
def test_a_column_that_does_not_fit_is_found_before_any_row(columns: dict[str, str], sentence: str) -> None:
    predictor = FunctionPredictor(batch_size)
    with pytest.raises(ContractError, match=sentence):
        graph(predictor, columns=columns).step.schema(example_rows(0).schema)
    assert predictor.batches == []
