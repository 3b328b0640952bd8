"""Versions of the documents that we keep, so that an older or newer release says why it cannot read one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from scoring.errors import ContractError


def check_format(document: Any, expected: int, what: str) -> None:
    """Refuse a document that is not a mapping with the expected `format_version`.

    Raises:
        ContractError: it has another one, or none.
    """
    version = document.get("format_version") if isinstance(document, Mapping) else None
    if version != expected:
        raise ContractError(
            f"{what} cannot be read",
            f"format_version {expected}",
            repr(version),
            "It was written by another release of scoring: use that one.",
        )
