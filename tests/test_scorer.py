from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from scoring import scorer, testing
from scoring.accounting import account, check_quarantine
from scoring.data.parts import read_parts
from scoring.errors import ConfigurationError, ContractError, DataError, ModelError, ScoringError, TransientError
from scoring.monitoring.sampling import keep_mask
from scoring.plan import Plan, make_plan
from scoring.registry import Registry
from scoring.results import SplitResult, kept_results, read_sample
from scoring.scorer import score_split

NIGHT = "2013-01-01"
DRIFT = {"reference": {"first": "2013-01-01", "last": "2013-01-31"}, "sample_rows": 100}


@dataclass
class Night:
    """One partition, a registered model, and what became of its splits."""

    home: Path
    native: Any

    def write(self, rows: pa.Table, **layout: int) -> None:
        testing.write_partition(self.home / "lake", testing.PARTITION, NIGHT, rows, **layout)

    def plan(self, *, files: dict[str, str] | None = None, **sections: Any) -> tuple[Plan, Any]:
        source = testing.write_deployment(self.home / "deployments" / "tiny", files=files, **sections)
        return make_plan(source, NIGHT, registry=Registry())

    def score(self, *, run_id: str = "r", **sections: Any) -> tuple[Plan, list[SplitResult]]:
        plan, files = self.plan(**sections)
        return plan, [score_split(plan, split, run_id=run_id, files=files, device="cpu") for split in plan.splits]


@pytest.fixture
def night(home: Path) -> Night:
    rows = testing.example_rows(300, seed=1)
    frame = rows.select(list(testing.FEATURES)).to_pandas()
    return Night(home, testing.register_sklearn(testing.MODEL, frame, rows["label"].to_numpy()).native)


def outputs(plan: Plan, results: list[SplitResult]) -> pa.Table:
    for result in results:
        error = result.error()
        if error is not None:
            raise error
    return read_parts(plan.deployment.output.path, [result.part.path for result in results if result.part])


def quarantined(plan: Plan, results: list[SplitResult]) -> list[dict[str, Any]]:
    paths = [result.quarantined.path for result in results if result.quarantined]
    return read_parts(plan.deployment.output.quarantine_path, paths).to_pylist() if paths else []


# ------------------------------------------------------------------------------------------------------ values


@pytest.mark.parametrize("batch_rows", [1_000_000, 100, 33, 7])
@pytest.mark.parametrize("split_bytes", [1_000_000, 1])
def test_rows_are_scored_as_the_library_alone_scores_them(night: Night, batch_rows: int, split_bytes: int) -> None:
    rows = testing.example_rows(500, seed=2)
    night.write(rows, files=2, row_group_rows=60)
    plan, results = night.score(resources={"batch_rows": batch_rows, "split_bytes": split_bytes})
    account(plan, results)
    found = outputs(plan, results)
    assert found.schema == plan.schema
    assert found.column_names == ["id", "score"]
    assert found.column("id").equals(rows.column("id"))
    expected = night.native.predict_proba(rows.select(["x", "y"]).to_pandas())[:, 1]
    np.testing.assert_allclose(found.column("score").to_numpy(), expected, rtol=0, atol=1e-12)
    assert len(results) == len(plan.splits)
    assert len(results) == (1 if split_bytes > 1 else 10)


def test_a_model_is_loaded_once_per_process_not_once_per_split(night: Night) -> None:
    night.write(testing.example_rows(300, seed=3), row_group_rows=50)
    _, results = night.score(resources={"split_bytes": 1})
    assert len(results) == 6
    assert sum(result.model_loads for result in results) <= 1


def test_rules_see_the_partition_and_kept_columns_are_those_of_the_input(night: Night) -> None:
    rows = testing.example_rows(20, seed=4)
    night.write(rows)
    rule = {"rule": {"sql": "select * replace ('x' as city), day || '!' as shout, score > 0.5 as is_high from batch"}}
    plan, results = night.score(
        score={"pipeline": [{"model": "models:/example@champion"}, rule]}, output={"keep": ["city", "x"]}
    )
    found = outputs(plan, results)
    assert found.column_names == ["id", "city", "x", "score", "shout", "is_high"]
    assert found.column("city").equals(rows.column("city")), (
        "what a rule makes of an input column stays inside the graph"
    )
    assert set(found.column("shout").to_pylist()) == {f"{NIGHT}!"}


