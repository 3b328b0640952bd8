"""Soups beside their parents and an ensemble of these, on flights: how well they do and what they cost.

    python -m tests.benchmarks.soups [--parents 8] [--seeds 3] [--rows 250000]

The qualitative table of Wortsman et al., "Model soups" (2022): one net is trained on January; its copies are fine-tuned
on February and March, each with hyperparameters drawn at random. The first half of April chooses (the best parent,
what a greedy soup takes, the shares of a learned one); what was chosen is measured on nights that come after it. All
of that is repeated with other hyperparameters and orders of rows; the table shows means over the repetitions.
"""

from __future__ import annotations

import argparse
import copy
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import torch
from torch import nn

from scoring import deployment, settings, training
from scoring.batch import Batch
from scoring.deployment import Deployment, ModelStep, Period
from scoring.models import flavors
from scoring.models.base import Files, FrozenModel, LoadOptions, Predictor, SignatureColumn
from scoring.models.soup import torch as format_of_nets
from scoring.models.soup.method import Method
from scoring.models.soup.recipes import mix
from scoring.models.soup.weights import check_compatible
from scoring.soup import Examples, Mixtures, Parent
from tests.flights.partitions import FOLDER, load_module
from tests.models.programs import exported

START = Period(first=date(2013, 1, 1), last=date(2013, 1, 31))
WINDOW = Period(first=date(2013, 2, 1), last=date(2013, 3, 31))
CHOOSING = Period(first=date(2013, 4, 1), last=date(2013, 4, 14))
NEXT = Period(first=date(2013, 4, 15), last=date(2013, 4, 30))
SUMMER = Period(first=date(2013, 7, 1), last=date(2013, 7, 14))
"""Flights under another weather and another delay: what the paper calls a shift of the distribution."""
BATCH_ROWS = 512
TIMINGS = 3


