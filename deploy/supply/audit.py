"""Known vulnerabilities of what is shipped: pip-audit over the image's lock, npm audit.

    audit.py [FOLDER OF pip-audit]

Exit code 0: asked, none known. 1: some are known, listed. 3: a service could not be asked,
which is not the same as none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
FOUND, NOT_ASKED = 1, 3


class NotAskedError(Exception):
    """The service did not answer; with what was said instead."""


def run(folder: Path, *words: str) -> tuple[Any, str]:
    """What a tool printed as JSON (None if it is none), and its errors."""
    done = subprocess.run(  # noqa: S603 - the two tools
        words, check=False, cwd=folder, capture_output=True, text=True
    )
    try:
        return json.loads(done.stdout), done.stderr
    except ValueError:
        return None, done.stderr


def audit_python() -> list[str]:
    """Known vulnerabilities of requirements-image.lock."""
    report, said = run(
        ROOT, "pip-audit", "--requirement", "requirements-image.lock", "--require-hashes",
        "--disable-pip", "--progress-spinner", "off", "--format", "json",
    )  # fmt: skip
    if report is None:
        raise NotAskedError(_last(said))
    packages = report["dependencies"]
    skipped = [package for package in packages if "skip_reason" in package]
    if skipped:  # pip-audit itself calls that a success
        raise NotAskedError(
            f"{len(skipped)} of {len(packages)} packages: {skipped[0]['skip_reason']}"
        )
    return [
        f"{package['name']} {package['version']}: {known['id']}"
        f" (mended in {', '.join(known['fix_versions']) or 'no version'})"
        for package in packages
        for known in package["vulns"]
    ]


def audit_npm() -> list[str]:
    """Known vulnerabilities of the packages in the browser app."""
    report, said = run(ROOT / "gui_v2", "npm", "audit", "--omit=dev", "--json")
    if report is None or "vulnerabilities" not in report:
        raise NotAskedError((report or {}).get("message") or _last(said))
    return [
        f"{name}: {known['severity']}, versions {known['range']}"
        for name, known in report["vulnerabilities"].items()
    ]


def _last(said: str) -> str:
    lines = said.strip().splitlines()
    return lines[-1] if lines else "no answer"


def main() -> int:
    """Ask both, whatever the first says."""
    if len(sys.argv) > 1:
        os.environ["PATH"] = f"{sys.argv[1]}{os.pathsep}{os.environ['PATH']}"
    code = 0
    for what, audit in (("Python packages", audit_python), ("npm packages", audit_npm)):
        try:
            known = audit()
        except (NotAskedError, FileNotFoundError) as error:
            print(f"audit: {what}: NOT ASKED: {error}", file=sys.stderr)  # noqa: T201
            code = code or NOT_ASKED
            continue
        print(f"audit: {what}: {len(known)} known vulnerabilities")  # noqa: T201
        for line in known:
            print(f"  {line}")  # noqa: T201
            code = FOUND
    return code


if __name__ == "__main__":
    sys.exit(main())