def test_a_second_attempt_writes_the_same_bytes(night: Night) -> None:
    night.write(testing.example_rows(200, seed=5))
    plan, first = night.score()
    (file,) = Path(plan.deployment.output.path).rglob("*.parquet")
    content = file.read_bytes()
    _, second = night.score()
    assert file.read_bytes() == content
    assert first[0].part == second[0].part


# ------------------------------------------------------------------------------------------------------ quarantine


def test_rows_that_break_the_contract_are_kept_whole_with_their_place(night: Night) -> None:
    rows = testing.example_rows(300, seed=6)
    bad = {5: None, 64: None, 155: None, 299: None}
    x = rows.column("x").to_pylist()
    for row, value in bad.items():
        x[row] = value
    rows = rows.set_column(1, "x", pa.array(x, pa.float64()))
    night.write(rows, files=2, row_group_rows=40)
    contract = {"id": "int64", "x": "double", "y": "double", "city": "string", "label": "int64"}
    plan, results = night.score(
        input={"columns": contract, "max_quarantined_share": 0.5}, resources={"batch_rows": 33, "split_bytes": 3000}
    )
    account(plan, results)
    check_quarantine(plan, results)
    assert outputs(plan, results).column("id").to_pylist() == [row for row in range(300) if row not in bad]
    found = quarantined(plan, results)
    assert [(Path(row["file"]).name, row["row_in_file"]) for row in found] == [
        (f"part-{row // 150:03d}.parquet", row % 150) for row in bad
    ]
    assert {row["reason"] for row in found} == {"x: null in a required column"}
    assert [json.loads(row["row"])["id"] for row in found] == list(bad)
    assert all(json.loads(row["row"])["city"] for row in found)


def test_a_split_whose_rows_are_all_quarantined_is_an_empty_part(night: Night) -> None:
    rows = testing.example_rows(20, seed=7)
    night.write(rows.set_column(0, "id", pa.nulls(20, pa.int64())))
    plan, results = night.score(input={"max_quarantined_share": 1})
    account(plan, results)
    assert (results[0].rows_out, results[0].rows_quarantined) == (0, 20)
    assert outputs(plan, results).schema == plan.schema


def test_all_are_counted_but_not_all_kept_where_the_run_fails_anyway(
    night: Night, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer, "KEPT_OF_FAILED", 25)
    rows = testing.example_rows(100, seed=8)
    night.write(rows.set_column(0, "id", pa.nulls(100, pa.int64())), row_group_rows=50)
    plan, results = night.score(resources={"split_bytes": 1, "batch_rows": 20})
    account(plan, results)
    assert [result.rows_quarantined for result in results] == [50, 50]
    assert [row["row_in_file"] for row in quarantined(plan, results)] == [*range(25), *range(50, 75)]
    with pytest.raises(DataError, match=r"at most 1\.00%, got 100 of 100 rows \(100\.00%\)"):
        check_quarantine(plan, results)


@pytest.mark.parametrize(("share", "bad"), [(0.29, 29), (0.3, 30), (1, 100)])
def test_all_are_kept_where_the_run_may_succeed(
    night: Night, monkeypatch: pytest.MonkeyPatch, share: float, bad: int
) -> None:
    monkeypatch.setattr(scorer, "KEPT_OF_FAILED", 5)
    rows = testing.example_rows(100, seed=8)
    night.write(rows.set_column(0, "id", pa.array([None] * bad + list(range(100 - bad)), pa.int64())))
    plan, results = night.score(input={"max_quarantined_share": share}, resources={"batch_rows": 7})
    check_quarantine(plan, results)
    assert [row["row_in_file"] for row in quarantined(plan, results)] == list(range(bad))


