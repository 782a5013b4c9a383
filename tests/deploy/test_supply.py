"""What is shipped: the locks, the bill of materials, the licences, the audit."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import pytest

from ecan.testing.process import ROOT

SUPPLY = ROOT / "deploy" / "supply"
LOCKS = sorted(ROOT.glob("requirements*.lock"))
NPM_LOCK = ROOT / "gui_v2" / "package-lock.json"


def script(name, *words, cwd=ROOT, **env):
    return subprocess.run(
        [sys.executable, SUPPLY / name, *words],
        check=False,
        cwd=cwd,
        env=env or None,
        capture_output=True,
        text=True,
    )


# -- locks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_python_locks_have_hashes_and_no_address(lock):
    """Each requirement is one version with hashes; where it comes from is the reader's choice."""
    text = lock.read_text("utf-8")
    joined = text.replace("\\\n", "")
    lines = [line for line in joined.splitlines() if line.strip() and line.lstrip()[0] != "#"]
    assert lines
    for line in lines:
        assert re.match(r"[\w.-]+==[\w.+!]+ .*--hash=sha256:[0-9a-f]{64}", line), line
    assert not re.search(r"https?://|--(extra-)?index-url|--find-links|@ file:", text)


def test_the_npm_lock_has_hashes_and_no_address():
    """The same of package-lock.json."""
    packages = json.loads(NPM_LOCK.read_text("utf-8"))["packages"]
    of_others = {path: one for path, one in packages.items() if path}
    assert [path for path, one in of_others.items() if "integrity" not in one] == []
    assert [path for path, one in of_others.items() if "resolved" in one] == []


def test_what_is_shipped_is_pinned_as_it_is_tested():
    """The versions of the image's lock are those that the tests run with."""
    pins = {
        lock.name: dict(re.findall(r"^([\w.-]+)==(\S+)", lock.read_text(), flags=re.MULTILINE))
        for lock in LOCKS
    }
    image, dev = pins["requirements-image.lock"], pins["requirements-dev.lock"]
    assert {name: dev.get(name) for name in image} == image


# -- bill of materials ---------------------------------------------------------------------


@pytest.fixture(scope="module")
def sbom():
    (site_packages,) = {path for path in sys.path if path.endswith("site-packages")}
    words = ("--python", site_packages, "--only", "requirements-image.lock", "--npm", NPM_LOCK)
    first, second = script("sbom.py", *words), script("sbom.py", *words)
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == second.stdout
    return json.loads(first.stdout)


def test_the_bill_names_what_is_locked(sbom):
    """Every Python package of the image, at its version; the browser app's, without its tools."""
    refs = {part["purl"] for part in sbom["components"]}
    lock = (ROOT / "requirements-image.lock").read_text()
    pins: dict[str, set[str]] = {}  # of one package there may be two, for different Pythons
    for name, version in re.findall(r"^([\w.-]+)==(\S+)", lock, flags=re.MULTILINE):
        pins.setdefault(name, set()).add(f"pkg:pypi/{name}@{version}")
    assert pins
    assert [name for name, purls in pins.items() if not purls & refs] == []
    packages = json.loads(NPM_LOCK.read_text("utf-8"))["packages"]
    for name in packages[""]["dependencies"]:
        version = packages[f"node_modules/{name}"]["version"]
        assert f"pkg:npm/{name.replace('@', '%40')}@{version}" in refs
    assert not any(part["name"] in ("vite", "vitest", "typescript") for part in sbom["components"])


def test_the_bill_hangs_together(sbom):
    """Unique references, and every dependency leads to one; all can be reached from us."""
    refs = [part["bom-ref"] for part in sbom["components"]]
    assert len(refs) == len(set(refs))
    needs = {one["ref"]: one["dependsOn"] for one in sbom["dependencies"]}
    reached, waiting = set(), ["ecan-web"]
    while waiting:
        ref = waiting.pop()
        if ref not in reached:
            reached.add(ref)
            waiting += needs[ref]
    assert reached == {"ecan-web", *refs}


# -- licences ------------------------------------------------------------------------------


