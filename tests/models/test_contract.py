"""What every flavor must do, in one body: the same numbers as the library itself, whatever the batches."""

from __future__ import annotations

import pickle
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from scoring.batch import Batch
from scoring.errors import ContractError, ModelError
from scoring.graph.model import Model
from scoring.models import flavors
from scoring.models.base import Predictor
from scoring.models.cache import PredictorCache
from scoring.testing import example_rows
from tests.models.conftest import FLAVORS, Case

pytestmark = pytest.mark.flavors
PROJECT = Path(__file__).parents[2]
MISSING = {1: None, 3: float("nan"), 8: None}


def load(case: Case, **options: Any) -> Predictor:
    return PredictorCache().get(case.frozen, case.files, **options)


def step(case: Case, *, batch_size: int | None = None) -> Model:
    predictor = load(case)
    return Model(case.frozen, ("score",), lambda: predictor, batch_size)


def scores(case: Case, rows: pa.Table, *, batch_size: int | None = None) -> np.ndarray:
    return step(case, batch_size=batch_size).run(Batch(rows)).table.column("score").to_numpy()


def native(case: Case, rows: pa.Table) -> np.ndarray:
    frame = rows.select(list(case.columns)).to_pandas()
    return case.native(frame.astype({name: np.float64 for name in case.columns if name != "city"}))


def test_every_flavor_is_tested() -> None:
    assert [flavor.removeprefix("py") for flavor in flavors.FLAVORS] == list(FLAVORS)


def test_the_result_is_that_of_the_library_itself(case: Case) -> None:
    rows = example_rows(2000, seed=5)
    found = scores(case, rows)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, native(case, rows), rtol=0, atol=3e-7)
    assert len(set(found)) > 10


@pytest.mark.parametrize("size", [1, 7, 1000, 9999, 99_999, 100_000])
def test_the_result_does_not_depend_on_the_batch_size(case: Case, size: int) -> None:
    rows = example_rows(100_000 if size > 7 else 50, seed=6)
    np.testing.assert_allclose(scores(case, rows, batch_size=size), scores(case, rows), rtol=0, atol=3e-7)


def test_the_result_is_the_same_to_the_bit_whenever_and_with_however_many_threads(case: Case) -> None:
    rows = Batch(example_rows(20_000, seed=12))
    first = load(case).predict(rows)
    for threads in (1, 2, 3):
        np.testing.assert_array_equal(load(case, threads=threads).predict(rows), first)


def test_several_threads_may_use_one_predictor(case: Case) -> None:
    predictor, rows = load(case), [Batch(example_rows(5000, seed=seed)) for seed in range(4)]
    expected = [predictor.predict(batch) for batch in rows]
    with ThreadPoolExecutor(2) as threads:
        for found, given in zip(threads.map(predictor.predict, rows), expected, strict=True):
            np.testing.assert_array_equal(found, given)


def test_null_and_nan_are_missing_values(case: Case) -> None:
    rows = example_rows(10, seed=7)
    x = rows.column("x").to_pylist()
    for row, value in MISSING.items():
        x[row] = value
    rows = rows.set_column(1, "x", pa.array(x, pa.float64()))
    found = scores(case, rows)
    np.testing.assert_allclose(found, native(case, rows), rtol=0, atol=3e-7)
    assert np.isfinite(found).all()


@pytest.mark.parametrize("kind", [pa.float32(), pa.int32(), pa.int8()])
def test_narrower_numbers_give_what_the_library_gives_for_them(case: Case, kind: pa.DataType) -> None:
    rows = example_rows(100, seed=8)
    for name in ("x", "y"):
        position = rows.schema.get_field_index(name)
        rows = rows.set_column(position, name, rows.column(name).cast(kind, safe=False))
    np.testing.assert_allclose(scores(case, rows), native(case, rows), rtol=0, atol=3e-7)


def test_further_columns_and_their_order_do_not_matter(case: Case) -> None:
    rows = example_rows(50, seed=9)
    turned = rows.select(list(reversed(rows.column_names))).append_column("other", pa.nulls(50))
    np.testing.assert_array_equal(scores(case, turned), scores(case, rows))


def test_no_rows_give_no_scores(case: Case) -> None:
    assert scores(case, example_rows(0)).shape == (0,)


def test_the_signature_names_columns_and_types(case: Case) -> None:
    assert case.frozen.columns == case.columns
    assert [column.required for column in case.frozen.inputs] == [name == "city" for name in case.columns]
    assert step(case).schema(example_rows(0).schema).field("score").type == pa.float64()


def test_a_wrong_type_is_refused_before_any_row(case: Case) -> None:
    schema = pa.schema({"x": pa.string(), "y": pa.float64(), "city": pa.string()})
    with pytest.raises(
        ContractError, match=r"column 'x' does not fit model '\w+' version 1: expected double, got string"
    ):
        step(case).schema(schema)


def test_models_load_from_bytes_in_a_process_without_mlflow(case: Case, tmp_path: Path) -> None:
    rows = example_rows(20, seed=10)
    (tmp_path / "given").write_bytes(pickle.dumps((case.frozen, dict(case.files), rows)))
    program = """
import pickle, sys
from scoring.batch import Batch
from scoring.models.cache import PREDICTORS
model, files, rows = pickle.load(open(sys.argv[1], "rb"))
values = PREDICTORS.get(model, files).predict(Batch(rows))
loaded = {name.split(".")[0] for name in sys.modules}
pickle.dump((values, sorted(loaded & {"mlflow", "torch", "sklearn", "xgboost", "pyspark"})), open(sys.argv[2], "wb"))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "given"), str(tmp_path / "found")]
    subprocess.run(command, check=True, cwd=PROJECT, timeout=120)
    values, loaded = pickle.loads((tmp_path / "found").read_bytes())
    np.testing.assert_array_equal(values, scores(case, rows))
    assert "mlflow" not in loaded
    assert "pyspark" not in loaded


def test_one_changed_byte_is_noticed_before_anything_is_loaded(case: Case) -> None:
    for path, content in case.files.items():
        changed = bytearray(content)
        changed[len(changed) // 2] ^= 1
        files = {**case.files, path: bytes(changed)}
        with pytest.raises(
            ModelError, match=r"the files of model '\w+' version 1 were changed: expected sha256 [0-9a-f]{64}"
        ):
            PredictorCache().get(case.frozen, files)


def test_a_missing_and_an_additional_file_are_noticed(case: Case) -> None:
    fewer = dict(list(case.files.items())[1:])
    for files in (fewer, {**case.files, "more.txt": b""}):
        with pytest.raises(ModelError, match="were changed"):
            PredictorCache().get(case.frozen, files)


def test_a_model_is_loaded_once_per_method(case: Case) -> None:
    cache = PredictorCache()

    def get(method: str) -> Predictor:
        return cache.get(case.frozen, case.files, method=method)

    assert get("auto") is get("auto")
    assert cache.loads == 1
    assert cache.load_s > 0
    assert get("predict") is not get("auto")
    assert cache.loads == 2
