"""The licences of what is shipped, from an SBOM, and whether each may be.

    licences.py build/sbom.json

Prints a table; exit code 1 when a licence is not on the list below or is not known.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ALLOWED = frozenset(
    {
        "0BSD",
        "any-OSI",  # apsw: whichever licence approved by the OSI one likes
        "Apache-2.0",
        "BSD-2-Clause",
        "BSD-3-Clause",
        "ISC",
        "MIT",
        "MIT-0",
        "MPL-2.0",  # of files: ours stay ours as long as theirs are not changed
        "PSF-2.0",
    }
)


def allowed(expression: str) -> bool:
    """Whether an SPDX expression can be met by the list: one side of OR, both of AND.

    >>> allowed("MIT"), allowed("GPL-3.0-only OR MIT"), allowed("MIT AND GPL-3.0-only")
    (True, True, False)
    >>> allowed("MPL-2.0 AND (Apache-2.0 OR MIT)"), allowed("(MIT"), allowed("")
    (True, False, False)
    """
    tokens = re.findall(r"[()]|[^\s()]+", expression)

    def either() -> bool:
        good = both()
        while tokens and tokens[0] == "OR":
            tokens.pop(0)
            good = both() or good
        return good

    def both() -> bool:
        good = one()
        while tokens and tokens[0] == "AND":
            tokens.pop(0)
            good = one() and good
        return good

    def one() -> bool:
        if not tokens:
            return False
        token = tokens.pop(0)
        if token != "(":  # noqa: S105 - of an expression
            return token in ALLOWED
        good = either()
        return bool(tokens) and tokens.pop(0) == ")" and good

    return either() and not tokens


def main() -> int:
    """Print and judge."""
    parts = json.loads(Path(sys.argv[1]).read_text("utf-8"))["components"]
    refused = []
    for part in parts:
        told = " AND ".join(one["expression"] for one in part.get("licenses", []))
        print(f"{part['name']:<45} {part['version']:<12} {told or 'not known'}")  # noqa: T201
        if not allowed(told):
            refused.append(f"{part['purl']}: {told or 'not known'}")
    for line in refused:
        print(f"licences: not on the list: {line}", file=sys.stderr)  # noqa: T201
    return 1 if refused else 0


if __name__ == "__main__":
    sys.exit(main())
