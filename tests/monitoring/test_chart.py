from __future__ import annotations

import struct
from datetime import date, timedelta

import pytest

from scoring.monitoring.chart import HEIGHT_PX, WIDTH_PX, drift_chart
from scoring.monitoring.policy import PastNight
from scoring.monitoring.report import ColumnDrift, ColumnKind, DriftMethod, DriftReport

TONIGHT = date(2013, 7, 4)
COLUMNS = tuple(
    ColumnDrift(name, ColumnKind.NUMERIC, DriftMethod.WASSERSTEIN, score, 0.1, score >= 0.1)
    for name, score in [("temp", 1e6), ("$dew$point_{x}", 0.5), ("a_very_long_column_name_" * 4, 0.2), ("<b>", 0.0)]
)
NIGHTS = [PastNight(TONIGHT - timedelta(days=back), None if back == 3 else back / 40) for back in range(1, 30)]


@pytest.mark.parametrize("columns", [COLUMNS, COLUMNS[:1], ()], ids=["columns", "one column", "skipped"])
@pytest.mark.parametrize("history", [NIGHTS, NIGHTS[:1], []], ids=["history", "one night", "first night"])
def test_a_chart_is_a_small_picture(columns: tuple[ColumnDrift, ...], history: list[PastNight]) -> None:
    report = DriftReport(
        deployment="flights",
        partition=str(TONIGHT),
        reference_first="2013-01-01",
        reference_last="2013-03-31",
        current_first="2013-06-28",
        current_last=str(TONIGHT),
        reference_rows=5000,
        current_rows=5000,
        columns=columns,
        skipped=None if columns else "too few rows",
    )
    picture = drift_chart(report, history, drift_share_threshold=0.3)
    assert picture.startswith(b"\x89PNG\r\n")
    assert struct.unpack(">II", picture[16:24]) == (WIDTH_PX, HEIGHT_PX)
    assert 2_000 < len(picture) < 60_000
