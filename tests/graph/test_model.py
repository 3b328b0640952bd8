from __future__ import annotations

import subprocess
import sys
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from scoring.batch import Batch
from scoring.errors import ContractError, DataError, ModelError
from scoring.graph.model import Model
from scoring.models.memory import BatchSizes
from scoring.testing import FunctionPredictor, Graph, example_rows, frozen_model, make_graph

COLUMNS = {"x": "double", "y": "double"}
PROJECT = Path(__file__).parents[2]


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


# ---------------------------------------------------------------------------------------------------- out of memory


def limited(rows: int, error: Callable[[], Exception]) -> FunctionPredictor:
    """A model for which more than `rows` rows are too many."""

    def twice(batch: Batch) -> np.ndarray:
        if batch.rows > rows:
            raise error()
        return batch.table.column("x").to_numpy() * 2

    return FunctionPredictor(twice)


def step(predictor: FunctionPredictor, *, batch_size: int | None = None) -> Model:
    return Model(frozen_model("m", COLUMNS), ("score",), lambda: predictor, batch_size, sizes=BatchSizes())


@pytest.mark.parametrize(
    "error",
    [
        MemoryError,
        lambda: pa.ArrowMemoryError("malloc of size 4096 failed"),
        lambda: RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        lambda: RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB."),
        lambda: ValueError("std::bad_alloc"),
    ],
)
def test_a_batch_that_does_not_fit_is_halved_and_the_size_is_remembered(error: Callable[[], Exception]) -> None:
    predictor, rows = limited(300, error), example_rows(1000)
    model = step(predictor)
    result = model.run(Batch(rows)).table.column("score")
    assert result.to_pylist() == [2 * x for x in rows.column("x").to_pylist()]
    assert predictor.batches == [1000, 500, 250, 250, 250, 250]
    model.run(Batch(rows.slice(0, 600)))
    assert predictor.batches[6:] == [250, 250, 100], "the next batch is not tried in vain"
    assert model.sizes.used([model.frozen.digest]) == {model.frozen.digest: 250}
    assert model.sizes.halvings == 2


@given(rows=st.integers(1, 200), fitting=st.integers(1, 200), size=st.none() | st.integers(1, 200))
def test_every_row_is_predicted_once_whatever_fits(rows: int, fitting: int, size: int | None) -> None:
    predictor = limited(fitting, MemoryError)
    table = example_rows(rows)
    result = step(predictor, batch_size=size).run(Batch(table)).table
    assert result.column("score").to_pylist() == [2 * x for x in table.column("x").to_pylist()]
    assert sum(n for n in predictor.batches if n <= fitting) == rows
    assert max(predictor.batches) <= (size or rows)


def test_a_matrix_that_does_not_fit_is_not_shared_with_the_whole_batch() -> None:
    class Narrow(Batch):
        """A batch for whose matrix there is no memory."""

        def matrix(self, columns: tuple[str, ...]) -> np.ndarray:
            raise MemoryError(columns)

    predictor = FunctionPredictor(lambda batch: batch.matrix(("x",))[:, 0])
    table = example_rows(100)
    result = step(predictor).run(Narrow(table)).table
    np.testing.assert_allclose(result.column("score"), table.column("x"), rtol=1e-6)
    assert predictor.batches == [100, 50, 50]


def test_a_single_row_that_does_not_fit_says_what_to_do() -> None:
    model = step(limited(0, lambda: RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB.")))
    sentence = (
        r"model 'm' version 1 does not fit on cpu with a single row: expected memory for a row of \d+ bytes and "
        r"a model of about 0 bytes, got RuntimeError: CUDA out of memory.* Give the Spark executors more memory"
    )
    with pytest.raises(ModelError, match=sentence):
        model.run(Batch(example_rows(100)))
    assert model.sizes.halvings == 6


def test_the_error_of_an_attempt_holds_no_memory_when_the_rows_are_tried_again() -> None:
    class Tensor:
        """What an attempt made."""

    alive: list[int] = []
    made = 0

    def predict(batch: Batch) -> np.ndarray:
        nonlocal made
        alive.append(made)
        if batch.rows > 5:
            tensor, made = Tensor(), made + 1
            weakref.finalize(tensor, freed)
            tensor.itself = tensor  # type: ignore[attr-defined]  # as modules and frames do
            raise MemoryError
        return np.zeros(batch.rows)

    def freed() -> None:
        nonlocal made
        made -= 1

    step(FunctionPredictor(predict)).run(Batch(example_rows(40)))
    assert alive[:4] == [0, 0, 0, 0]


REAL = """
import resource
from pathlib import Path
import numpy as np
from scoring.batch import Batch
from scoring.graph.model import Model
from scoring.models.memory import BATCH_SIZES
from scoring.testing import FunctionPredictor, example_rows, frozen_model

wide = FunctionPredictor(lambda batch: np.outer(batch.table.column("x").to_numpy(), np.ones(1000)).sum(axis=1))
model = Model(frozen_model("wide", {"x": "double"}), ("score",), lambda: wide)
rows = example_rows(100_000)
expected = rows.column("x").to_numpy() * 1000
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + 300_000_000
resource.setrlimit(resource.RLIMIT_AS, (size, size))
found = model.run(Batch(rows)).table.column("score").to_numpy()
assert np.allclose(found, expected)
print(*BATCH_SIZES.used([model.frozen.digest]).values())
"""


def test_a_real_process_with_too_little_memory_scores_all_rows() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REAL], check=True, cwd=PROJECT, timeout=120, capture_output=True, text=True
    )
    assert 1000 < int(done.stdout) < 100_000, "800 MB did not fit into 300 MB"


