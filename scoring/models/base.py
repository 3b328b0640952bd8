"""What a registered model is to us, and what a framework's file must provide."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.batch import Batch
from scoring.errors import ModelError, listed

_ARROW_TYPES: Final[dict[str, pa.DataType]] = {
    "boolean": pa.bool_(),
    "integer": pa.int32(),
    "long": pa.int64(),
    "float": pa.float32(),
    "double": pa.float64(),
    "string": pa.string(),
    "datetime": pa.timestamp("us"),
}
SIGNATURE_TYPES: Final = tuple(_ARROW_TYPES)
"""MLflow's column types that a signature may use."""
CPU: Final = "cpu"
FLOAT32: Final = "float32"
BFLOAT16: Final = "bfloat16"


@dataclass(frozen=True, slots=True)
class SignatureColumn:
    """One input column of a signature."""

    name: str
    type: str
    """One of `SIGNATURE_TYPES`."""
    required: bool

    @property
    def arrow_type(self) -> pa.DataType:
        """The Arrow type of the column's values."""
        return _ARROW_TYPES[self.type]


@dataclass(frozen=True, slots=True)
class FrozenModel:
    """One version of a registered model, pinned for a run; plain data that travels to executors."""

    name: str
    version: int
    digest: str
    """sha256 over paths and contents of the artifact's files."""
    flavor: str
    conf: Mapping[str, Any]
    """The flavor's section of the artifact's `MLmodel` file."""
    inputs: tuple[SignatureColumn, ...]
    size_bytes: int
    trusted: bool = False
    """Whether the deployment lists the digest under `trust`: loading the files may run code that lies in them."""

    @property
    def label(self) -> str:
        """Name and version, as sentences show them."""
        return f"{self.name!r} version {self.version}"

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the input columns, in the order of the signature."""
        return tuple(column.name for column in self.inputs)

    @property
    def types(self) -> tuple[tuple[str, pa.DataType], ...]:
        """Input columns with their Arrow types, as `Batch.frame` takes them."""
        return tuple((column.name, column.arrow_type) for column in self.inputs)


Files = Mapping[str, bytes]
"""The files of a model's artifact by relative path; a mapping may read a file when it is asked for."""


def digest_of(files: Files) -> str:
    """Return the sha256 over paths and contents of an artifact's files; independent of their order."""
    total = hashlib.sha256()
    for path in sorted(files):
        total.update(path.encode() + b"\0" + hashlib.sha256(files[path]).digest())
    return total.hexdigest()


@dataclass(frozen=True, slots=True)
class LoadOptions:
    """How a step uses its model; one artifact loaded with other options is another predictor."""

    method: str = "auto"
    """`auto`, `predict` or `predict_proba`."""
    device: str = CPU
    """`cpu` or `cuda:N`."""
    threads: int = 1
    """How many threads the library may use."""
    precision: str = FLOAT32
    """`float32` or `bfloat16`."""
    compile: bool = False
    """Whether the library compiles the model for its device first."""
    outputs: int = 1
    """Numbers per row that the step expects: 1, or as many as the model has classes or targets."""


class Predictor(Protocol):
    """A model of one flavor, loaded on one device."""

    def predict(self, batch: Batch) -> npt.NDArray[Any]:
        """Return numbers of shape (batch.rows,), or (batch.rows, outputs) where the options ask for several.

        `batch` holds the signature's columns and is not empty.
        """
        ...


@runtime_checkable
class PlacedPredictor(Predictor, Protocol):
    """A predictor that knows where its weights lie and how large they are; others are on the CPU."""

    device: str
    """`cpu` or `cuda:N`."""
    size_bytes: int
    """Of its weights."""


def device_of(predictor: Predictor) -> str:
    """Return the device that a predictor computes on."""
    return predictor.device if isinstance(predictor, PlacedPredictor) else CPU


class Loader(Protocol):
    """The function `load` of a flavor's module."""

    def __call__(self, model: FrozenModel, files: Files, options: LoadOptions) -> Predictor:
        """Build the predictor from bytes that were verified before, and audited or trusted as the flavor demands.

        Args:
            model: what was frozen for the run.
            files: the artifact's files.
            options: how the predictor will be used.

        Raises:
            ModelError: the files hold something else than the flavor says, or need trust that they do not have.
        """
        ...


def check_features(model: FrozenModel, names: Iterable[str]) -> tuple[str, ...]:
    """Return the columns that a library knows its features by.

    Raises:
        ModelError: one of them is no column of the signature.
    """
    columns = tuple(names)
    missing = [column for column in columns if column not in model.columns]
    if missing:
        raise ModelError(
            f"model {model.label} needs features that its signature lacks", listed(columns), f"no {listed(missing)}"
        )
    return columns


def class_probabilities(model: FrozenModel, values: npt.NDArray[Any], outputs: int) -> npt.NDArray[np.float64]:
    """Return the probability of the second class, shape (rows,), or those of all classes, shape (rows, outputs).

    Args:
        model: whose probabilities.
        values: shape (rows, classes), or (rows,) from libraries that give that of the second of two classes only.
        outputs: as `LoadOptions` has it.

    Raises:
        ModelError: there are not two classes, or not as many as outputs.
    """
    if outputs > 1:
        both = np.column_stack([1 - values, values]) if values.ndim == 1 else values
        return expected_columns(model, both, outputs)
    if values.ndim != 1 and values.shape[1:] != (2,):
        raise not_binary(model, str(values.shape))
    return (values if values.ndim == 1 else values[:, 1]).astype(np.float64, copy=False)


def expected_columns(model: FrozenModel, values: npt.NDArray[Any], outputs: int) -> npt.NDArray[np.float64]:
    """Return predictions of shape (rows,) or (rows, n) as (rows,) for one output, else as (rows, outputs).

    Raises:
        ModelError: there is another number of columns than of outputs.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    found = values.shape[1] if values.ndim == 2 else 1
    if values.ndim > 2 or found != outputs:
        raise ModelError(
            f"model {model.label} predicted another number of columns",
            f"{outputs} output{'s' * (outputs > 1)}, as the step names",
            str(found) if values.ndim <= 2 else f"shape {values.shape}",
            f"Name {found} on the model step: 'outputs: [...]'." if found > 1 else "Name one: 'output: ...'.",
        )
    return values.astype(np.float64, copy=False)


def not_binary(model: FrozenModel, got: str = "") -> ModelError:
    """Return the error for a step that wants the probability of the second of two classes."""
    return ModelError(
        f"model {model.label} is not a binary classifier",
        "probabilities of shape (rows, 2)" if got else "",
        got,
        "Set 'method: predict' on the model step, or name one output per class: 'outputs: [...]'.",
    )
