"""Making a soup: versions of one registered model become a new version with averaged weights. Runs on the driver.

The hold-out nights are cut in two: the earlier ones choose the mixture, the later ones, which nothing has been chosen
on, compare the soup with its parents and with the champions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from difflib import get_close_matches
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.batch import Batch
from scoring.data.partition import values_between
from scoring.deployment import Deployment, ModelStep, Period, model_name
from scoring.errors import ConfigurationError, ContractError, DataError, listed
from scoring.graph.compile import graph_source, readers
from scoring.local import read_rows, record_graph
from scoring.models import flavors
from scoring.models.base import Files, FrozenModel, LoadOptions, Predictor, digest_of
from scoring.models.soup.formats import Format, format_of
from scoring.models.soup.method import Method
from scoring.models.soup.recipes import Mixing, mix
from scoring.models.soup.weights import Weights, average, check_compatible
from scoring.monitoring.performance import measure
from scoring.monitoring.report import Performance
from scoring.monitoring.window import as_date
from scoring.registry import CHALLENGER, TRAINING_RUN_TAG, Registry, names
from scoring.runs import RunKind, RunRecord, RunState, RunStore, recorded
from scoring.training import (
    MAX_HOLDOUT_ROWS,
    MIN_HOLDOUT_ROWS,
    check_holdout,
    compare_with_champions,
    labelled_rows,
    sections,
    trained_on,
)

MAX_STATISTICS_ROWS: Final = 65_536
"""Training rows by which BatchNorm's statistics are recomputed."""
SOUP_ARTIFACT: Final = "soup.json"
FORMAT_VERSION: Final = 1
METHOD_TAG: Final = "scoring.soup.method"
PARENTS_TAG: Final = "scoring.soup.parents"
"""JSON: version to sha256 of its artifact."""
WEIGHTS_TAG: Final = "scoring.soup.weights"
"""JSON: version to its share."""


@dataclass(frozen=True, slots=True)
class Parent:
    """A version that goes into a soup."""

    model: FrozenModel
    files: Files
    weights: Weights


@dataclass(frozen=True, slots=True)
class Examples:
    """Labelled rows as the graph gives them to the model."""

    batch: Batch
    truth: npt.NDArray[np.float64]
    """Labels, shape (rows,)."""
    nights: Period

    def performance(self, predictor: Predictor) -> Performance:
        """Return how well a predictor does on the rows."""
        scores = predictor.predict(self.batch)
        first, last = str(self.nights.first), str(self.nights.last)
        return measure(scores, self.truth, first=first, last=last, min_rows=MIN_HOLDOUT_ROWS)


@dataclass(slots=True)
class Mixtures:
    """Makes mixtures of parents, each at most once, and measures them."""

    parents: Sequence[Parent]
    step: ModelStep
    """How the deployment uses the model."""
    statistics_rows: Batch | None
    """Rows by which BatchNorm's statistics are recomputed; None: the model has none."""
    choosing: Examples
    _format: Format = field(init=False)
    _seen: dict[tuple[float, ...], Performance] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._format = format_of(self.parents[0].model)

    def files(self, mixing: Mixing) -> Files:
        """Return the artifact of a mixture; a parent alone stays as it is."""
        alone = np.flatnonzero(mixing == 1)
        if alone.size:
            return self.parents[int(alone[0])].files
        first = self.parents[0]
        tensors = average([parent.weights.averaged for parent in self.parents], mixing)
        return self._format.write(first.model, first.files, tensors, self.statistics_rows)

    def predictor(self, files: Files) -> Predictor:
        """Load a mixture; not by the cache, which would keep them all."""
        model = replace(self.parents[0].model, digest=digest_of(files))
        load = flavors.loader(model.flavor)
        return load(model, files, LoadOptions(method=self.step.method))

    def metric(self, mixing: Mixing) -> float:
        """Return the ROC-AUC of a mixture on the choosing rows."""
        return _measured(self._performance(mixing).roc_auc, "ROC-AUC", self._performance(mixing))

    def loss(self, mixing: Mixing) -> float:
        """Return the log loss of a mixture on the choosing rows."""
        return _measured(self._performance(mixing).log_loss, "log loss", self._performance(mixing))

    def _performance(self, mixing: Mixing) -> Performance:
        key = tuple(mixing.tolist())
        if key not in self._seen:
            self._seen[key] = self.choosing.performance(self.predictor(self.files(mixing)))
        return self._seen[key]


