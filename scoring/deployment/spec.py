"""The specification of a deployment: what `deployment.yaml` may say, section by section."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from scoring.deployment.fields import (
    Address,
    ColumnName,
    Cron,
    Digest,
    FunctionReference,
    Location,
    Spec,
    TableName,
    overlap,
)
from scoring.deployment.steps import DEFAULT_OUTPUT, ModelStep, Step, walk
from scoring.errors import listed

CONTRACT_TYPES: Final = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float", "double", "string", "date32", "timestamp"),
)
"""Arrow type names that the input contract may use; `timestamp` is in microseconds, UTC where it has a zone."""


_CHAMPION: Final = "@champion"
"""The alias that a retraining compares with and moves."""


class RetrainCause(StrEnum):
    """What may start retraining."""

    DRIFT = "drift"
    PERFORMANCE = "performance"


class Owner(Spec):
    """Who gets the mail."""

    team: str = Field(min_length=1)
    email: tuple[Address, ...] = Field(min_length=1)


class InputColumn(Spec):
    """One column of the input contract. Written as `type`, or `type?` where null is allowed."""

    type: Literal[CONTRACT_TYPES]  # type: ignore[valid-type]
    nullable: bool = False


class Input(Spec):
    """Where partitions come from, and the contract that each of their rows must keep.

    Exactly one of `path`, `sql` and `table` says where.
    """

    path: Location | None = None
    """Folder or URL of Hive partitions (`day=2013-01-31/*.parquet`) or of a Delta table. Workers read the files."""
    sql: str | None = None
    """A query for Spark, in which `:partition` stands for the partition's value."""
    table: TableName | None = None
    """A table of Spark's catalogue, such as `catalog.schema.table`."""
    partition: ColumnName
    """Name of the Hive folders, or column of the table, whose values are the partitions."""
    keys: tuple[ColumnName, ...] = Field(min_length=1)
    columns: dict[ColumnName, InputColumn] | None = None
    """The input contract. None: keys must not be null, models' signatures say the rest."""
    extra_columns: Literal["fail", "ignore"] = "fail"
    """What to do with file columns that `columns` does not name; without `columns` they are always ignored."""
    parse_text: bool = False
    """Read text as numbers, dates or booleans where the contract says so; values that do not parse are quarantined."""
    max_quarantined_share: float = Field(default=0.01, ge=0, le=1)
    """Share of a partition's rows that may break the contract before the run fails."""
    lag_days: int = Field(default=1, ge=0)
    """The nightly run of day D scores the partition of day D - lag_days."""

    @field_validator("columns", mode="before")
    @classmethod
    def _shorthand(cls, columns: Any) -> Any:
        if not isinstance(columns, Mapping):
            return columns
        return {
            name: {"type": text.removesuffix("?"), "nullable": text.endswith("?")} if isinstance(text, str) else text
            for name, text in columns.items()
        }

    @model_validator(mode="after")
    def _one_source(self) -> Input:
        given = [key for key in ("path", "sql", "table") if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of 'path', 'sql' and 'table', got {listed(given) or 'none'}")
        if self.sql is not None and not re.match(r"\s*(select|with)\b", self.sql, re.IGNORECASE):
            raise ValueError("expected 'sql' to be a query that begins with SELECT or WITH")
        if self.sql is not None and not re.search(r"(?<![:\w]):partition\b", self.sql):
            raise ValueError(
                f"expected ':partition' in 'sql', which stands for the partition's value (... where {self.partition} = "
                ":partition)"
            )
        return self

    @property
    def location(self) -> str:
        """Path or URL of the files; only an input of files has one."""
        if self.path is None:
            raise ValueError("a query has no files")
        return self.path

    @model_validator(mode="after")
    def _keys_in_contract(self) -> Input:
        if self.columns is not None:
            missing = [key for key in self.keys if key not in self.columns]
            if missing:
                raise ValueError(f"expected every key in 'columns', {listed(missing)} is missing")
            nullable = [key for key in self.keys if self.columns[key].nullable]
            if nullable:
                raise ValueError(f"a key cannot be null: remove the '?' of {listed(nullable)}")
        return self


class Output(Spec):
    """Where predictions are published (a Delta table)."""

    path: Location
    keep: tuple[ColumnName, ...] = ()
    """Input columns that the output repeats, besides the keys."""

    @property
    def quarantine_path(self) -> str:
        """The Delta table of rows that broke the input contract."""
        return f"{self.path}_quarantine"


class Resources(Spec):
    """What one Spark task needs, and how big its work is."""

    cpus_per_task: int = Field(default=1, ge=1)
    gpus_per_task: int = Field(default=0, ge=0, le=1)
    allow_cpu: bool = True
    """Run on the CPU, and say so, when no GPU is to be had; false: the run fails."""
    split_bytes: int = Field(default=256 * 1024 * 1024, ge=1)
    """Uncompressed bytes of one split, about, unless a single row group has more."""
    batch_rows: int = Field(default=65_536, ge=1)
    """Rows of one batch at most."""
    batch_bytes: int = Field(default=64 * 1024 * 1024, ge=1)
    """Bytes of the input columns of one batch, about. A worker holds its models and at most six batches."""
    broadcast_bytes: int = Field(default=256 * 1024 * 1024, ge=0)
    """Models with more bytes are not broadcast but read from a folder of the output, when a worker loads them."""


class Checks(Spec):
    """Expectation suites, as paths within the deployment's folder."""

    input: str | None = None
    output: str | None = None


class Period(Spec):
    """A range of partitions, both ends included."""

    first: date
    last: date

    @model_validator(mode="after")
    def _ordered(self) -> Period:
        if self.last < self.first:
            raise ValueError(f"expected first <= last, got {self.first} and {self.last}")
        return self


class Labels(Spec):
    """True outcomes, which arrive later than the rows."""

    path: Location
    column: ColumnName
    delay_days: int = Field(default=0, ge=0)
    """Labels of partition P are due on day P + delay_days."""
    output: ColumnName = DEFAULT_OUTPUT
    """The output column that is compared with the label."""


class Drift(Spec):
    """What is watched, against what, and when it is reported."""

    reference: Period
    current_days: int = Field(default=7, ge=1)
    columns: tuple[ColumnName, ...] | None = None
    """Columns to watch; None: all columns of the input contract but the keys, and the graph's outputs."""
    sample_rows: int = Field(default=5_000, ge=100)
    """Rows compared on each side, at most."""
    min_rows: int = Field(default=500, ge=1)
    """With fewer rows on a side nothing is compared, and the reason is reported."""
    threshold: float = Field(default=0.1, gt=0)
    """Wasserstein distance, in standard deviations of the reference, from which a number counts as drifted."""
    categorical_threshold: float = Field(default=0.1, gt=0, lt=0.83)
    """Jensen-Shannon distance (0 to 0.83) from which a category, or a share of missing values, counts as drifted."""
    drift_share_threshold: float = Field(default=0.3, gt=0, le=1)
    """Share of drifted columns from which the owner is notified."""
    retrain_after: int = Field(default=2, ge=1)
    """Consecutive partitions over the drift share threshold (or under the performance limit) that start retraining."""
    labels: Labels | None = None
    max_roc_auc_drop: float = Field(default=0.05, gt=0, lt=1)
    """Loss of ROC-AUC, against the hold-out nights at training, that counts as a loss of performance."""


class Retrain(Spec):
    """How a challenger is trained and when it replaces the champion."""

    train: FunctionReference
    when: tuple[RetrainCause, ...] = (RetrainCause.DRIFT, RetrainCause.PERFORMANCE)
    cooldown_days: int = Field(default=14, ge=0)
    """Days after a retraining in which no other is started."""
    approval: bool = False
    """A person approves in Airflow's UI before a challenger is promoted."""
    window_days: int = Field(default=90, ge=1)
    """Length of the training window, which ends where the hold-out nights begin."""
    holdout_days: int = Field(default=14, ge=1)
    """Newest labelled nights: not trained on, used to compare challenger and champion."""
    min_gain: float = Field(default=0.0, ge=0)
    """ROC-AUC that the challenger must gain on the hold-out nights to win."""


class Online(Spec):
    """How models learn from each night whose labels have arrived."""

    after: Literal["labels"]
    models: tuple[str, ...] | None = Field(default=None, min_length=1)
    """Registered models that learn; None: all of the graph."""
    first: date | None = None
    """First partition to learn from; None: the night after those that the champion was trained on."""
    passes: int = Field(default=1, ge=1)
    """How often a night is gone through (scikit-learn, PyTorch)."""
    learning_rate: float = Field(default=0.01, gt=0)
    """Of gradient descent (PyTorch) and of new trees (XGBoost); scikit-learn's estimators have their own."""
    rounds: int = Field(default=2, ge=1)
    """Rounds of trees that a night adds (XGBoost)."""
    max_depth: int = Field(default=3, ge=1)
    """Of these trees."""
    holdout_share: float = Field(default=0.2, gt=0, lt=1)
    """Share of each night's rows, chosen by a hash of their keys, that is never learned from."""
    guard_days: int = Field(default=7, ge=1)
    """An update is judged on the held-out rows of so many nights, the newest of which it has learned."""
    max_log_loss_rise: float = Field(default=0.0, ge=0)
    """An update that makes the log loss of these rows rise by more is rejected."""
    replay_days: int = Field(default=30, ge=0)
    """How far back a night that comes late or changes is put in its place; what is older is settled."""


class Deployment(Spec):
    """One deployment: what to score, with which steps, for whom, and how it is watched."""

    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
    description: str = ""
    owner: Owner
    schedule: Cron | None = None
    """Cron expression in UTC; None: started by hand or by other systems only."""
    input: Input
    output: Output
    score: Step
    trust: tuple[Digest, ...] = ()
    """sha256 of model files that may run code on Spark executors, with their rights, when they are loaded."""
    resources: Resources = Resources()
    checks: Checks = Checks()
    drift: Drift | None = None
    retrain: Retrain | None = None
    online: Online | None = None

    _folder: Path = PrivateAttr(default=Path())

    def model_post_init(self, context: Any, /) -> None:
        """Take the folder from the validation context."""
        self._folder = (context or {}).get("folder", Path())

    @model_validator(mode="after")
    def _consistent(self) -> Deployment:
        if self.retrain is not None and (self.drift is None or self.drift.labels is None):
            raise ValueError("'retrain' needs 'drift: labels', to compare challenger and champion on labelled nights")
        fixed = [step.model for step in self.model_steps if not step.model.endswith(_CHAMPION)]
        if self.retrain is not None and fixed:
            raise ValueError(
                f"'retrain' replaces champions, so every model must end with {_CHAMPION}, got {listed(fixed)}. "
                "Change it, or remove 'retrain'"
            )
        return self

    @model_validator(mode="after")
    def _can_learn(self) -> Deployment:
        if self.online is None:
            return self
        if self.drift is None or self.drift.labels is None:
            raise ValueError("'online' needs 'drift: labels', which say where the labels arrive")
        uris = {model_name(step.model): step.model for step in self.model_steps}
        unknown = [name for name in self.online.models or () if name not in uris]
        if unknown:
            close = get_close_matches(unknown[0], uris, n=1)
            hint = f". Did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"'online.models' names {listed(unknown)}, expected some of {listed(uris)}{hint}")
        several = [
            s.model for s in self.model_steps if model_name(s.model) in self.learning_models and len(s.names) > 1
        ]
        if several:
            raise ValueError(f"'online' teaches models with one output, got {listed(several)}. Name others in 'models'")
        fixed = [uris[name] for name in self.learning_models if not uris[name].endswith(_CHAMPION)]
        if fixed:
            raise ValueError(
                f"'online' moves champions, so models that learn must end with {_CHAMPION}, got {listed(fixed)}"
            )
        return self

    @model_validator(mode="after")
    def _windows_are_files(self) -> Deployment:
        if self.drift is not None and self.input.path is None:
            raise ValueError(
                "'drift' and 'retrain' read their windows from files: expected 'input.path'. Write the query's rows as "
                "partitions first, or remove them"
            )
        return self

    @model_validator(mode="after")
    def _separate_columns(self) -> Deployment:
        column = self.input.partition
        for key, names in (("input.keys", self.input.keys), ("output.keep", self.output.keep)):
            if column in names:
                raise ValueError(
                    f"{key!r} names the partition column {column!r}, which every output has anyway. Remove it there"
                )
        return self

    @model_validator(mode="after")
    def _separate_locations(self) -> Deployment:
        read = {"input.path": self.input.path} if self.input.path is not None else {}
        if self.drift is not None and self.drift.labels is not None:
            read["drift.labels.path"] = self.drift.labels.path
        written = {"output.path": self.output.path, "the quarantine of 'output.path'": self.output.quarantine_path}
        for target, path in written.items():
            for source, other in read.items():
                if overlap(path, other):
                    shown = repr(target) if target == "output.path" else target
                    raise ValueError(
                        f"{shown} ({path}) and {source!r} ({other}) overlap: what is published would be read as input. "
                        "Use separate folders"
                    )
        return self

    @model_validator(mode="after")
    def _one_version_per_model(self) -> Deployment:
        # A run records one version per registered model, and a challenger replaces it wherever it is used.
        uris: dict[str, str] = {}
        for step in self.model_steps:
            name = model_name(step.model)
            if uris.setdefault(name, step.model) != step.model:
                raise ValueError(
                    f"registered model {name!r} is used twice, as {uris[name]!r} and as {step.model!r}. Use one of them"
                )
        return self

    @property
    def folder(self) -> Path:
        """The deployment's folder."""
        return self._folder

    @property
    def learning_models(self) -> tuple[str, ...]:
        """Registered models that learn online, in the order of the graph."""
        if self.online is None:
            return ()
        used = dict.fromkeys(model_name(step.model) for step in self.model_steps)
        return tuple(name for name in used if self.online.models is None or name in self.online.models)

    @property
    def model_steps(self) -> tuple[ModelStep, ...]:
        """All model steps of the graph, in order."""
        return tuple(step for step in walk(self.score) if isinstance(step, ModelStep))

    def source(self, module: str) -> Path:
        """Return the Python file of a rule or training module of this deployment."""
        return self.folder / f"{module}.py"


def model_name(uri: str) -> str:
    """Return the registered model of `models:/name@alias` or `models:/name/3`."""
    return re.split("[@/]", uri.removeprefix("models:/"))[0]
