"""`deployment.yaml` becomes a frozen `Deployment`: the only place where text becomes values.

Imports are light, so that Airflow can parse hundreds of deployments. Steps nest freely: a pipeline may hold an
ensemble of pipelines. Unknown keys are errors that name the nearest valid key, with file and line.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from difflib import get_close_matches
from enum import StrEnum
from pathlib import Path
from string import Template
from typing import Annotated, Any, Final, Literal, get_args

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    PrivateAttr,
    Tag,
    ValidationError,
    field_validator,
    model_validator,
)

from scoring import settings
from scoring.errors import ConfigurationError, listed

FILE_NAME: Final = "deployment.yaml"
DEFAULT_OUTPUT: Final = "score"
STEP_KINDS: Final = ("model", "pipeline", "ensemble", "rule")
CONTRACT_TYPES: Final = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float", "double", "string", "date32", "timestamp"),
)
"""Arrow type names that the input contract may use; `timestamp` is in microseconds, UTC where it has a zone."""


class Combine(StrEnum):
    """How an ensemble merges its members' outputs."""

    MEAN = "mean"
    WEIGHTED_MEAN = "weighted_mean"
    MAX = "max"
    SOFT_VOTE = "soft_vote"
    HARD_VOTE = "hard_vote"


class RetrainCause(StrEnum):
    """What may start retraining."""

    DRIFT = "drift"
    PERFORMANCE = "performance"


class Spec(BaseModel):
    """Base of all specifications: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _column(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"expected a column name of letters, digits and '_', got {name!r}")
    return name


def _location(path: str) -> str:
    if not (path.startswith("/") or "://" in path):
        raise ValueError(f"expected an absolute path or a URL, got {path!r}. Write ${{SCORING_HOME}}/{path}")
    return path.rstrip("/")


def _address(text: str) -> str:
    word = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
    if not re.fullmatch(rf"{word}(\.{word})*@[\w-]+(\.[\w-]+)*", text):
        raise ValueError(f"expected an e-mail address, got {text!r}")
    return text


def _function(reference: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*:[A-Za-z_]\w*", reference):
        raise ValueError(f"expected 'module:function' of a file beside {FILE_NAME}, got {reference!r}")
    return reference


def _cron(expression: str) -> str:
    if len(expression.split()) != 5:
        raise ValueError(f"expected a cron expression of five fields, got {expression!r}")
    return expression


def _model_uri(uri: str) -> str:
    if not re.fullmatch(r"models:/[^/@\s]+(@[^/@\s]+|/\d+)", uri):
        raise ValueError(f"expected 'models:/name@alias' or 'models:/name/version', got {uri!r}")
    return uri


ColumnName = Annotated[str, AfterValidator(_column)]
Location = Annotated[str, AfterValidator(_location)]
Address = Annotated[str, AfterValidator(_address)]
FunctionReference = Annotated[str, AfterValidator(_function)]
Cron = Annotated[str, AfterValidator(_cron)]
ModelUri = Annotated[str, AfterValidator(_model_uri)]


# ---------------------------------------------------------------------------------------------------------- steps


class ModelStep(Spec):
    """A registered model. Reads its signature's columns, adds one column."""

    model: ModelUri
    output: ColumnName = DEFAULT_OUTPUT
    method: Literal["auto", "predict", "predict_proba"] = "auto"
    """`auto`: the probability of the second class for a binary classifier, else the prediction."""
    batch_size: int | None = Field(default=None, gt=0)
    """Rows given to the model at once; None: the whole batch."""
    device: Literal["cpu", "gpu"] = "cpu"


class PipelineStep(Spec):
    """Steps one after another."""

    pipeline: tuple[Step, ...] = Field(min_length=1)


class Rule(Spec):
    """Business logic: a Python function (Arrow table in, Arrow table out) or a SQL query over `batch`."""

    python: FunctionReference | None = None
    sql: str | None = None

    @model_validator(mode="after")
    def _one(self) -> Rule:
        if (self.python is None) == (self.sql is None):
            raise ValueError("expected either 'python' or 'sql'")
        return self


class RuleStep(Spec):
    """A rule. May add, change and drop columns; keeps rows, their order and the keys."""

    rule: Rule


