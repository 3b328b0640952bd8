"""Every bad input gives one clear sentence and the right exit code; nothing is published, nothing is lost."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from scoring import nightly, settings
from scoring.errors import (
    ConfigurationError,
    ContractError,
    DataError,
    ModelError,
    PartitionMissingError,
    RegistryUnavailableError,
    ScoringError,
    StorageError,
)
from scoring.registry import Registry
from scoring.runs import RunState, RunStore
from scoring.testing import FEATURES, MODEL, PARTITION, register_sklearn
from tests.e2e.example import NIGHT, Site, night_rows

pytestmark = pytest.mark.spark
GOOD_NIGHT = "2024-02-28"
Breakage = Callable[[Site, Path], None]


def _replace(folder: Path, change: Callable[[pa.Table], pa.Table]) -> None:
    file = folder / "part-001.parquet"
    pq.write_table(change(pq.read_table(file)), file)


def missing_partition(_: Site, folder: Path) -> None:
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()


def empty_partition(_: Site, folder: Path) -> None:
    for file in folder.iterdir():
        pq.write_table(pq.read_table(file).slice(0, 0), file)


def truncated_file(_: Site, folder: Path) -> None:
    file = folder / "part-001.parquet"
    file.write_bytes(file.read_bytes()[:-40])


def damaged_pages(_: Site, folder: Path) -> None:
    file = folder / "part-001.parquet"
    content = bytearray(file.read_bytes())
    content[4:400] = b"\xff" * 396
    file.write_bytes(content)


def not_parquet(_: Site, folder: Path) -> None:
    (folder / "part-001.csv").write_text("id,x,y\n1,2,3\n", encoding="utf-8")


def missing_column(_: Site, folder: Path) -> None:
    _replace(folder, lambda table: table.drop_columns(["y"]))


def extra_column(_: Site, folder: Path) -> None:
    _replace(folder, lambda table: table.append_column("price", pa.array(np.zeros(table.num_rows))))


def renamed_column(_: Site, folder: Path) -> None:
    _replace(folder, lambda table: table.rename_columns(["id", "x", "Y", "city"]))


def retyped_column(_: Site, folder: Path) -> None:
    _replace(folder, lambda table: table.set_column(1, "x", table["x"].cast(pa.string())))


def all_rows_null(_: Site, folder: Path) -> None:
    for file in folder.iterdir():
        table = pq.read_table(file)
        pq.write_table(pa.table({f.name: pa.nulls(table.num_rows, f.type) for f in table.schema}), file)


def duplicate_keys(_: Site, folder: Path) -> None:
    _replace(folder, lambda table: table.set_column(0, "id", pa.array(range(table.num_rows), pa.int64())))


def unknown_alias(site: Site, _: Path) -> None:
    registry = Registry()
    registry._client.delete_registered_model_alias(MODEL, "champion")


def changed_model_file(site: Site, _: Path) -> None:
    (file,) = settings.artifact_root().rglob("model.skops")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


def model_that_raises(site: Site, _: Path) -> None:
    # Fitted on one feature only, but its signature promises two.
    from sklearn.linear_model import LogisticRegression

    rows = night_rows().to_pandas()
    narrow = LogisticRegression().fit(rows[["x"]], rows["x"] > 0)
    register_sklearn(MODEL, rows[list(FEATURES)], estimator=narrow)


def suite_fails(site: Site, _: Path) -> None:
    suite = site.deployment.folder / "expectations" / "output.yaml"
    suite.write_text(suite.read_text("utf-8").replace("max_value: 1", "max_value: 0.5"), "utf-8")


# fmt: off
CASES: list[tuple[Breakage, type[ScoringError], int, str]] = [
    (
        missing_partition,
        PartitionMissingError,
        75,
        r"partition '2024-02-29' is missing: .*Nearest partitions: 2024-02-28",
    ),
    (empty_partition, DataError, 3, r"partition '2024-02-29' is empty: expected at least one row"),
    (truncated_file, DataError, 3, r"part-001\.parquet cannot be read: expected a whole Parquet file"),
    (damaged_pages, DataError, 3, r"part-001\.parquet cannot be read: expected whole Parquet pages"),
    (not_parquet, DataError, 3, r"part-001\.csv cannot be read: expected a whole Parquet file"),
    (missing_column, ContractError, 2, r"part-001\.parquet lacks columns .*: expected columns y"),
    (extra_column, ContractError, 2, r"part-001\.parquet has columns that the input contract does not name.*price"),
    (renamed_column, ContractError, 2, r"lacks columns .* expected columns y, .*Was 'y' renamed to 'Y'\?"),
    (retyped_column, ContractError, 2, r"column 'x' of file .* has another type: expected double, got string"),
    (
        all_rows_null,
        DataError,
        3,
        r"too many rows .* break the input contract: expected at most 1\.00%, got 400 of 400",
    ),
    (
        duplicate_keys,
        DataError,
        3,
        r"keys are not unique: expected one row for each value of id, got several rows for 0, 1",
    ),
    (unknown_alias, ConfigurationError, 2, r"model 'example' has no alias '@champion'"),
    (changed_model_file, ModelError, 2, r"were changed after it was registered: expected sha256 [0-9a-f]{64}, got"),
    (model_that_raises, ModelError, 2, r"model 'example' version 2 raised .* feature names should match"),
    (suite_fails, DataError, 3, r"of 'example' failed a critical check .output suite, column score."),
]


@pytest.mark.parametrize(("breakage", "kind", "exit_code", "sentence"), CASES, ids=[case[0].__name__ for case in CASES])
def test_bad_input(site: Site, breakage: Breakage, kind: type[ScoringError], exit_code: int, sentence: str) -> None:
    site.put(night_rows(seed=3), GOOD_NIGHT)
    site.run(GOOD_NIGHT)
    before = site.published()
    breakage(site, site.lake / f"{PARTITION}={NIGHT}")
    with pytest.raises(kind, match=sentence) as failed:
        site.run(NIGHT)
    assert failed.type is kind
    assert failed.value.exit_code == exit_code
    assert "\n" not in str(failed.value)
    assert site.published() == before
    (run,) = RunStore().find("example", partition=NIGHT)
    assert run.state is RunState.FAILED
    assert run.tags["error"] == str(failed.value)


def test_the_night_is_scored_once_the_input_is_good(site: Site) -> None:
    folder = site.lake / f"{PARTITION}={NIGHT}"
    truncated_file(site, folder)
    with pytest.raises(DataError):
        site.run()
    site.put(night_rows(), files=3, row_group_rows=50)
    site.run()
    assert len(site.published()) == night_rows().num_rows


def test_registry_down(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(settings.TRACKING_VARIABLE, "http://127.0.0.1:9")
    with pytest.raises(RegistryUnavailableError, match="the MLflow store does not answer") as failed:
        nightly.score(site.deployment, NIGHT)
    assert failed.value.exit_code == 75


@pytest.fixture
def full_disk(site: Site) -> Iterator[Path]:
    """The output path on a file system that holds less than one night's parts."""
    folder = Path(site.deployment.output.path)
    folder.mkdir(parents=True)
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_disk_full(site: Site, full_disk: Path) -> None:
    with pytest.raises(StorageError, match="expected free space, got disk full") as failed:
        nightly.score(site.deployment, NIGHT)
    assert failed.value.exit_code == 75
    names = [path.name for path in full_disk.rglob("*") if path.is_file()]
    assert [name for name in names if name.endswith(".tmp")] == [], "what the next attempt can go on from, is whole"
    assert not DeltaTable.is_deltatable(str(full_disk))
