"""Takes the models of a deployment through the nights whose labels have arrived. Runs on the driver."""

from __future__ import annotations

import hashlib
import json
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from typing import Any, Final, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.batch import Batch
from scoring.data.partition import existing_values, list_files, list_partition, values_between
from scoring.deployment import Deployment, Labels, ModelStep, Online, model_name
from scoring.errors import ConfigurationError, DataError, ModelError, examples, listed
from scoring.graph.compile import readers
from scoring.local import read_rows, with_features, with_labels
from scoring.models.base import Files, FrozenModel, digest_of
from scoring.models.cache import PREDICTORS
from scoring.models.online.update import Rows, updated
from scoring.monitoring.performance import arrived_labels, measure
from scoring.monitoring.report import Performance
from scoring.monitoring.sampling import keep_mask
from scoring.monitoring.window import as_date
from scoring.online.chain import Lesson, Night, plan_course
from scoring.registry import CHAMPION, TRAINING_RUN_TAG, Registry
from scoring.runs import RunKind, RunRecord, RunState, RunStore, recorded

MAX_ROWS: Final = 1_000_000
"""Of one night that are learned from, at most."""
MIN_GUARD_ROWS: Final = 50
"""Held-out rows without which an update is not judged."""
LESSON_TAG: Final = "scoring.learn_run_id"
LEARNED_TAG: Final = "scoring.learned_through"


_Rows: TypeAlias = tuple[pa.Table, npt.NDArray[np.float64], npt.NDArray[np.bool_]]
"""A night's labelled rows: the model's columns, the labels, and which rows are held out."""


@dataclass(frozen=True, slots=True)
class Learned:
    """What became of one night for one model."""

    model: str
    partition: str
    version: int
    """Of the model after the night."""
    is_accepted: bool
    reason: str

    @property
    def update(self) -> str:
        """What became of the update, in a word."""
        return "accepted" if self.is_accepted else "rejected"

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        return {
            "model": self.model,
            "partition": self.partition,
            "version": self.version,
            "update": self.update,
            "reason": self.reason,
        }


def learn(deployment: Deployment, as_of: str) -> list[Learned]:
    """Let each model learn from the nights that it has not learned from and whose labels have arrived, in order.

    Each night is one run record and at most one version. It can be repeated at any point: what was not finished is done
    again and ends in the same bytes. The champion moves when the newest night has been learned.

    Args:
        deployment: with a section `online`.
        as_of: the partition that stands for the present; labels that are due later are not looked at.

    Returns:
        What was learned now, oldest first; empty if nothing new has arrived.

    Raises:
        ConfigurationError: the deployment does not learn online, or a model has no champion.
        ModelError: a model cannot go on learning.
        DataError: labels are not 0 and 1.
    """
    if deployment.online is None or deployment.drift is None or deployment.drift.labels is None:
        raise ConfigurationError(f"deployment {deployment.name!r} does not learn online", "a section 'online'", "none")
    as_date(as_of)
    learned: list[Learned] = []
    for name in deployment.learning_models:
        learned += _Pupil(deployment, deployment.online, deployment.drift.labels, name).learn(as_of)
    return learned


@dataclass(frozen=True, slots=True)
class _Verdict:
    """What the guard says of an update."""

    is_accepted: bool
    reason: str
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Start:
    """Where a chain of lessons begins."""

    version: int
    """Of the model that has not learned online yet."""
    first: str
    """Partition from which on it learns."""


