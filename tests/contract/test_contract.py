"""What every flavor must do, in one body: the same numbers as the library itself, whatever the batches."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import tempfile
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
from tests.contract.models import EXTENSION, KINDS, MIXED, SEVERAL, Case

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
    found = case.native(frame.astype({name: np.float64 for name in case.columns if name != "city"}))
    return found[:, 0] if found.shape[1:] == (1,) else found


def test_every_flavor_is_tested() -> None:
    assert {kind.flavor for kind in KINDS.values()} == set(flavors.supported())


def test_the_flavor_of_a_case_is_found_in_its_artifact(case: Case, request: pytest.FixtureRequest) -> None:
    assert case.frozen.flavor == KINDS[request.node.callspec.params["case"]].flavor


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


def test_several_numbers_per_row_are_those_of_the_library(several: Case) -> None:
    rows = example_rows(1000, seed=13)
    found = load(several, outputs=SEVERAL).predict(Batch(rows))
    assert (found.shape, found.dtype) == ((1000, SEVERAL), np.float64)
    np.testing.assert_allclose(found, native(several, rows), rtol=0, atol=3e-7)
    assert all(len(set(column)) > 3 for column in found.T)
    for threads in (2, 3):
        np.testing.assert_array_equal(load(several, outputs=SEVERAL, threads=threads).predict(Batch(rows)), found)
    np.testing.assert_allclose(load(several, outputs=SEVERAL).predict(Batch(rows.slice(7, 1))), found[7:8], atol=3e-7)


def test_another_number_of_outputs_than_the_step_names_is_refused(several: Case) -> None:
    sentence = (
        r"model 'model' version 1 predicted another number of columns: expected 4 outputs, as the step names, got 3"
    )
    with pytest.raises(ModelError, match=sentence):
        load(several, outputs=4).predict(Batch(example_rows(10)))


def test_one_output_is_no_matrix(case: Case) -> None:
    with pytest.raises(
        ModelError, match="predicted another number of columns: expected 3 outputs, as the step names, got"
    ):
        load(case, outputs=SEVERAL).predict(Batch(example_rows(10)))


def test_no_rows_give_no_scores(case: Case) -> None:
    assert scores(case, example_rows(0)).shape == (0,)


def test_the_signature_names_columns_and_types(case: Case) -> None:
    assert case.frozen.columns == case.columns
    assert case.columns in (MIXED, MIXED[1:])
    assert [column.required for column in case.frozen.inputs] == [name == "city" for name in case.columns]
    assert step(case).schema(example_rows(0).schema).field("score").type == pa.float64()


def test_a_wrong_type_is_refused_before_any_row(case: Case) -> None:
    schema = pa.schema({"x": pa.string(), "y": pa.float64(), "city": pa.string()})
    with pytest.raises(
        ContractError, match=r"column 'x' does not fit model '\w+' version 1: expected double, got string"
    ):
        step(case).schema(schema)


ALONE = """
import pickle, sys
from scoring.batch import Batch
from scoring.models.cache import PREDICTORS
model, files, rows = pickle.load(open(sys.argv[1], "rb"))
values = PREDICTORS.get(model, files).predict(Batch(rows))
loaded = {name.split(".")[0] for name in sys.modules}
pickle.dump((values, sorted(loaded & {"mlflow", "torch", "tensorflow", "pyspark"})), open(sys.argv[2], "wb"))
"""


def test_models_load_from_bytes_in_a_process_without_mlflow(case: Case, tmp_path: Path) -> None:
    rows = example_rows(20, seed=10)
    (tmp_path / "given").write_bytes(pickle.dumps((case.frozen, dict(case.files), rows)))
    command = [sys.executable, "-c", ALONE, str(tmp_path / "given"), str(tmp_path / "found")]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROJECT), str(EXTENSION)])}
    subprocess.run(command, check=True, cwd=PROJECT, env=environment, timeout=120)
    values, loaded = pickle.loads((tmp_path / "found").read_bytes())
    np.testing.assert_allclose(values, scores(case, rows), rtol=0, atol=3e-7)
    if case.frozen.flavor == "python_function":
        assert "mlflow" in loaded
    else:
        frameworks = {"pytorch": "torch", "safetensors": "torch", "keras": "tensorflow", "tensorflow": "tensorflow"}
        assert loaded == [framework for flavor, framework in frameworks.items() if flavor == case.frozen.flavor]


def test_a_model_that_made_room_loads_again_and_leaves_no_files(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    cache, rows = PredictorCache(limit_bytes=0), Batch(example_rows(50, seed=14))
    first = cache.get(case.frozen, case.files).predict(rows)
    cache.get(case.frozen, case.files, threads=2)
    assert (cache.loads, cache.evictions) == (2, 1)
    np.testing.assert_array_equal(cache.get(case.frozen, case.files).predict(rows), first)
    assert (cache.loads, cache.evictions) == (3, 2)
    del cache
    gc.collect()
    assert list(tmp_path.glob("scoring-model-*")) == []


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
