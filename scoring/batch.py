"""The columns given to a step at once, with conversions that steps share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from scoring.errors import ContractError

if TYPE_CHECKING:
    import pandas as pd

FLOAT32_EXACT: Final = 2**24
"""Integers up to this size are exact in float32."""


class Batch:
    """An Arrow table of n rows; members of an ensemble share the frames and matrices built from it."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._matrices: dict[tuple[str, ...], npt.NDArray[np.float32]] = {}
        self._frames: dict[tuple[tuple[str, pa.DataType], ...], pd.DataFrame] = {}
        self._whole: Batch | None = None
        self._first = 0

    @property
    def rows(self) -> int:
        """Number of rows."""
        return int(self.table.num_rows)

    def with_column(self, name: str, values: pa.Array | npt.NDArray[Any]) -> Batch:
        """Return a batch that also holds `values` (shape (rows,)) as column `name`, replacing one of that name."""
        column = values if isinstance(values, pa.Array) else pa.array(values)
        index = self.table.schema.get_field_index(name)
        table = self.table.append_column(name, column) if index < 0 else self.table.set_column(index, name, column)
        batch = Batch(table)
        batch._matrices = {columns: matrix for columns, matrix in self._matrices.items() if name not in columns}
        batch._frames = {key: frame for key, frame in self._frames.items() if name not in dict(key)}
        return batch

    def slice(self, start: int, rows: int) -> Batch:
        """Return at most `rows` rows from row `start` on.

        Its matrices are views of those of this batch, and its frames are cut from this batch's, so that members of an
        ensemble share them whatever their batch sizes, and dtypes do not depend on the batch size.
        """
        batch = Batch(self.table.slice(start, rows))
        batch._whole, batch._first = self, start
        return batch

    def frame(self, types: tuple[tuple[str, pa.DataType], ...]) -> pd.DataFrame:
        """Return columns as a pandas frame with the dtypes that plain pandas gives: integers with nulls become float64.

        Raises:
            ContractError: a column does not convert to its type without loss.
        """
        if types not in self._frames:
            self._frames[types] = self._build_frame(types)
        return self._frames[types]

    def matrix(self, columns: tuple[str, ...]) -> npt.NDArray[np.float32]:
        """Return columns as a C-contiguous float32 matrix of shape (rows, len(columns)); null becomes NaN.

        Raises:
            ContractError: a column is not numeric, or holds integers that float32 cannot hold.
        """
        if columns not in self._matrices:
            self._matrices[columns] = self._build_matrix(columns)
        return self._matrices[columns]

    def _build_frame(self, types: tuple[tuple[str, pa.DataType], ...]) -> pd.DataFrame:
        if self._whole is not None:
            # Models are used to rows that are counted from 0.
            return self._whole.frame(types).iloc[self._first : self._first + self.rows].reset_index(drop=True)
        arrays = {name: self._cast(name, wanted) for name, wanted in types}
        frame: pd.DataFrame = pa.table(arrays).to_pandas(date_as_object=False)
        return frame

    def _build_matrix(self, columns: tuple[str, ...]) -> npt.NDArray[np.float32]:
        if self._whole is not None:
            return self._whole.matrix(columns)[self._first : self._first + self.rows]
        matrix = np.empty((self.rows, len(columns)), dtype=np.float32)
        for position, name in enumerate(columns):
            matrix[:, position] = self._float32(name)
        return matrix

    def _float32(self, name: str) -> npt.NDArray[np.float32]:
        column = self.table.column(name)
        if pa.types.is_integer(column.type):
            bounds = pc.min_max(column).as_py()
            largest = max(abs(bounds["min"] or 0), abs(bounds["max"] or 0))
            if largest > FLOAT32_EXACT:
                raise ContractError(
                    f"column {name!r} does not fit a float32 feature matrix",
                    f"integers up to {FLOAT32_EXACT}",
                    str(largest),
                    "Scale it in a rule, or hash it into fewer buckets.",
                )
        elif not (pa.types.is_floating(column.type) or pa.types.is_boolean(column.type)):
            raise ContractError(
                f"column {name!r} is not numeric", "a number or boolean", str(column.type), "Encode it in a rule."
            )
        target = pa.float64() if pa.types.is_float64(column.type) else pa.float32()
        numbers = column.cast(target) if not pa.types.is_boolean(column.type) else column.cast(pa.uint8()).cast(target)
        with np.errstate(over="ignore"):  # a double beyond float32 is infinite, as in every framework
            return np.asarray(numbers.to_numpy()).astype(np.float32, copy=False)

    def _cast(self, name: str, wanted: pa.DataType) -> pa.ChunkedArray:
        column = self.table.column(name)
        if column.type == wanted:
            return column
        try:
            return column.cast(wanted)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ContractError(
                f"column {name!r} does not convert", f"values of type {wanted}", f"{column.type} ({error})"
            ) from error
