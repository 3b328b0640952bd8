"""Kinds of values that a deployment's fields may have."""

from __future__ import annotations

import re
from posixpath import normpath
from typing import Annotated, Final
from urllib.parse import quote, unquote, urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict


class Spec(BaseModel):
    """Base of all specifications: frozen, no unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class KeyedError(ValueError):
    """What is wrong with a specification, and below which of its keys."""

    def __init__(self, sentence: str, *keys: str) -> None:
        super().__init__(sentence)
        self.keys = keys


def _column(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(f"expected a column name of letters, digits and '_', got {name!r}")
    return name


def _table(name: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*){0,2}", name, re.ASCII):
        raise ValueError(f"expected 'table', 'schema.table' or 'catalog.schema.table', got {name!r}")
    return name


def _location(path: str) -> str:
    if not (path.startswith("/") or "://" in path):
        raise ValueError(f"expected an absolute path or a URL, got {path!r}. Write ${{SCORING_HOME}}/{path}")
    return path.rstrip("/")


def overlap(first: str, second: str) -> bool:
    """Return whether two locations are the same folder, or one lies in the other."""
    one, other = _folders(first), _folders(second)
    shorter = min(len(one), len(other))
    return one[:shorter] == other[:shorter]


def _folders(location: str) -> tuple[str, ...]:
    # A path of this machine may be written as a URL; credentials and options of a URL say nothing about the place.
    url = urlsplit(location if "://" in location else f"file://{quote(location)}")
    return (url.scheme, url.netloc.rpartition("@")[2], *filter(None, normpath(f"/{unquote(url.path)}").split("/")))


def _address(text: str) -> str:
    word = r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~-]+"
    if not re.fullmatch(rf"{word}(\.{word})*@[\w-]+(\.[\w-]+)*", text):
        raise ValueError(f"expected an e-mail address, got {text!r}")
    return text


def _function(reference: str) -> str:
    if not re.fullmatch(r"[A-Za-z_]\w*:[A-Za-z_]\w*", reference):
        raise ValueError(f"expected 'module:function' of a file beside deployment.yaml, got {reference!r}")
    return reference


_CRON_BOUNDS: Final = (("minute", 0, 59), ("hour", 0, 23), ("day", 1, 31), ("month", 1, 12), ("weekday", 0, 7))


def _cron(expression: str) -> str:
    fields = expression.split()
    if len(fields) != len(_CRON_BOUNDS):
        raise ValueError(f"expected a cron expression of five fields, got {expression!r}")
    for text, (name, low, high) in zip(fields, _CRON_BOUNDS, strict=True):
        for part in text.split(","):
            found = re.fullmatch(r"(\*|(\d+)(-(\d+))?)(/[1-9]\d*)?", part)
            if found is None or any(number and not low <= int(number) <= high for number in found.group(2, 4)):
                raise ValueError(f"expected {low} to {high}, a range, a list, '*' or steps as the {name}, got {text!r}")
    return expression


def _model_uri(uri: str) -> str:
    if not re.fullmatch(r"models:/[^/@\s]+(@[^/@\s]+|/\d+)", uri):
        raise ValueError(f"expected 'models:/name@alias' or 'models:/name/version', got {uri!r}")
    return uri


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError(f"expected the sha256 of a model's files, 64 digits of 0-9 and a-f, got {text!r}")
    return text


ColumnName = Annotated[str, AfterValidator(_column)]
TableName = Annotated[str, AfterValidator(_table)]
Location = Annotated[str, AfterValidator(_location)]
Address = Annotated[str, AfterValidator(_address)]
FunctionReference = Annotated[str, AfterValidator(_function)]
Cron = Annotated[str, AfterValidator(_cron)]
ModelUri = Annotated[str, AfterValidator(_model_uri)]
Digest = Annotated[str, AfterValidator(_digest)]