def test_too_many_quarantined_rows_stop_the_run(night: Night) -> None:
    rows = testing.example_rows(100, seed=8)
    night.write(rows.set_column(0, "id", pa.array([None, None, *range(98)], pa.int64())))
    plan, results = night.score()
    sentence = (
        r"too many rows of partition '2013-01-01' break .*: expected at most 1\.00%, got 2 of 100 rows \(2\.00%\)"
    )
    with pytest.raises(DataError, match=sentence):
        check_quarantine(plan, results)


# ------------------------------------------------------------------------------------------------------ sample


def test_the_sample_does_not_depend_on_the_layout(night: Night) -> None:
    rows = testing.example_rows(2000, seed=9)
    samples = []
    for layout, resources in (
        ({"files": 1}, {"split_bytes": 1_000_000, "batch_rows": 10_000}),
        ({"files": 3, "row_group_rows": 70}, {"split_bytes": 6000, "batch_rows": 31}),
    ):
        for file in (night.home / "lake").rglob("*.parquet"):
            file.unlink()
        night.write(rows, **layout)
        _, results = night.score(resources=resources, drift=DRIFT)
        sample = read_sample(results)
        assert sample is not None
        samples.append(sample.combine_chunks())
    one, other = (sample.drop_columns(["score"]) for sample in samples)
    assert one.equals(other)
    np.testing.assert_allclose(samples[0]["score"], samples[1]["score"], rtol=0, atol=1e-12)
    assert 50 < samples[0].num_rows < 150
    assert all(result.timings.sample_s > 0 for result in results)
    assert samples[0].column_names == ["id", "x", "y", "city", "label", "day", "score"]
    expected = rows.filter(pa.array(keep_mask(rows, keys=["id"], rate=100 / 2000)))
    assert samples[0].select(["id", "x"]).equals(expected.select(["id", "x"]).combine_chunks())


def test_without_drift_nothing_is_sampled(night: Night) -> None:
    night.write(testing.example_rows(50))
    _, results = night.score()
    assert read_sample(results) is None


# ------------------------------------------------------------------------------------------------------ failures


def test_an_output_that_changes_its_type_between_batches_is_named(night: Night) -> None:
    night.write(testing.example_rows(20))
    rules = """
import pyarrow as pa

def odd(batch):
    first = batch.num_rows == 0 or batch['id'][0].as_py() == 0
    values = [1] * batch.num_rows if first else ['late'] * batch.num_rows
    return batch.append_column('odd', pa.array(values, pa.int64() if first else pa.string()))
"""
    _, results = night.score(
        files={"rules.py": rules}, score={"rule": {"python": "rules:odd"}}, resources={"batch_rows": 10}
    )
    error = results[0].error()
    assert isinstance(error, ContractError)
    assert str(error) == "output 'odd' changed its type between batches: expected int64, got string."


def test_an_output_that_widens_between_batches_is_brought_back(night: Night) -> None:
    night.write(testing.example_rows(20))
    rules = "def odd(batch):\n    import pyarrow as pa\n    kind = pa.int32() if batch.num_rows else pa.int64()\n"
    rules += "    return batch.append_column('odd', pa.array(range(batch.num_rows), kind))\n"
    plan, results = night.score(files={"rules.py": rules}, score={"rule": {"python": "rules:odd"}})
    assert outputs(plan, results).column("odd").to_pylist() == list(range(20))
    assert plan.schema.field("odd").type == pa.int64()


def test_a_failure_travels_whole_and_leaves_no_part(night: Night) -> None:
    rows = testing.example_rows(41).set_column(0, "id", pa.array([*range(40), None], pa.int64()))
    night.write(rows.set_column(1, "x", pa.array([float("nan")] * 41)))
    plan, results = night.score(input={"max_quarantined_share": 1})
    (result,) = [SplitResult.from_bytes(result.to_bytes()) for result in results]
    error = result.error()
    assert isinstance(error, ModelError)
    assert "model 'example' version 1 raised while predicting 40 rows: got ValueError" in str(error)
    assert result.part is None
    assert list(Path(plan.deployment.output.path).rglob("*.parquet")) == []
    assert list(Path(plan.deployment.output.quarantine_path).rglob("*.parquet*")) == []
    with pytest.raises(ModelError, match="raised while predicting"):
        account(plan, [result])


