"""MLflow's model registry: freeze aliases for a run, register versions, move aliases."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import yaml

from scoring.deployment import Deployment, model_name
from scoring.errors import ConfigurationError, ModelError, listed
from scoring.models import flavors
from scoring.models.base import SIGNATURE_TYPES, Files, FrozenModel, SignatureColumn, digest_of
from scoring.models.folder import PREFIX, unpacked
from scoring.runs import available, client

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

CHAMPION: Final = "champion"
CHALLENGER: Final = "challenger"
DIGEST_TAG: Final = "scoring.sha256"
TRAINING_RUN_TAG: Final = "scoring.training_run_id"
_VOLATILE: Final = frozenset({"registered_model_meta"})
"""Files that MLflow adds to a download; not part of the artifact."""


class Registry:
    """Registered models and their versions."""

    def __init__(self) -> None:
        with available():
            self._client: MlflowClient = client()

    def freeze(
        self, deployment: Deployment, versions: Mapping[str, int] | None = None
    ) -> tuple[dict[str, FrozenModel], dict[str, Files]]:
        """Resolve every model URI of a deployment once.

        Args:
            deployment: whose models.
            versions: registered model name to version, instead of what the URI says; for challengers and replays.

        Returns:
            Frozen models by URI, and the artifacts' files by digest.

        Raises:
            ConfigurationError: unknown model, alias or version.
            ModelError: the files are not those that were registered, could run code without being trusted, or cannot be
                used.
            RegistryUnavailableError: MLflow does not answer.
        """
        frozen: dict[str, FrozenModel] = {}
        files: dict[str, Files] = {}
        for step in deployment.model_steps:
            if step.model not in frozen:
                model, content = self._frozen(self._resolve(step.model, versions), deployment.trust)
                frozen[step.model] = model
                files[model.digest] = content
        return frozen, files

    def pinned(self, name: str, version: int, *, trusted: Collection[str] = ()) -> tuple[FrozenModel, Files]:
        """Return one version as it is frozen for a run, and its files.

        Args:
            name: of the registered model.
            version: which one.
            trusted: digests of artifacts that may run code.

        Raises:
            ConfigurationError: there is no such version.
            ModelError: the files are not those that were registered, or cannot be used.
            RegistryUnavailableError: MLflow does not answer.
        """
        return self._frozen(self.version(name, str(version)), trusted)

    def version(self, name: str, reference: str) -> ModelVersion:
        """Return a version by number or alias (`@champion`).

        Raises:
            ConfigurationError: there is none.
        """
        from mlflow.exceptions import MlflowException

        with available():
            try:
                if reference.startswith("@"):
                    return self._client.get_model_version_by_alias(name, reference[1:])
                return self._client.get_model_version(name, reference)
            except MlflowException as error:
                if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
                    raise
                raise self._unknown(name, reference) from error

    def log(self, name: str, files: Files, *, training_run_id: str) -> str:
        """Log the files of an artifact as a model of a training run, and return its URI.

        For artifacts that we made of others; frameworks log theirs by MLflow's own functions.
        """
        with available():
            experiment = self._client.get_run(training_run_id).info.experiment_id
            logged = self._client.create_logged_model(experiment, name, source_run_id=training_run_id)
            described: dict[str, Any] = yaml.safe_load(files["MLmodel"])
            described |= {
                "artifact_path": logged.artifact_location,
                "model_id": logged.model_id,
                "model_uuid": logged.model_id,
                "run_id": training_run_id,
                "utc_time_created": str(datetime.now(UTC).replace(tzinfo=None)),
            }
            with unpacked({**files, "MLmodel": yaml.safe_dump(described, sort_keys=False).encode()}) as folder:
                self._client.log_model_artifacts(logged.model_id, str(folder))
            self._client.finalize_logged_model(logged.model_id, "READY")
        return f"models:/{logged.model_id}"

    def register(
        self,
        name: str,
        model_uri: str,
        *,
        training_run_id: str,
        alias: str | None,
        tags: Mapping[str, str] | None = None,
    ) -> int:
        """Register a logged model as a new version, with its digest and further tags, and return the version."""
        from mlflow.exceptions import MlflowException

        with available():
            try:
                self._client.create_registered_model(name)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise
            logged = self._client.get_logged_model(model_uri.removeprefix("models:/"))
            version = self._client.create_model_version(
                name,
                source=logged.artifact_location,
                run_id=training_run_id,
                tags={**(tags or {}), TRAINING_RUN_TAG: training_run_id},
                model_id=logged.model_id,
            )
            digest = digest_of(self._files(version))
            self._client.set_model_version_tag(name, version.version, DIGEST_TAG, digest)
            if alias is not None:
                self._client.set_registered_model_alias(name, alias, version.version)
        return int(version.version)

    def register_files(self, name: str, files: Files, *, run_id: str, tags: Mapping[str, str]) -> int:
        """Register an artifact that was made from another version's byte by byte, and return the new version.

        It is no logged model: MLflow would write an id and the time into it, and no lesson gave the same bytes twice.
        A version with the same files is there already where a run that was cut off is done again: it is returned.

        Args:
            name: of a registered model.
            files: the whole artifact.
            run_id: of the run that made it, which keeps the files.
            tags: of the new version, besides its digest.
        """
        digest = digest_of(files)
        with available():
            for known in self._client.search_model_versions(f"name = '{name}' and tags.`{DIGEST_TAG}` = '{digest}'"):
                return int(known.version)
            with unpacked(files) as folder:
                self._client.log_artifacts(run_id, str(folder), name)
            source = f"{self._client.get_run(run_id).info.artifact_uri}/{name}"
            version = self._client.create_model_version(
                name, source=source, run_id=run_id, tags={**tags, DIGEST_TAG: digest}
            )
        return int(version.version)

    def tag(self, name: str, version: int, tag: str, value: str) -> None:
        """Set a tag of a version."""
        with available():
            self._client.set_model_version_tag(name, str(version), tag, value)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Move an alias to a version.

        Raises:
            ConfigurationError: there is no such version.
        """
        self.version(name, str(version))
        with available():
            self._client.set_registered_model_alias(name, alias, str(version))

    def aliased(self, name: str, alias: str) -> int | None:
        """Return the version that an alias names; None if the model or the alias does not exist."""
        try:
            return int(self.version(name, f"@{alias}").version)
        except ConfigurationError:
            return None

    def _resolve(self, uri: str, versions: Mapping[str, int] | None) -> ModelVersion:
        name, reference = _parts(uri)
        return self.version(name, str(versions[name]) if versions and name in versions else reference)

    def versions(self, deployment: Deployment) -> dict[str, int | None]:
        """Return the version that each model URI of a deployment names now; None if there is none."""
        found: dict[str, int | None] = {}
        for step in deployment.model_steps:
            try:
                found[step.model] = int(self._resolve(step.model, None).version)
            except ConfigurationError:
                found[step.model] = None
        return found

    def champions(self, deployment: Deployment) -> dict[str, int]:
        """Return the champion of each registered model of a deployment that has one."""
        found = {name: self.aliased(name, CHAMPION) for name in names(deployment)}
        return {name: version for name, version in found.items() if version is not None}

    def _frozen(self, version: ModelVersion, trusted: Collection[str]) -> tuple[FrozenModel, Files]:
        content = self._files(version)
        model = _described(version, content, trusted)
        registered = version.tags.get(DIGEST_TAG)
        if registered is not None and registered != model.digest:
            raise ModelError(
                f"the files of model {model.label} were changed after it was registered",
                f"sha256 {registered}",
                model.digest,
                "Nothing of it was loaded. Register the model again or roll back.",
            )
        flavors.check_trust(model, content)
        return model, content

    def _files(self, version: ModelVersion) -> Files:
        import mlflow

        # Without a folder of ours, MLflow leaves each download in one of its own, or writes into the store's.
        with tempfile.TemporaryDirectory(prefix=PREFIX) as target:
            with available():
                uri = f"models:/{version.name}/{version.version}"
                folder = Path(mlflow.artifacts.download_artifacts(uri, dst_path=target))
            return {
                path.relative_to(folder).as_posix(): path.read_bytes()
                for path in sorted(folder.rglob("*"))
                if path.is_file() and path.name not in _VOLATILE
            }

    def _unknown(self, name: str, reference: str) -> ConfigurationError:
        from mlflow.exceptions import MlflowException

        try:
            model = self._client.get_registered_model(name)
        except MlflowException:
            known = sorted(found.name for found in self._client.search_registered_models())
            return ConfigurationError(
                f"model {name!r} is not registered",
                f"one of {listed(known)}" if known else "a registered model",
                repr(name),
                "Train and register it first: scoring train.",
            )
        aliases = [f"@{alias}" for alias in sorted(model.aliases)]
        return ConfigurationError(
            f"model {name!r} has no {'alias' if reference.startswith('@') else 'version'} {reference!r}",
            f"one of {listed(aliases)}" if aliases else "an alias",
            repr(reference),
            "Set it: scoring promote.",
        )