class Ensemble(Spec):
    """Members side by side over the same batch, merged by a combiner."""

    combine: Combine
    members: dict[ColumnName, Step] = Field(min_length=1)
    weights: dict[ColumnName, float] | None = None
    output: ColumnName = DEFAULT_OUTPUT
    keep_members: bool = False
    """Also add each member's output as column `<output>_<member>`."""

    @model_validator(mode="after")
    def _consistent(self) -> Ensemble:
        if self.combine is Combine.WEIGHTED_MEAN and self.weights is None:
            raise ValueError("combine: weighted_mean needs 'weights', one number per member")
        if self.weights is not None:
            if self.combine is Combine.MAX or self.combine is Combine.MEAN:
                raise ValueError(f"combine: {self.combine} takes no 'weights'. Use weighted_mean")
            if set(self.weights) != set(self.members):
                raise ValueError(
                    f"expected weights for exactly {listed(sorted(self.members))}, got {listed(sorted(self.weights))}"
                )
            if any(not 0 <= weight < float("inf") for weight in self.weights.values()):
                raise ValueError("expected weights that are finite and not negative")
            if sum(self.weights.values()) <= 0:
                raise ValueError("expected weights with a sum above zero")
        for name, member in self.members.items():
            if output_of(member) is None:
                raise ValueError(f"member {name!r} has no output to combine: it holds no model and no ensemble")
        return self


class EnsembleStep(Spec):
    """An ensemble."""

    ensemble: Ensemble


def _step_kind(value: Any) -> str | None:
    if isinstance(value, Spec):
        return type(value).__name__.removesuffix("Step").lower()
    kinds = [kind for kind in STEP_KINDS if isinstance(value, Mapping) and kind in value]
    return kinds[0] if len(kinds) == 1 else None


Step = Annotated[
    Annotated[ModelStep, Tag("model")]
    | Annotated[PipelineStep, Tag("pipeline")]
    | Annotated[EnsembleStep, Tag("ensemble")]
    | Annotated[RuleStep, Tag("rule")],
    Discriminator(_step_kind),
]
PipelineStep.model_rebuild()
Ensemble.model_rebuild()
EnsembleStep.model_rebuild()
AnyStep = ModelStep | PipelineStep | EnsembleStep | RuleStep


def output_of(step: AnyStep) -> str | None:
    """Return the column that `step` adds and an ensemble would combine; None for a rule."""
    match step:
        case ModelStep():
            return step.output
        case EnsembleStep():
            return step.ensemble.output
        case PipelineStep():
            outputs = [output_of(inner) for inner in step.pipeline]
            return next((output for output in reversed(outputs) if output is not None), None)
        case RuleStep():
            return None


def walk(step: AnyStep) -> Iterator[AnyStep]:
    """Yield `step` and all steps within it, outermost first."""
    yield step
    match step:
        case PipelineStep():
            inner: Sequence[AnyStep] = step.pipeline
        case EnsembleStep():
            inner = tuple(step.ensemble.members.values())
        case _:
            inner = ()
    for child in inner:
        yield from walk(child)


# ---------------------------------------------------------------------------------------------- other sections


class Owner(Spec):
    """Who gets the mail."""

    team: str = Field(min_length=1)
    email: tuple[Address, ...] = Field(min_length=1)


class InputColumn(Spec):
    """One column of the input contract. Written as `type`, or `type?` where null is allowed."""

    type: Literal[CONTRACT_TYPES]  # type: ignore[valid-type]
    nullable: bool = False


