"""Which versions are champions: promoting the challengers of a training, promoting by hand, rolling back."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from scoring.deployment import Deployment
from scoring.errors import ConfigurationError, listed
from scoring.formats import check_format
from scoring.golden import check_samples
from scoring.registry import CHAMPION, Registry, names
from scoring.runs import RunKind, RunRecord, RunState, RunStore, recorded

PROMOTION_ARTIFACT: Final = "promotion.json"
FORMAT_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Replacement:
    """A champion that was replaced."""

    before: int | None
    """Version; None if the model had no champion."""
    now: int


@dataclass(frozen=True, slots=True)
class Promotion:
    """Champions that were replaced and why; without replacements, why none was."""

    replaced: Mapping[str, Replacement]
    """By registered model."""
    reason: str
    warnings: tuple[str, ...] = ()
    """What people should know of it, in sentences."""

    @property
    def is_promoted(self) -> bool:
        """Whether any champion was replaced."""
        return bool(self.replaced)

    def to_json(self) -> dict[str, Any]:
        """Return plain data."""
        changes = {name: {"from": change.before, "to": change.now} for name, change in self.replaced.items()}
        notes = {"warnings": list(self.warnings)} if self.warnings else {}
        return {"format_version": FORMAT_VERSION, "reason": self.reason, "replaced": changes, **notes}


def verdict(metrics: Mapping[str, float], min_gain: float) -> tuple[bool, str]:
    """Return whether the challenger wins, and why, from a training run's metrics. Pure."""
    challenger, champion = metrics.get("challenger_roc_auc"), metrics.get("champion_roc_auc")
    if challenger is None:
        return False, "the challenger could not be measured on the hold-out nights"
    if champion is None:
        return True, f"there was no champion; the challenger has ROC-AUC {challenger:.4f} on the hold-out nights"
    gain = challenger - champion
    sentence = (
        f"on the hold-out nights the challenger has ROC-AUC {challenger:.4f}, the champion {champion:.4f} "
        f"({gain:+.4f}, needed {f'at least {min_gain:+g}' if min_gain else 'more than 0'})"
    )
    return gain > 0 and gain >= min_gain, sentence


def redeploy(deployment: Deployment, training_run_id: str | None = None, *, is_forced: bool = False) -> Promotion:
    """Promote the challengers of a training if they win, and record what they replaced.

    Args:
        deployment: whose champions are replaced.
        training_run_id: of the training; None: the newest that succeeded.
        is_forced: promote also a challenger that did not win.

    Raises:
        ConfigurationError: there is no such training, or the deployment has no `retrain`.
        ModelError: a challenger predicts here something else than when it was registered.
    """
    if deployment.retrain is None:
        raise ConfigurationError(f"deployment {deployment.name!r} has no 'retrain'", hint="Promote with --version.")
    store, registry = RunStore(), Registry()
    training = _training(store, deployment, training_run_id)
    wins, reason = verdict(training.metrics, deployment.retrain.min_gain)
    changes = _changes(registry, training.model_versions)
    if not changes:
        return Promotion({}, "the challengers of this training are the champions already")
    compared = json.loads(training.tags.get("champion_versions", "{}"))
    current = registry.champions(deployment)
    if wins and compared != current:
        wins, reason = False, "the champions have changed since the challengers were compared with them: train again"
    if not (wins or is_forced):
        return Promotion({}, reason)
    warnings = _check_samples(registry, deployment, changes)
    promotion = Promotion(changes, reason if wins else f"forced, although {reason}", warnings)
    return _record_and_move(store, registry, deployment, promotion, tags={"training_run_id": training.run_id})


def promote_versions(deployment: Deployment, versions: Mapping[str, int]) -> Promotion:
    """Make given versions champions, and record what they replaced.

    Raises:
        ConfigurationError: a model is not part of the deployment, or a version does not exist.
        ModelError: a version predicts here something else than when it was registered.
    """
    store, registry = RunStore(), Registry()
    unknown = sorted(set(versions) - set(names(deployment)))
    if unknown:
        raise ConfigurationError(
            f"deployment {deployment.name!r} does not use {listed(unknown)}", f"one of {listed(names(deployment))}"
        )
    for name, version in versions.items():
        registry.version(name, str(version))
    changes = _changes(registry, versions)
    if not changes:
        return Promotion({}, "these versions are the champions already")
    promotion = Promotion(changes, "promoted by hand", _check_samples(registry, deployment, changes))
    return _record_and_move(store, registry, deployment, promotion, tags={})