def names(deployment: Deployment) -> list[str]:
    """Return the registered models of a deployment, each once, in the order of the graph."""
    return list(dict.fromkeys(model_name(step.model) for step in deployment.model_steps))


def _parts(uri: str) -> tuple[str, str]:
    """Split `models:/name@alias` into (name, '@alias') and `models:/name/3` into (name, '3')."""
    path = uri.removeprefix("models:/")
    if "@" in path:
        name, alias = path.split("@")
        return name, f"@{alias}"
    name, version = path.split("/")
    return name, version


def _described(version: ModelVersion, files: Files, trusted: Collection[str]) -> FrozenModel:
    label = f"{version.name!r} version {version.version}"
    if "MLmodel" not in files:
        raise ModelError(f"the artifact of model {label} is incomplete", "a file MLmodel", listed(files))
    described: dict[str, Any] = yaml.safe_load(files["MLmodel"])
    flavor = flavors.choose(described.get("flavors", {}), label=label)
    digest = digest_of(files)
    return FrozenModel(
        name=version.name,
        version=int(version.version),
        digest=digest,
        flavor=flavor,
        conf=described["flavors"][flavor],
        inputs=_inputs(label, described.get("signature")),
        size_bytes=sum(map(len, files.values())),
        trusted=digest in trusted,
    )


def _inputs(label: str, signature: Mapping[str, Any] | None) -> tuple[SignatureColumn, ...]:
    columns = json.loads((signature or {}).get("inputs") or "[]")
    if not columns or any(column.get("type") not in SIGNATURE_TYPES or not column.get("name") for column in columns):
        raise ModelError(
            f"model {label} has no usable signature",
            f"named input columns of types {listed(SIGNATURE_TYPES)}",
            listed(column.get("type") for column in columns) or "none",
            "Log it with signature=mlflow.models.infer_signature(frame, predictions).",
        )
    return tuple(SignatureColumn(c["name"], c["type"], c.get("required", True)) for c in columns)