class Input(Spec):
    """Where partitions come from, and the contract that each of their rows must keep."""

    path: Location
    partition: ColumnName
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
    split_rows: int = Field(default=1_000_000, ge=1)
    """Rows of one split at most, unless a single row group is larger."""
    batch_rows: int = Field(default=131_072, ge=1)
    """Rows that a worker holds at once."""


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
    """Drift score from which a column counts as drifted (an effect size: normed Wasserstein or Jensen-Shannon)."""
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
    resources: Resources = Resources()
    checks: Checks = Checks()
    drift: Drift | None = None
    retrain: Retrain | None = None

    _folder: Path = PrivateAttr(default=Path())

    @model_validator(mode="after")
    def _consistent(self) -> Deployment:
        if self.retrain is not None and (self.drift is None or self.drift.labels is None):
            raise ValueError("'retrain' needs 'drift: labels', to compare challenger and champion on labelled nights")
        return self

    @property
    def folder(self) -> Path:
        """The deployment's folder."""
        return self._folder

    @property
    def model_steps(self) -> tuple[ModelStep, ...]:
        """All model steps of the graph, in order."""
        return tuple(step for step in walk(self.score) if isinstance(step, ModelStep))

    def source(self, module: str) -> Path:
        """Return the Python file of a rule or training module of this deployment."""
        return self.folder / f"{module}.py"


# ------------------------------------------------------------------------------------------------------- loading


def load(name: str | Path) -> Deployment:
    """Return the deployment `name` of the deployments folder, or of the folder at a path.

    Raises:
        ConfigurationError: no such deployment, or its file is not valid.
    """
    path = Path(name)
    folder = path if path.name != str(name) or path.is_absolute() else settings.deployments_folder() / path
    file = folder / FILE_NAME
    if not file.is_file():
        known = names()
        close = get_close_matches(str(name), known, n=1)
        raise ConfigurationError(
            f"deployment {str(name)!r} was not found",
            f"a file {FILE_NAME} in {folder}",
            "none",
            f"Did you mean {close[0]!r}?" if close else f"Known deployments: {listed(known) or 'none'}.",
        )
    return parse(file.read_text("utf-8"), folder=folder)


def names() -> list[str]:
    """Return the names of all folders of the deployments folder that hold a `deployment.yaml`, sorted."""
    return sorted(file.parent.name for file in settings.deployments_folder().glob(f"*/{FILE_NAME}"))


def parse(text: str, *, folder: Path) -> Deployment:
    """Return the deployment that `text` (YAML) describes and whose other files lie in `folder`.

    Raises:
        ConfigurationError: not YAML, unknown or missing keys, values of a wrong kind, files that are missing.
    """
    file = folder / FILE_NAME
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
        raw = yaml.safe_load(_expand(text, file))
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file} is not YAML", got=" ".join(str(error).split())) from error
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{file} is not a deployment", "a mapping of keys", type(raw).__name__)
    try:
        deployment = Deployment.model_validate(raw)
    except ValidationError as error:
        raise _explained(error, file, root) from error
    deployment._folder = folder
    if deployment.name != folder.name:
        raise ConfigurationError(
            f"deployment {deployment.name!r} lies in the wrong folder",
            f"a folder named {deployment.name!r}",
            repr(folder.name),
            "Rename the folder or change 'name'.",
        )
    _check_files(deployment)
    return deployment


def _expand(text: str, file: Path) -> str:
    try:
        return Template(text).substitute(settings.variables())
    except KeyError as error:
        raise ConfigurationError(
            f"{file} uses a variable that is not set", f"a value for {error.args[0]!r}", "none", "Export it."
        ) from None
    except ValueError as error:
        raise ConfigurationError(
            f"{file} has a '$' that starts no variable", "${NAME}, or $$ for a dollar sign", str(error)
        ) from None


def _check_files(deployment: Deployment) -> None:
    for suite in (deployment.checks.input, deployment.checks.output):
        if suite is not None and not (deployment.folder / suite).is_file():
            raise ConfigurationError(
                f"deployment {deployment.name!r} names an expectation suite that is missing",
                f"a file {suite}",
                "none",
                f"Create {deployment.folder / suite} or remove it from 'checks'.",
            )
    references = [s.rule.python for s in walk(deployment.score) if isinstance(s, RuleStep) and s.rule.python]
    if deployment.retrain is not None:
        references.append(deployment.retrain.train)
    for reference in references:
        module, function = reference.split(":")
        source = deployment.source(module)
        defined = _functions(source) if source.is_file() else []
        if function not in defined:
            close = get_close_matches(function, defined, n=1)
            raise ConfigurationError(
                f"deployment {deployment.name!r} refers to {reference!r}",
                f"a function {function!r} in {source}",
                f"functions {listed(defined)}" if defined else "no such file" if not source.is_file() else "none",
                f"Did you mean {close[0]!r}?" if close else "",
            )


