"""Turns pydantic's errors into sentences."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, get_args

import yaml
from pydantic import ValidationError

from scoring.deployment.fields import Spec
from scoring.deployment.spec import Deployment
from scoring.deployment.steps import (
    STEP_KINDS,
    Case,
    Ensemble,
    EnsembleStep,
    ModelStep,
    PipelineStep,
    Route,
    RouteStep,
    RuleStep,
    ValuesStep,
)
from scoring.errors import ConfigurationError, listed


def explained(invalid: ValidationError, file: Path, root: yaml.Node | None) -> ConfigurationError:
    """Return the first error of a validation as one sentence with file, line and the nearest valid key."""
    # A misspelt key is also a missing one: name the misspelling.
    # A list with a wrong item is also too short, once the item is taken out.
    errors = [e for e in invalid.errors(include_url=False) if not (e["type"] == "too_short" and e["input"])]
    first = min(errors, key=lambda found: found["type"] != "extra_forbidden")
    keys, owner = _resolved(first["loc"])
    place = f"{file}:{line_of(root, keys)}"
    path = ".".join(str(key) for key in keys) or "the deployment"
    rest = len(errors) - 1
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
        case "recursion_loop":
            return ConfigurationError(f"{place}: {path!r} contains itself{more}", "steps that end", "a cycle")
        case "enum" | "literal_error":
            valid = re.findall(r"'([^']*)'", first["ctx"]["expected"])
            close = get_close_matches(str(first["input"]), valid, n=1)
            message = first["msg"].removeprefix("Input should be ")
            hint = f"Did you mean {close[0]!r}?" if close else ""
            return ConfigurationError(f"{place}: {path!r} is not valid{more}", message, repr(first["input"]), hint)
        case "value_error":
            error = first["ctx"]["error"]
            place = f"{file}:{line_of(root, (*keys, *getattr(error, 'keys', ())))}"
            sentence = f"{error}" if f"{error}".endswith("?") else f"{error}."
            return ConfigurationError(f"{place}: {path!r} is not valid{more}", hint=sentence)
        case _:
            message = first["msg"].removeprefix("Input should be ").removeprefix("a valid ").replace("tuple", "list")
            return ConfigurationError(f"{place}: {path!r} is not valid{more}", message, repr(first["input"]))


_STEP_MODELS: Final[dict[str, type[Spec]]] = dict(
    zip(STEP_KINDS, (ModelStep, PipelineStep, EnsembleStep, RuleStep, RouteStep, ValuesStep), strict=True)
)


_TAGGED: Final = ((Case, "then"), (Route, "otherwise"), (Ensemble, "combine"))
"""Fields that hold a step, besides lists and members: pydantic names its kind after them."""


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
        at_step |= (owner, part) in _TAGGED
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


def line_of(node: yaml.Node | None, keys: Sequence[int | str]) -> int:
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
