"""Command line of the benchmark: `python -m tests.benchmarks`. See README.md beside it."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from tests.benchmarks import report
from tests.benchmarks.cases import ALL, CASES, QUICK, Way, chosen
from tests.benchmarks.machine import describe
from tests.benchmarks.places import Places
from tests.benchmarks.rounds import Rounds

REPEAT = 3
QUICK_SCALE = 1 / 2
QUICK_REPEAT_OTHERS = 1
EXIT_TERMINATED = 143


def main(arguments: Sequence[str]) -> int:
    """Measure what the command line asks for; 1 where a way failed, 2 where another benchmark is running."""
    options = parsed(arguments)
    progress = Console(stderr=True, highlight=False, markup=False, soft_wrap=True)
    places = Places.of_home()
    with places.alone() as is_alone:
        if not is_alone:
            progress.print(f"another benchmark is running in {places.bench}: wait for its end, or set SCORING_HOME.")
            return 2
        failures = run(options, places, progress, about=describe(arguments, cores=options.cores))
    for sentence in failures:
        progress.print(f"failed: {sentence}")
    return 1 if failures else 0


def run(options: argparse.Namespace, places: Places, progress: Console, *, about: Mapping[str, Any]) -> list[str]:
    """Run all cases, print and write their results; return a sentence for each way that failed."""
    # As by Ctrl-C: what was started is stopped first.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(EXIT_TERMINATED))
    console = Console()
    rounds = Rounds(places, options.cores, options.scale, options.repeat, options.repeat_others, say=progress.print)
    results: report.Results = []
    for case in chosen(options.cases, options.scale):
        ways = [way for way in case.ways if way in options.ways or way is Way.LIMIT]
        found = report.summarised(case, rounds.run(case, ways), cores=options.cores)
        results += found
        # After every case, so that a run that is stopped keeps what it has.
        report.write_json(places.results, results)
        report.write_json(places.environment, {**about, "failures": rounds.failures})
        if found:
            report.show_case(console, case, found)
    report.show_targets(console, results)
    console.print(f"results: {places.results}", soft_wrap=True)
    return rounds.failures


def parsed(arguments: Sequence[str]) -> argparse.Namespace:
    """Return the options; ends with a sentence where they cannot be used."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=f"Cases: {', '.join(CASES)}.")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    parser.add_argument("--cases", nargs="+", choices=CASES, metavar="CASE", help="which cases; default: all")
    parser.add_argument(
        "--ways", nargs="+", type=Way, choices=ALL, metavar="WAY", default=ALL, help="which ways besides the limit"
    )
    parser.add_argument("--repeat", type=int, help=f"runs of each way; default: {REPEAT}")
    parser.add_argument(
        "--repeat-others", type=int, help="runs of ways besides limit and scoring; default: as --repeat"
    )
    parser.add_argument("--cores", type=int, default=min(2, usable), help="cores of each way; default: 2")
    parser.add_argument("--scale", type=float, help="factor on the rows; default: 1")
    parser.add_argument("--quick", action="store_true", help=f"only {' and '.join(QUICK)}, fewer rows and runs")
    options = parser.parse_args(arguments)
    options.cases = options.cases or (QUICK if options.quick else tuple(CASES))
    others = QUICK_REPEAT_OTHERS if options.quick and options.repeat is None else options.repeat
    options.repeat = REPEAT if options.repeat is None else options.repeat
    options.repeat_others = options.repeat_others or others or REPEAT
    options.scale = options.scale or (QUICK_SCALE if options.quick else 1.0)
    if not 1 <= options.cores <= usable:
        parser.error(f"--cores: expected 1 to {usable}, the cores of this machine, got {options.cores}")
    if min(options.repeat, options.repeat_others) < 1 or options.scale <= 0:
        parser.error("--repeat, --repeat-others and --scale: expected numbers above zero")
    return options


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
