"""What `make` needs before anything else can run: a virtual environment, a Java for Spark, tools for tests.

Runs on a bare Python, so it uses the standard library only.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
VENV = ROOT / ".venv"
STAMP = VENV / ".installed"
LOG = VENV / "install.log"
EXTRAS = "all,dev"
PYTHON_VERSIONS = ((3, 11), (3, 12))
JAVA_PACKAGES = ("openjdk-17-jre-headless", "openjdk-21-jre-headless")
TEST_TOOLS = {
    "chromium": ("chromium",),
    "chromedriver": ("chromium-driver", "chromium-chromedriver"),
    "docker-compose": ("docker-compose",),
}
"""Command to the packages that have it, in order of preference."""
TEST_EXTRA = "frameworks"
TEST_MODULES = ("catboost", "keras", "lightgbm", "onnx", "onnxruntime", "skl2onnx", "tensorflow")
"""What the extra installs."""
BENCH_EXTRA = "bench"
BENCH_MODULES = ("ray",)
"""What the extra installs."""
SILENCE_S = 10.0
"""At most this long without a line while pip works."""


class SetupError(Exception):
    """One sentence for the person at the terminal."""


def say(text: str) -> None:
    """Print a progress line."""
    print(text, file=sys.stderr, flush=True)


# ------------------------------------------------------------------------------------------------------------- venv


def check_python(version: tuple[int, int]) -> None:
    """Refuse a Python that the pinned set was not made for."""
    if version not in PYTHON_VERSIONS:
        raise SetupError(
            f"Python {version[0]}.{version[1]} cannot be used: expected 3.11 or 3.12. "
            "Install one of them and run `make PYTHON=/path/to/python3.11 ...`."
        )


def create_venv() -> None:
    """Create `.venv` and install the project into it, editable, with the tested versions."""
    check_python((sys.version_info[0], sys.version_info[1]))
    started = time.monotonic()
    if not (VENV / "bin" / "python").exists():
        try:
            import ensurepip  # noqa: F401 - Debian keeps it in a package of its own
        except ImportError:
            need_packages((f"python3.{sys.version_info[1]}-venv",), "Python's venv module")
        say("creating .venv")
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    say(f"installing into .venv, pinned by constraints.txt (minutes the first time; pip's own words: {LOG})")
    install(EXTRAS, started)
    STAMP.touch()
    say(f"{seconds(started)} .venv is ready")


def install(extras: str, started: float) -> None:
    """Install the project with some of its extras into `.venv`, pinned by `constraints.txt`."""
    # Python compiles a module when it is first imported; pip would compile thousands that never are, for a minute.
    command = [str(VENV / "bin" / "python"), "-m", "pip", "install", "--progress-bar", "off", "--no-compile"]
    command += ["--editable", f"{ROOT}[{extras}]", "--constraint", str(ROOT / "constraints.txt")]
    if run_pip(command, started) != 0:
        tail = "\n".join(LOG.read_text(errors="replace").splitlines()[-15:])
        raise SetupError(f"pip could not install the project with {extras!r}. Its last lines:\n{tail}")


class PipProgress:
    """What pip is doing, from the lines it prints."""

    def __init__(self) -> None:
        self.resolved = 0
        self.now = "starting"

    def read(self, line: str) -> None:
        """Take one line of pip's output."""
        if found := re.match(r"\s*(Collecting|Requirement already satisfied:) ([A-Za-z0-9._-]+)", line):
            self.resolved += found[1] == "Collecting"
            self.now = f"resolving: {found[2]}" + (f" ({self.resolved} packages so far)" if self.resolved else "")
        elif found := re.match(r"\s*Downloading (\S+?)(-\S+)? (\([\d.]+ [kMG]B\))", line):
            self.now = f"downloading {Path(found[1]).name} {found[3]} (package {self.resolved})"
        elif found := re.match(r"Installing collected packages: (.+)", line):
            self.now = f"unpacking {found[1].count(',') + 1} packages"

    def line(self) -> str:
        """Return what to show now."""
        if not self.now.startswith("unpacking"):
            return self.now
        # pip says nothing until the end; each unpacked package leaves a folder.
        return f"{self.now}, {sum(1 for _ in VENV.glob('lib/*/site-packages/*.dist-info'))} are there"


