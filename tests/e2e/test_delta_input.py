"""A night whose input is a Delta table: one version of it from the plan to the check."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from scoring import nightly
from scoring.local import read_rows, with_labels
from scoring.runs import RunStore
from scoring.testing import FEATURES, PARTITION
from tests.e2e.example import NIGHT, ROWS, Site, night_rows
from tests.e2e.test_night import RTOL

pytestmark = pytest.mark.spark
CONTRACT = {"id": "int64", "x": "double", "y": "double", "city": "string?"}


def write(path: Path, rows: pa.Table, *, night: str = NIGHT, **options: Any) -> None:
    table = rows.append_column(PARTITION, pa.repeat(night, rows.num_rows))
    write_deltalake(path, table, partition_by=[PARTITION], **options)


@pytest.fixture
def table(home: Path) -> Path:
    """A table of two nights, of which one was written twice."""
    write(home / "table", night_rows(seed=99))
    write(home / "table", night_rows(seed=98), night="2024-02-28", mode="append")
    write(home / "table", night_rows(), mode="overwrite", predicate=f"{PARTITION} = '{NIGHT}'")
    return home / "table"


@pytest.fixture
def delta(site: Site, table: Path) -> Site:
    deployment = site.rewrite(input={"path": str(table), "columns": CONTRACT})
    return Site(deployment, site.model, table, site.rewrite)


def assert_scored(site: Site, rows: pa.Table) -> None:
    seen = site.published()
    expected = site.model.native.predict_proba(rows.to_pandas()[list(FEATURES)])[:, 1]
    assert [row["id"] for row in seen] == rows["id"].to_pylist()
    np.testing.assert_allclose([row["score"] for row in seen], expected, rtol=RTOL)


def test_the_rows_of_the_newest_version_are_scored(delta: Site, table: Path) -> None:
    run = delta.run()
    assert run.metrics["rows"] == ROWS
    assert_scored(delta, night_rows())
    plan = RunStore().read_json(run.run_id, nightly.PLAN_ARTIFACT)
    assert plan["input_version"] == 2
    (file,) = plan["files"]
    assert [file["path"]] == [uri for uri in DeltaTable(table).file_uris() if NIGHT in uri]


def test_a_table_that_changes_meanwhile_does_not_mix_versions(delta: Site, table: Path) -> None:
    suite = delta.deployment.folder / "expectations" / "input.yaml"
    count = f"expectations: [{{type: expect_table_row_count_to_equal, kwargs: {{value: {ROWS}}}, severity: critical}}]"
    suite.write_text(count, "utf-8")
    nightly.score(delta.deployment, NIGHT)
    changed = night_rows(seed=5).slice(0, 10)
    write(table, changed, mode="overwrite", predicate=f"{PARTITION} = '{NIGHT}'")
    nightly.check(delta.deployment, NIGHT)
    nightly.publish(delta.deployment, NIGHT)
    assert_scored(delta, night_rows())
    suite.write_text(count.replace(str(ROWS), "10"), "utf-8")
    run = delta.run()
    assert_scored(delta, changed)
    assert RunStore().read_json(run.run_id, nightly.PLAN_ARTIFACT)["input_version"] == 3


def test_one_deployment_reads_what_another_has_published(delta: Site) -> None:
    delta.run()
    rows = night_rows()
    published = Path(delta.deployment.output.path)
    second = delta.rewrite(
        input={"path": str(published)},
        output={"path": f"{published}_second", "keep": ["score"]},
        score={"rule": {"sql": "select *, round(score) as vote from batch"}},
        checks=None,
    )
    Site(second, delta.model, published, delta.rewrite).run()
    seen = Site(second, delta.model, published, delta.rewrite).published()
    assert [row["id"] for row in seen] == rows["id"].to_pylist()
    assert [row["vote"] for row in seen] == [round(row["score"]) for row in seen]


def test_windows_are_read_from_the_log_too(delta: Site) -> None:
    found = read_rows(delta.deployment, [NIGHT, "2024-02-28", "2024-03-01"], limit=10_000)
    expected = {NIGHT: night_rows(), "2024-02-28": night_rows(seed=98)}
    for night, rows in expected.items():
        own = [row["x"] for row in found.to_pylist() if row[PARTITION] == night]
        assert sorted(own) == sorted(rows["x"].to_pylist())
    assert found.num_rows == 2 * ROWS


def test_labels_are_read_from_the_log_too(delta: Site, home: Path) -> None:
    labels = pa.table({"id": night_rows()["id"], "late": pa.repeat(0, ROWS)})
    write(home / "labels", labels)
    write(home / "labels", labels.set_column(1, "late", pa.repeat(1, ROWS)), mode="overwrite")
    reference = {"first": NIGHT, "last": NIGHT}
    deployment = delta.rewrite(
        input={"path": str(delta.lake), "columns": CONTRACT},
        drift={"reference": reference, "labels": {"path": str(home / "labels"), "column": "late"}},
    )
    labelled = with_labels(read_rows(deployment, [NIGHT], limit=10_000), deployment, [NIGHT, "2024-03-01"])
    assert labelled["late"].to_pylist() == [1] * ROWS
