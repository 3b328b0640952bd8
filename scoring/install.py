"""Deploying: a folder from version control becomes one that Airflow generates Dags from."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from uuid import uuid4

from scoring import deployment as deployments
from scoring import settings
from scoring.checks.suite import suites
from scoring.data.storage import storage_errors
from scoring.deployment import FILE_NAME
from scoring.errors import ConfigurationError
from scoring.golden import check_samples
from scoring.registry import Registry
from scoring.runs import RunKind, RunState, RunStore
from scoring.validation import check_graph

_LEFT_OUT: Final = shutil.ignore_patterns("__pycache__", ".*", "*.pyc")


@dataclass(frozen=True, slots=True)
class Installed:
    """A deployed folder."""

    deployment: str
    folder: str
    digest: str
    """sha256 over paths and contents of the folder's files."""
    model_versions: dict[str, int]
    """What the aliases name now; every run freezes them anew."""
    warnings: tuple[str, ...] = ()
    """What people should know of it, in sentences."""


def install(source: Path) -> Installed:
    """Validate a deployment's folder and install it; the folder of that name is replaced whole or not at all.

    Raises:
        ConfigurationError: the folder is not a valid deployment, or a model of it is not registered.
        ContractError: a rule cannot be loaded.
        ModelError: a registered model cannot be used, or predicts here something else than when it was registered.
        RegistryUnavailableError, StorageError: MLflow or the file system does not answer.
    """
    if not (source / FILE_NAME).is_file():
        raise ConfigurationError(f"{source} is not a deployment", f"a file {FILE_NAME} in it", "none")
    found = deployments.load(source.resolve())
    suites(found)
    check_graph(found)
    models, files = Registry().freeze(found)
    versions = {model.name: model.version for model in models.values()}
    warnings = check_samples(found, ((model, files[model.digest]) for model in models.values()))
    target = settings.deployments_folder() / found.name
    if target.resolve() != source.resolve():
        with storage_errors(str(target)):
            _replace(source, target)
    digest = _digest(target)
    store = RunStore()
    run_id = store.start(found.name, kind=RunKind.DEPLOY, tags={"digest": digest})
    store.set_state(run_id, RunState.DONE)
    return Installed(found.name, str(target), digest, versions, warnings)


def _replace(source: Path, target: Path) -> None:
    # Folders that begin with a dot are not looked at by Airflow, nor by `deployments.names`.
    fresh = target.parent / f".{target.name}.{uuid4().hex}"
    old = target.parent / f".{target.name}.{uuid4().hex}.old"
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        shutil.copytree(source, fresh, ignore=_LEFT_OUT)
        if target.exists():
            target.rename(old)
        fresh.rename(target)
    except BaseException:
        if old.exists() and not target.exists():
            old.rename(target)
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith((".", "__pycache__")) for part in relative.parts):
            total.update(relative.as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return total.hexdigest()
