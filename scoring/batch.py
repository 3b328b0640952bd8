"""The columns given to a step at once, with conversions that steps share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from scoring.conversion import convert
from scoring.errors import ContractError

if TYPE_CHECKING:
    import pandas as pd

FLOAT32_EXACT: Final = 2**24
"""Integers up to this size are exact in float32."""
FLOAT64_EXACT: Final = 2**53
"""Integers up to this size are exact in float64."""
TILE_ROWS: Final = 4_096
"""Rows that are transposed at once at most, so that they stay in the processor's cache."""
TILE_NUMBERS: Final = 2**20
"""Numbers that are transposed at once at most."""
TILE_PADDING: Final = 16
"""Numbers between columns of a tile: a power of two between them would let them share few lines of the cache."""


class Batch:
    """An Arrow table of n rows; members of an ensemble share the frames and matrices built from it."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self._matrices: dict[tuple[str, ...], npt.NDArray[np.float32]] = {}
        self._frames: dict[tuple[tuple[str, pa.DataType], ...], pd.DataFrame] = {}
        self._whole: Batch | None = None
        self._first = 0
        self._source: Batch | None = None
        self._names: Mapping[str, str] = {}

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

    def renamed(self, columns: Mapping[str, str]) -> Batch:
        """Return a batch with some columns under other names also: `{new name: name here}`.

        Its matrices are those of this batch, so that members of an ensemble share them whatever they call the columns.
        """
        table = self.table
        for name, here in columns.items():
            index, column = table.schema.get_field_index(name), self.table.column(here)
            table = table.append_column(name, column) if index < 0 else table.set_column(index, name, column)
        batch = Batch(table)
        batch._source, batch._names = self, columns
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
        kinds = {wanted for _, wanted in types}
        kind = kinds.pop()
        if not kinds and pa.types.is_floating(kind):
            return self._one_block(arrays, kind)
        frame: pd.DataFrame = pa.table(arrays).to_pandas(date_as_object=False, use_threads=False)
        return frame

    def _one_block(self, arrays: Mapping[str, pa.ChunkedArray], kind: pa.DataType) -> pd.DataFrame:
        """Return floats of one type as a frame of one block, of which scikit-learn makes a matrix without a copy."""
        import pandas as pd

        block = np.empty((len(arrays), self.rows), dtype=kind.to_pandas_dtype())
        for position, array in enumerate(arrays.values()):
            block[position] = array.to_numpy()
        return pd.DataFrame(block.T, columns=list(arrays), copy=False)

    def _build_matrix(self, columns: tuple[str, ...]) -> npt.NDArray[np.float32]:
        if self._whole is not None:
            return self._whole.matrix(columns)[self._first : self._first + self.rows]
        if self._source is not None:
            return self._source.matrix(tuple(self._names.get(name, name) for name in columns))
        numbers = [self._numbers(name) for name in columns]
        try:
            return _side_by_side(numbers, self.rows)
        except FloatingPointError as error:
            largest = [float(np.max(np.abs(found), initial=0, where=np.isfinite(found))) for found in numbers]
            name = columns[int(np.argmax(largest))]
            raise _unfit(name, f"numbers up to {np.finfo(np.float32).max!s}", str(max(largest))) from error

    def _numbers(self, name: str) -> npt.NDArray[Any]:
        """Return a column of numbers that float32 holds, null as NaN; a view of the column where that is possible."""
        column = self.table.column(name)
        kind = column.type
        if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
            raise ContractError(
                f"column {name!r} is not numeric", "a number or boolean", str(kind), "Encode it in a rule."
            )
        if pa.types.is_integer(kind) and kind.bit_width > np.finfo(np.float32).nmant + 1:
            largest = _largest(column)
            if largest > FLOAT32_EXACT:
                raise _unfit(name, f"integers up to {FLOAT32_EXACT}", str(largest))
        if column.null_count:
            # The widest float is the one that Arrow casts to without looking for losses.
            numbers = column.cast(pa.uint8()) if pa.types.is_boolean(kind) else column
            column = (numbers if pa.types.is_floating(kind) else numbers.cast(pa.float64())).fill_null(np.nan)
        pieces = [chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks]
        return pieces[0] if len(pieces) == 1 else np.concatenate(pieces or [np.empty(0, dtype=np.float32)])

    def _cast(self, name: str, wanted: pa.DataType) -> pa.ChunkedArray:
        column = self.table.column(name)
        try:
            converted = [convert(chunk, wanted) for chunk in column.chunks]
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise ContractError(
                f"column {name!r} does not convert", f"values of type {wanted}", f"{column.type} ({error})"
            ) from error
        result = pa.chunked_array(converted, wanted)
        if pa.types.is_int64(wanted) and result.null_count and (largest := _largest(result)) > FLOAT64_EXACT:
            raise ContractError(
                f"column {name!r} has nulls, so that pandas makes its integers doubles",
                f"integers up to {FLOAT64_EXACT}",
                str(largest),
                "Fill the nulls in a rule, or make the column text.",
            )
        return result


def _side_by_side(columns: Sequence[npt.NDArray[Any]], rows: int) -> npt.NDArray[np.float32]:
    """Return columns as a matrix of shape (rows, len(columns)).

    Columns are copied into a tile, which is small enough for the cache, and from there into whole rows: writing columns
    straight into the matrix touches all of its memory once for each of them.

    Raises:
        FloatingPointError: a number is too large for float32.
    """
    matrix = np.empty((rows, len(columns)), dtype=np.float32)
    size = max(min(TILE_NUMBERS // max(len(columns), 1), TILE_ROWS, rows), 1)
    tile = np.empty((len(columns), size + TILE_PADDING), dtype=np.float32)
    # Overflow is seen at no cost; a signalling NaN is a NaN like others.
    with np.errstate(over="raise", invalid="ignore"):
        for start in range(0, rows, size):
            taken = min(size, rows - start)
            for position, column in enumerate(columns):
                tile[position, :taken] = column[start : start + taken]
            matrix[start : start + taken] = tile[:, :taken].T
    return matrix


def _largest(integers: pa.ChunkedArray) -> int:
    """Return the largest absolute value; 0 if there is none."""
    bounds = pc.min_max(integers).as_py()
    return max((abs(bound) for bound in bounds.values() if bound is not None), default=0)


def _unfit(name: str, expected: str, got: str) -> ContractError:
    return ContractError(
        f"column {name!r} does not fit a float32 feature matrix",
        expected,
        got,
        "Scale it in a rule, or hash it into fewer buckets.",
    )
