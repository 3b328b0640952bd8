"""A night whose rows Spark reads: a SQL query or a catalogue table, scored in one Python node."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from scoring import nightly
from scoring.cli import execute
from scoring.data.query import Query
from scoring.deployment import Deployment, Resources
from scoring.errors import ConfigurationError, ContractError, DataError, ScoringError
from scoring.plan import make_plan, quarantine_table
from scoring.registry import Registry
from scoring.runs import RunState, RunStore
from scoring.spark.query import open_query, query_of
from scoring.spark.score import query_frame
from scoring.spark.session import open_session
from scoring.testing import FEATURES, PARTITION, register_sklearn
from tests.e2e.example import NIGHT, ROWS, Site, night_rows
from tests.e2e.test_night import RTOL

pytestmark = pytest.mark.spark
CONTRACT = {"id": "int64", "x": "double", "y": "double", "city": "string?"}
QUERY = "select id, x, y, city from parquet.`{lake}` where day = :partition"
NIGHTS = 2


@pytest.fixture
def session(site: Site) -> SparkSession:
    return open_session("tests", Resources())


@pytest.fixture
def queried(site: Site) -> Site:
    """The site with a query that reads two nights' folders; the other night must not be scored."""
    site.put(night_rows(seed=99), "2024-03-01")
    return with_query(site, QUERY.format(lake=site.lake))


@pytest.fixture
def table(site: Site, session: SparkSession) -> Iterator[str]:
    """A table of Spark's catalogue over the site's folders."""
    name = "default.flights"
    site.put(night_rows(seed=99), "2024-03-01")
    session.sql(f"drop table if exists {name}")
    session.sql(
        f"create table {name} (id bigint, x double, y double, city string, {PARTITION} date) using parquet "
        f"partitioned by ({PARTITION}) location '{site.lake}'"
    )
    session.sql(f"msck repair table {name}")
    yield name
    session.sql(f"drop table {name}")


def with_input(site: Site, **source: Any) -> Site:
    deployment = site.rewrite(input={"path": None, "columns": CONTRACT, **source})
    return Site(deployment, site.model, site.lake, site.rewrite)


def with_query(site: Site, sql: str, **source: Any) -> Site:
    return with_input(site, sql=sql, **source)


def assert_scored(site: Site, rows: pa.Table) -> None:
    seen = site.published()
    expected = site.model.native.predict_proba(rows.to_pandas()[list(FEATURES)])[:, 1]
    assert [row["id"] for row in seen] == rows["id"].to_pylist()
    assert {row[PARTITION] for row in seen} == {NIGHT}
    np.testing.assert_allclose([row["score"] for row in seen], expected, rtol=RTOL)


def leftovers(site: Site) -> list[str]:
    """Return what lies below the output and belongs to no published version."""
    root = Path(site.deployment.output.path)
    seen = {Path(uri) for uri in DeltaTable(root).file_uris()} if DeltaTable.is_deltatable(str(root)) else set()
    files = (file for file in root.rglob("*") if file.is_file() and "_delta_log" not in file.parts)
    return [str(file) for file in files if file not in seen]


# ------------------------------------------------------------------------------------------------------ whole nights


def test_a_query_is_scored_as_the_plain_library_does(queried: Site) -> None:
    run = queried.run()
    assert (run.state, run.metrics["rows"], run.metrics["quarantined"]) == (RunState.PUBLISHED, ROWS, 0)
    assert_scored(queried, night_rows())
    assert leftovers(queried) == []
    plan = RunStore().read_json(run.run_id, nightly.PLAN_ARTIFACT)
    assert (plan["rows"], plan["files"], plan["splits"]) == (None, [], 0)
    assert plan["query"]["name"] == "the query 'input.sql'"
    assert plan["query"]["columns"] == {"id": "int64", "x": "double", "y": "double", "city": "string"}


def test_a_catalogue_table_is_scored_like_files(site: Site, table: str) -> None:
    queried = with_input(site, table=table, extra_columns="ignore")
    run = queried.run()
    assert_scored(queried, night_rows())
    assert RunStore().read_json(run.run_id, nightly.PLAN_ARTIFACT)["query"]["name"] == f"table {table}"


def test_files_and_a_query_over_them_give_the_same_rows(queried: Site, site: Site) -> None:
    by_query = queried.run()
    seen = {row["id"]: row["score"] for row in queried.published()}
    by_files = Site(site.rewrite(), site.model, site.lake, site.rewrite)
    assert by_files.run().run_id != by_query.run_id
    for row in by_files.published():
        assert row["score"] == pytest.approx(seen[row["id"]], rel=RTOL)


