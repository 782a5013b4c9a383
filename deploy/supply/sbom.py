"""The software bill of materials of what is shipped, as CycloneDX 1.6 (JSON) on stdout.

    sbom.py --python SITE_PACKAGES [--only requirements-image.lock] --npm gui_v2/package-lock.json

Read from what is installed, so licences are those of the very versions; `Dockerfile.web` runs it
over the environment of the image (/app/sbom.json), `make sbom` over this clone's. Nothing but the
standard library is needed. No time and no random serial number: the same input gives the same
file, or an image could not be built twice alike. The base image (Debian, CPython) is not in it.
"""

from __future__ import annotations

import argparse
import base64
import json
import re
import sys
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

OURS = "ecan-web"

CLASSIFIERS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "ISC License (ISCL)": "ISC",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
}
"""Where a package tells its licence in the old way only."""

FREE_TEXT = {
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "MIT License": "MIT",
}

MIT_LENGTH = 1200
"""Characters of the MIT licence with a line of copyright; more would be another one besides."""


def normal(name: str) -> str:
    """A name as PyPI compares names."""
    return re.sub(r"[-_.]+", "-", name).lower()


def licence_of(one: metadata.Distribution) -> str | None:
    """The SPDX expression of a distribution; None when it does not say."""
    package = one.metadata
    if expression := package.get("License-Expression"):
        return str(expression)
    told = [
        CLASSIFIERS[line.rpartition(" :: ")[2]]
        for line in package.get_all("Classifier") or []
        if line.startswith("License ::") and line.rpartition(" :: ")[2] in CLASSIFIERS
    ]
    if told:
        return " AND ".join(sorted(set(told)))
    text = (package.get("License") or "").strip()
    text = FREE_TEXT.get(text, text)
    if re.fullmatch(r"[\w.+-]+(?: (?:AND|OR|WITH) [\w.+-]+)*", text):
        return text
    return by_text(one)


def by_text(one: metadata.Distribution) -> str | None:
    """MIT, if its one licence file is that text and no more."""
    files = [file for file in one.files or [] if re.match(r"LICEN[CS]E", file.name)]
    if len(files) != 1:
        return None
    words = " ".join(files[0].read_text("utf-8").split())
    found = re.fullmatch(
        r"(?:(?:The )?MIT License(?: \(MIT\))? )?(?:Copyright .{3,80}? )?"
        r"Permission is hereby granted, free of charge, to any person .*"
        r"THE SOFTWARE IS PROVIDED .AS IS.,.* OTHER DEALINGS IN THE SOFTWARE\.",
        words,
    )
    return "MIT" if found and len(words) < MIT_LENGTH else None


def component(kind: str, name: str, version: str, licence: str | None) -> dict[str, Any]:
    """One entry; its reference is its package URL."""
    quoted = quote(name, safe="/")
    purl = f"pkg:{kind}/{quoted.replace('@', '%40')}@{version}"
    made: dict[str, Any] = {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
    }
    if licence is not None:
        made["licenses"] = [{"expression": licence}]
    return made


def installed(folder: Path) -> dict[str, metadata.Distribution]:
    """What is installed there, by name; ours too."""
    return {normal(one.metadata["Name"]): one for one in metadata.distributions(path=[str(folder)])}


def python_part(
    found: dict[str, metadata.Distribution], only: set[str] | None
) -> tuple[list[Any], dict[str, list[str]]]:
    """Components of an environment, and what each of them needs."""
    found = {name: one for name, one in found.items() if name != OURS}
    if only is not None:
        found = {name: one for name, one in found.items() if name in only}
    parts = {
        name: component("pypi", name, one.version, licence_of(one))
        for name, one in sorted(found.items())
    }
    needs = {}
    for name, one in found.items():
        names = {normal(re.split(r"[^\w.-]", need, maxsplit=1)[0]) for need in one.requires or []}
        needs[parts[name]["bom-ref"]] = sorted(
            parts[other]["bom-ref"] for other in names & set(parts)
        )
    return list(parts.values()), needs


def npm_part(lock: Path) -> tuple[list[Any], dict[str, list[str]]]:
    """What the browser app is made of: all that its `dependencies` lead to, in the lock."""
    packages = json.loads(lock.read_text("utf-8"))["packages"]
    parts: dict[str, Any] = {}
    needs: dict[str, list[str]] = {}
    waiting = [nearest(packages, "", name) for name in packages[""].get("dependencies", {})]
    while waiting:
        path = waiting.pop()
        one = packages[path]
        made = npm_component(path, one)
        if made["bom-ref"] in parts:
            continue
        parts[made["bom-ref"]] = made
        inner = [nearest(packages, path, name) for name in one.get("dependencies", {})]
        waiting += inner
        refs = {npm_component(other, packages[other])["bom-ref"] for other in inner}
        needs[made["bom-ref"]] = sorted(refs)
    return sorted(parts.values(), key=lambda part: part["bom-ref"]), needs


def npm_component(path: str, one: dict[str, Any]) -> dict[str, Any]:
    """The entry of one package of the lock."""
    name = one.get("name") or path.rpartition("node_modules/")[2]
    made = component("npm", name, one["version"], one.get("license"))
    algorithm, _, digest = one.get("integrity", "").partition("-")
    if algorithm == "sha512":
        made["hashes"] = [{"alg": "SHA-512", "content": base64.b64decode(digest).hex()}]
    return made


def nearest(packages: dict[str, Any], path: str, name: str) -> str:
    """Where Node finds `name` from `path`: the folder itself, then those above it."""
    while path and f"{path}/node_modules/{name}" not in packages:
        path = path.rpartition("/node_modules/")[0]
    return f"{path}/node_modules/{name}".lstrip("/")


def document(
    version: str, parts: list[dict[str, Any]], needs: dict[str, list[str]]
) -> dict[str, Any]:
    """The whole, with us at its root."""
    root: dict[str, Any] = {
        "type": "application",
        "bom-ref": OURS,
        "name": OURS,
        "version": version,
    }
    root["licenses"] = [{"expression": "MIT"}]
    needed = {ref for names in needs.values() for ref in names}
    direct = sorted(part["bom-ref"] for part in parts if part["bom-ref"] not in needed)
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": root},
        "components": parts,
        "dependencies": [
            {"ref": OURS, "dependsOn": direct},
            *({"ref": ref, "dependsOn": names} for ref, names in sorted(needs.items())),
        ],
    }


def main(argv: list[str] | None = None) -> int:
    """Write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--python", type=Path, required=True, help="folder site-packages")
    parser.add_argument("--only", type=Path, help="a lock: nothing that is not in it")
    parser.add_argument("--npm", type=Path, required=True, help="package-lock.json")
    given = parser.parse_args(argv)
    only = None
    if given.only is not None:
        names = re.findall(r"^([\w.-]+)==", given.only.read_text("utf-8"), flags=re.MULTILINE)
        only = {normal(name) for name in names}
    found = installed(given.python)
    python, python_needs = python_part(found, only)
    npm, npm_needs = npm_part(given.npm)
    whole = document(found[OURS].version, python + npm, {**python_needs, **npm_needs})
    json.dump(whole, sys.stdout, indent=1)
    sys.stdout.write("\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