def _functions(source: Path) -> list[str]:
    try:
        tree = ast.parse(source.read_text("utf-8"), filename=str(source))
    except SyntaxError as error:
        raise ConfigurationError(f"{source} is not Python", got=f"{error.msg} in line {error.lineno}") from error
    return [node.name for node in tree.body if isinstance(node, ast.FunctionDef)]


def _explained(error: ValidationError, file: Path, root: yaml.Node | None) -> ConfigurationError:
    # A misspelt key is also a missing one: name the misspelling.
    first = min(error.errors(include_url=False), key=lambda found: found["type"] != "extra_forbidden")
    keys, owner = _resolved(first["loc"])
    place = f"{file}:{_line(root, keys)}"
    path = ".".join(str(key) for key in keys) or "the deployment"
    rest = error.error_count() - 1
    more = f" ({rest} more after this one)" if rest else ""
    match first["type"]:
        case "extra_forbidden":
            valid = list(owner.model_fields)
            close = get_close_matches(str(keys[-1]), valid, n=1)
            hint = f"Did you mean {close[0]!r}?" if close else "Remove it."
            return ConfigurationError(
                f"{place}: unknown key {path!r}{more}", f"one of {listed(valid)}", repr(str(keys[-1])), hint
            )
        case "missing":
            return ConfigurationError(f"{place}: {path!r} is missing{more}", hint="Add it.")
        case "union_tag_not_found":
            found = sorted(str(key) for key in first["input"]) if isinstance(first["input"], Mapping) else []
            close = [kind for key in found if key not in STEP_KINDS for kind in get_close_matches(key, STEP_KINDS, n=1)]
            return ConfigurationError(
                f"{place}: {path!r} is not a step{more}",
                f"exactly one of the keys {', '.join(STEP_KINDS)}",
                listed(found) or repr(first["input"]),
                f"Did you mean {close[0]!r}?" if close else "",
            )
        case "value_error":
            return ConfigurationError(f"{place}: {path!r} is not valid{more}", hint=f"{first['ctx']['error']}.")
        case _:
            message = first["msg"].removeprefix("Input should be ").removeprefix("a valid ").replace("tuple", "list")
            return ConfigurationError(f"{place}: {path!r} is not valid{more}", message, repr(first["input"]))


_STEP_MODELS: Final[dict[str, type[Spec]]] = dict(
    zip(STEP_KINDS, (ModelStep, PipelineStep, EnsembleStep, RuleStep), strict=True)
)


def _resolved(location: tuple[int | str, ...]) -> tuple[list[int | str], type[Spec]]:
    """Return the YAML keys of a pydantic error location, without union tags, and the model that owns the last key."""
    keys: list[int | str] = []
    owner: type[Spec] = Deployment
    inner: type[Spec] = Deployment
    parts = iter(location)
    for part in parts:
        owner = inner
        at_step = part == "score" and not keys
        at_step |= isinstance(part, int) and keys[-1:] == ["pipeline"]
        at_step |= keys[-2:] == ["ensemble", "members"]
        keys.append(part)
        if at_step:
            inner = _STEP_MODELS.get(str(next(parts, "")), inner)
        elif part in owner.model_fields:
            inner = _spec_of(owner.model_fields[str(part)].annotation) or inner
    return keys, owner


def _spec_of(annotation: Any) -> type[Spec] | None:
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, Spec) else None
    return next((spec for argument in get_args(annotation) if (spec := _spec_of(argument))), None)


def _line(node: yaml.Node | None, keys: Sequence[int | str]) -> int:
    """Return the line of the deepest node that `keys` reach."""
    line = node.start_mark.line + 1 if node is not None else 1
    for key in keys:
        if isinstance(node, yaml.MappingNode):
            pairs = [(name, value) for name, value in node.value if name.value == str(key)]
            if not pairs:
                break
            line, node = pairs[0][0].start_mark.line + 1, pairs[0][1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(key, int) and key < len(node.value):
            node = node.value[key]
            line = node.start_mark.line + 1
        else:
            break
    return line
