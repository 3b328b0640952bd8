"""The frame of the pages that people read: self-contained HTML without scripts, every value escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any


def render(template: str, *, facts: Mapping[str, str], filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """Return a page.

    Args:
        template: path of an HTML template within this package, which extends `page.html`.
        facts: what is shown under the headline; `Deployment` and `Partition` stand in the title, too.
        filters: what the template calls, by name.
        values: what the template shows.
    """
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("scoring", ""),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(facts=facts, **values)
