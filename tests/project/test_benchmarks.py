"""The benchmark, tiny and untimed: its results have their shape, and both ways predict the same."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import main, parsed
from tests.benchmarks.cases import ALL, CASES, QUICK, Way, find
from tests.benchmarks.check import check
from tests.benchmarks.data import random_rows
from tests.benchmarks.measure import Measurement, WayError
from tests.benchmarks.places import ROOT, Places
from tests.benchmarks.report import derived, summarised

MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.mark.spark
def test_limit_and_scoring_predict_the_same(home: Path) -> None:
    command = [sys.executable, "-m", "tests.benchmarks", "--cases", "light", "--ways", "scoring"]
    command += ["--repeat", "1", "--scale", "0.0005", "--cores", "1"]
    answer = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    limit, scoring = json.loads((home / "bench" / "results.json").read_text())
    for result, way in ((limit, "limit"), (scoring, "scoring")):
        assert (result["case"], result["way"], result["cores"], result["rows"]) == ("light", way, 1, 3_000)
        assert len(result["seconds"]) == 1
        assert result["median_s"] == result["seconds"][0] > 0
        assert result["peak_rss_mb"] > 50
    assert limit["ratio_to_limit"] == 1
    assert scoring["ratio_to_limit"] == pytest.approx(limit["median_s"] / scoring["median_s"], abs=0.01)
    environment = json.loads((home / "bench" / "environment.json").read_text())
    assert environment["failures"] == []
    assert {"date", "cpu", "memory_gb", "command", "versions"} <= environment.keys()


def test_other_predictions_are_a_failure(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    case, places = find("light").scaled(1e-9), Places(tmp_path)

    def write(way: Way, ids: list[int], scores: list[float | None]) -> None:
        folder = places.output(case, way) / "day=2024-01-02"
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({"id": ids, "score": pa.array(scores, pa.float64())}), folder / "part.parquet")

    ids, scores = list(range(case.dataset.rows)), [0.5] * case.dataset.rows
    write(Way.LIMIT, ids, scores)
    write(Way.SCORING, ids[::-1], scores)
    check(case, Way.SCORING, places)
    for wrong in ([*scores[:-1], 0.6], [*scores[:-1], float("nan")]):
        write(Way.SCORING, ids, wrong)
        with pytest.raises(WayError, match=r"scoring of case light predicted something else than the limit"):
            check(case, Way.SCORING, places)
    for wrong_ids, wrong in ((ids[:-1], scores[:-1]), ([*ids, 0], [*scores, 0.5]), (ids, [*scores[:-1], None])):
        write(Way.SCORING, wrong_ids, wrong)
        with pytest.raises(WayError, match=r"wrote other rows: expected 100, got "):
            check(case, Way.SCORING, places)


def test_only_one_benchmark_runs_in_a_home(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Places.of_home().alone() as is_alone:
        assert is_alone
        assert main(["--cases", "light"]) == 2
    assert re.search(r"another benchmark is running in .*bench: wait", capsys.readouterr().err)
    with Places.of_home().alone() as is_alone:
        assert is_alone


def test_medians_and_ratios() -> None:
    measured = {
        Way.LIMIT: [Measurement(seconds, 100.0, {"read_s": 1.0, "predict_s": 2.0}) for seconds in (3.0, 9.0, 4.0)],
        Way.SCORING: [Measurement(seconds, seconds, {}) for seconds in (2.0, 2.2, 2.1)],
        Way.MLFLOW_SPARK_UDF: [Measurement(8.4, 1.0, {})],
    }
    limit, scoring, mlflow = results = summarised(find("ensemble_3"), measured, cores=2)
    assert (limit["median_s"], limit["ratio_to_limit"]) == (4.0, 1.0)
    assert (scoring["median_s"], scoring["ratio_to_limit"], scoring["peak_rss_mb"]) == (2.1, 1.9048, 2.2)
    assert mlflow["ratio_to_limit"] == 0.4762
    assert derived({(result["case"], result["way"]): result for result in results}) == [
        ("ensemble_3: times as fast as mlflow_spark_udf", pytest.approx(4.0), "at least 4"),
        (
            "ensemble_3: scoring / (reading once + three predictions, in the limit)",
            pytest.approx(0.7),
            "at most 1.1",
        ),
    ]


def test_data_depends_on_its_parameters_only() -> None:
    dataset = find("sklearn_categories").dataset
    rows = random_rows(dataset, 50, first=10, seed=2)
    assert rows.equals(random_rows(dataset, 50, first=10, seed=2))
    assert not rows.equals(random_rows(dataset, 50, first=60, seed=2))
    assert rows.column_names == ["id", *dataset.features]


def test_quick_is_a_part_of_the_whole_with_all_ways() -> None:
    quick = parsed(["--quick"])
    assert quick.cases == QUICK
    assert tuple(quick.ways) == ALL
    assert all(find(name).ways == ALL for name in QUICK)
    assert parsed([]).cases == tuple(CASES)
    assert "python -m tests.benchmarks --quick" in MAKEFILE


@pytest.mark.parametrize(
    "arguments", [["--cores", "1000"], ["--cases", "heavy"], ["--ways", "dask"], ["--repeat", "-1"]]
)
def test_wrong_options_are_refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(arguments)
    assert arguments[0] in capsys.readouterr().err.splitlines()[-1]
