"""Reads `deployment.yaml` and checks it against the files beside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from difflib import get_close_matches
from pathlib import Path
from string import Template
from typing import Any, Final

import yaml
from pydantic import ValidationError

from scoring import settings
from scoring.deployment.columns import Columns, columns_after
from scoring.deployment.explain import explained, line_of
from scoring.deployment.spec import Deployment
from scoring.deployment.steps import ROOT, Keys, RuleStep, walk
from scoring.errors import ConfigurationError, cause, listed

FILE_NAME: Final = "deployment.yaml"


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
    """Return the names of all folders of the deployments folder that hold a `deployment.yaml`, sorted.

    Folders that begin with a dot are left out: `scoring deploy` works in them.
    """
    return sorted(file.parent.name for file in settings.deployments_folder().glob(f"[!.]*/{FILE_NAME}"))


def parse(text: str, *, folder: Path) -> Deployment:
    """Return the deployment that `text` (YAML) describes and whose other files lie in `folder`.

    Raises:
        ConfigurationError: not YAML, unknown or missing keys, values of a wrong kind, files that are missing.
    """
    file = folder / FILE_NAME
    root, raw = _document(text, file)
    if not isinstance(raw, dict):
        raise ConfigurationError(f"{file} is not a deployment", "a mapping of keys", type(raw).__name__)
    try:
        deployment = Deployment.model_validate(raw, context={"folder": folder})
    except ValidationError as error:
        raise explained(error, file, root) from error
    if deployment.name != folder.name:
        raise ConfigurationError(
            f"deployment {deployment.name!r} lies in the wrong folder",
            f"a folder named {deployment.name!r}",
            repr(folder.name),
            "Rename the folder or change 'name'.",
        )
    given = frozenset(deployment.input.columns or ())
    columns_after(deployment.score, ROOT, Columns(given=given), lambda keys: f"{file}:{line_of(root, keys)}")
    _check_files(deployment)
    return deployment


def place_of(deployment: Deployment, keys: Keys) -> str:
    """Return file and line of keys in a deployment's file, or of the deepest that are there."""
    file = deployment.folder / FILE_NAME
    root, _ = _document(file.read_text("utf-8"), file)
    return f"{file}:{line_of(root, keys)}"


class _Loader(yaml.SafeLoader):
    """Leaves dates to pydantic: a day that does not exist is then named with its line."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - overrides what the base class has
        first: [(tag, pattern) for tag, pattern in resolvers if not tag.endswith(":timestamp")]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


def _document(text: str, file: Path) -> tuple[yaml.Node | None, Any]:
    """Return the nodes of a YAML text, which know their lines, and its value; `${NAME}` is replaced in both.

    Variables are replaced in single values, not in the text: none of them can add keys, and a comment may hold a '$'.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        for node in _nodes(root, set()):
            if isinstance(node, yaml.ScalarNode):
                node.value = _expanded(node.value, f"{file}:{node.start_mark.line + 1}")
            elif isinstance(node, yaml.MappingNode):
                _check_keys(node, file)
        return root, None if root is None else loader.construct_document(root)
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file} is not YAML", got=cause(error)) from error
    finally:
        loader.dispose()


def _nodes(node: yaml.Node | None, seen: set[int]) -> Iterator[yaml.Node]:
    """Yield all nodes, each once however often it is aliased."""
    if node is None or id(node) in seen:
        return
    seen.add(id(node))
    yield node
    if isinstance(node, yaml.CollectionNode):
        for child in node.value:
            for inner in child if isinstance(child, tuple) else (child,):
                yield from _nodes(inner, seen)


def _check_keys(node: yaml.MappingNode, file: Path) -> None:
    """Refuse a key that is there twice: YAML would silently keep the last one."""
    seen: set[str] = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise ConfigurationError(f"{file}:{key.start_mark.line + 1}: key {key.value!r} is there twice")
            seen.add(key.value)


def _expanded(text: str, place: str) -> str:
    try:
        return Template(text).substitute(settings.variables()) if "$" in text else text
    except KeyError as error:
        raise ConfigurationError(
            f"{place}: variable {error.args[0]!r} is not set", "a value", "none", "Export it."
        ) from None
    except ValueError:
        raise ConfigurationError(
            f"{place}: a '$' starts no variable", "${NAME}, or $$ for a dollar sign", repr(text)
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
