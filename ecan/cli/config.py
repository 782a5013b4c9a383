# ruff: noqa: T201 - a command line prints
"""``ecan config``: what a server with this environment would do."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import attrs
import cyclopts

from ecan.config import check_environment, env_example

EXIT_CONFIG = 2

app = cyclopts.App(name="config", help="Settings: check them, or print a file of them to fill in.")


@app.command
def check(
    *,
    as_json: Annotated[
        bool, cyclopts.Parameter(name="--json", negative="", help="For scripts.")
    ] = False,
) -> int:
    """Print every setting, where it comes from, and what is wrong; exit code 2 if anything is."""
    rows, findings = check_environment()
    problems = [finding for finding in findings if finding.level == "problem"]
    if as_json:
        print(
            json.dumps(
                {
                    "settings": [attrs.asdict(row) for row in rows],
                    "findings": [attrs.asdict(finding) for finding in findings],
                },
                indent=2,
            )
        )
    else:
        lines = [("VARIABLE", "VALUE", "FROM")]
        lines += [(row.name, row.value or row.default, row.source) for row in rows]
        widths = [max(len(line[column]) for line in lines) for column in range(2)]
        for name, value, source in lines:
            print(f"{name:{widths[0]}}  {value:{widths[1]}}  {source}")
        for finding in findings:
            where = sys.stderr if finding.level == "problem" else sys.stdout
            print(f"{finding.level}: {finding.name}: {finding.text}", file=where)
    return EXIT_CONFIG if problems else 0


@app.command
def example() -> None:
    """Print .env.example: every setting with its default, commented out."""
    print(env_example(), end="")