def make_soup(
    deployment: Deployment,
    versions: Sequence[int],
    *,
    method: Method,
    model: str | None = None,
    holdout: Period | None = None,
) -> RunRecord:
    """Average versions of one model, register the soup as a challenger, and compare it with the champions.

    Args:
        deployment: which gives the model its rows and has labels for them.
        versions: two or more parents.
        method: how much of each parent the soup holds.
        model: registered model; None: the only one of the deployment.
        holdout: two or more labelled partitions that no parent was trained on; None: those of the newest parent's
            training.

    Returns:
        The record of a training run; `scoring.promotion.redeploy` takes its `run_id`.

    Raises:
        ConfigurationError: there is no such version, or hold-out nights are missing or were learned from.
        ModelError: the parents are not of one architecture, or of a flavor whose weights are not averaged.
        DataError: there are no labelled rows.
    """
    sections(deployment)
    name = _model_name(deployment, model)
    if len(set(versions)) < 2 or len(set(versions)) != len(versions):
        raise ConfigurationError(
            f"a soup of {name!r} cannot be made", "two or more different versions", listed(versions) or "none"
        )
    registry = Registry()
    parents = [_parent(registry, name, version) for version in versions]
    check_compatible({parent.model.label: parent.weights for parent in parents})
    choosing, comparing = _halves(holdout or _holdout_of(registry, name, versions))
    nights = Period(first=choosing.first, last=comparing.last)
    check_holdout([(name, version) for version in versions], nights, who="the parent")
    store = RunStore()
    learned = [found for version in versions if (found := trained_on(name, version)) is not None]
    periods = {
        # What was chosen on is known to the soup as well as what its parents were trained on.
        "first": min([*(found.first for found in learned), choosing.first]),
        "last": max([*(found.last for found in learned), choosing.last]),
        "holdout_first": comparing.first,
        "holdout_last": comparing.last,
    }
    tags = {"soup": method, **{key: day.isoformat() for key, day in periods.items()}}
    run_id = store.start(deployment.name, kind=RunKind.TRAIN, tags=tags)
    with recorded(store, run_id):
        source = Source.of(deployment, parents[0].model)
        step = next(step for step in deployment.model_steps if model_name(step.model) == name)
        mixtures = Mixtures(parents, step, _statistics_rows(source, parents, learned), source.examples(choosing))
        mixing = mix(method, len(parents), metric=mixtures.metric, loss=mixtures.loss)
        files = mixtures.files(mixing)
        version = _register(registry, name, files, parents, mixing, method=method, run_id=run_id)
        store.set_tags(run_id, {"model_versions": json.dumps({name: version})})
        document = _document(mixtures, mixing, files, source.examples(comparing))
        store.put_json(run_id, SOUP_ARTIFACT, {"model": name, "version": version, "method": method, **document})
        compare_with_champions(deployment, {name: version}, comparing, run_id=run_id)
        store.set_state(run_id, RunState.DONE)
    return store.get(run_id)


def _model_name(deployment: Deployment, model: str | None) -> str:
    known = names(deployment)
    if model is None and len(known) == 1:
        return known[0]
    if model in known:
        return model
    close = get_close_matches(model or "", known, n=1)
    raise ConfigurationError(
        f"deployment {deployment.name!r} {'has several models' if model is None else f'does not use {model!r}'}",
        f"--model with one of {listed(known)}",
        "none" if model is None else repr(model),
        f"Did you mean {close[0]!r}?" if close else "",
    )


def _parent(registry: Registry, name: str, version: int) -> Parent:
    model, files = registry.pinned(name, version)
    return Parent(model, files, format_of(model).read(model, files))


# -------------------------------------------------------------------------------------------------------- rows


def _holdout_of(registry: Registry, name: str, versions: Sequence[int]) -> Period:
    """Return the hold-out nights of the newest parent's training."""
    run_id = registry.version(name, str(max(versions))).tags.get(TRAINING_RUN_TAG)
    tags = RunStore().get(run_id).tags if run_id else {}
    if "holdout_last" not in tags:
        raise ConfigurationError(
            f"the training of {name!r} version {max(versions)} recorded no hold-out nights",
            "labelled nights that no parent was trained on",
            "none",
            "Give them: --holdout-first and --holdout-last.",
        )
    return Period(first=as_date(tags["holdout_first"]), last=as_date(tags["holdout_last"]))


