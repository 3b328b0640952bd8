"""Runs a command and reads from it what a job says: progress on stderr, one JSON document last on stdout."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import psutil

from scoring import errors

KILL_AFTER_S: Final = 3.0
"""What a job gets to end by itself. Airflow kills a task five seconds after it asked it to end, jobs included."""
KEPT_LINES: Final = 50
EXCEPTION: Final = re.compile(r"([\w.]+(?:Error|Exception)): (.+)")
"""How a job, and Python, ends what it says about a failure."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a job ended."""

    exit_code: int
    result: Mapping[str, Any] | None
    """The JSON document; None if there was none."""
    sentence: str
    """What the job said about its failure, in one line."""


class Command:
    """One process and what it starts."""

    def __init__(self, arguments: Sequence[str]) -> None:
        self._arguments = list(arguments)
        self._process: subprocess.Popen[str] | None = None

    def run(self, report: Callable[[str], None]) -> Outcome:
        """Run to the end; `report` is given each line of stderr as it comes."""
        last_words: deque[str] = deque(maxlen=KEPT_LINES)
        output: deque[str] = deque(maxlen=KEPT_LINES)
        with subprocess.Popen(
            self._arguments,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process:
            self._process = process
            # Both pipes are read at once, else a job that fills one while we wait for the other would hang.
            reader = threading.Thread(target=output.extend, args=(process.stdout,), daemon=True)
            reader.start()
            for line in process.stderr or ():
                report(line.rstrip())
                last_words.append(line)
            reader.join()
        return Outcome(process.returncode, result_in(output), sentence_in(last_words))

    def kill(self) -> None:
        """End the process and all that it started; returns at once."""
        if self._process is not None and self._process.poll() is None:
            kill_tree(self._process.pid)


def arguments(deployment: str, options: Iterable[tuple[str, str]]) -> list[str]:
    """Return the command line of a job; options without a value are left out."""
    return [deployment, *(word for option, value in options if value for word in (option, value))]


def result_in(lines: Iterable[str]) -> Mapping[str, Any] | None:
    """Return the last line that is a JSON object."""
    for line in reversed(list(lines)):
        if line.lstrip().startswith("{"):
            with contextlib.suppress(ValueError):
                found: Mapping[str, Any] = json.loads(line)
                return found
    return None


def sentence_in(lines: Iterable[str]) -> str:
    """Return the last error, without the name of its class if it is one of ours; else the last line with text."""
    texts = [line.strip() for line in lines if line.strip()]
    found = next((match for text in reversed(texts) if (match := EXCEPTION.fullmatch(text))), None)
    if found is not None:
        return found[2] if hasattr(errors, found[1]) else found[0]
    return texts[-1] if texts else ""


def kill_tree(pid: int) -> None:
    """Ask a process and its descendants to end, and kill what is left after `KILL_AFTER_S`.

    Descendants rather than a process group: Spark's Python workers leave the group they were started in.
    """
    try:
        root = psutil.Process(pid)
        tree = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    _signal_all(tree, psutil.Process.terminate)
    # Airflow calls from a signal handler, where waiting would also keep the interrupted code from noticing the end.
    timer = threading.Timer(KILL_AFTER_S, _signal_all, (tree, psutil.Process.kill))
    timer.daemon = True
    timer.start()


def _signal_all(tree: Sequence[psutil.Process], send: Callable[[psutil.Process], None]) -> None:
    for process in tree:
        with contextlib.suppress(psutil.NoSuchProcess):
            send(process)
