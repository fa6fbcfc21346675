"""Prints what an extra of pyproject.toml asks for, its extras' extras included: a list that pip takes with -r.

    python services/requirements.py pyproject.toml parser observability

An image's packages are installed from it before the code is there, so that a change of code installs none anew.
"""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path


def requirements(project: dict[str, object], extras: list[str]) -> list[str]:
    """The project's own dependencies and those of the extras, sorted. KeyError for an extra that is not there."""
    table = project["project"]
    assert isinstance(table, dict)
    found, todo, seen = set(table["dependencies"]), list(extras), set()
    while todo:
        extra = todo.pop()
        if extra in seen:
            continue
        seen.add(extra)
        for wanted in table["optional-dependencies"][extra]:
            own = re.fullmatch(rf"{table['name']}\[(.+)\]", wanted)
            if own:
                todo += own[1].split(",")
            else:
                found.add(wanted)
    return sorted(found)


if __name__ == "__main__":
    print("\n".join(requirements(tomllib.loads(Path(sys.argv[1]).read_text()), sys.argv[2:])))
