"""A step that predicts with one registered model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches

import numpy as np
import pyarrow as pa

from scoring.batch import Batch
from scoring.errors import ContractError, ModelError, ScoringError, cause, listed
from scoring.models.base import FrozenModel, Predictor


@dataclass(frozen=True)
class Model:
    """Adds column `output` (float64) with the model's predictions."""

    frozen: FrozenModel
    output: str
    predictor: Callable[[], Predictor]
    """Loads the predictor, or takes it from the cache; called on the executor only."""
    batch_size: int | None = None

    def run(self, batch: Batch) -> Batch:
        """Predict, `batch_size` rows at once."""
        size = self.batch_size or max(batch.rows, 1)
        pieces = [batch] if size >= batch.rows else [batch.slice(at, size) for at in range(0, batch.rows, size)]
        parts = [self._predict(piece) for piece in pieces]
        return batch.with_column(self.output, parts[0] if len(parts) == 1 else np.concatenate(parts))

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Check the signature's columns and append the output."""
        missing = [column.name for column in self.frozen.inputs if column.name not in schema.names]
        if missing:
            close = get_close_matches(missing[0], schema.names, n=1)
            raise ContractError(
                f"model {self.frozen.label} does not fit its input",
                f"columns {listed(missing)}",
                f"columns {listed(schema.names)}",
                f"Did you mean {close[0]!r}?" if close else "Provide them in the input or by a rule before the model.",
            )
        for column in self.frozen.inputs:
            actual = schema.field(column.name).type
            if pa.types.is_string(column.arrow_type) != _is_text(actual):
                raise ContractError(
                    f"column {column.name!r} does not fit model {self.frozen.label}", column.type, str(actual)
                )
        field = pa.field(self.output, pa.float64())
        index = schema.get_field_index(self.output)
        return schema.append(field) if index < 0 else schema.set(index, field)

    def _predict(self, batch: Batch) -> np.ndarray:
        if batch.rows == 0:
            return np.empty(0, dtype=np.float64)
        try:
            values = np.asarray(self.predictor().predict(batch), dtype=np.float64)
        except ScoringError:
            raise
        except Exception as error:
            raise ModelError(
                f"model {self.frozen.label} raised while predicting {batch.rows} rows",
                got=cause(error),
                hint="Nothing was published. Try the model on this partition, then promote a version that works.",
            ) from error
        if values.shape != (batch.rows,):
            raise ModelError(
                f"model {self.frozen.label} predicted a wrong shape", f"({batch.rows},)", str(values.shape)
            )
        return values


def _is_text(actual: pa.DataType) -> bool:
    value = actual.value_type if pa.types.is_dictionary(actual) else actual
    return bool(pa.types.is_string(value) or pa.types.is_large_string(value))