@dataclass(slots=True)
class _Pupil:
    """One registered model that learns."""

    deployment: Deployment
    online: Online
    labels: Labels
    name: str
    store: RunStore = field(default_factory=RunStore)
    registry: Registry = field(default_factory=Registry)
    _nights: dict[str, _Rows] = field(default_factory=dict)
    """Of the nights that the guard looks at."""

    def learn(self, as_of: str) -> list[Learned]:
        """Go through the nights that follow."""
        champion = self.registry.aliased(self.name, CHAMPION)
        if champion is None:
            raise ConfigurationError(
                f"model {self.name!r} cannot learn online",
                "a champion to begin with",
                "none",
                "Train it: scoring train.",
            )
        self._finish(champion)
        newest = next(iter(self._runs(RunState.DONE, limit=1)), None)
        start = self._start(champion, newest)
        lessons = self._lessons(start, newest)
        present = max(as_of, newest.tags["as_of"] if lessons and newest else as_of)
        head = lessons[-1].night.partition if lessons else ""
        course = plan_course(lessons, self._available(start, present, head))
        version, previous = (course.kept[-1].version, course.kept[-1].run_id) if course.kept else (start.version, "")
        guard = [lesson.night.partition for lesson in course.kept]
        learned: list[Learned] = []
        for night in course.nights:
            guard = [*guard, night.partition][-self.online.guard_days :]
            tags = {"previous": previous, "start": str(start.version), "first": start.first, "as_of": present}
            outcome, previous = self._lesson(night, version, guard, tags)
            version = outcome.version
            learned.append(outcome)
            # Repeated lessons are of nights that the champion has learned: it moves when all are behind it again.
            if night.partition >= head:
                self.registry.set_alias(self.name, CHAMPION, version)
                self._finish(version)
        return learned

    def _runs(self, state: RunState, *, limit: int = 1000, **tags: str) -> list[RunRecord]:
        return self.store.find(
            self.deployment.name, kind=RunKind.LEARN, limit=limit, state=state, model=self.name, **tags
        )

    def _finish(self, champion: int) -> None:
        """Settle lessons that were learned but not finished: they count if their model has become champion."""
        staged = self._runs(RunState.STAGED)
        counts = bool(staged) and int(staged[0].tags["version"]) == champion
        for run in reversed(staged):
            self.store.set_state(run.run_id, RunState.DONE if counts else RunState.SUPERSEDED)

    def _start(self, champion: int, newest: RunRecord | None) -> _Start:
        """Return where the champion's chain began, or begins now if somebody else has made or chosen the champion."""
        if newest is not None and int(newest.tags["version"]) == champion:
            return _Start(int(newest.tags["start"]), newest.tags["first"])
        tags = self.registry.version(self.name, str(champion)).tags
        training = self.store.get(tags[TRAINING_RUN_TAG]).tags if TRAINING_RUN_TAG in tags else {}
        known = [tags.get(LEARNED_TAG), training.get("last")]
        # Rolled back to one of its earlier versions, a model does not learn again what led to the roll-back.
        if LEARNED_TAG in tags and newest is not None:
            known.append(newest.partition)
        last = max((value for value in known if value), default=None)
        after = (as_date(last) + timedelta(days=1)).isoformat() if last else ""
        wanted = self.online.first.isoformat() if self.online.first else ""
        if not (after or wanted):
            raise ConfigurationError(
                f"nobody knows from which night on {self.name!r} version {champion} learns",
                "'first' in 'online', since the version was not trained by 'scoring train'",
                "none",
                "Add the first partition that it was not trained on.",
            )
        return _Start(champion, max(after, wanted))

    def _lessons(self, start: _Start, newest: RunRecord | None) -> list[Lesson]:
        """Return the champion's lessons in order, as far back as a night can still change or be asked for."""
        if newest is None or newest.tags["start"] != str(start.version) or newest.tags["first"] != start.first:
            return []
        runs = {run.run_id: run for run in self._runs(RunState.DONE, start=str(start.version))}
        days = max(self.online.replay_days, self.online.guard_days) + 1
        lessons: list[Lesson] = []
        run: RunRecord | None = newest
        while run is not None and len(lessons) <= days:
            night = Night(run.partition, run.tags["night"])
            lessons.append(Lesson(night, int(run.tags["version"]), run.run_id))
            run = runs.get(run.tags["previous"])
        return lessons[::-1]

    def _available(self, start: _Start, present: str, head: str) -> list[Night]:
        """Return the nights with rows and labels that can still be learned, newest `replay_days` before the head on."""
        since = date.fromisoformat(start.first)
        if head:
            since = max(since, as_date(head) - timedelta(days=self.online.replay_days))
        if since > as_date(present):
            return []
        column, source = self.deployment.input.partition, self.deployment.input
        labelled = existing_values(self.labels.path, column)
        wanted = values_between(since, as_date(present))
        arrived = arrived_labels(labelled, wanted, as_of=present, delay_days=self.labels.delay_days).arrived
        existing = set(existing_values(source.location, column))
        return [Night(value, self._digest(value)) for value in arrived if value in existing]

    def _digest(self, value: str) -> str:
        labels = list_files(self.labels.path, self.deployment.input.partition, value).infos
        facts = [
            list_partition(self.deployment.input, value).digest,
            *((i.base_name, i.size, i.mtime_ns) for i in labels),
        ]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    # ----------------------------------------------------------------------------------------------- one night

    def _lesson(self, night: Night, before: int, guard: Sequence[str], tags: Mapping[str, str]) -> tuple[Learned, str]:
        """Learn one night, judge the update and record both; returns the outcome and the run."""
        known = {"model": self.name, "parent": str(before), "night": night.digest, **tags}
        run_id = self.store.start(self.deployment.name, night.partition, kind=RunKind.LEARN, tags=known)
        with recorded(self.store, run_id):
            model, files = self.registry.pinned(self.name, before)
            features, labels, is_held_out = self._rows(model, night.partition)
            learned = Batch(features.filter(pa.array(~is_held_out)))
            verdict = _Verdict(is_accepted=False, reason="the night has no labelled rows")
            after = files
            if learned.rows:
                seed = zlib.crc32(night.partition.encode())
                after = updated(model, files, Rows(learned, labels[~is_held_out], seed), self.online)
                verdict = self._judged(model, files, after, guard)
            version = before
            if verdict.is_accepted:
                parent = self.registry.version(self.name, str(before)).tags
                kept = {name: parent[name] for name in (TRAINING_RUN_TAG,) if name in parent}
                own = {LESSON_TAG: run_id, LEARNED_TAG: night.partition}
                version = self.registry.register_files(self.name, after, run_id=run_id, tags={**kept, **own})
            outcome = Learned(self.name, night.partition, version, verdict.is_accepted, verdict.reason)
            self.store.log_metrics(run_id, {"rows": float(learned.rows), **verdict.metrics})
            self.store.set_tags(run_id, {"version": str(version), "update": outcome.update, "reason": outcome.reason})
            self.store.set_state(run_id, RunState.STAGED)
        return outcome, run_id

    def _judged(self, model: FrozenModel, files: Files, after: Files, guard: Sequence[str]) -> _Verdict:
        """Compare an update with the model before it on held-out rows of the guard's nights."""
        updated_model = replace(model, digest=digest_of(after), size_bytes=sum(map(len, after.values())))
        old, new = self._loss(model, files, guard), self._loss(updated_model, after, guard)
        if old.log_loss is None or new.log_loss is None:
            if old.skipped is None:
                raise ModelError(
                    f"model {model.label} cannot learn online", "probabilities", "other numbers", "Use 'predict_proba'."
                )
            return _Verdict(is_accepted=True, reason=f"not judged: {old.skipped}")
        return _Verdict(
            is_accepted=new.log_loss - old.log_loss <= self.online.max_log_loss_rise,
            reason=f"log loss {old.log_loss:.4f} before, {new.log_loss:.4f} after, on {old.rows:,} held-out rows",
            metrics={"log_loss_before": old.log_loss, "log_loss_after": new.log_loss},
        )

    def _loss(self, model: FrozenModel, files: Files, guard: Sequence[str]) -> Performance:
        nights = [self._rows(model, value) for value in guard]
        held_out = [features.filter(pa.array(mask)) for features, _, mask in nights]
        rows = pa.concat_tables(held_out, promote_options="permissive")
        truth = np.concatenate([labels[mask] for _, labels, mask in nights])
        scores = np.empty(0)
        if rows.num_rows:
            scores = PREDICTORS.get(model, files, method=self._step.method).predict(Batch(rows.combine_chunks()))
        return measure(scores, truth, first=guard[0], last=guard[-1], min_rows=MIN_GUARD_ROWS)

    @property
    def _step(self) -> ModelStep:
        return next(step for step in self.deployment.model_steps if model_name(step.model) == self.name)

    def _rows(self, model: FrozenModel, value: str) -> _Rows:
        """Return a night's labelled rows: the model's columns, the labels, and which rows are held out."""
        if value not in self._nights:
            # What the guard looks at is newer than all others.
            for oldest in sorted(self._nights)[: -self.online.guard_days]:
                del self._nights[oldest]
            self._nights[value] = self._read(model, value)
        return self._nights[value]

    def _read(self, model: FrozenModel, value: str) -> _Rows:
        found = read_rows(
            self.deployment, [value], models=readers(self._step, {self._step.model: model}), limit=MAX_ROWS
        )
        rows = with_labels(found, self.deployment, [value])
        labels = rows.column(self.labels.column).to_numpy().astype(np.float64)
        if not np.isin(labels, (0.0, 1.0)).all():
            raise DataError(f"labels of {value!r} cannot be learned", "0 and 1", examples(sorted(set(labels.tolist()))))
        features = with_features(self.deployment, rows, self.labels.column)
        columns = [self._step.inputs.get(column, column) for column in model.columns]
        missing = [column for column in columns if column not in features.column_names]
        if missing:
            raise ModelError(
                f"model {model.label} cannot learn online",
                "columns of the input and of rules before the first model",
                f"{listed(missing)} from elsewhere",
            )
        mask = keep_mask(rows, keys=self.deployment.input.keys, rate=self.online.holdout_share)
        return features.select(columns).rename_columns(list(model.columns)), labels, mask
