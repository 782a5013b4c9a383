"""Reads a call's input against AWS's own model of it: python aws_model.py SERVICE OPERATION <input.

The input is YAML or JSON. botocore's ParamValidator knows names, types, what is required and the
least lengths; the enumerations, patterns and greatest lengths of the model are looked at here.
Run by the Python of `make deploy-tools`, which has botocore; prints what is wrong, if anything.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

import botocore.session
import yaml
from botocore.validate import ParamValidator


def beyond(value: Any, shape: Any, path: str) -> Iterator[str]:
    """What ParamValidator does not look at."""
    if shape.type_name == "structure":
        for name, inner in (value or {}).items():
            yield from beyond(inner, shape.members[name], f"{path}.{name}")
    elif shape.type_name == "list":
        for number, inner in enumerate(value):
            yield from beyond(inner, shape.member, f"{path}[{number}]")
    elif shape.type_name == "map":
        for name, inner in value.items():
            yield from beyond(name, shape.key, f"{path} key {name}")
            yield from beyond(inner, shape.value, f"{path}.{name}")
    elif shape.type_name == "string":
        pattern = shape.metadata.get("pattern")
        if shape.enum and value not in shape.enum:
            yield f"{path}: {value!r} is none of {shape.enum}"
        if pattern and not re.fullmatch(pattern, value):
            yield f"{path}: {value!r} does not match {pattern}"
        if len(value) > shape.metadata.get("max", len(value)):
            yield f"{path}: longer than {shape.metadata['max']}"
    elif shape.type_name in ("integer", "long") and value > shape.metadata.get("max", value):
        yield f"{path}: above {shape.metadata['max']}"


def main() -> int:
    service, operation = sys.argv[1:]
    model = botocore.session.Session().get_service_model(service)
    shape = model.operation_model(operation).input_shape
    given = yaml.safe_load(sys.stdin)
    report = ParamValidator().validate(given, shape)
    wrong = (
        [report.generate_report()] if report.has_errors() else list(beyond(given, shape, "input"))
    )
    print("\n".join(wrong))
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
