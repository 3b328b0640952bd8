"""The rows of a staged run, read again for its checks: what was scored, and what came of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from scoring.data.contract import Contract
from scoring.data.partition import INT96_UNIT
from scoring.data.parts import Part, absent_parts, read_parts
from scoring.data.storage import open_storage, storage_errors
from scoring.deployment import Deployment
from scoring.errors import ConfigurationError, DataError


@dataclass(frozen=True, slots=True)
class StagedRows:
    """Reads the input and output rows of a staged run; only the asked columns, but all of their rows at once."""

    deployment: Deployment
    plan: Mapping[str, Any]
    """`plan.json` of the run."""
    parts: Mapping[str, Any]
    """`parts.json` of the run."""

    def input(self, columns: Iterable[str] | None) -> pa.Table:
        """Return the input rows that were scored, without the quarantined ones, in the contract's types.

        Args:
            columns: which, besides the keys; None: all.

        Raises:
            ConfigurationError: the rows of a query are no longer kept.
            DataError: a file was changed since it was scored.
            StorageError: a file cannot be read.
        """
        if "query" in self.plan:
            return self._kept_input(columns)
        contract = Contract.from_json(self.plan["contract"])
        if columns is not None:
            contract = contract.only((*self.deployment.input.keys, *columns))
        return pa.concat_tables(self._accepted(file, contract) for file in self._files())

    def _kept_input(self, columns: Iterable[str] | None) -> pa.Table:
        """Return the rows of a query that its workers kept; they are deleted when the run is published."""
        root = self.deployment.output.path
        parts = [Part.from_json(part) for part in self.parts["kept_input"]]
        if not parts or absent_parts(root, parts):
            raise ConfigurationError(
                f"the input rows of partition {self.plan['partition']!r} are not kept",
                "rows of a run that was scored with this input suite and is not published",
                "none",
                "Score the partition again.",
            )
        asked = None if columns is None else sorted({*self.deployment.input.keys, *columns})
        return read_parts(root, [part.path for part in parts], asked)

    def output(self, columns: Iterable[str] | None) -> pa.Table:
        """Return the rows of the staged parts.

        Args:
            columns: which, besides the keys; None: all. Those that the parts lack are left out.

        Raises:
            StorageError: a part cannot be read.
        """
        paths = [part["path"] for part in self.parts["parts"]]
        asked = None if columns is None else {*self.deployment.input.keys, *columns} & set(self.plan["columns"])
        return read_parts(self.deployment.output.path, paths, None if asked is None else sorted(asked))

    def _files(self) -> Iterable[tuple[str, int, list[int]]]:
        """Yield path, rows and quarantined row numbers of every input file."""
        quarantined: dict[str, list[int]] = {}
        paths = [part["path"] for part in self.parts["quarantined"]]
        if paths:
            rows = read_parts(self.deployment.output.quarantine_path, paths, ["file", "row_in_file"])
            for row in rows.to_pylist():
                quarantined.setdefault(row["file"], []).append(row["row_in_file"])
        filesystem, _ = open_storage(self.deployment.input.location)
        for file in self.plan["files"]:
            with storage_errors(file["path"]):
                size = filesystem.get_file_info(file["path"]).size
            if size != file["size_bytes"]:
                raise DataError(
                    f"file {file['path']} was changed since it was scored",
                    f"{file['size_bytes']} bytes",
                    f"{size} bytes" if size is not None else "no such file",
                    "Score the partition again.",
                )
            yield file["path"], file["rows"], quarantined.get(file["path"], [])

    def _accepted(self, file: tuple[str, int, list[int]], contract: Contract) -> pa.Table:
        path, rows, quarantined = file
        filesystem, _ = open_storage(self.deployment.input.location)
        with storage_errors(path), filesystem.open_input_file(path) as handle:
            raw = pq.read_table(
                handle, columns=[column.name for column in contract.columns], coerce_int96_timestamp_unit=INT96_UNIT
            )
        if quarantined:
            keep = np.ones(rows, dtype=bool)
            keep[quarantined] = False
            raw = raw.filter(pa.array(keep))
        return contract.apply(raw)[0]
