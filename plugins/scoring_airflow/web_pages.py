"""What the pages look like: templates, the words for numbers, and the headers that keep a page harmless.

Pages are plain HTML with one inline style and one inline script, both named by a nonce; nothing else is loaded from
anywhere, and every value is escaped.
"""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Final

from fastapi import Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from scoring.notify.wording import count, percent
from scoring.throughput.wording import duration

TEMPLATES: Final = Path(__file__).parent / "templates"
HEADERS: Final = {
    "Cache-Control": "no-store",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
REPORT_POLICY: Final = (
    # An origin of its own: scripts of a report reach neither Airflow's session nor any server.
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; frame-ancestors 'self'"
)
"""Policy of kept reports: they are made from data, and Evidently's hold scripts."""

_environment: Final = Environment(
    loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)
_environment.filters.update(percent=percent, duration=duration, counted=count)


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """Return a page made from a template; `root` is where the app is mounted, `airflow` what is above it."""
    nonce = secrets.token_urlsafe(16)
    root = str(request.scope.get("root_path", ""))
    airflow = str(request.scope.get("app_root_path", ""))
    html = _environment.get_template(template).render(nonce=nonce, root=root, airflow=airflow, **values)
    policy = (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; frame-src 'self'; "
        "form-action 'self'; frame-ancestors 'self'; base-uri 'none'"
    )
    return HTMLResponse(html, status, headers={**HEADERS, "Content-Security-Policy": policy})


def kept(content: bytes, media_type: str) -> Response:
    """Return a kept report, shut off from everything around it."""
    return Response(content, media_type=media_type, headers={**HEADERS, "Content-Security-Policy": REPORT_POLICY})