def run_pip(command: list[str], started: float) -> int:
    """Run pip with its words in a log and a short line on the terminal whenever it goes on, else every 10 s."""
    progress = PipProgress()

    def follow(process: subprocess.Popen[str]) -> None:
        with LOG.open("w", encoding="utf-8") as log:
            for line in process.stdout or ():
                log.write(line)
                log.flush()
                progress.read(line)

    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        reader = threading.Thread(target=follow, args=(process,))
        reader.start()
        last_said = time.monotonic()
        while reader.is_alive():
            reader.join(timeout=0.5)
            if time.monotonic() - last_said >= SILENCE_S:
                say(f"{seconds(started)} {progress.line()}")
                last_said = time.monotonic()
        return process.wait()


def seconds(started: float) -> str:
    """Return the time since `started` as `[ 12 s]`."""
    return f"[{time.monotonic() - started:3.0f} s]"


# ---------------------------------------------------------------------------------------------------- Java and tools


def ensure_java() -> None:
    """Make sure that there is a Java that Spark can use."""
    sys.path.insert(0, str(ROOT))
    from scoring import java

    if java.find() is not None:
        return
    if not can_install():
        raise SetupError(java.missing())
    install_one_of(JAVA_PACKAGES, "Java for Spark")
    if java.find() is None:
        raise SetupError(java.missing())


def ensure_test_tools() -> None:
    """Install what only tests need; without them the tests concerned are skipped with a reason."""
    for tool, packages in TEST_TOOLS.items():
        if shutil.which(tool):
            continue
        if can_install():
            try:
                install_one_of(packages, f"{tool} for tests")
            except SetupError as error:
                say(f"{error} Tests that need {tool} are skipped.")
        else:
            say(f"{tool} was not found: tests that need it are skipped. Install the package {packages[0]}.")
    ensure_extra(TEST_EXTRA, TEST_MODULES, purpose="tests")


def ensure_bench_tools() -> None:
    """Install what only benchmarks need; without it the way concerned fails, and the others are measured."""
    ensure_extra(BENCH_EXTRA, BENCH_MODULES, purpose="benchmarks")


def ensure_extra(extra: str, modules: tuple[str, ...], *, purpose: str) -> None:
    """Install an extra of ours unless all its modules are there; a failure is said and stops nothing."""
    missing = [module for module in modules if importlib.util.find_spec(module) is None]
    if not missing:
        return
    say(f"{' and '.join(missing)} for {purpose} was not found: installing the extra {extra!r}")
    try:
        install(extra, time.monotonic())
    except SetupError as error:
        say(str(error))


def can_install() -> bool:
    """Return whether this is root on a Debian or Ubuntu."""
    return platform.system() == "Linux" and os.geteuid() == 0 and shutil.which("apt-get") is not None


def need_packages(packages: tuple[str, ...], what: str) -> None:
    """Install distribution packages, or say which ones to install."""
    if not can_install():
        raise SetupError(f"{what} was not found. Install the package {packages[0]}.")
    install_one_of(packages, what)


def install_one_of(packages: tuple[str, ...], what: str) -> None:
    """Install the first of `packages` that the distribution has."""
    say(f"{what} was not found: installing {packages[0]} from the distribution")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run(["apt-get", "update", "-qq"], check=False, **quiet)  # type: ignore[call-overload]
    for package in packages:
        command = ["apt-get", "install", "-y", "-qq", "--no-install-recommends", package]
        if subprocess.run(command, check=False, **quiet).returncode == 0:  # type: ignore[call-overload]
            return
    raise SetupError(f"{what} was not found, and apt-get could not install {' or '.join(packages)}.")


def main(arguments: list[str]) -> int:
    """Run the wanted parts; 2 with one sentence where something is missing."""
    parts = {
        "venv": create_venv,
        "java": ensure_java,
        "test-tools": ensure_test_tools,
        "bench-tools": ensure_bench_tools,
    }
    try:
        for name in arguments:
            parts[name]()
    except SetupError as error:
        say(str(error))
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
