"""Looks into a `.keras` file before Keras does: it describes layers by module and class, which Keras looks up.

Keras's own safe mode, which refuses Lambda layers, is in force as well. This audit needs no framework, so that a run is
refused before it starts, and it does not depend on the release of Keras.
"""

from __future__ import annotations

import io
import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from typing import Any, Final

_CODE: Final = frozenset(
    {"Lambda", "__lambda__", "TFSMLayer", "TorchModuleWrapper", "JaxLayer", "FlaxLayer", "__typespec__"}
)
"""Classes of Keras that hold programs, or load them from elsewhere."""
_MODULE: Final = re.compile(
    r"builtins|keras|keras\.(src\.)?(activations|constraints|dtype_policies|initializers|layers|losses|metrics|models|ops"
    r"|quantizers|random|regularizers)(\.\w+)*"
)
"""Where Keras keeps what a model consists of."""
_CONFIG: Final = "config.json"


def keras_findings(content: bytes) -> Iterator[str]:
    """Yield what in a `.keras` file could run code."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            config = json.loads(archive.read(_CONFIG))
    except (zipfile.BadZipFile, KeyError, ValueError, RecursionError) as error:
        yield f"a file that cannot be read ({type(error).__name__})"
        return
    if not isinstance(config, Mapping):
        yield "a file that describes no model"
        return
    # How the model was trained is not loaded.
    yield from _in_config({name: value for name, value in config.items() if name != "compile_config"})


def _in_config(value: Any) -> Iterator[str]:
    if isinstance(value, list):
        for inner in value:
            yield from _in_config(inner)
    elif isinstance(value, Mapping):
        if "class_name" in value:
            name, module = value["class_name"], value.get("module")
            if name in _CODE:
                yield f"a layer {name}"
            elif module is not None and not _MODULE.fullmatch(str(module)):
                yield f"{module}.{name}"
        for inner in value.values():
            yield from _in_config(inner)
