"""A deployment that learns online: in order, exactly once, guarded, and the same after any interruption."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.linear_model import SGDClassifier

from scoring.deployment import Deployment
from scoring.errors import ConfigurationError, DataError
from scoring.online.learn import learn
from scoring.promotion import promote_versions
from scoring.registry import CHAMPION, DIGEST_TAG, Registry
from scoring.runs import RunKind, RunState, RunStore
from scoring.settings import jobs_folder
from scoring.testing import FEATURES, MODEL, example_rows, register_sklearn, write_deployment, write_partition

ROWS = 600
FIRST = "2024-02-27"
DAYS = ["2024-02-27", "2024-02-28", "2024-02-29", "2024-03-01", "2024-03-02"]


def night(number: int) -> pa.Table:
    return example_rows(ROWS, seed=100 + number, first_id=10_000 * number)


def put_rows(home: Path, day: str, table: pa.Table) -> None:
    write_partition(home / "lake", "day", day, table.drop_columns(["label"]))


def put_labels(home: Path, day: str, table: pa.Table, *, flipped: bool = False) -> None:
    labels = pc.subtract(1, table["label"]) if flipped else table["label"]
    write_partition(home / "labels", "day", day, pa.table({"id": table["id"], "label": labels}))


def put(home: Path, number: int, *, flipped: bool = False) -> None:
    put_rows(home, DAYS[number], night(number))
    put_labels(home, DAYS[number], night(number), flipped=flipped)


def make(home: Path, *, delay_days: int = 1, **online: object) -> Deployment:
    return write_deployment(
        home / "deployments" / "example",
        drift={
            "reference": {"first": FIRST, "last": FIRST},
            "labels": {"path": str(home / "labels"), "column": "label", "delay_days": delay_days},
        },
        online={"after": "labels", "first": FIRST, "max_log_loss_rise": 0.02, **online},
    )


@pytest.fixture
def deployment(home: Path) -> Deployment:
    """Its model has seen 60 rows of another world, so that every night teaches it something."""
    rows = example_rows(60, seed=1)
    model = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.01, random_state=0)
    register_sklearn(MODEL, rows.select(list(FEATURES)).to_pandas(), 1 - rows["label"].to_numpy(), estimator=model)
    return make(home)


def champion() -> tuple[int, str]:
    registry = Registry()
    version = registry.aliased(MODEL, CHAMPION)
    assert version is not None
    return version, registry.version(MODEL, str(version)).tags[DIGEST_TAG]


def partitions(deployment: Deployment, as_of: str) -> list[str]:
    return [outcome.partition for outcome in learn(deployment, as_of)]


@pytest.fixture
def in_order(deployment: Deployment, home: Path) -> str:
    """Digest of the champion that has learned the first four nights, each on its evening; then all is forgotten."""
    for number in range(4):
        put(home, number)
        learn(deployment, DAYS[number + 1])
    _, digest = champion()
    forget(home)
    return digest


def forget(home: Path) -> None:
    import shutil

    shutil.rmtree(home / "lake")
    shutil.rmtree(home / "labels")
    Registry().set_alias(MODEL, CHAMPION, 1)
    store = RunStore()
    for run in store.find("example", kind=RunKind.LEARN):
        store.set_state(run.run_id, RunState.SUPERSEDED)


def test_every_night_is_learned_once_when_its_labels_are_due(deployment: Deployment, home: Path) -> None:
    for number in range(3):
        put(home, number)
    assert partitions(deployment, DAYS[0]) == []
    assert champion()[0] == 1
    assert partitions(deployment, DAYS[1]) == [DAYS[0]]
    assert champion()[0] == 2
    assert partitions(deployment, DAYS[1]) == []
    assert partitions(deployment, DAYS[3]) == [DAYS[1], DAYS[2]]
    assert champion()[0] == 4
    assert partitions(deployment, DAYS[2]) == []
    assert champion()[0] == 4
    tags = Registry().version(MODEL, "4").tags
    assert tags["scoring.learned_through"] == DAYS[2]
    runs = RunStore().find("example", kind=RunKind.LEARN, state="done")
    assert [run.partition for run in runs] == [DAYS[2], DAYS[1], DAYS[0]]
    assert all(run.metrics["log_loss_after"] < run.metrics["log_loss_before"] for run in runs)
    held_out = [ROWS - run.metrics["rows"] for run in runs]
    assert all(0.1 * ROWS < rows < 0.3 * ROWS for rows in held_out)


def test_several_nights_at_once_end_in_the_same_bytes(deployment: Deployment, home: Path, in_order: str) -> None:
    for number in range(4):
        put(home, number)
    assert partitions(deployment, DAYS[4]) == DAYS[:4]
    assert champion()[1] == in_order


def test_a_late_night_takes_its_place(deployment: Deployment, home: Path, in_order: str) -> None:
    for number in (0, 2, 3):
        put(home, number)
    put_rows(home, DAYS[1], night(1))
    assert partitions(deployment, DAYS[4]) == [DAYS[0], DAYS[2], DAYS[3]]
    assert champion()[1] != in_order
    put_labels(home, DAYS[1], night(1))
    assert partitions(deployment, DAYS[4]) == DAYS[1:4]
    assert champion()[1] == in_order


def test_a_night_that_changes_is_learned_again(deployment: Deployment, home: Path, in_order: str) -> None:
    for number in range(4):
        put(home, number)
    put_labels(home, DAYS[2], night(2).slice(0, 500))
    learn(deployment, DAYS[4])
    assert champion()[1] != in_order
    put_labels(home, DAYS[2], night(2))
    # An older night stands for today; what was learned later must not be lost.
    assert partitions(deployment, DAYS[3]) == DAYS[2:4]
    assert champion()[1] == in_order


def test_a_settled_night_is_not_looked_at_again(home: Path, deployment: Deployment) -> None:
    settled = make(home, replay_days=1)
    for number in range(4):
        put(home, number)
    learn(settled, DAYS[4])
    before = champion()
    put_labels(home, DAYS[0], night(0).slice(0, 100))
    assert partitions(settled, DAYS[4]) == []
    assert champion() == before


def test_an_update_that_makes_the_model_worse_is_rejected(deployment: Deployment, home: Path) -> None:
    for number in range(4):
        put(home, number)
    learn(deployment, DAYS[3])
    good = champion()
    put(home, 3, flipped=True)
    strict = make(home, max_log_loss_rise=0.0, passes=5)
    (outcome,) = learn(strict, DAYS[4])
    assert (outcome.partition, outcome.is_accepted, outcome.version) == (DAYS[3], False, good[0])
    assert "held-out rows" in outcome.reason
    assert champion() == good
    put_rows(home, DAYS[4], night(4))
    put_labels(home, DAYS[4], night(4))
    (outcome,) = learn(strict, "2024-03-03")
    assert outcome.partition == DAYS[4]
    rejected = RunStore().find("example", kind=RunKind.LEARN, state="done", update="rejected")
    assert DAYS[3] in {run.partition for run in rejected}


class Killed(BaseException):
    """The process ends here."""


@dataclass(frozen=True)
class Death:
    """When the process dies: at which call of which method."""

    owner: type
    method: str
    call: int
    is_after: bool


def dies(call: Callable[..., Any], death: Death) -> Callable[..., Any]:
    calls = 0

    def dying(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == death.call and not death.is_after:
            raise Killed
        found = call(*arguments, **named)
        if calls == death.call:
            raise Killed
        return found

    return dying


@pytest.mark.parametrize("is_late", [False, True], ids=["new_nights", "replay"])
@pytest.mark.parametrize(
    "death",
    [
        Death(owner, method, call, is_after)
        for owner, method in ((Registry, "register_files"), (Registry, "set_alias"), (RunStore, "set_state"))
        for call in (1, 2)
        for is_after in (False, True)
    ],
    ids=lambda death: f"{death.method}-{death.call}-{'after' if death.is_after else 'before'}",
)
def test_a_killed_process_loses_and_doubles_nothing(
    deployment: Deployment, home: Path, in_order: str, death: Death, *, is_late: bool
) -> None:
    for number in (0, 2, 3) if is_late else (0,):
        put(home, number)
    learn(deployment, DAYS[4])
    for number in range(4):
        if not (home / "lake" / f"day={DAYS[number]}").exists():
            put(home, number)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(death.owner, death.method, dies(getattr(death.owner, death.method), death))
        try:
            learn(deployment, DAYS[4])
        except Killed:
            assert champion()[0] > 0
    learn(deployment, DAYS[4])
    assert champion()[1] == in_order
    assert partitions(deployment, DAYS[4]) == []
    digests = [version.tags[DIGEST_TAG] for version in Registry()._client.search_model_versions(f"name = '{MODEL}'")]
    assert len(digests) == len(set(digests))


def test_a_version_chosen_by_hand_is_where_learning_goes_on(deployment: Deployment, home: Path) -> None:
    for number in range(4):
        put(home, number)
    learn(deployment, DAYS[3])
    promote_versions(deployment, {MODEL: 2})
    (outcome,) = learn(deployment, DAYS[4])
    # It does not learn again what led to the roll-back.
    assert outcome.partition == DAYS[3]
    parent = RunStore().find("example", kind=RunKind.LEARN, state="done", limit=1)[0]
    assert parent.tags["parent"] == "2"


def test_wrong_beginnings_are_refused(home: Path, deployment: Deployment) -> None:
    put(home, 0)
    with pytest.raises(ConfigurationError, match="does not learn online: expected a section 'online'"):
        learn(write_deployment(home / "deployments" / "plain"), DAYS[1])
    with pytest.raises(ConfigurationError, match=r"nobody knows from which night.*Add the first partition"):
        learn(make(home, first=None), DAYS[1])
    put_labels(home, DAYS[0], night(0).set_column(4, "label", pa.array(np.arange(ROWS))))
    with pytest.raises(DataError, match=r"labels of '2024-02-27' cannot be learned: expected 0 and 1, got 0\.0, 1\.0"):
        learn(deployment, DAYS[1])
    assert champion()[0] == 1


def test_the_job_learns_but_not_in_a_backfill(deployment: Deployment, home: Path) -> None:
    put(home, 0)

    def job(trigger: str) -> Any:
        command = [sys.executable, str(jobs_folder() / "learn.py"), "example", "--partition", DAYS[1]]
        done = subprocess.run([*command, "--trigger", trigger], capture_output=True, text=True, check=True)
        return json.loads(done.stdout.splitlines()[-1])

    assert job("backfill") == {"learned": [], "reason": "a backfill"}
    (outcome,) = job("scheduled")["learned"]
    assert (outcome["partition"], outcome["update"], outcome["version"]) == (DAYS[0], "accepted", 2)
