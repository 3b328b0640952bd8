"""Looks into a `torch.export` file before PyTorch does: `torch.export.load` can run code that lies in the file.

It unpickles example inputs and objects, evaluates expressions of sizes with `sympify`, compiles guards, resolves
operators by attribute, and generates Python code from names. A file passes when each of these holds nothing but what
an exported module of tensors needs.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, Final

from scoring.errors import listed
from scoring.models.base import FrozenModel
from scoring.models.trust import Finding, refused

_FILES: Final = re.compile(
    r"archive_format|archive_version|byteorder|\.data/(version|serialization_id)"
    r"|data/weights/(weight_\d+|model_weights_config\.json)"
    r"|data/constants/(tensor_\d+|model_constants_config\.json)"
    r"|data/sample_inputs/model\.pt|models/model\.json"
)
_EXAMPLES: Final = "data/sample_inputs/model.pt"
_PAYLOAD: Final = re.compile(r"(weight|tensor)_\d+")
_OPERATOR: Final = re.compile(
    r"torch\.ops\.(aten|prims)\.(?!(from_file|save)(\.|$))([a-z]\w*|_[a-z]\w*|__(and|or|xor|lshift|rshift)__)(\.[A-Za-z]\w*)?"
    r"|torch\.ops\.higher_order\.[a-z]\w*"
    r"|torch\.sym_(float|int|ite|max|min|not)"
    r"|_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|abs|eq|ne|lt|le|gt|ge|and_|or_|getitem)"
    r"|math\.[a-z]\w*"
)
_WORDS: Final = re.compile(r"[\w .,:+>-]*")
"""What names and settings consist of; nothing with it can be called, assigned or quoted in generated code."""
_SYMBOL: Final = re.compile(r"[a-z]\w*")
_FUNCTION: Final = re.compile(
    r"Symbol|Integer|Float|Rational|Add|Mul|Pow|Abs|Max|Min|Mod|Not|And|Or|Eq|Ne|Lt|Le|Gt|Ge|Equality|Unequality"
    r"|StrictLessThan|LessThan|StrictGreaterThan|GreaterThan|Piecewise|ExprCondPair|ceiling|floor|Where|PythonMod"
    r"|ModularIndexing|FloorDiv|CleanDiv|CeilDiv|IntTrueDiv|FloatTrueDiv|FloatPow|PowByNatural|ToFloat|CeilToInt"
    r"|FloorToInt|RoundToInt|TruncToInt|TruncToFloat|LShift|RShift"
)
"""Functions of SymPy and PyTorch that compute with sizes."""
_ARITHMETIC: Final = (
    *(ast.Expression, ast.BinOp, ast.UnaryOp, ast.Compare, ast.operator, ast.unaryop, ast.cmpop),
    *(ast.Load, ast.Name, ast.keyword),
)
_SPEC_TYPES: Final = (None, "builtins.tuple", "builtins.list", "builtins.dict")


def audited(content: bytes, *, model: FrozenModel) -> io.BytesIO:
    """Return a `torch.export` file packed anew from what was looked into, without its example inputs.

    Packed anew, because archives can be made that two readers see differently.

    Raises:
        ModelError: something in it could run code.
    """
    packed = io.BytesIO()
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive, zipfile.ZipFile(packed, "w") as copy:
            entries = {name.partition("/")[2]: name for name in archive.namelist()}
            files = {name: archive.read(entry) for name, entry in entries.items() if name.endswith(".json")}
            found = [f"file {name!r}" for name in entries if not _FILES.fullmatch(name)] or list(_findings(files))
            if not found:
                # One entry at a time: weights may be most of the memory that there is.
                for name, entry in {**entries, _EXAMPLES: None}.items():
                    copy.writestr(f"model/{name}", b"" if entry is None else archive.read(entry))
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, AttributeError, SyntaxError, RecursionError) as error:
        found = [f"a file that cannot be read ({type(error).__name__})"]
    if found:
        finding = Finding(
            "a torch.export file of tensors and operators",
            listed(found),
            "Export the module without custom objects, operators and guards on sizes.",
        )
        raise refused(model, "holds what could run code", finding)
    packed.seek(0)
    return packed


def _findings(files: Mapping[str, bytes]) -> Iterator[str]:
    for folder in ("weights", "constants"):
        config = json.loads(files[f"data/{folder}/model_{folder}_config.json"])["config"]
        for name, payload in config.items():
            if payload["use_pickle"] or not _PAYLOAD.fullmatch(payload["path_name"]):
                yield f"pickled {folder} {name!r}"
    yield from _in_description(json.loads(files["models/model.json"]))


def _in_description(value: Any, key: str = "") -> Iterator[str]:
    if key == "guards_code" and value:
        yield "guards, which are code"
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            if not _WORDS.fullmatch(name):
                yield f"name {name!r}"
            yield from _in_description(inner, name)
    elif isinstance(value, list):
        for inner in value:
            is_node = key == "nodes" and isinstance(inner, Mapping)
            # The metadata of a node are notes for people.
            part = {name: fact for name, fact in inner.items() if name != "metadata"} if is_node else inner
            yield from _in_description(part, key)
    elif isinstance(value, str) and not _is_safe(value, key):
        yield f"{key} {value!r}"


def _is_safe(text: str, key: str) -> bool:
    if key == "expr_str":
        return all(_is_arithmetic(node) for node in ast.walk(ast.parse(text, mode="eval")))
    if key in ("in_spec", "out_spec"):
        return text == "" or _is_plain_spec(json.loads(text)[1])
    if key in ("as_string", "as_strings"):
        return True  # arguments, which reach generated code by `repr`
    if key in ("target", "as_operator") and text.startswith(("torch", "_operator", "math", "#")):
        return _OPERATOR.fullmatch(text) is not None
    return _WORDS.fullmatch(text) is not None


def _is_arithmetic(node: ast.AST) -> bool:
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Name) and _FUNCTION.fullmatch(node.func.id) is not None
    if isinstance(node, ast.Constant):
        return isinstance(node.value, int | float) or (
            isinstance(node.value, str) and _SYMBOL.fullmatch(node.value) is not None
        )
    return isinstance(node, _ARITHMETIC)


def _is_plain_spec(spec: Mapping[str, Any]) -> bool:
    """Return whether a description of nested arguments is of tuples, lists and dictionaries with text keys."""
    return (
        spec["type"] in _SPEC_TYPES
        and re.fullmatch(r'null|\[("\w+"(, "\w+")*)?\]', spec["context"] or "null") is not None
        and all(_is_plain_spec(child) for child in spec["children_spec"])
    )
