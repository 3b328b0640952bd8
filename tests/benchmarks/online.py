"""Does a model that learns every night beat the one that does not? `python -m tests.benchmarks.online`.

A year of flights: `flight_delays_online` is trained on January to March; from April on it learns night by night, as its
Dag would let it. Every night is scored by the champion of that evening and by the frozen model of March. Prints a table
by month and draws `tests/benchmarks/online.png`. About ten minutes; everything goes through MLflow and real files.
"""

from __future__ import annotations

import argparse
import runpy
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.metrics import log_loss, roc_auc_score

from scoring import settings
from scoring.data.partition import existing_values
from scoring.deployment import Deployment, Period, load
from scoring.graph.compile import graph_source
from scoring.local import read_rows, run_graph, with_labels
from scoring.online.learn import learn
from scoring.registry import CHAMPION, Registry
from scoring.training import train

NAME: Final = "flight_delays_online"
TRAINING: Final = Period(first=date(2013, 1, 1), last=date(2013, 3, 17))
HOLDOUT: Final = Period(first=date(2013, 3, 18), last=date(2013, 3, 31))
FIRST: Final = date(2013, 4, 1)
LAST: Final = date(2013, 12, 31)
PICTURE: Final = Path(__file__).with_name("online.png")
WINDOW: Final = 7
"""Nights that a point of the picture is the mean of."""


@dataclass(frozen=True, slots=True)
class Night:
    """One night, scored twice."""

    day: date
    labels: npt.NDArray[np.float64]
    frozen: npt.NDArray[np.float64]
    online: npt.NDArray[np.float64]
    is_accepted: bool
    """Whether the update of that evening was accepted, or there was none."""


def nights(deployment: Deployment, last: date) -> Iterator[Night]:
    """Take the deployment through the year."""
    registry = Registry()
    (model,) = deployment.learning_models
    frozen = registry.aliased(model, CHAMPION)
    assert frozen is not None
    labels = deployment.drift.labels if deployment.drift else None
    assert labels is not None
    there = set(existing_values(deployment.input.location, deployment.input.partition))
    days = [FIRST + timedelta(days=number) for number in range((last - FIRST).days + 1)]
    for day in track([day for day in days if day.isoformat() in there], "nights", console=Console(stderr=True)):
        learned = learn(deployment, (day - timedelta(days=1)).isoformat())
        online = registry.aliased(model, CHAMPION)
        assert online is not None
        rows = with_labels(read_rows(deployment, [day.isoformat()], limit=sys.maxsize), deployment, [day.isoformat()])
        truth = rows.column(labels.column).to_numpy().astype(np.float64)
        features = rows.drop_columns([labels.column])
        scores = [scored(deployment, registry, features, {model: version}) for version in (frozen, online)]
        yield Night(day, truth, *scores, all(outcome.is_accepted for outcome in learned))


def scored(deployment: Deployment, registry: Registry, rows: Any, versions: dict[str, int]) -> npt.NDArray[np.float64]:
    """Return the scores of rows by given versions."""
    models, files = registry.freeze(deployment, versions)
    table, _ = run_graph(graph_source(deployment, models), rows, files=files)
    values: npt.NDArray[np.float64] = table.column("score").to_numpy()
    return values


def measured(found: list[Night]) -> tuple[int, float, float, float, float]:
    """Return rows, log loss and ROC-AUC of the frozen and of the online model."""
    truth = np.concatenate([night.labels for night in found])
    frozen, online = (np.concatenate([getattr(night, side) for night in found]) for side in ("frozen", "online"))
    return (
        len(truth),
        log_loss(truth, frozen),
        log_loss(truth, online),
        roc_auc_score(truth, frozen),
        roc_auc_score(truth, online),
    )


def gain(night: Night) -> float:
    """Return by how much the log loss of the online model is smaller."""
    return float(
        log_loss(night.labels, night.frozen, labels=[0, 1]) - log_loss(night.labels, night.online, labels=[0, 1])
    )


def print_table(found: list[Night]) -> None:
    """Print months and the whole."""
    table = Table(title="frozen in March, and learning every night")
    for name in (
        "month",
        "flights",
        "log loss frozen",
        "online",
        "ROC-AUC frozen",
        "online",
        "nights better",
        "rejected",
    ):
        table.add_column(name, justify="right")
    months = sorted({night.day.month for night in found})
    groups = {date(2013, month, 1).strftime("%B"): [n for n in found if n.day.month == month] for month in months}
    for name, group in {**groups, "all": found}.items():
        rows, *losses = measured(group)
        better = sum(
            log_loss(n.labels, n.online, labels=[0, 1]) < log_loss(n.labels, n.frozen, labels=[0, 1]) for n in group
        )
        rejected = sum(not night.is_accepted for night in group)
        numbers = [f"{loss:.4f}" for loss in losses]
        table.add_row(name, f"{rows:,}", *numbers, f"{better} of {len(group)}", str(rejected))
    Console(width=120).print(table)


def draw(found: list[Night]) -> None:
    """Draw the log loss of both models, each point the mean of a week."""
    import matplotlib as mpl

    mpl.use("agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 1, figsize=(10, 6), sharex=True, layout="constrained")
    days = [night.day for night in found]
    curves = {
        side: np.array([log_loss(night.labels, getattr(night, side), labels=[0, 1]) for night in found])
        for side in ("frozen", "online")
    }
    kernel = np.ones(WINDOW) / WINDOW
    for (side, losses), color in zip(curves.items(), ("#b3261e", "#14713d"), strict=True):
        axes[0].plot(days[WINDOW - 1 :], np.convolve(losses, kernel, "valid"), color=color, label=side)
    axes[0].set_ylabel(f"log loss, mean of {WINDOW} nights")
    axes[0].legend(frameon=False)
    gains = np.array([gain(night) for night in found])
    axes[1].bar(days, gains, color=np.where(gains > 0, "#14713d", "#b3261e"), width=1.0)
    axes[1].set_ylabel("gain of learning, night by night")
    axes[0].set_title("flight_delays_online, 2013: frozen in March, and learning every night")
    figure.savefig(PICTURE, dpi=110)


def main() -> None:
    """Train, learn, measure, draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--last", type=date.fromisoformat, default=LAST, help="last night")
    arguments = parser.parse_args()
    deployment = load(NAME)
    if not (settings.home() / "lake" / "labels").exists():
        runpy.run_path(str(settings.deployments_folder() / "flight_delays" / "lake.py"))["write_lake"](
            settings.home() / "lake"
        )
    (model,) = deployment.learning_models
    run = train(deployment, TRAINING, HOLDOUT)
    Registry().set_alias(model, CHAMPION, run.model_versions[model])
    found = list(nights(deployment, arguments.last))
    print_table(found)
    draw(found)


if __name__ == "__main__":
    main()