def rollback(deployment: Deployment) -> Promotion:
    """Move the champions back to what the last promotion replaced; a second roll-back undoes the one before it.

    Golden samples are not asked: what is rolled back to has scored nights here, and nothing must stand in the way.

    Raises:
        ConfigurationError: there is no promotion to roll back, or it replaced nothing.
    """
    store, registry = RunStore(), Registry()
    last, document = _last_promotion(store, deployment)
    before = {name: entry["from"] for name, entry in document["replaced"].items()}
    first = sorted(name for name, version in before.items() if version is None)
    if first:
        raise ConfigurationError(
            f"the last promotion of {deployment.name!r} cannot be rolled back",
            "champions before it",
            f"none of {listed(first)}",
            "Promote another version: scoring promote NAME --version MODEL=N.",
        )
    reason = f"rolled back the promotion of {last.started:%Y-%m-%d %H:%M} UTC"
    promotion = Promotion(_changes(registry, before), reason)
    tags = {"promotion_run_id": last.run_id}
    done = _record_and_move(store, registry, deployment, promotion, tags=tags, kind=RunKind.ROLLBACK)
    store.set_tags(last.run_id, {"is_undone": "true"})
    return done


def _changes(registry: Registry, versions: Mapping[str, int]) -> dict[str, Replacement]:
    found = {name: Replacement(registry.aliased(name, CHAMPION), version) for name, version in versions.items()}
    return {name: change for name, change in found.items() if change.before != change.now}


def _check_samples(registry: Registry, deployment: Deployment, changes: Mapping[str, Replacement]) -> tuple[str, ...]:
    return check_samples(
        deployment, (registry.pinned(name, change.now, trusted=deployment.trust) for name, change in changes.items())
    )


def _record_and_move(
    store: RunStore,
    registry: Registry,
    deployment: Deployment,
    promotion: Promotion,
    *,
    tags: Mapping[str, str],
    kind: RunKind = RunKind.PROMOTE,
) -> Promotion:
    run_id = store.start(deployment.name, kind=kind, tags={**tags, "reason": promotion.reason})
    with recorded(store, run_id):
        # Recorded before it is done, so that what was replaced is known even if this process dies half-way.
        store.put_json(run_id, PROMOTION_ARTIFACT, promotion.to_json())
        store.set_tags(run_id, {"model_versions": json.dumps({n: c.now for n, c in promotion.replaced.items()})})
        for name, change in promotion.replaced.items():
            registry.set_alias(name, CHAMPION, change.now)
        store.set_state(run_id, RunState.DONE)
    return promotion


def _last_promotion(store: RunStore, deployment: Deployment) -> tuple[RunRecord, Mapping[str, Any]]:
    """Return the newest promotion that was not rolled back, whether it ended or died half-way, and what it replaced."""
    for run in store.find(deployment.name, kind=RunKind.PROMOTE):
        document = None if "is_undone" in run.tags else store.read_json(run.run_id, PROMOTION_ARTIFACT)
        if document is not None:
            check_format(document, FORMAT_VERSION, "the promotion")
            return run, document
    raise ConfigurationError(f"deployment {deployment.name!r} has no promotion to roll back")


def _training(store: RunStore, deployment: Deployment, run_id: str | None) -> RunRecord:
    """Return the given training, or the newest that is done."""
    if run_id is None:
        runs = store.find(deployment.name, kind=RunKind.TRAIN, state=RunState.DONE, limit=1)
        if not runs:
            raise ConfigurationError(
                f"deployment {deployment.name!r} has no finished training",
                hint=f"Run: scoring train {deployment.name}.",
            )
        return runs[0]
    run = store.get(run_id)
    if (run.kind, run.deployment, run.state) != (RunKind.TRAIN, deployment.name, RunState.DONE):
        raise ConfigurationError(
            f"run {run_id!r} cannot be promoted",
            f"a finished training of {deployment.name!r}",
            f"a run of kind {str(run.kind)!r} of {run.deployment!r} in state {str(run.state)!r}",
        )
    return run
