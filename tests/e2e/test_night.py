"""One night on real Spark, Great Expectations, Delta and MLflow, compared with the plain libraries."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pytest
from deltalake import DeltaTable

from scoring import nightly
from scoring.data.table import Table
from scoring.errors import ConfigurationError, DataError, StorageError, SupersededError
from scoring.plan import quarantine_table
from scoring.runs import RunState, RunStore
from scoring.testing import FEATURES, MODEL, PARTITION, register_sklearn
from tests.e2e.example import NIGHT, ROWS, Site, night_rows

pytestmark = pytest.mark.spark
RTOL = 1e-12
"""Linear algebra libraries round the last bit differently for batches of different sizes."""


def test_readers_see_what_the_plain_library_predicts(site: Site) -> None:
    run = site.run()
    rows = night_rows().to_pandas()
    expected = site.model.native.predict_proba(rows[list(FEATURES)])[:, 1]

    table = DeltaTable(site.deployment.output.path)
    seen = table.to_pyarrow_table().sort_by("id").to_pandas()
    assert list(seen.columns) == ["id", "city", "score", "is_positive", "run_id", PARTITION]
    assert seen["id"].tolist() == rows["id"].tolist()
    assert seen["city"].tolist() == rows["city"].tolist()
    np.testing.assert_allclose(seen["score"], expected, rtol=RTOL)
    assert seen["is_positive"].tolist() == (expected >= 0.5).tolist()
    assert set(seen["run_id"]) == {run.run_id}
    assert set(seen[PARTITION]) == {NIGHT}

    query = "SELECT id, score FROM read_parquet(?, hive_partitioning = true) ORDER BY id"
    by_duckdb = duckdb.execute(query, [table.file_uris()]).fetchall()
    assert by_duckdb == list(zip(seen["id"].tolist(), seen["score"].tolist(), strict=True))


def test_the_record_says_what_happened(site: Site) -> None:
    run = site.run(dag_run_id="manual__1", trigger="scheduled")
    assert run.state is RunState.PUBLISHED
    assert run.metrics["rows"] == ROWS
    assert run.metrics["quarantined"] == 0
    assert run.metrics["splits"] >= ROWS / 50
    assert run.model_versions == {"example": 1}
    assert (run.tags["dag_run_id"], run.tags["trigger"], run.tags["checks"]) == ("manual__1", "scheduled", "passed")
    store = RunStore()
    plan = store.read_json(run.run_id, nightly.PLAN_ARTIFACT)
    assert plan["models"][0]["version"] == 1
    assert len(plan["models"][0]["sha256"]) == 64
    page = store.read(run.run_id, nightly.QUALITY_PAGE)
    assert page is not None
    assert b"All checks passed" in page
    reports = json.loads(store.read(run.run_id, nightly.QUALITY_ARTIFACT) or b"")
    assert [report["verdict"] for report in reports] == ["passed", "passed"]


def test_a_night_run_again_has_one_version_and_the_old_one_is_reachable(site: Site) -> None:
    first = site.run()
    second = site.run()
    assert {row["run_id"] for row in site.published()} == {second.run_id}
    assert len(site.published()) == ROWS
    old = DeltaTable(site.deployment.output.path, version=int(first.tags["published_version"])).to_pyarrow_table()
    assert set(old["run_id"].to_pylist()) == {first.run_id}
    same = ["id", "score"]
    new = DeltaTable(site.deployment.output.path).to_pyarrow_table()
    assert old.select(same).sort_by("id").equals(new.select(same).sort_by("id"))


def test_another_night_leaves_the_first_alone(site: Site) -> None:
    first = site.run()
    site.put(night_rows(seed=8), "2024-03-01")
    second = site.run("2024-03-01")
    rows = site.published()
    assert {row[PARTITION]: row["run_id"] for row in rows} == {NIGHT: first.run_id, "2024-03-01": second.run_id}


def test_publishing_twice_changes_nothing(site: Site) -> None:
    run = site.run()
    version = DeltaTable(site.deployment.output.path).version()
    again = nightly.publish(site.deployment, NIGHT)
    assert again.run_id == run.run_id
    assert DeltaTable(site.deployment.output.path).version() == version


def test_a_run_that_was_overtaken_learns_that_it_lost(site: Site) -> None:
    slow = nightly.score(site.deployment, NIGHT, dag_run_id="slow")
    nightly.check(site.deployment, NIGHT, dag_run_id="slow")
    fast = nightly.score(site.deployment, NIGHT, dag_run_id="fast")
    nightly.check(site.deployment, NIGHT, dag_run_id="fast")
    nightly.publish(site.deployment, NIGHT, dag_run_id="fast")
    with pytest.raises(SupersededError, match="was published by another run"):
        nightly.publish(site.deployment, NIGHT, dag_run_id="slow")
    assert {row["run_id"] for row in site.published()} == {fast.run_id}
    assert RunStore().get(slow.run_id).state is RunState.SUPERSEDED


def test_parts_are_invisible_until_they_are_published(site: Site) -> None:
    nightly.score(site.deployment, NIGHT)
    assert list(Path(site.deployment.output.path).rglob("*.parquet"))
    assert site.published() == []
    with pytest.raises(ConfigurationError, match=r"expected checks that passed, got checks .not run."):
        nightly.publish(site.deployment, NIGHT)


def test_rows_that_break_the_contract_are_quarantined_whole(site: Site) -> None:
    rows = night_rows().to_pylist()
    rows[3]["x"] = None
    rows[60]["id"] = None
    site.put(night_rows().from_pylist(rows, schema=night_rows().schema), files=3, row_group_rows=50)
    run = site.run()
    assert (run.metrics["rows"], run.metrics["quarantined"]) == (ROWS - 2, 2)
    assert len(site.published()) == ROWS - 2
    kept = DeltaTable(quarantine_table(site.deployment).path).to_pyarrow_table().sort_by("row_in_file").to_pylist()
    assert [(row["reason"], row["row_in_file"]) for row in kept] == [
        ("x: null in a required column", 3),
        ("id: null in a required column", 60),
    ]
    assert json.loads(kept[0]["row"]) == rows[3]
    # The next good run of the night clears them.
    site.put(night_rows(), files=3, row_group_rows=50)
    site.run()
    assert DeltaTable(quarantine_table(site.deployment).path).to_pyarrow_table().num_rows == 0


def test_text_is_parsed_only_where_the_deployment_says_so(site: Site) -> None:
    texts = [f"{x!r}" for x in night_rows()["x"].to_pylist()]
    texts[5] = "n/a"
    table = night_rows()
    site.put(table.set_column(table.schema.get_field_index("x"), "x", [texts]))
    for old in sorted((site.lake / f"{PARTITION}={NIGHT}").glob("part-00[12].parquet")):
        old.unlink()
    contract = {"id": "int64", "x": "double", "y": "double", "city": "string?"}
    lenient = site.rewrite(input={"columns": contract, "parse_text": True})
    run = Site(lenient, site.model, site.lake, site.rewrite).run()
    assert (run.metrics["rows"], run.metrics["quarantined"]) == (ROWS - 1, 1)
    expected = site.model.native.predict_proba(table.to_pandas()[list(FEATURES)])[:, 1]
    np.testing.assert_allclose([row["score"] for row in site.published()], np.delete(expected, 5), rtol=RTOL)


def test_a_warning_is_reported_and_published(site: Site) -> None:
    table = night_rows()
    cities = ["Atlantis", *table["city"].to_pylist()[1:]]
    site.put(table.set_column(table.schema.get_field_index("city"), "city", [cities]), files=3, row_group_rows=50)
    run = site.run()
    assert run.state is RunState.PUBLISHED
    assert run.tags["checks"] == "warning"


def test_without_a_gpu_it_says_so_and_runs_on_the_cpu(site: Site) -> None:
    deployment = site.rewrite(resources={"gpus_per_task": 1})
    run = Site(deployment, site.model, site.lake, site.rewrite).run()
    assert run.tags["devices"] == "cpu"
    assert "no GPU was found" in run.tags["warning"]


def test_without_a_gpu_it_fails_where_the_deployment_forbids_the_cpu(site: Site) -> None:
    deployment = site.rewrite(resources={"gpus_per_task": 1, "allow_cpu": False})
    with pytest.raises(ConfigurationError, match=r"asks for a GPU: expected a CUDA device .* got none"):
        nightly.score(deployment, NIGHT)
    assert site.published() == []


def test_a_night_that_failed_its_checks_cannot_be_published_afterwards(site: Site) -> None:
    suite = site.deployment.folder / "expectations" / "output.yaml"
    suite.write_text(suite.read_text("utf-8").replace("max_value: 1", "max_value: 0.5"), "utf-8")
    nightly.score(site.deployment, NIGHT)
    with pytest.raises(DataError, match="failed a critical check"):
        nightly.check(site.deployment, NIGHT)
    with pytest.raises(ConfigurationError, match=r"may not be published: .* got checks 'failed'"):
        nightly.publish(site.deployment, NIGHT)
    assert site.published() == []


def test_a_publication_that_failed_once_can_be_repeated(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    nightly.score(site.deployment, NIGHT)
    nightly.check(site.deployment, NIGHT)
    with monkeypatch.context() as broken:
        broken.setattr(Table, "publish", _store_away)
        with pytest.raises(StorageError):
            nightly.publish(site.deployment, NIGHT)
    run = nightly.publish(site.deployment, NIGHT)
    assert run.state is RunState.PUBLISHED
    assert run.tags["error"] == ""
    assert len(site.published()) == ROWS


def _store_away(*_: object, **__: object) -> int:
    raise StorageError("publishing failed", "an answer of the store", "none")


def test_a_suite_about_the_table_alone_sees_all_rows(site: Site) -> None:
    count = "expectations: [{type: expect_table_row_count_to_equal, kwargs: {value: %d}, severity: critical}]"
    for suite in ("input", "output"):
        (site.deployment.folder / "expectations" / f"{suite}.yaml").write_text(count % ROWS, "utf-8")
    assert site.run().tags["checks"] == "passed"


def test_a_run_that_failed_leaves_no_parts_and_adds_its_quarantined_rows(site: Site) -> None:
    rows = night_rows().to_pylist()
    rows[3]["x"] = None
    site.put(night_rows().from_pylist(rows, schema=night_rows().schema), files=3, row_group_rows=50)
    published = site.run()
    for row in rows[:100]:
        row["x"] = None
    site.put(night_rows().from_pylist(rows, schema=night_rows().schema), files=3, row_group_rows=50)
    with pytest.raises(DataError, match="too many rows"):
        nightly.score(site.deployment, NIGHT)
    assert part_files(site) == seen_files(site) != []
    quarantined = DeltaTable(quarantine_table(site.deployment).path).to_pyarrow_table().to_pylist()
    by_run = Counter(row["run_id"] == published.run_id for row in quarantined)
    assert by_run == {True: 1, False: 100}


def test_input_that_changed_after_scoring_is_not_checked_against_other_rows(site: Site) -> None:
    nightly.score(site.deployment, NIGHT)
    site.put(night_rows(seed=9).slice(0, 300), files=3, row_group_rows=50)
    with pytest.raises(DataError, match=r"was changed since it was scored: expected \d+ bytes, got \d+ bytes"):
        nightly.check(site.deployment, NIGHT)


def test_checking_a_published_run_again_leaves_it_published(site: Site) -> None:
    run = site.run()
    suite = site.deployment.folder / "expectations" / "output.yaml"
    suite.write_text(suite.read_text("utf-8").replace("max_value: 1", "max_value: 0.5"), "utf-8")
    with pytest.raises(DataError, match="It was published before"):
        nightly.check(site.deployment, NIGHT)
    assert RunStore().get(run.run_id).state is RunState.PUBLISHED
    assert len(site.published()) == ROWS


def test_each_step_can_be_told_its_run_when_two_are_under_way(site: Site) -> None:
    ours, theirs = nightly.score(site.deployment, NIGHT), nightly.score(site.deployment, NIGHT)
    assert nightly.check(site.deployment, NIGHT, run_id=ours.run_id).run_id == ours.run_id
    nightly.publish(site.deployment, NIGHT, run_id=ours.run_id)
    nightly.check(site.deployment, NIGHT, run_id=theirs.run_id)
    with pytest.raises(SupersededError):
        nightly.publish(site.deployment, NIGHT, run_id=theirs.run_id)
    assert {row["run_id"] for row in site.published()} == {ours.run_id}
    assert part_files(site) == seen_files(site) != [], "both wrote the same files, which the loser must not delete"


def test_a_run_that_lost_to_other_models_leaves_no_parts(site: Site) -> None:
    slow = nightly.score(site.deployment, NIGHT, dag_run_id="slow")
    nightly.check(site.deployment, NIGHT, dag_run_id="slow")
    rows = night_rows()
    register_sklearn(MODEL, rows.select(list(FEATURES)).to_pandas(), rows["x"].to_numpy() < 0)
    site.run(dag_run_id="fast")
    assert len(part_files(site)) == 2 * len(seen_files(site))
    with pytest.raises(SupersededError):
        nightly.publish(site.deployment, NIGHT, run_id=slow.run_id)
    assert part_files(site) == seen_files(site)
    assert len(site.published()) == ROWS


def part_files(site: Site) -> list[str]:
    return sorted(str(file) for file in Path(site.deployment.output.path).rglob("*") if file.suffix == ".parquet")


def seen_files(site: Site) -> list[str]:
    return sorted(DeltaTable(site.deployment.output.path).file_uris())


KILLED = """
import os, signal
from pathlib import Path