def test_a_page_that_is_damaged_is_named(night: Night) -> None:
    night.write(testing.example_rows(5000))
    plan, files = night.plan()
    (file,) = (night.home / "lake").rglob("*.parquet")
    content = bytearray(file.read_bytes())
    content[20:4000] = b"\xff" * 3980
    file.write_bytes(content)
    error = score_split(plan, plan.splits[0], run_id="r", files=files, device="cpu").error()
    assert isinstance(error, DataError)
    assert "part-000.parquet cannot be read: expected whole Parquet pages" in str(error)


def test_changed_model_files_stop_the_split(night: Night) -> None:
    night.write(testing.example_rows(10))
    plan, files = night.plan()
    uri, model = next(iter(plan.graph.models.items()))
    other = replace(model, digest="0" * 64)
    plan = replace(plan, graph=replace(plan.graph, models={uri: other}))
    result = score_split(plan, plan.splits[0], run_id="r", files={other.digest: files[model.digest]}, device="cpu")
    error = result.error()
    assert isinstance(error, ModelError)
    assert "the files of model 'example' version 1 were changed: expected sha256 000" in str(error)


# ------------------------------------------------------------------------------------------------------ accounting


@pytest.fixture
def scored(night: Night) -> tuple[Plan, list[SplitResult]]:
    night.write(testing.example_rows(90), row_group_rows=30)
    return night.score(resources={"split_bytes": 1})


Change = Callable[[list[SplitResult]], list[SplitResult]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            lambda r: r[:-1],
            r"splits of partition '2013-01-01' do not add up: expected 3 results.*got 2 results; .*double: 2\.$",
        ),
        (
            lambda r: [*r, r[0]],
            r"do not add up: expected 3 results, one per split, got 4 results; missing or double: 0\.$",
        ),
        (lambda r: [r[0], r[0], r[2]], r"do not add up: .*missing or double: 0, 1\.$"),
        (
            lambda r: [SplitResult(0, 31, r[0].part), *r[1:]],
            r"split 0 .* was not read to its end: expected 30 rows, as the files' footers say, got 31 rows\.",
        ),
        (lambda r: [SplitResult(0, 30), *r[1:]], r"split 0 .*expected 30 rows in, got 0 rows out and 0 quarantined"),
        (
            lambda r: [SplitResult(0, 30, r[0].part, rows_quarantined=1), *r[1:]],
            r"split 0 .*expected 30 rows in, got 30 rows out and 1 quarantined",
        ),
    ],
)
def test_results_that_do_not_add_up_are_refused_and_may_be_tried_again(
    scored: tuple[Plan, list[SplitResult]], change: Change, sentence: str
) -> None:
    plan, results = scored
    account(plan, results)
    with pytest.raises(TransientError, match=sentence):
        account(plan, change(results))


def test_a_terminal_failure_is_named_before_one_that_a_retry_can_mend(scored: tuple[Plan, list[SplitResult]]) -> None:
    plan, results = scored
    failed = [
        SplitResult.failed(0, TransientError("later")),
        SplitResult.failed(1, ContractError("never")),
        results[2],
    ]
    with pytest.raises(ContractError, match="never"):
        account(plan, failed)
    with pytest.raises(TransientError, match="later"):
        account(plan, [failed[0], *results[1:]])


