"""A night whose input and output lie in an S3-compatible store: the same code, another address."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable

from scoring import nightly, status
from scoring.data.storage import delta_options
from scoring.deployment import Resources
from scoring.errors import SupersededError
from scoring.plan import quarantine_table
from scoring.runs import RunState, RunStore
from scoring.spark.session import open_session
from scoring.testing import FEATURES, PARTITION
from tests.e2e.example import NIGHT, ROWS, Site, night_rows
from tests.e2e.test_night import KILLED, RTOL
from tests.object_store import ObjectStore

pytestmark = pytest.mark.spark


@pytest.fixture
def remote(site: Site, object_store: ObjectStore) -> Site:
    """The site with its lake and its table in a bucket."""
    object_store.upload(site.lake, "lake")
    contract = {"id": "int64", "x": "double", "y": "double", "city": "string?"}
    deployment = site.rewrite(
        input={"path": f"{object_store.url}/lake", "columns": contract},
        output={"path": f"{object_store.url}/predictions", "keep": ["city"]},
    )
    return Site(deployment, site.model, site.lake, site.rewrite)


def published(path: str) -> list[dict[str, Any]]:
    rows = DeltaTable(path, storage_options=delta_options(path)).to_pyarrow_table()
    return rows.sort_by(rows.column_names[0]).to_pylist()


def test_a_night_in_a_bucket_is_scored_checked_and_published(remote: Site, object_store: ObjectStore) -> None:
    rows = night_rows().to_pylist()
    rows[3]["x"] = None
    remote.put(pa.Table.from_pylist(rows, schema=night_rows().schema), files=3, row_group_rows=50)
    object_store.upload(remote.lake, "lake")
    run = remote.run()
    assert (run.state, run.metrics["rows"], run.metrics["quarantined"]) == (RunState.PUBLISHED, ROWS - 1, 1)
    seen = published(remote.deployment.output.path)
    expected = remote.model.native.predict_proba(night_rows().to_pandas()[list(FEATURES)])[:, 1]
    np.testing.assert_allclose([row["score"] for row in seen], np.delete(expected, 3), rtol=RTOL)
    (kept,) = published(quarantine_table(remote.deployment).path)
    assert (kept["reason"], kept["row_in_file"]) == ("x: null in a required column", 3)
    assert kept["file"] == f"{object_store.bucket}/lake/{PARTITION}={NIGHT}/part-000.parquet"
    (entry,) = status.partitions(remote.deployment, limit=1)
    assert (entry.is_published, entry.rows, entry.run_id) == (True, ROWS - 1, run.run_id)
    assert object_store.files("predictions/_staged") == [], "no results are kept of a run that is staged"


def test_a_run_that_was_overtaken_in_a_bucket_learns_that_it_lost(remote: Site, object_store: ObjectStore) -> None:
    slow, fast = (nightly.score(remote.deployment, NIGHT) for _ in range(2))
    for run in (slow, fast):
        nightly.check(remote.deployment, NIGHT, run_id=run.run_id)
    nightly.publish(remote.deployment, NIGHT, run_id=fast.run_id)
    with pytest.raises(SupersededError, match="was published by another run"):
        nightly.publish(remote.deployment, NIGHT, run_id=slow.run_id)
    assert {row["run_id"] for row in published(remote.deployment.output.path)} == {fast.run_id}


def test_a_killed_run_goes_on_in_a_bucket(remote: Site, object_store: ObjectStore, tmp_path: Path) -> None:
    flag = tmp_path / "kill"
    flag.touch()
    (remote.deployment.folder / "rules.py").write_text(KILLED.format(flag=str(flag)), "utf-8")
    with pytest.raises(Exception, match="Python worker exited unexpectedly"):
        nightly.score(remote.deployment, NIGHT)
    kept = object_store.files("predictions/_staged")
    assert kept
    flag.unlink()
    run = remote.run()
    assert len(kept) <= run.metrics["splits_resumed"] < run.metrics["splits"]
    assert [row["id"] for row in published(remote.deployment.output.path)] == night_rows()["id"].to_pylist()
    assert object_store.files("predictions/_staged") == []


def test_workers_are_told_of_a_store_that_is_set_after_spark_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def seen(frames: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
        for frame in frames:
            yield pd.DataFrame({"key": [os.environ.get("AWS_ACCESS_KEY_ID", "")] * len(frame)})

    for key in ("first", "second"):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", key)
        session = open_session("tests", Resources())
        (row,) = session.range(1).mapInPandas(seen, "key string").collect()
        assert row.key == key
    assert "AWS" not in str(session.sparkContext.getConf().getAll()), "the UI shows Spark's settings"


def test_the_command_line_ends_with_75_when_the_store_is_away(
    remote: Site, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for address, code, sentence in (
        ("http://127.0.0.1:9", 75, "StorageError: reading or writing s3://"),
        (os.environ["AWS_ENDPOINT_URL"], 0, ""),
    ):
        monkeypatch.setenv("AWS_ENDPOINT_URL", address)
        done = subprocess.run(
            [sys.executable, "-m", "scoring", "run", "example", "-p", NIGHT, "--json"],
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == code, done.stderr
        assert sentence in done.stderr
    assert json.loads(done.stdout)["rows"] == ROWS
    newest, before = RunStore().find("example", partition=NIGHT)
    assert (newest.state, before.state) == (RunState.PUBLISHED, RunState.FAILED)
