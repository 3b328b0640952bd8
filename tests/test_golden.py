"""The golden sample: kept at registration, scored again where a version is deployed."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from scoring import golden, promotion
from scoring.cli import app
from scoring.deployment import Deployment, ModelStep
from scoring.errors import ConfigurationError, ContractError, ModelError
from scoring.golden import DIGEST_TAG, SAMPLE_ROWS, GoldenSample, choose, compare
from scoring.install import install
from scoring.models.base import BFLOAT16, FLOAT32, FrozenModel
from scoring.registry import CHAMPION, TRAINING_RUN_TAG, Registry
from scoring.runs import RunStore
from scoring.testing import FEATURES, MODEL, example_rows, register_sklearn
from tests.models.programs import exported, layers
from tests.soup.nights import LINEAR, NET, RATE, STRENGTH, trained, write, write_lake

ROW = 7


@pytest.fixture
def deployment(home: Path, monkeypatch: pytest.MonkeyPatch) -> Deployment:
    """One version of a logistic regression, trained and not promoted."""
    write_lake(home)
    made = write(home, LINEAR)
    trained(made, monkeypatch, **{STRENGTH: [1.0]})
    return made


def stored(version: int = 1) -> GoldenSample:
    content = RunStore().read(_run_id(version), f"golden/{MODEL}.parquet")
    assert content is not None
    assert Registry().version(MODEL, str(version)).tags[DIGEST_TAG] == hashlib.sha256(content).hexdigest()
    return GoldenSample.from_bytes(content)


def put(sample: GoldenSample, *, version: int = 1) -> None:
    """Store a sample in place of the one of a version, as if the version had been registered with it."""
    content = sample.to_bytes()
    RunStore().put(_run_id(version), f"golden/{MODEL}.parquet", content)
    Registry().tag(MODEL, version, DIGEST_TAG, hashlib.sha256(content).hexdigest())


def moved(sample: GoldenSample, by: float, **changes: object) -> GoldenSample:
    expected = {name: values.copy() for name, values in sample.expected.items()}
    expected["score"][ROW] += by
    return dataclasses.replace(sample, expected=expected, **changes)


def _run_id(version: int) -> str:
    return str(Registry().version(MODEL, str(version)).tags[TRAINING_RUN_TAG])


# ------------------------------------------------------------------------------------------------- registration


def test_training_keeps_rows_and_what_the_plain_library_predicts_for_them(deployment: Deployment) -> None:
    import skops.io

    sample = stored()
    assert sample.rows.num_rows == SAMPLE_ROWS
    assert sample.rows.column_names == ["id", *FEATURES]
    assert (sample.keys, sample.method) == (("id",), "auto")
    assert {"numpy", "scikit-learn", "pyarrow"} <= set(sample.libraries)
    _, files = Registry().pinned(MODEL, 1)
    native = skops.io.loads(files["model.skops"], trusted=["numpy.dtype"])
    expected = native.predict_proba(sample.rows.select(list(FEATURES)).to_pandas())[:, 1]
    np.testing.assert_allclose(sample.expected["score"], expected, rtol=1e-12)


def test_a_sample_is_read_as_it_was_written(deployment: Deployment) -> None:
    sample = stored()
    again = GoldenSample.from_bytes(sample.to_bytes())
    assert again.rows.equals(sample.rows)
    np.testing.assert_array_equal(again.expected["score"], sample.expected["score"])
    assert (again.keys, again.method, again.libraries) == (sample.keys, sample.method, sample.libraries)


def test_another_format_is_refused() -> None:
    import io

    import pyarrow.parquet as pq

    content = io.BytesIO()
    pq.write_table(pa.table({"id": [1]}), content)
    with pytest.raises(ContractError, match=r"the golden sample cannot be read: expected format_version 1, got None"):
        GoldenSample.from_bytes(content.getvalue())


NUMBERS = st.one_of(st.none(), st.floats(-1e3, 1e3), st.just(float("nan")))


@given(st.lists(st.tuples(NUMBERS, st.integers(-5, 5), st.one_of(st.none(), st.text(max_size=3))), max_size=150))
def test_a_sample_holds_edge_rows(rows: list[tuple[float | None, int, str | None]]) -> None:
    columns = list(zip(*rows, strict=True)) if rows else [(), (), ()]
    types = (pa.float64(), pa.int32(), pa.string())
    table = pa.table(
        {name: pa.array(list(values), kind) for name, values, kind in zip("abc", columns, types, strict=True)}
    )
    chosen = choose(table)
    assert chosen == sorted(set(chosen))
    assert len(chosen) == min(SAMPLE_ROWS, len(rows))
    sample = table.take(chosen).to_pandas() if chosen else None
    for name in "abc":
        values = table.column(name).to_pandas()
        if table.column(name).null_count:
            assert table.column(name).take(chosen).null_count
        if name != "c" and values.notna().any():
            assert sample is not None
            assert sample[name].min() == values.min()
            assert sample[name].max() == values.max()


def test_many_columns_leave_room_for_other_rows() -> None:
    values = np.random.default_rng(0).normal(size=(200, 100))
    table = pa.table({f"c{position}": values[:, position] for position in range(100)})
    assert len(choose(table)) == SAMPLE_ROWS
    assert set(choose(table)) & {0, 199}


# --------------------------------------------------------------------------------------------------- deployment


def test_a_version_that_predicts_the_same_is_promoted_and_deployed(deployment: Deployment, tmp_path: Path) -> None:
    assert promotion.promote_versions(deployment, {MODEL: 1}).warnings == ()
    assert install(deployment.folder).warnings == ()


@pytest.mark.parametrize("way", ["by hand", "redeploy", "deploy"])
def test_a_difference_is_refused_with_row_and_column(deployment: Deployment, way: str) -> None:
    if way == "deploy":
        promotion.promote_versions(deployment, {MODEL: 1})
    before = Registry().aliased(MODEL, CHAMPION)
    sample = stored()
    put(moved(sample, 1e-3))
    expected, got = sample.expected["score"][ROW] + 1e-3, sample.expected["score"][ROW]
    key = sample.rows.column("id")[ROW].as_py()
    sentence = (
        rf"model 'example' version 1 predicts here something else than when it was registered: row id {key}, column "
        rf"'score': expected {re.escape(f'{expected:.9g}')} \(within 1e-05\), got {re.escape(f'{got:.9g}')}\. 1 of 64 "
        r"rows differ\. The libraries are those of then \(.*scikit-learn"
    )
    with pytest.raises(ModelError, match=sentence):
        match way:
            case "by hand":
                promotion.promote_versions(deployment, {MODEL: 1})
            case "redeploy":
                promotion.redeploy(deployment)
            case _:
                install(deployment.folder)
    assert Registry().aliased(MODEL, CHAMPION) == before


def test_other_libraries_are_named(deployment: Deployment) -> None:
    sample = stored()
    put(moved(sample, 0.1, libraries={**sample.libraries, "scikit-learn": "0.1", "gone": "3"}))
    with pytest.raises(
        ModelError, match=r"Other libraries: .*scikit-learn 0\.1 then, [\d.]+ here, gone 3 then, not inst"
    ):
        promotion.promote_versions(deployment, {MODEL: 1})


def test_other_libraries_that_predict_the_same_are_no_obstacle(deployment: Deployment) -> None:
    sample = stored()
    put(moved(sample, 1e-7, libraries=dict.fromkeys(sample.libraries, "0.1")))
    assert promotion.promote_versions(deployment, {MODEL: 1}).is_promoted


def test_a_sample_that_was_changed_is_noticed(deployment: Deployment) -> None:
    RunStore().put(_run_id(1), f"golden/{MODEL}.parquet", moved(stored(), 1e-3).to_bytes())
    with pytest.raises(ModelError, match=r"the golden sample of model 'example' version 1 was changed after"):
        promotion.promote_versions(deployment, {MODEL: 1})


def test_a_version_of_another_tool_is_promoted_with_a_sentence(deployment: Deployment) -> None:
    rows = example_rows(100, seed=1)
    register_sklearn(MODEL, rows.select(list(FEATURES)).to_pandas(), rows["label"].to_numpy(), alias=None)
    promoted = promotion.promote_versions(deployment, {MODEL: 2})
    assert promoted.is_promoted
    (sentence,) = promoted.warnings
    assert re.fullmatch(r"Model 'example' version 2 has no golden sample, .*", sentence)
    done = CliRunner().invoke(app, ["deploy", str(deployment.folder)])
    assert done.exit_code == 0, done.stderr
    assert "has no golden sample" in done.stdout


def test_nothing_stands_in_the_way_of_a_roll_back(deployment: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    trained(deployment, monkeypatch, **{STRENGTH: [0.5]})
    promotion.promote_versions(deployment, {MODEL: 1})
    promotion.promote_versions(deployment, {MODEL: 2})
    put(moved(stored(), 0.1))
    assert promotion.rollback(deployment).replaced == {MODEL: promotion.Replacement(2, 1)}
    with pytest.raises(ConfigurationError):
        promotion.promote_versions(deployment, {MODEL: 9})


def test_nets_are_sampled_too(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_lake(home)
    made = write(home, NET)
    trained(made, monkeypatch, **{RATE: [0.05]})
    assert promotion.redeploy(made).warnings == ()
    assert "torch" in stored().libraries


# ---------------------------------------------------------------------------------------------------- tolerance


def program() -> tuple[FrozenModel, dict[str, bytes], GoldenSample]:
    net = layers(4, 16)
    model, files = exported(net, 4)
    features = np.random.default_rng(1).normal(size=(20, 4)).astype(np.float32)
    table = pa.table({"id": np.arange(20), **{f"c{position}": features[:, position] for position in range(4)}})
    with torch.no_grad():
        expected = net(torch.from_numpy(features)).numpy().astype(np.float64)[:, 0]
    return model, dict(files), GoldenSample(table, {"score": expected}, ("id",), "auto", {})


def test_each_precision_has_a_tolerance() -> None:
    assert set(golden.TOLERANCES) == {FLOAT32, BFLOAT16}
    model, files, sample = program()
    for precision in golden.TOLERANCES:
        compare(sample, model, ModelStep(model="models:/net/1", precision=precision), files)
    rounded = moved(sample, 1e-3)
    compare(rounded, model, ModelStep(model="models:/net/1", precision=BFLOAT16), files)
    with pytest.raises(ModelError, match=r"row id 7, column 'score': expected .* \(within 1e-05\)"):
        compare(rounded, model, ModelStep(model="models:/net/1"), files)


def test_a_prediction_that_became_no_number_differs() -> None:
    model, files, sample = program()
    with pytest.raises(ModelError, match=r"row id 7, .* expected nan"):
        compare(moved(sample, np.nan), model, ModelStep(model="models:/net/1"), files)