@dataclass(frozen=True, slots=True)
class Drawn:
    """Hyperparameters of one fine-tuning, drawn as in the paper: of the learning rate its logarithm."""

    rate: float
    decay: float
    dropout: float
    epochs: int
    smoothing: float

    @staticmethod
    def by(random: np.random.Generator) -> Drawn:
        """Draw them."""
        return Drawn(
            rate=float(10 ** random.uniform(-3.7, -2.3)),
            decay=float(10 ** random.uniform(-4, -1)),
            dropout=float(random.uniform(0, 0.4)),
            epochs=int(random.integers(1, 5)),
            smoothing=float(random.uniform(0, 0.1)),
        )


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table, of one repetition."""

    passes: int
    seconds: float
    """To score a million rows."""
    roc_auc: tuple[float, ...]
    """On the choosing nights, the next ones, and those in summer."""
    accuracy: tuple[float, ...]


def fine_tuned(start: nn.Module, features: torch.Tensor, late: torch.Tensor, drawn: Drawn, *, seed: int) -> nn.Module:
    """Return a copy of a net after further training."""
    torch.manual_seed(seed)
    net: Any = copy.deepcopy(start).train()
    for layer in net.modules():
        if isinstance(layer, nn.Dropout):
            layer.p = drawn.dropout
    loss, targets = nn.BCEWithLogitsLoss(), late * (1 - drawn.smoothing) + drawn.smoothing / 2
    optimizer = torch.optim.AdamW(net.parameters(), lr=drawn.rate, weight_decay=drawn.decay)
    for _ in range(drawn.epochs):
        for rows in torch.randperm(len(features)).split(BATCH_ROWS):
            optimizer.zero_grad()
            loss(net.logits(features[rows]), targets[rows]).backward()
            optimizer.step()
    return net.eval()


def parent(net: nn.Module, columns: Sequence[str], version: int) -> Parent:
    """Return a net as the registry would give it to a soup."""
    frozen, files = exported(net, len(columns))
    inputs = tuple(SignatureColumn(name, "double", required=False) for name in columns)
    model = FrozenModel("net", version, frozen.digest, frozen.flavor, frozen.conf, inputs, frozen.size_bytes)
    return Parent(model, files, format_of_nets.read(model, files))


@dataclass(frozen=True, slots=True)
class Bench:
    """Labelled rows of the nights, and rows to be scored against the clock."""

    nights: tuple[Examples, ...]
    timed: Batch

    def measured(self, predictors: Sequence[Predictor]) -> Measured:
        """Measure the mean prediction of models; of a single one its own."""

        def scores(batch: Batch) -> npt.NDArray[np.float64]:
            found: npt.NDArray[np.float64] = np.mean([each.predict(batch) for each in predictors], axis=0)
            return found

        found = [scores(examples.batch) for examples in self.nights]
        return Measured(
            passes=len(predictors),
            seconds=timed(lambda: scores(self.timed)) / self.timed.rows * 1e6,
            roc_auc=tuple(_roc_auc(examples, got) for examples, got in zip(self.nights, found, strict=True)),
            accuracy=tuple(
                float(((got >= 0.5) == (examples.truth == 1)).mean())
                for examples, got in zip(self.nights, found, strict=True)
            ),
        )


def timed(call: Callable[[], object]) -> float:
    """Return the median of several runs, in seconds."""
    call()
    seconds = []
    for _ in range(TIMINGS):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return float(np.median(seconds))


def repetition(start: nn.Module, fitted: tuple[torch.Tensor, torch.Tensor], bench: Bench, **how: int) -> dict[str, Any]:
    """Fine-tune parents, make all soups of them, and measure everything."""
    random = np.random.default_rng(how["seed"])
    columns = bench.timed.table.column_names
    parents = [
        parent(fine_tuned(start, *fitted, Drawn.by(random), seed=100 * how["seed"] + number), columns, number)
        for number in range(how["parents"])
    ]
    check_compatible({f"v{found.model.version}": found.weights for found in parents})
    mixtures = Mixtures(parents, ModelStep(model="models:/net@champion"), None, bench.nights[0])
    alone = [bench.measured([_loaded(found.model, found.files)]) for found in parents]
    lines: dict[str, Any] = {
        "mean of the parents": Measured(
            1,
            float(np.mean([found.seconds for found in alone])),
            tuple(np.mean([found.roc_auc for found in alone], axis=0).tolist()),
            tuple(np.mean([found.accuracy for found in alone], axis=0).tolist()),
        ),
        "best parent": max(alone, key=lambda found: found.roc_auc[0]),
    }
    shares = {}
    for method in Method:
        mixing = mix(method, len(parents), metric=mixtures.metric, loss=mixtures.loss)
        lines[f"{method} soup"] = bench.measured([mixtures.predictor(mixtures.files(mixing))])
        shares[method] = [round(share, 3) for share in mixing.tolist()]
    lines["ensemble of all"] = bench.measured([_loaded(found.model, found.files) for found in parents])
    sys.stderr.write(f"seed {how['seed']}: shares {shares}\n")
    return lines


def table(repetitions: Sequence[dict[str, Measured]]) -> list[str]:
    """Return the lines of a Markdown table: means, and behind ± the standard deviation over repetitions."""
    heads = ["model", "passes", "s per 1M rows", *(f"ROC-AUC {when}" for when in ("choosing", "next", "summer"))]
    heads += [f"accuracy {when}" for when in ("next", "summer")]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for name, first in repetitions[0].items():
        found = [repetition[name] for repetition in repetitions]
        areas = [_spread([each.roc_auc[place] for each in found], 4) for place in range(3)]
        shares = [_spread([each.accuracy[place] for each in found], 4) for place in (1, 2)]
        seconds = f"{np.median([each.seconds for each in found]):.2f}"
        lines.append(f"| {name} | {first.passes} | {seconds} | {' | '.join([*areas, *shares])} |")
    return lines


def _spread(values: Sequence[float], digits: int) -> str:
    return f"{np.mean(values):.{digits}f} ± {np.std(values):.{digits}f}"


def _roc_auc(examples: Examples, scores: npt.NDArray[np.float64]) -> float:
    from sklearn.metrics import roc_auc_score

    return float(roc_auc_score(examples.truth, scores))


def _loaded(model: FrozenModel, files: Files) -> Predictor:
    return flavors.loader(model.flavor)(model, files, LoadOptions())


def _examples(found: Deployment, nights: Period, columns: Sequence[str]) -> Examples:
    frame = training._frame(found, nights, as_of="")
    features = pa.Table.from_pandas(frame[list(columns)], preserve_index=False)
    return Examples(Batch(features), frame["is_late"].to_numpy(np.float64), nights)


def main(arguments: Sequence[str]) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parents", type=int, default=8, help="fine-tuned nets (default: %(default)s)")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions (default: %(default)s)")
    parser.add_argument("--rows", type=int, default=250_000, help="rows that are timed (default: %(default)s)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="soups-") as folder:
        os.environ[settings.HOME_VARIABLE] = folder
        load_module("lake").write_lake(Path(folder) / "lake", first=START.first, last=SUMMER.last)
        found, train = deployment.load(FOLDER), load_module("train")
        columns = train.MATRIX_COLUMNS
        first, window = (_examples(found, nights, columns) for nights in (START, WINDOW))
        nights = tuple(_examples(found, period, columns) for period in (CHOOSING, NEXT, SUMMER))
    start = train.fit_net(first.batch.matrix(columns), first.truth.astype(np.int64), seed=1)
    fitted = (torch.from_numpy(window.batch.matrix(columns)), torch.from_numpy(window.truth.astype(np.float32)))
    repeated = window.batch.table.take(np.arange(options.rows) % window.batch.rows)
    bench = Bench(nights, Batch(repeated))
    repetitions = [
        repetition(start, fitted, bench, seed=seed, parents=options.parents) for seed in range(1, options.seeds + 1)
    ]
    rows = ", ".join(f"{examples.batch.rows:,}" for examples in (first, window, *nights))
    print(f"Rows to start from, to fine-tune on, of the choosing, the next and the summer nights: {rows}.\n")
    print("\n".join(table(repetitions)))


if __name__ == "__main__":
    main(sys.argv[1:])
