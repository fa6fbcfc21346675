"""How a section's template is filled: whatever a model, a dataset or a person wrote is text, never markup."""

from __future__ import annotations

from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

_ENVIRONMENT = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)


def fill(template: str, **facts: Any) -> Markup:
    """The Jinja2 `template` with `facts` in it."""
    return Markup(_ENVIRONMENT.from_string(template).render(**facts))
