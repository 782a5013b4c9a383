"""Reading Google-style docstrings: the summary, and what is said of each field."""

from __future__ import annotations

import inspect
import re

_SECTION = re.compile(r"^(?:Args|Attributes):\s*$")
_FIELD = re.compile(r"^ {4}(\w+)(?: \([^)]*\))?: +(\S.*)$")


def summary_of(thing: object) -> str:
    """The first line of a docstring; empty if there is none of its own.

    >>> summary_of(summary_of)
    'The first line of a docstring; empty if there is none of its own.'
    """
    own = vars(thing).get("__doc__") if isinstance(thing, type) else inspect.getdoc(thing)
    return own.strip().splitlines()[0] if own and own.strip() else ""


def field_docs(class_: type) -> dict[str, str]:
    """What the ``Attributes:`` or ``Args:`` section says of each field."""
    docs: dict[str, str] = {}
    name = ""
    inside = False
    for line in inspect.cleandoc(vars(class_).get("__doc__") or "").splitlines():
        if _SECTION.match(line):
            inside = True
        elif line and not line.startswith(" "):
            inside = False
        elif inside and (match := _FIELD.match(line)):
            name = match[1]
            docs[name] = match[2]
        elif inside and name and line.strip():
            docs[name] += " " + line.strip()
    return docs
