"""One Spark session for all tests that score in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pyspark.sql import SparkSession

from scoring import settings
from scoring.deployment import Resources
from scoring.spark.session import open_session


@pytest.fixture(scope="session")
def spark() -> Iterator[SparkSession]:
    """A local session of two cores."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(settings.SPARK_MASTER_VARIABLE, "local[2]")
        session = open_session("tests", Resources())
    yield session
    session.stop()