def _halves(holdout: Period) -> tuple[Period, Period]:
    """Return the nights that choose the mixture and the later ones that compare it."""
    days = (holdout.last - holdout.first).days + 1
    if days < 2:
        raise ConfigurationError(
            "a soup needs more hold-out nights",
            "two or more: the first half chooses the mixture, the second compares it",
            str(holdout.first),
        )
    middle = holdout.first + timedelta(days=(days + 1) // 2)
    return Period(first=holdout.first, last=middle - timedelta(days=1)), Period(first=middle, last=holdout.last)


@dataclass(frozen=True, slots=True)
class Source:
    """Gives the rows of nights as the deployment's graph gives them to the model."""

    deployment: Deployment
    model: FrozenModel
    """The first parent; the other models of the graph are the champions."""
    models: Mapping[str, FrozenModel]
    """By model URI."""
    artifacts: Mapping[str, Files]
    """By digest."""

    @staticmethod
    def of(deployment: Deployment, model: FrozenModel) -> Source:
        """Freeze the deployment's graph with one version in it."""
        registry = Registry()
        versions = {**registry.champions(deployment), model.name: model.version}
        return Source(deployment, model, *registry.freeze(deployment, versions))

    def examples(self, nights: Period) -> Examples:
        """Return labelled rows."""
        _, labels = sections(self.deployment)
        frozen = readers(self.deployment.score, self.models)
        rows = labelled_rows(self.deployment, nights, as_of="", limit=MAX_HOLDOUT_ROWS, models=frozen)
        if rows.num_rows == 0:
            raise DataError(
                f"there is nothing to measure a soup of {self.model.name!r} on",
                f"labelled rows from {nights.first} to {nights.last}",
                "none",
                f"Labels are read from {labels.path}.",
            )
        truth = rows.column(labels.column).to_numpy().astype(np.float64)
        return Examples(self._inputs(rows.drop_columns([labels.column])), truth, nights)

    def training_rows(self, nights: Period) -> Batch:
        """Return rows whose statistics matter; labels do not."""
        values = values_between(nights.first, nights.last)
        frozen = readers(self.deployment.score, self.models)
        return self._inputs(read_rows(self.deployment, values, models=frozen, limit=MAX_STATISTICS_ROWS))

    def _inputs(self, rows: pa.Table) -> Batch:
        """Run the graph and return what the model was given, row by row as in `rows`."""
        _, calls = record_graph(graph_source(self.deployment, self.models), rows, files=self.artifacts)
        given = calls[self.model.name].tables if self.model.name in calls else []
        seen = sum(table.num_rows for table in given)
        if seen != rows.num_rows:
            raise ContractError(
                f"rows of model {self.model.label} cannot be joined with their labels",
                f"a model that is given each of {rows.num_rows:,} rows once",
                f"{seen:,} rows",
            )
        return Batch(pa.concat_tables(table.select(list(self.model.columns)) for table in given))


def _statistics_rows(source: Source, parents: Sequence[Parent], learned: Sequence[Period]) -> Batch | None:
    """Return training rows by which BatchNorm's statistics are recomputed; None if there are no such statistics."""
    if not parents[0].weights.statistics:
        return None
    if not learned:
        raise ConfigurationError(
            f"the statistics of BatchNorm in {source.model.label} cannot be recomputed",
            "a parent whose training recorded its nights",
            "none",
            "Train the parents by 'scoring train'.",
        )
    nights = Period(first=min(found.first for found in learned), last=max(found.last for found in learned))
    return source.training_rows(nights)


# -------------------------------------------------------------------------------------------------------- record


def _register(
    registry: Registry,
    name: str,
    files: Files,
    parents: Sequence[Parent],
    mixing: Mixing,
    *,
    method: Method,
    run_id: str,
) -> int:
    uri = registry.log(name, files, training_run_id=run_id)
    tags = {
        METHOD_TAG: str(method),
        PARENTS_TAG: json.dumps({parent.model.version: parent.model.digest for parent in parents}),
        WEIGHTS_TAG: json.dumps(_shares(parents, mixing)),
    }
    return registry.register(name, uri, training_run_id=run_id, alias=CHALLENGER, tags=tags)


def _shares(parents: Sequence[Parent], mixing: Mixing) -> dict[str, float]:
    return {str(parent.model.version): float(share) for parent, share in zip(parents, mixing, strict=True)}


def _document(mixtures: Mixtures, mixing: Mixing, files: Files, comparing: Examples) -> Mapping[str, Any]:
    """Return shares of the parents, and how they and the soup do on the choosing and on the comparing nights."""

    def both(made: Files) -> Mapping[str, Any]:
        predictor = mixtures.predictor(made)
        found = {"choosing": mixtures.choosing, "comparing": comparing}
        return {half: examples.performance(predictor).to_json() for half, examples in found.items()}

    shares = _shares(mixtures.parents, mixing)
    return {
        "format_version": FORMAT_VERSION,
        "soup": both(files),
        "parents": [
            {
                "version": parent.model.version,
                "digest": parent.model.digest,
                "weight": shares[str(parent.model.version)],
                **both(parent.files),
            }
            for parent in mixtures.parents
        ],
    }


def _measured(value: float | None, what: str, found: Performance) -> float:
    if value is None:
        raise DataError(
            f"a mixture has no {what} on the nights from {found.first} to {found.last}",
            "probabilities and labels of both classes",
            found.skipped or "scores that are no probabilities",
            "Choose more hold-out nights, or --method uniform.",
        )
    return value