def test_a_value_is_a_parameter_and_never_part_of_the_query(queried: Site, session: SparkSession) -> None:
    hostile = "x' or '1'='1"
    with pytest.raises(ConfigurationError, match="the partition is not valid"):
        nightly.score(queried.deployment, hostile)
    by_city = with_query(queried, f"select id from parquet.`{queried.lake}` where city = :partition").deployment
    for value, rows in (("Oslo", True), (hostile, False)):
        query = replace(query_of(by_city, "Oslo"), value=value)
        assert (open_query(session, by_city, query, ["id"]).count() > 0) is rows


def test_rows_that_break_the_contract_are_quarantined(site: Site) -> None:
    queried = with_query(
        site, f"select id, if(id = 60, null, x) as x, y, city from parquet.`{site.lake}` where {PARTITION} = :partition"
    )
    run = queried.run()
    assert (run.metrics["rows"], run.metrics["quarantined"]) == (ROWS - 1, 1)
    (kept,) = DeltaTable(quarantine_table(queried.deployment).path).to_pyarrow_table().to_pylist()
    assert kept["reason"] == "x: null in a required column"
    assert re.fullmatch(r"Spark partition \d+", kept["file"])
    assert json.loads(kept["row"])["id"] == 60
    suite = queried.deployment.folder / "expectations" / "input.yaml"
    count = f"expectations: [{{type: expect_table_row_count_to_equal, kwargs: {{value: {ROWS - 1}}}}}]"
    suite.write_text(count, "utf-8")
    assert queried.run().tags["checks"] == "passed", "the input suite sees the rows that were scored"


def test_the_input_suite_sees_the_rows_that_were_read(queried: Site) -> None:
    suite = queried.deployment.folder / "expectations" / "input.yaml"
    suite.write_text(suite.read_text("utf-8").replace("Oslo, ", "").replace("warning", "critical"), "utf-8")
    with pytest.raises(DataError, match=r"failed a critical check .input suite, column city"):
        queried.run()
    assert len(leftovers(queried)) > 0, "the run may be checked again"
    suite.write_text(suite.read_text("utf-8").replace("critical", "warning"), "utf-8")
    nightly.check(queried.deployment, NIGHT)
    nightly.publish(queried.deployment, NIGHT)
    assert leftovers(queried) == []
    with pytest.raises(ConfigurationError, match=r"input rows of partition '2024-02-29' are not kept"):
        nightly.check(queried.deployment, NIGHT)


def test_a_query_run_again_starts_anew(queried: Site) -> None:
    first, second = nightly.score(queried.deployment, NIGHT), nightly.score(queried.deployment, NIGHT)
    keys = {RunStore().read_json(run.run_id, nightly.PLAN_ARTIFACT)["key"] for run in (first, second)}
    assert len(keys) == 2
    assert "splits_resumed" not in second.metrics or second.metrics["splits_resumed"] == 0


# ------------------------------------------------------------------------------------------------------ one Python node


def test_the_whole_graph_is_one_python_node_without_an_exchange(queried: Site, session: SparkSession) -> None:
    model = "models:/example@champion"
    members = {"first": {"model": model}, "second": {"model": model}, "third": {"model": model}}
    graph = {
        "pipeline": [
            {"rule": {"python": "rules:add_sum"}},
            {"ensemble": {"combine": "mean", "members": members}},
            {"rule": {"sql": "select *, score >= 0.5 as is_positive from batch"}},
        ]
    }
    deployment = queried.rewrite(
        input={"path": None, "columns": CONTRACT, "sql": QUERY.format(lake=queried.lake)}, score=graph
    )
    query = query_of(deployment, NIGHT, run_id="r")
    plan, files = make_plan(deployment, NIGHT, registry=Registry(), query=query)
    shared = session.sparkContext.broadcast((plan, (), "r", dict(files)))
    physical = str(query_frame(session, plan, query, shared)._jdf.queryExecution().executedPlan())
    nodes = re.findall(r"\b(\w*(?:Python|MapIn|Exchange|Pandas|Arrow)\w*)\b", physical)
    assert nodes == ["MapInArrow"]
    # Only what the contract names is read.
    assert "ReadSchema: struct<id:bigint,x:double,y:double,city:string>" in physical


