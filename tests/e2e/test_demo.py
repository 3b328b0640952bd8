"""`make demo`, whole: real Airflow, Spark, MLflow, Delta, Great Expectations, Evidently and SMTP on real flights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import skops.io
import torch
import xgboost
from deltalake import DeltaTable

from scoring import settings
from scoring.demo.__main__ import AFTER, SUMMER, WINTER
from scoring.registry import CHAMPION, Registry
from scoring.runs import RunStore
from scoring.stack.ports import Ports

pytestmark = [pytest.mark.stack, pytest.mark.spark, pytest.mark.timeout(2400)]
NAME = "flight_delays"
MODELS = ("flight_delay_linear", "flight_delay_trees", "flight_delay_net")
WEIGHTS = np.array([0.2, 0.5, 0.3])
MEASURED = ["plane_age", "seats", "engines", "temp", "dewp", "humid", "wind_dir", "wind_speed", "wind_gust", "precip"]
NUMBERS = [
    *("day_of_week", "sched_dep_hour", "sched_dep_minute", "sched_arr_hour", "sched_arr_minute"),
    *("dep_minute_of_day", "planned_minutes", "distance", *MEASURED, "pressure", "visib"),
]
NAMES = ["carrier", "origin", "dest"]


@dataclass(frozen=True)
class Demo:
    """A demo that has run."""

    home: Path
    environment: dict[str, str]
    output: str

    @property
    def table(self) -> DeltaTable:
        """The published predictions."""
        return DeltaTable(str(self.home / "predictions" / NAME))

    def scoring(self, *arguments: str) -> Any:
        """Run a command and return its JSON document."""
        command = [sys.executable, "-m", "scoring", *arguments, "--json"]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Demo]:
    home = tmp_path_factory.mktemp("demo") / "home"
    ports = Ports.free()
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")},
        settings.HOME_VARIABLE: str(home),
        **{variable: str(port) for variable, port in ports.named().values()},
    }
    done = subprocess.run(
        [sys.executable, "-m", "scoring.demo"], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(settings.HOME_VARIABLE, str(home))
        yield Demo(home, environment, done.stdout)


def test_exactly_the_asked_nights_are_published(demo: Demo) -> None:
    nights = [*WINTER, *SUMMER, *AFTER]
    status = demo.scoring("status", NAME)
    assert sorted(row["partition"] for row in status) == nights
    query = "SELECT flight_date::VARCHAR, count(*) FROM read_parquet(?, hive_partitioning = true) GROUP BY 1 ORDER BY 1"
    published = duckdb.execute(query, [demo.table.file_uris()]).fetchall()
    lake = [(night, pq.read_table(night_file(demo, night), partitioning=None).num_rows) for night in nights]
    assert published == lake
    assert sorted((row["partition"], row["rows"]) for row in status) == lake
    assert all(row["quarantined"] == 0 and row["checks"] == "passed" for row in status)
    for night in nights:
        assert night in demo.output


@pytest.mark.parametrize("night", [WINTER[0], AFTER[0]])
def test_predictions_are_those_of_the_plain_libraries(demo: Demo, night: str) -> None:
    (row,) = [row for row in demo.scoring("status", NAME) if row["partition"] == night]
    versions = row["model_versions"]
    frame = features(pd.read_parquet(night_file(demo, night)), night)
    expected = WEIGHTS @ np.array(
        [
            skops.io.load(artifact(MODELS[0], versions) / "model.skops", trusted=["numpy.dtype"]).predict_proba(
                frame[[*NAMES, *NUMBERS]]
            )[:, 1],
            trees(artifact(MODELS[1], versions), frame),
            net(artifact(MODELS[2], versions), frame),
        ]
    )
    seen = demo.table.to_pandas(filters=[("flight_date", "=", night)]).set_index("flight_id").loc[frame["flight_id"]]
    np.testing.assert_allclose(seen["score"], expected, rtol=1e-5)
    far = np.abs(expected - 0.35) > 1e-6
    assert seen["is_late"][far].tolist() == (expected >= 0.35)[far].tolist()
    assert set(seen["run_id"]) == {row["run_id"]}


def test_drift_led_to_a_promotion_that_can_be_rolled_back(demo: Demo) -> None:
    decisions = {row["partition"]: row["decision"] for row in demo.scoring("status", NAME)}
    assert all(decisions[night] == "none" for night in WINTER)
    assert sorted(decisions[night] for night in SUMMER) == ["notify", "notify", "retrain"]
    registry = Registry()
    assert [registry.aliased(name, CHAMPION) for name in MODELS] == [2, 2, 2]
    last = next(row for row in demo.scoring("status", NAME) if row["partition"] == AFTER[0])
    assert last["model_versions"] == dict.fromkeys(MODELS, 2)
    rolled_back = demo.scoring("rollback", NAME)
    assert rolled_back["replaced"] == {name: {"from": 2, "to": 1} for name in MODELS}
    assert [registry.aliased(name, CHAMPION) for name in MODELS] == [1, 1, 1]
    assert demo.scoring("promote", NAME)["promoted"] is True
    assert [registry.aliased(name, CHAMPION) for name in MODELS] == [2, 2, 2]


def test_the_owner_got_one_mail_per_drifting_night(demo: Demo) -> None:
    mails = [
        message_from_bytes(file.read_bytes(), policy=policy.default) for file in (demo.home / "mails").glob("*.eml")
    ]
    assert sorted(mail["subject"].split(":")[0] for mail in mails) == [f"[{NAME}] {night}" for night in SUMMER]
    assert {mail["to"] for mail in mails} == {"flight-data@example.com"}
    assert sum("retraining started" in mail["subject"] for mail in mails) == 1
    for mail in mails:
        kinds = {part.get_content_type() for part in mail.walk()}
        assert {"text/plain", "text/html", "image/png"} <= kinds


def test_reports_are_kept_with_every_run(demo: Demo) -> None:
    store = RunStore()
    for row in demo.scoring("status", NAME):
        kept = set(store.artifacts(row["run_id"]))
        assert {"plan.json", "parts.json", "quality/report.html", "quality/report.json", "drift/report.json"} <= set(
            kept
        )
    drifting = [run for run in store.find(NAME) if run.partition in SUMMER]
    for run in drifting:
        page = store.read(run.run_id, "drift/report.html")
        assert page is not None
        assert b"2013-01-01" in page


def night_file(demo: Demo, night: str) -> Path:
    (file,) = (demo.home / "lake" / "flights" / f"flight_date={night}").glob("*.parquet")
    return file


def artifact(name: str, versions: dict[str, int]) -> Path:
    return Path(Registry().version(name, str(versions[name])).source.removeprefix("file://"))


def features(frame: pd.DataFrame, night: str) -> pd.DataFrame:
    """Compute by pandas what the deployment's rules compute by Arrow."""
    departure = frame["sched_dep_hour"] * 60 + frame["sched_dep_minute"]
    arrival = frame["sched_arr_hour"] * 60 + frame["sched_arr_minute"]
    codes = {f"{name}_code": [zlib.crc32(text.encode()) % 4096 for text in frame[name]] for name in NAMES}
    return frame.assign(
        day_of_week=pd.Timestamp(night).isoweekday(),
        dep_minute_of_day=departure,
        planned_minutes=(arrival - departure) % 1440,
        **codes,
    )


def matrix(frame: pd.DataFrame) -> np.ndarray:
    return frame[[*(f"{name}_code" for name in NAMES), *NUMBERS]].to_numpy(dtype=np.float32)


def trees(folder: Path, frame: pd.DataFrame) -> np.ndarray:
    booster = xgboost.Booster(model_file=str(folder / "model.ubj"))
    return booster.predict(xgboost.DMatrix(matrix(frame), feature_names=booster.feature_names))


def net(folder: Path, frame: pd.DataFrame) -> np.ndarray:
    with torch.inference_mode():
        module = torch.export.load(folder / "data" / "model.pt2").module()
        return module(torch.from_numpy(matrix(frame))).numpy()