def bill(tmp_path, *licences):
    parts = [
        {
            "name": f"part-{number}",
            "version": "1",
            "purl": f"pkg:pypi/part-{number}@1",
            **({"licenses": [{"expression": licence}]} if licence else {}),
        }
        for number, licence in enumerate(licences)
    ]
    path = tmp_path / "sbom.json"
    path.write_text(json.dumps({"components": parts}))
    return path


def test_licences_of_what_is_shipped_are_allowed(sbom, tmp_path):
    """All known, all on the list."""
    path = tmp_path / "sbom.json"
    path.write_text(json.dumps(sbom))
    done = script("licences.py", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == len(sbom["components"])


def test_a_licence_that_is_not_allowed(tmp_path):
    """Or that nobody told: exit code 1 and its name."""
    done = script("licences.py", bill(tmp_path, "MIT", "AGPL-3.0-only", None, "GPL-3.0 OR MIT"))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "licences: not on the list: pkg:pypi/part-1@1: AGPL-3.0-only",
        "licences: not on the list: pkg:pypi/part-2@1: not known",
    ]


@pytest.mark.parametrize(
    ("expression", "good"),
    [
        ("MIT", True),
        ("MIT OR GPL-2.0", True),
        ("GPL-2.0 OR MIT AND GPL-2.0", False),
        ("MIT AND GPL-2.0", False),
        ("MPL-2.0 AND (Apache-2.0 OR GPL-2.0)", True),
        ("(MIT", False),
        ("MIT)", False),
        ("MIT AND", False),
        ("", False),
    ],
)
def test_expressions(tmp_path, expression, good):
    """SPDX: AND binds closer than OR; what is no expression is not allowed."""
    assert (script("licences.py", bill(tmp_path, expression)).returncode == 0) is good


# -- audit ---------------------------------------------------------------------------------

CLEAN_PYTHON = {"dependencies": [{"name": "attrs", "version": "1", "vulns": []}]}
VULNERABLE = {"id": "PYSEC-1", "fix_versions": ["2"]}
VULNERABLE_PYTHON = {"dependencies": [{"name": "attrs", "version": "1", "vulns": [VULNERABLE]}]}
UNKNOWN_PYTHON = {"dependencies": [{"name": "attrs", "version": "1", "skip_reason": "not found"}]}
CLEAN_NPM = {"vulnerabilities": {}}
VULNERABLE_NPM = {"vulnerabilities": {"react": {"severity": "high", "range": "<20"}}}
REFUSED_NPM = {"message": "405 Method Not Allowed"}


@pytest.mark.parametrize(
    ("python", "npm", "code", "said"),
    [
        (CLEAN_PYTHON, CLEAN_NPM, 0, "Python packages: 0 known"),
        (VULNERABLE_PYTHON, CLEAN_NPM, 1, "attrs 1: PYSEC-1 (mended in 2)"),
        (CLEAN_PYTHON, VULNERABLE_NPM, 1, "react: high, versions <20"),
        (UNKNOWN_PYTHON, CLEAN_NPM, 3, "NOT ASKED: 1 of 1 packages: not found"),
        (CLEAN_PYTHON, REFUSED_NPM, 3, "NOT ASKED: 405 Method Not Allowed"),
        (None, None, 3, "Python packages: NOT ASKED: no route"),
        (UNKNOWN_PYTHON, VULNERABLE_NPM, 1, "react: high"),
        (VULNERABLE_PYTHON, REFUSED_NPM, 1, "attrs 1: PYSEC-1"),
    ],
)
def test_an_audit_that_could_not_ask_is_no_clean_one(tmp_path, python, npm, code, said):
    """0 none known, 1 some are, 3 nobody answered; pip-audit itself calls the last a success."""
    for name, report in (("pip-audit", python), ("npm", npm)):
        answer = "echo no route >&2" if report is None else f"echo '{json.dumps(report)}'"
        (tmp_path / name).write_text(f"#!/bin/sh\n{answer}\n")
        (tmp_path / name).chmod(0o755)
    done = script("audit.py", str(tmp_path), PATH="/usr/bin:/bin")
    assert done.returncode == code, done.stdout + done.stderr
    assert said in done.stdout + done.stderr


def test_an_audit_without_its_tools(tmp_path):
    """Not asked."""
    done = script("audit.py", PATH=str(tmp_path))
    assert done.returncode == 3
    assert done.stderr.count("NOT ASKED") == 2