def test_only_columns_of_the_contract_are_read(site: Site, session: SparkSession) -> None:
    every = f"select *, id as other from parquet.`{site.lake}` where {PARTITION} = :partition"
    site.put(night_rows().append_column("unused", night_rows()["x"]), files=3)
    queried = with_query(site, every, extra_columns="ignore")
    query = query_of(queried.deployment, NIGHT)
    plan, files = make_plan(queried.deployment, NIGHT, registry=Registry(), query=query)
    shared = session.sparkContext.broadcast((plan, (), "r", dict(files)))
    physical = str(query_frame(session, plan, query, shared)._jdf.queryExecution().executedPlan())
    assert "unused" not in physical


# ------------------------------------------------------------------------------------------------------ refused


@pytest.mark.parametrize(
    ("sql", "kind", "sentence"),
    [
        ("select id, x from no_such_table where day = :partition", ConfigurationError, r"'input\.sql' of .*NOT_FOUND"),
        ("select id x y from parquet.`{lake}` where day = :partition", ConfigurationError, r"'input\.sql' .*SYNTAX"),
        (
            "select id, x, city from parquet.`{lake}` where day = :partition",
            ContractError,
            r"the query 'input\.sql' lacks columns of the input contract: expected columns y, got columns id, x, city",
        ),
        (
            "select id, cast(x as string) x, y, city from parquet.`{lake}` where day = :partition",
            ContractError,
            r"column 'x' of the query 'input\.sql' has another type: expected double, got string",
        ),
        (
            "select id, x, y, city, x as extra from parquet.`{lake}` where day = :partition",
            ContractError,
            r"the query 'input\.sql' has columns that the input contract does not name",
        ),
        (
            "select id, x, y, city from parquet.`{lake}` where day = :partition and id < 0",
            DataError,
            r"partition '2024-02-29' is empty: expected at least one row",
        ),
        (
            "select id, double(city) as x, y, city from parquet.`{lake}` where day = :partition",
            DataError,
            r"the query 'input\.sql' cannot be read for partition '2024-02-29': expected values that fit it, .*CAST",
        ),
        (
            "select 7 as id, x, y, city from parquet.`{lake}` where day = :partition",
            DataError,
            r"keys are not unique: .*got several rows for 7",
        ),
        (
            "select id, if(id > 100, null, x) as x, y, city from parquet.`{lake}` where day = :partition",
            DataError,
            r"too many rows of partition '2024-02-29' break the input contract: .*got 299 of 400",
        ),
    ],
)
def test_what_is_wrong_with_a_query_is_one_sentence(
    queried: Site, sql: str, kind: type[ScoringError], sentence: str
) -> None:
    deployment = with_query(queried, sql.format(lake=queried.lake)).deployment
    with pytest.raises(kind, match=sentence) as failed:
        nightly.score(deployment, NIGHT)
    assert failed.type is kind
    assert "\n" not in str(failed.value)
    assert leftovers(queried) == [], "a run over a query is never continued"
    (run,) = RunStore().find("example", partition=NIGHT)
    assert (run.state, run.tags["error"]) == (RunState.FAILED, str(failed.value))


def test_a_model_that_fails_stops_the_query_with_its_sentence(queried: Site) -> None:
    from sklearn.linear_model import LogisticRegression

    rows = night_rows().to_pandas()
    register_sklearn("example", rows[list(FEATURES)], estimator=LogisticRegression().fit(rows[["x"]], rows["x"] > 0))
    with pytest.raises(ContractError, match=r"model 'example' version 2 raised .* feature names should match"):
        nightly.score(queried.deployment, NIGHT)


def test_a_table_without_the_partition_column_is_said(site: Site, table: str) -> None:
    deployment = with_input(site, table=table, partition="hour").deployment
    with pytest.raises(ConfigurationError, match=r"Spark cannot read table 'default\.flights' .*hour"):
        nightly.score(deployment, NIGHT)


def test_a_plan_of_a_query_reads_no_rows(queried: Site) -> None:
    found = execute.plan(queried.deployment.name, NIGHT)
    assert (found["rows"], found["splits"], found["models"][0]["version"]) == (None, 0, 1)
    assert json.loads(json.dumps(found))["query"]["columns"]["x"] == "double"


def test_a_query_is_plain_data(queried: Site) -> None:
    query = query_of(queried.deployment, NIGHT, run_id="r")
    assert isinstance(query, Query)
    assert query.digest != query_of(queried.deployment, NIGHT, run_id="s").digest
    assert isinstance(queried.deployment, Deployment)


def test_nights_are_kept_apart(queried: Site) -> None:
    queried.run()
    queried.run("2024-03-01")
    by_night = {
        night: [row["id"] for row in queried.published() if row[PARTITION] == night] for night in (NIGHT, "2024-03-01")
    }
    assert [len(ids) for ids in by_night.values()] == [ROWS] * NIGHTS
