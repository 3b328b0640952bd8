"""Predictors of this process, loaded once per digest and options, and evicted by bytes.

A module of its own, so that Spark's reused Python workers find it again.
"""

from __future__ import annotations

import gc
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

from scoring.errors import ModelError, ScoringError, cause
from scoring.models import flavors
from scoring.models.base import CPU, FLOAT32, Files, FrozenModel, LoadOptions, PlacedPredictor, Predictor, digest_of
from scoring.models.memory import free_memory, is_out_of_memory

DEFAULT_LIMIT_BYTES: Final = 2 * 1024**3
"""Of what a process keeps of models that no run uses any more."""


@dataclass(slots=True)
class PredictorCache:
    """Loads, verifies and keeps predictors; one thread at a time.

    Models that are `kept` are never evicted: a graph needs all of its models for every batch, so that evicting one of
    them would mean loading it again for the next batch. Whether they fit together is planned before the run. The
    limit is for models that earlier runs left: they make room, the one that was not used for longest first.
    """

    limit_bytes: int = DEFAULT_LIMIT_BYTES
    loads: int = 0
    """How many models were loaded in this process."""
    load_s: float = 0.0
    """Seconds spent loading."""
    evictions: int = 0
    """How many models made room for others."""
    _entries: OrderedDict[tuple[str, bool, LoadOptions], tuple[Predictor, int]] = field(default_factory=OrderedDict)
    _kept: Counter[str] = field(default_factory=Counter)
    _lock: threading.RLock = field(default_factory=threading.RLock)

    @property
    def resident_bytes(self) -> int:
        """Memory of all loaded models: measured where the flavor knows it, else estimated from the artifact's size."""
        with self._lock:
            return sum(size for _, size in self._entries.values())

    @contextmanager
    def keeping(self, digests: Iterable[str]) -> Iterator[None]:
        """Evict none of these models inside; for a run, all models of its graph."""
        kept = Counter(set(digests))
        with self._lock:
            self._kept.update(kept)
        try:
            yield
        finally:
            with self._lock:
                self._kept -= kept

    def get(
        self,
        model: FrozenModel,
        files: Files,
        *,
        method: str = "auto",
        device: str = CPU,
        threads: int = 1,
        precision: str = FLOAT32,
        compile: bool = False,  # noqa: A002 - the key's name
        outputs: int = 1,
    ) -> Predictor:
        """Return the predictor of `model`, loading it when this process does not have it.

        Raises:
            ModelError: the files are not those that were frozen, could run code without being trusted, or do not load.
        """
        options = LoadOptions(method, device, threads, precision, compile, outputs)
        key = (model.digest, model.trusted, options)
        with self._lock:
            if key not in self._entries:
                start = time.perf_counter()
                self._make_room(flavors.memory_bytes(model))
                predictor = _load(model, files, options)
                size = predictor.size_bytes if isinstance(predictor, PlacedPredictor) else flavors.memory_bytes(model)
                self._entries[key] = (predictor, size)
                self.loads += 1
                self.load_s += time.perf_counter() - start
            self._entries.move_to_end(key)
            return self._entries[key][0]

    def _make_room(self, size_bytes: int) -> None:
        excess = self.resident_bytes + size_bytes - self.limit_bytes
        evictable = [key for key in self._entries if not self._kept[key[0]]]
        has_evicted = False
        for key in evictable:
            if excess <= 0:
                break
            excess -= self._entries.pop(key)[1]
            self.evictions += 1
            has_evicted = True
        if has_evicted:
            gc.unfreeze()  # workers of Spark freeze what they have loaded
            free_memory()


def verify(model: FrozenModel, files: Files) -> None:
    """Check that `files` are those that were frozen.

    Raises:
        ModelError: a byte differs.
    """
    actual = digest_of(files)
    if actual != model.digest:
        raise ModelError(
            f"the files of model {model.label} were changed",
            f"sha256 {model.digest}",
            actual,
            "Nothing of it was loaded. Register the model again or roll back.",
        )


def _load(model: FrozenModel, files: Files, options: LoadOptions) -> Predictor:
    flavors.check_options(model, precision=options.precision, compile=options.compile)
    # A mapping may read files from a store: what is verified must be what is loaded, so each is read once.
    content = dict(files)
    verify(model, content)
    flavors.check_trust(model, content)
    load = flavors.loader(model.flavor)
    try:
        return load(model, content, options)
    except ScoringError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise ModelError(
                f"model {model.label} does not fit on {options.device}",
                f"memory for about {flavors.memory_bytes(model):,} bytes",
                cause(error),
                "Give the Spark executors more memory, or let fewer tasks share one.",
            ) from error
        raise ModelError(
            f"model {model.label} does not load",
            f"a model of flavor {model.flavor!r}",
            cause(error),
            "Compare the library versions in the model's requirements with those installed here.",
        ) from error


PREDICTORS: Final = PredictorCache()
"""The predictors of this process."""
