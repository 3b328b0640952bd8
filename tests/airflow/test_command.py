"""What a job says is read from its pipes; ended means all of it ended."""

from __future__ import annotations

import os
import sys
import threading
import time

import psutil
import pytest

from scoring_airflow.command import Command, Outcome, arguments, result_in, sentence_in


def run(source: str) -> tuple[Outcome, list[str]]:
    lines: list[str] = []
    return Command([sys.executable, "-c", source]).run(lines.append), lines


def test_the_last_json_line_on_stdout_is_the_result() -> None:
    outcome, _ = run("print('loading'); print('{\"run_id\": \"r1\"}')")
    assert outcome == Outcome(0, {"run_id": "r1"}, "")


def test_stderr_is_reported_line_by_line_while_the_job_runs() -> None:
    seen: list[float] = []
    source = "import sys, time; print('a', file=sys.stderr); time.sleep(1); print('b', file=sys.stderr)"
    Command([sys.executable, "-c", source]).run(lambda _: seen.append(time.monotonic()))
    assert seen[1] - seen[0] > 0.5


def test_much_output_on_both_pipes_does_not_block() -> None:
    outcome, lines = run("import sys\nfor _ in range(20000): print('o' * 50); print('e' * 50, file=sys.stderr)")
    assert outcome.exit_code == 0
    assert len(lines) == 20000


def test_the_sentence_of_a_failure_goes_without_the_name_of_its_class() -> None:
    outcome, _ = run(
        "import sys; print('DataError: data is bad: expected 1, got 2.', file=sys.stderr)\n"
        "print('see column a', file=sys.stderr); sys.exit(3)"
    )
    assert outcome == Outcome(3, None, "data is bad: expected 1, got 2.")


def test_an_unexpected_failure_says_its_exception() -> None:
    outcome, _ = run("raise ValueError('odd')")
    assert outcome == Outcome(1, None, "ValueError: odd")


def test_bytes_that_are_no_text_do_not_stop_the_report() -> None:
    _, lines = run(r"import sys; sys.stderr.buffer.write(b'caf\xe9\n')")
    assert lines == ["caf\ufffd"]


@pytest.mark.parametrize(
    ("lines", "result"),
    [
        ([], None),
        (["done"], None),
        (['{"a": 1}', '{"b": 2}', "{not json}"], {"b": 2}),
        (["[1, 2]"], None),
    ],
)
def test_result_in(lines: list[str], result: object) -> None:
    assert result_in(lines) == result


def test_sentence_in_nothing_is_empty() -> None:
    assert sentence_in(["", "  \n"]) == ""


def test_options_without_a_value_are_left_out() -> None:
    options = [("--partition", "2013-07-01"), ("--training-run-id", "")]
    assert arguments("flights", options) == ["flights", "--partition", "2013-07-01"]


@pytest.mark.parametrize("ignore", ["", "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); "])
def test_kill_ends_the_job_and_what_it_started(ignore: str) -> None:
    """Also a child in a session of its own, as Spark's Python workers are."""
    child = f"import time; {ignore}print('up', flush=True); time.sleep(600)"
    source = (
        f"import subprocess, sys; {ignore}\n"
        f"child = subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True, stdout=subprocess.PIPE)\n"
        "child.stdout.readline(); print(child.pid, file=sys.stderr, flush=True); child.wait()"
    )
    command = Command([sys.executable, "-c", source])
    pids: list[int] = []

    def kill_when_up(line: str) -> None:
        pids.append(int(line))
        threading.Thread(target=command.kill).start()

    outcome = command.run(kill_when_up)
    assert outcome.exit_code < 0
    deadline = time.monotonic() + 10
    while psutil.pid_exists(pids[0]) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not psutil.pid_exists(pids[0])


def test_kill_after_the_end_does_nothing() -> None:
    command = Command([sys.executable, "-c", "pass"])
    command.kill()
    command.run(lambda _: None)
    command.kill()
    assert os.getpid() > 0
