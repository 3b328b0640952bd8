"""A step that predicts with one registered model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from scoring.batch import Batch
from scoring.errors import ContractError, ModelError, ScoringError, cause, listed
from scoring.graph.step import with_outputs
from scoring.models import flavors
from scoring.models.base import FLOAT32, FrozenModel, Predictor, device_of
from scoring.models.memory import BATCH_SIZES, BatchSizes, free_memory, is_out_of_memory


@dataclass(frozen=True)
class Model:
    """Adds columns `outputs` (float64) with the model's predictions."""

    frozen: FrozenModel
    outputs: tuple[str, ...]
    predictor: Callable[[], Predictor]
    """Loads the predictor, or takes it from the cache; called on the executor only."""
    batch_size: int | None = None
    precision: str = FLOAT32
    compile: bool = False
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Column of the batch by column of the signature, where their names differ."""
    sizes: BatchSizes = field(default=BATCH_SIZES, compare=False)
    """Remembers which batches did not fit into memory."""

    def run(self, batch: Batch) -> Batch:
        """Predict, at most `batch_size` rows at once, and fewer where memory does not suffice."""
        given = batch.renamed(self.inputs) if self.inputs else batch
        parts = list(self._parts(given)) if batch.rows else [np.empty(self._shape(0), dtype=np.float64)]
        values = parts[0] if len(parts) == 1 else np.concatenate(parts)
        if len(self.outputs) == 1:
            return batch.with_column(self.outputs[0], values)
        for name, column in zip(self.outputs, np.ascontiguousarray(values.T), strict=True):
            batch = batch.with_column(name, column)
        return batch

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Check the signature's columns and the step's options, and append the output."""
        flavors.check_options(self.frozen, precision=self.precision, compile=self.compile)
        check_inputs(self.inputs, schema, known=self.frozen.columns)
        columns = self._columns
        missing = [name for name in columns.values() if name not in schema.names]
        if missing:
            close = get_close_matches(missing[0], schema.names, n=1)
            raise ContractError(
                f"model {self.frozen.label} does not fit its input",
                f"columns {listed(missing)}",
                f"columns {listed(schema.names)}",
                f"Did you mean {close[0]!r}?" if close else "Provide them in the input or by a rule before the model.",
            )
        for column in self.frozen.inputs:
            actual = schema.field(columns[column.name]).type
            if pa.types.is_string(column.arrow_type) != _is_text(actual):
                raise ContractError(
                    f"column {column.name!r} does not fit model {self.frozen.label}", column.type, str(actual)
                )
        return with_outputs(schema, self.outputs)

    @property
    def _columns(self) -> dict[str, str]:
        """Column of the batch by column of the signature, for all of them."""
        return {name: self.inputs.get(name, name) for name in self.frozen.columns}

    def _shape(self, rows: int) -> tuple[int, ...]:
        return (rows,) if len(self.outputs) == 1 else (rows, len(self.outputs))

    def _parts(self, batch: Batch) -> Iterator[npt.NDArray[np.float64]]:
        predictor = self.predictor()
        digest, device = self.frozen.digest, device_of(predictor)
        wanted = min(self.batch_size or batch.rows, batch.rows)
        done = 0
        while done < batch.rows:
            limit = self.sizes.limit(digest, device, at_most=wanted)
            rows = min(limit, batch.rows - done)
            if rows == batch.rows:
                piece = batch
            elif limit == wanted:
                piece = batch.slice(done, rows)
            else:  # the matrix that pieces share may be what does not fit
                piece = Batch(batch.table.slice(done, rows))
            values = self._attempt(predictor, piece, device)
            if values is None:
                self.sizes.halve(digest, device, rows)
                free_memory()
                continue
            yield values
            self.sizes.fitted(digest, device, rows)
            done += rows

    def _attempt(self, predictor: Predictor, batch: Batch, device: str) -> npt.NDArray[np.float64] | None:
        """Return the predictions, or None when memory does not suffice; what the attempt made is free by then."""
        try:
            return self._predict(predictor, batch)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if batch.rows > 1:
                return None
            raise ModelError(
                f"model {self.frozen.label} does not fit on {device} with a single row",
                f"memory for a row of {batch.table.nbytes:,} bytes and a model of "
                f"about {flavors.memory_bytes(self.frozen):,} bytes",
                cause(error),
                "Give the Spark executors more memory, or let fewer tasks share one.",
            ) from error

    def _predict(self, predictor: Predictor, batch: Batch) -> npt.NDArray[np.float64]:
        try:
            values = np.asarray(predictor.predict(batch), dtype=np.float64)
        except ScoringError:
            raise
        except Exception as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(
                f"model {self.frozen.label} raised while predicting {batch.rows} rows",
                got=cause(error),
                hint="Nothing was published. Try the model on this partition, then promote a version that works.",
            ) from error
        wanted, got = self._shape(batch.rows), values.shape
        if got != wanted:
            if len(wanted) == len(got) == 2 and wanted[0] == got[0]:
                raise ModelError(
                    f"model {self.frozen.label} does not fit its step",
                    f"{wanted[1]} outputs, as the step names",
                    str(got[1]),
                    "Name one output per class or target, in the model's order.",
                )
            raise ModelError(f"model {self.frozen.label} predicted a wrong shape", str(wanted), str(got))
        return values


@dataclass(frozen=True)
class UnseenModel:
    """A model that nobody has asked the registry for: known is what its step says, so it can be checked, not run."""

    uri: str
    outputs: tuple[str, ...]
    inputs: Mapping[str, str]

    def run(self, batch: Batch) -> Batch:
        """Refuse to run."""
        raise ContractError(f"model {self.uri!r} is not frozen, so that it cannot score {batch.rows} rows")

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Check the mapped columns and append the outputs."""
        check_inputs(self.inputs, schema)
        return with_outputs(schema, self.outputs)


def check_inputs(inputs: Mapping[str, str], schema: pa.Schema, *, known: Iterable[str] | None = None) -> None:
    """Check a step's mapping against the columns of a batch and, where it is known, of the signature.

    Raises:
        ContractError: one of them has no such column.
    """
    sides = [("columns", list(inputs.values()), schema.names)]
    sides += [] if known is None else [("features of the model", list(inputs), list(known))]
    for what, given, valid in sides:
        unknown = [name for name in given if name not in valid]
        if unknown:
            close = get_close_matches(unknown[0], valid, n=1)
            raise ContractError(
                f"'inputs' names unknown {what}",
                f"some of {listed(valid)}",
                listed(unknown),
                f"Did you mean {close[0]!r}?" if close else "",
            )


def _is_text(actual: pa.DataType) -> bool:
    value = actual.value_type if pa.types.is_dictionary(actual) else actual
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))
