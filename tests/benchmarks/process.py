"""The process of one measurement: `python -m tests.benchmarks.process CASE WAY CORES SCALE RESULT`.

It starts the way's session, scores the warm-up partition once, so that workers, imports, models and compilers are up,
and then measures one scoring of the real partition.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from pathlib import Path

from tests.benchmarks import ways
from tests.benchmarks.cases import NIGHT, PARTITION, WARM_UP, Way, find
from tests.benchmarks.places import Places


def main(name: str, way: Way, cores: int, scale: float, result: Path) -> None:
    """Measure, and write seconds and details as JSON."""
    if hasattr(os, "sched_setaffinity"):
        # All that this process starts stays on the same cores, whatever it thinks the machine has.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
    case, places = find(name).scaled(scale), Places.of_home()
    output = places.output(case, way)
    with ways.opened(case, way)(case, places, cores) as score:
        if not case.is_job:
            score(WARM_UP, output / f"{PARTITION}={WARM_UP}")
        gc.collect()
        start = time.perf_counter()
        details = score(NIGHT, output / f"{PARTITION}={NIGHT}")
        seconds = time.perf_counter() - start
    result.write_text(json.dumps({"seconds": seconds, "details": dict(details)}))


if __name__ == "__main__":
    main(sys.argv[1], Way(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4]), Path(sys.argv[5]))