def add_sum(batch):
    import pyarrow as pa, pyarrow.compute as pc
    if Path({flag!r}).exists() and 120 in batch["id"].to_pylist():
        os.kill(os.getpid(), signal.SIGKILL)
    return batch.append_column("total", pc.add(batch["x"], batch["y"]))
"""


def test_a_run_that_was_killed_goes_on_where_it_was(site: Site, tmp_path: Path) -> None:
    flag = tmp_path / "kill"
    flag.touch()
    (site.deployment.folder / "rules.py").write_text(KILLED.format(flag=str(flag)), "utf-8")
    with pytest.raises(Exception, match="Python worker exited unexpectedly"):
        nightly.score(site.deployment, NIGHT)
    kept = [file.stem for file in Path(site.deployment.output.path).rglob("*.result")]
    written = {file: Path(file).stat().st_mtime_ns for file in part_files(site) if Path(file).stem in kept}
    assert 0 < len(written) < 9
    flag.unlink()
    run = site.run()
    # Spark may have let another task end after the job had failed.
    assert len(written) <= run.metrics["splits_resumed"] < 9
    assert {file: Path(file).stat().st_mtime_ns for file in written} == written
    assert {row["run_id"] for row in site.published()} == {run.run_id}
    assert sorted(row["id"] for row in site.published()) == night_rows()["id"].to_pylist()
    assert part_files(site) == seen_files(site)
    assert list(Path(site.deployment.output.path).rglob("*.result")) == []


def test_parts_that_are_gone_are_never_published(site: Site) -> None:
    run = nightly.score(site.deployment, NIGHT)
    nightly.check(site.deployment, NIGHT)
    Path(part_files(site)[0]).unlink()
    with pytest.raises(ConfigurationError, match=rf"part files of run '{run.run_id}' are gone: .*Score the partition"):
        nightly.publish(site.deployment, NIGHT)
    assert site.published() == []


def test_the_published_version_is_that_of_the_runs_own_commit(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    nightly.score(site.deployment, NIGHT)
    nightly.check(site.deployment, NIGHT)
    with monkeypatch.context() as dying:
        dying.setattr(nightly, "_publish_quarantine", _store_away)
        with pytest.raises(StorageError):
            nightly.publish(site.deployment, NIGHT)
    site.put(night_rows(seed=8), "2024-03-01")
    later = site.run("2024-03-01")
    run = nightly.publish(site.deployment, NIGHT)
    assert int(run.tags["published_version"]) < int(later.tags["published_version"])
    old = DeltaTable(site.deployment.output.path, version=int(run.tags["published_version"])).to_pyarrow_table()
    assert set(old["run_id"].to_pylist()) == {run.run_id}
