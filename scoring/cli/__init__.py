"""The command line: parse, call the library, print. Results on stdout, progress and summary on stderr."""

from __future__ import annotations

from scoring.cli.app import app

__all__ = ["app"]