@pytest.mark.parametrize("columns", [["id"], ["id", "city"]])
@pytest.mark.parametrize("is_sorted", [True, False])
def test_keys_that_are_not_unique_over_all_splits_are_named(
    night: Night, columns: list[str], *, is_sorted: bool
) -> None:
    rows = testing.example_rows(60).set_column(3, "city", pa.array(["Oslo"] * 60))
    rows = pa.concat_tables([rows, rows.slice(7, 2)])
    night.write(rows if is_sorted else rows.take(pa.array(range(61, -1, -1))), row_group_rows=20)
    plan, results = night.score(input={"keys": columns}, resources={"split_bytes": 1, "batch_rows": 7})
    shown = "7, 8" if columns == ["id"] else r"\(7, 'Oslo'\), \(8, 'Oslo'\)"
    sentence = (
        rf"keys are not unique: expected one row for each value of {', '.join(columns)}, got several rows for {shown}\."
    )
    with pytest.raises(DataError, match=sentence):
        account(plan, results)


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        (list(range(40)), (0, 39)),
        ([f"{number:04d}" for number in range(40)], ("0000", "0039")),
        ([*range(20), *range(19, 39)], None),
        ([*range(39), 0], None),
        ([float(number) for number in range(40)], None),
    ],
)
def test_keys_that_only_grow_are_known_to_be_unique(night: Night, keys: list[Any], found: Any) -> None:
    night.write(testing.example_rows(40).set_column(0, "id", pa.array(keys)))
    _, results = night.score(resources={"batch_rows": 7})
    assert results[0].key_range == found


# ------------------------------------------------------------------------------------------------------ going on


def test_a_run_that_starts_again_finds_what_is_complete(night: Night) -> None:
    night.write(testing.example_rows(90), row_group_rows=30)
    plan, results = night.score(resources={"split_bytes": 1}, drift=DRIFT)
    root = plan.deployment.output.path
    again, _ = night.plan(resources={"split_bytes": 1}, drift=DRIFT)
    assert again.key == plan.key
    assert kept_results(root, again.key) == results
    (Path(root) / results[1].part.path).unlink()
    assert kept_results(root, again.key) == [results[0], results[2]]


def test_what_other_input_models_or_settings_gave_is_not_taken_over(night: Night) -> None:
    rows = testing.example_rows(90)
    night.write(rows, row_group_rows=30)
    plan, results = night.score(resources={"split_bytes": 1})
    others = [night.plan(resources={"split_bytes": 1, "batch_rows": 5})[0], night.plan()[0]]
    others.append(night.plan(resources={"split_bytes": 1}, output={"keep": ["city"]})[0])
    night.write(rows, row_group_rows=30)  # the same rows and sizes, but who knows?
    others.append(night.plan(resources={"split_bytes": 1})[0])
    frame = rows.select(list(testing.FEATURES)).to_pandas()
    testing.register_sklearn(testing.MODEL, frame, 1 - rows["label"].to_numpy())
    others.append(night.plan(resources={"split_bytes": 1})[0])
    others.append(replace(others[-1], generation=1))
    assert len({other.key for other in [plan, *others]}) == 1 + len(others)
    assert all(kept_results(plan.deployment.output.path, other.key) == [] for other in others)
    assert len(kept_results(plan.deployment.output.path, plan.key)) == len(results)


# ------------------------------------------------------------------------------------------------------ memory


SHORT_OF_MEMORY = """
import pyarrow as pa

seen = []

def add(batch):
    if batch.num_rows:
        seen.append(batch.num_rows)
    if batch.num_rows > {most}:
        raise MemoryError("no room for %d rows" % batch.num_rows)
    return batch.append_column("seen", pa.array([batch.num_rows] * batch.num_rows, pa.int64()))
"""


def test_a_batch_that_does_not_fit_is_halved_and_its_size_remembered(night: Night) -> None:
    night.write(testing.example_rows(100))
    plan, results = night.score(
        files={"rules.py": SHORT_OF_MEMORY.format(most=30)},
        score={"rule": {"python": "rules:add"}},
        resources={"batch_rows": 50},
    )
    found = outputs(plan, results)
    assert found.column("id").to_pylist() == list(range(100))
    assert found.column("seen").to_pylist() == [25] * 100
    assert results[0].batch_rows == 25
    assert scorer._fitting_rows[plan.key] == 25, "the second batch of 50 rows was not tried whole"


def test_one_row_that_does_not_fit_stops_the_run(night: Night) -> None:
    night.write(testing.example_rows(10))
    _, results = night.score(
        files={"rules.py": SHORT_OF_MEMORY.format(most=0)}, score={"rule": {"python": "rules:add"}}
    )
    sentence = r"one row of partition '2013-01-01' does not fit into memory: .*no room for 1 rows.* more memory"
    with pytest.raises(ModelError, match=sentence):
        raise results[0].error() or AssertionError


