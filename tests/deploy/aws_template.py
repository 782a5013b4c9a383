"""A resource of a CloudFormation template with its functions resolved, for what no emulator makes.

    python aws_template.py TEMPLATE RESOURCE NAME=VALUE... prints its Properties as JSON.

NAME is a parameter, a resource, or RESOURCE.ATTRIBUTE; a parameter that is not given has its
default. Run by the Python of `make deploy-tools`, which has YAML.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import yaml

ABSENT = object()


class Template(yaml.SafeLoader):
    """YAML with CloudFormation's short functions."""


def _function(loader: Template, name: str, node: yaml.Node) -> dict[str, Any]:
    if isinstance(node, yaml.ScalarNode):
        return {f"Fn::{name}": loader.construct_scalar(node)}
    return {f"Fn::{name}": loader.construct_sequence(node, deep=True)}


Template.add_multi_constructor("!", _function)


class Resolver:
    """Ref, Sub, GetAtt, If, Not, Equals."""

    def __init__(self, template: dict[str, Any], given: dict[str, str]) -> None:
        defaults = {
            name: str(one["Default"])
            for name, one in template["Parameters"].items()
            if "Default" in one
        }
        self.values = {**defaults, **given}
        self.conditions = template.get("Conditions", {})

    def __call__(self, value: Any) -> Any:
        if isinstance(value, list):
            return [made for one in value if (made := self(one)) is not ABSENT]
        if not isinstance(value, dict):
            return value
        if len(value) == 1 and (name := next(iter(value))).startswith("Fn::"):
            return getattr(self, name.removeprefix("Fn::"))(value[name])
        return {key: made for key, one in value.items() if (made := self(one)) is not ABSENT}

    def Ref(self, name: str) -> Any:  # noqa: N802 - AWS's name
        return ABSENT if name == "AWS::NoValue" else self.values[name]

    def GetAtt(self, name: str) -> str:  # noqa: N802
        return self.values[name]

    def Sub(self, text: str) -> str:  # noqa: N802
        return re.sub(r"\$\{([\w:.]+)\}", lambda found: self.values[found[1]], text)

    def If(self, words: list[Any]) -> Any:  # noqa: N802
        condition, yes, no = words
        return self(yes if self(self.conditions[condition]) else no)

    def Not(self, words: list[Any]) -> bool:  # noqa: N802
        return not self(words[0])

    def Equals(self, words: list[Any]) -> bool:  # noqa: N802
        return str(self(words[0])) == str(self(words[1]))


def main() -> None:
    path, name, *given = sys.argv[1:]
    template = yaml.load(Path(path).read_text("utf-8"), Template)  # noqa: S506 - a SafeLoader
    resolve = Resolver(template, dict(one.split("=", 1) for one in given))
    resource = template["Resources"][name]
    if "Condition" in resource and not resolve(template["Conditions"][resource["Condition"]]):
        print("null")
    else:
        print(json.dumps(resolve(resource["Properties"])))


if __name__ == "__main__":
    main()