def test_a_step_with_options_that_its_model_does_not_know_is_found_before_any_row() -> None:
    uri, frozen = "models:/m/1", replace(frozen_model("m", COLUMNS), flavor="sklearn")
    for options in ({"precision": "bfloat16"}, {"compile": True}):
        model = make_graph({"model": uri, **options}, models={uri: (frozen, FunctionPredictor(batch_size))})
        with pytest.raises(ModelError, match=r"'m' version 1 of flavor 'sklearn' cannot be used as the step says"):
            model.step.schema(example_rows(0).schema)


# ------------------------------------------------------------------------------------- several outputs, other names


def three(batch: Batch) -> np.ndarray:
    return np.arange(3 * batch.rows, dtype=np.float32).reshape(batch.rows, 3)


@given(rows=st.integers(0, 20), size=st.integers(1, 25))
def test_each_output_of_a_model_is_a_column_of_doubles(rows: int, size: int) -> None:
    predictor = FunctionPredictor(
        lambda batch: batch.table.select(["x", "y", "x"]).to_pandas().to_numpy()[:, [0, 1, 0]]
    )
    model = graph(predictor, outputs=["a", "b", "c"], batch_size=size)
    table = example_rows(rows)
    result = model.run(table)
    assert result.column_names == [*table.column_names, "a", "b", "c"]
    assert [result["a"].to_pylist(), result["b"].to_pylist()] == [table["x"].to_pylist(), table["y"].to_pylist()]
    assert result["c"].equals(result["a"])
    assert model.step.schema(table.schema) == result.schema


@pytest.mark.parametrize(
    ("outputs", "function", "sentence"),
    [
        (
            ["a", "b"],
            three,
            r"model 'delay' version 7 does not fit its step: expected 2 outputs, as the step names, got 3\. Name one",
        ),
        (["a", "b", "c", "d"], three, r"expected 4 outputs, as the step names, got 3\."),
        (["a", "b"], lambda batch: np.zeros(batch.rows), r"predicted a wrong shape: expected \(5, 2\), got \(5,\)\.$"),
        (["a"], three, r"predicted a wrong shape: expected \(5,\), got \(5, 3\)\.$"),
    ],
)
def test_another_number_of_outputs_than_the_step_names_is_refused(
    outputs: list[str], function: Callable[[Batch], np.ndarray], sentence: str
) -> None:
    with pytest.raises(ModelError, match=sentence):
        graph(FunctionPredictor(function), outputs=outputs).run(example_rows(5))


def test_a_feature_may_come_from_a_column_of_another_name() -> None:
    predictor = FunctionPredictor(lambda batch: batch.table["feature"].to_numpy() - batch.table["y"].to_numpy())
    model = graph(predictor, columns={"feature": "double", "y": "double"}, inputs={"feature": "x"})
    table = example_rows(10)
    result = model.run(table)
    np.testing.assert_array_equal(result["score"].to_numpy(), table["x"].to_numpy() - table["y"].to_numpy())
    assert model.step.schema(table.schema) == result.schema
    assert result.column_names == [*table.column_names, "score"]


@pytest.mark.parametrize(
    ("inputs", "sentence"),
    [
        ({"x": "yy"}, r"^'inputs' names unknown columns: expected some of id, .*, got yy\. Did you mean 'y'\?$"),
        (
            {"xx": "y"},
            r"^'inputs' names unknown features of the model: expected some of x, y, got xx\. Did you mean 'x'",
        ),
        ({"x": "city"}, r"^column 'x' does not fit model 'delay' version 7: expected double, got string\.$"),
    ],
)
def test_a_mapping_that_fits_neither_batch_nor_signature_is_refused(inputs: dict[str, str], sentence: str) -> None:
    model = graph(FunctionPredictor(batch_size), inputs=inputs)
    with pytest.raises(ContractError, match=sentence):
        model.step.schema(example_rows(0).schema)


def test_models_that_call_the_same_columns_otherwise_share_one_matrix() -> None:
    seen: list[int] = []

    def remember(*columns: str) -> FunctionPredictor:
        def predict(batch: Batch) -> np.ndarray:
            seen.append(id(batch.matrix(columns)))
            return np.zeros(batch.rows)

        return FunctionPredictor(predict)

    models = {
        "models:/plain/1": (frozen_model("plain", COLUMNS), remember("x", "y")),
        "models:/other/1": (frozen_model("other", {"a": "double", "b": "double"}), remember("a", "b")),
    }
    members = {
        "plain": {"model": "models:/plain/1"},
        "other": {"model": "models:/other/1", "inputs": {"a": "x", "b": "y"}},
    }
    make_graph({"ensemble": {"combine": "mean", "members": members}}, models=models).run(example_rows(30))
    assert len(seen) == 2
    assert len(set(seen)) == 1