# ------------------------------------------------------------------------------------------------------ plan


def test_a_plan_says_all_that_will_be_done(night: Night) -> None:
    night.write(testing.example_rows(100), files=2, row_group_rows=10)
    plan, files = night.plan(resources={"split_bytes": 1}, drift=DRIFT)
    document = json.loads(json.dumps(plan.to_json()))
    assert document["format_version"] == 1
    assert (document["rows"], document["splits"], len(document["files"])) == (100, 10, 2)
    assert document["models"][0]["sha256"] in files
    assert document["models"][0]["trusted"] is False
    assert document["columns"] == {"id": "int64", "score": "double"}
    assert plan.model_versions == {"example": 1}
    assert (plan.generation, plan.sample_rate) == (0, 1.0)
    assert pickle.loads(pickle.dumps(plan)).to_json() == plan.to_json()


def test_the_input_digest_follows_the_files(night: Night) -> None:
    night.write(testing.example_rows(100))
    digests = {night.plan()[0].partition.digest, night.plan()[0].partition.digest}
    night.write(testing.example_rows(101))
    assert len(digests | {night.plan()[0].partition.digest}) == 2


@pytest.mark.parametrize(
    ("sections", "error", "sentence"),
    [
        ({"output": {"keep": ["town"]}}, ContractError, r"'output\.keep' of 'tiny' names unknown columns: .*got town"),
        ({"output": {"keep": ["citi"]}}, ContractError, r"got citi\. Did you mean 'city'\?$"),
        (
            {"drift": {**DRIFT, "columns": ["x", "scroe"]}},
            ContractError,
            r"'drift\.columns' of 'tiny' names unknown columns: .*, got scroe\. Did you mean 'score'\?$",
        ),
        (
            {"drift": {**DRIFT, "labels": {"path": "/labels", "column": "late", "output": "scored"}}},
            ContractError,
            r"'drift\.labels\.output' of 'tiny' .*expected outputs of the graph: score, got scored\. Did you mean",
        ),
        (
            {"drift": {**DRIFT, "labels": {"path": "/labels", "column": "late", "output": "x"}}},
            ContractError,
            r"'drift\.labels\.output' of 'tiny' .*got x\.$",
        ),
        (
            {"score": {"rule": {"sql": "select *, 1 as run_id from batch"}}},
            ContractError,
            r"names that are taken: .*got run_id",
        ),
        ({"score": {"rule": {"sql": "select * from batch"}}}, ContractError, r"the graph adds no column"),
        ({"score": {"model": "models:/example@champion", "output": "id"}}, ContractError, r"taken|adds no column"),
        ({"input": {"columns": {"id": "int64", "z": "double"}}}, ContractError, r"lacks columns of the input contract"),
        (
            {"input": {"partition": "hour"}},
            ConfigurationError,
            r"/lake has no partition at all: expected folders hour=",
        ),
    ],
)
def test_what_does_not_fit_is_found_before_any_row(
    night: Night, sections: dict[str, Any], error: type[ScoringError], sentence: str
) -> None:
    night.write(testing.example_rows(10))
    with pytest.raises(error, match=sentence):
        night.plan(**sections)


def test_text_where_the_model_wants_a_number_is_found_before_any_row(night: Night) -> None:
    rows = testing.example_rows(10)
    night.write(rows.set_column(1, "x", pc.cast(rows.column("x"), pa.string())))
    with pytest.raises(ContractError, match=r"column 'x' of file .* has another type: expected double, got string"):
        night.plan()


def test_pandas_frames_become_partitions_too(night: Night) -> None:
    frame = pd.DataFrame({"id": [1, 2], "x": [0.1, 0.2], "y": [0.3, 0.4], "day": [NIGHT, NIGHT]})
    testing.write_partition(night.home / "lake", "day", NIGHT, frame)
    plan, results = night.score()
    assert outputs(plan, results).column("id").to_pylist() == [1, 2]
