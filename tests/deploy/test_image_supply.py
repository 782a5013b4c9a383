"""What is in the image: no secret in any layer, and a bill of what is there. `make image-test`."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tarfile

import pytest

from ecan.testing.process import ROOT
from tests.deploy.blocks import committed_files
from tests.deploy.engine import BUILD_ARGS, Engine

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

MARK = "zq8-no-image-may-have-this"
PLANTED = (
    ".env",
    ".env.production",
    "data/sessions.sqlite3",
    "deploy/docker/.env",
    "deploy/secrets/admin_password",
    "deploy/tls/key.pem",
    "ecan/.env",
    "gui_v2/.env",
    "gui_v2/.env.local",
    "gui_v2/.env.production",
    "id_ed25519",
    ".npmrc",
    ".git/config",
)
"""Where a clone that is in use has secrets."""

LOOKS_SECRET = re.compile(
    rb"-----BEGIN (?:[A-Z]+ )?PRIVATE KEY-----\s+[A-Za-z0-9+/]{40}"
    rb"|\bAKIA[0-9A-Z]{16}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bnpm_[A-Za-z0-9]{36}\b|_authToken"
)
SECRET_NAMES = re.compile(
    r"(^|/)(\.env(\..+)?|\.netrc|\.npmrc|\.pypirc|pip\.conf|\.git|id_(rsa|ed25519)|admin_password"
    r"|[^/]+\.sqlite3?|[^/]+\.key)$"
)


def layers_over_base(docker: Engine, image, folder):
    """(layer, path, content) of every file of every layer that is not of the base image."""
    (base,) = json.loads(docker("image", "inspect", BUILD_ARGS["PYTHON_IMAGE"]).stdout)
    below = len(base["RootFS"]["Layers"])
    archive = folder / "image.tar"
    docker("save", "--format", "docker-archive", "-o", str(archive), image, timeout_s=300)
    with tarfile.open(archive) as outer:
        (manifest,) = json.load(outer.extractfile("manifest.json"))
        for name in manifest["Layers"][below:]:
            with tarfile.open(fileobj=outer.extractfile(name)) as layer:
                for entry in layer:
                    content = layer.extractfile(entry).read() if entry.isreg() else b""
                    yield name, entry.name, content
        config = outer.extractfile(manifest["Config"]).read()
        yield "configuration and history", "", config
    archive.unlink()


def test_no_secret_of_the_clone_gets_into_a_layer(docker, tmp_path):
    """Built in a clone full of secrets: no layer, history or variable has any of them."""
    clone = tmp_path / "clone"
    committed_files(clone)
    for name in PLANTED:
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_text(f"VITE_SECRET={MARK}\n")
    bases = [f"--build-arg={name}={BUILD_ARGS[name]}" for name in ("PYTHON_IMAGE", "NODE_IMAGE")]
    docker(
        "build", "--pull=never", *bases, "-f", str(clone / "Dockerfile.web"), "-t", "planted", str(clone),
        timeout_s=600,
    )  # fmt: skip
    files = 0
    found = []
    for layer, path, content in layers_over_base(docker, "localhost/planted", tmp_path):
        files += 1
        if MARK.encode() in content or LOOKS_SECRET.search(content) or SECRET_NAMES.search(path):
            found.append((layer[:12], path))
    docker("rmi", "--force", "localhost/planted")
    assert files > 2000
    assert found == []


def test_the_search_finds_what_it_looks_for(docker, tmp_path):
    """A secret that a later layer removes is found too, by name and by content."""
    (tmp_path / "Dockerfile").write_text(
        "FROM localhost/ecan-web\nUSER root\n"
        f"RUN echo {MARK} >/app/.env && echo {MARK} >/app/plain\nRUN rm /app/.env /app/plain\n"
    )
    docker("build", "--pull=never", "--layers", "-t", "leaky", str(tmp_path), timeout_s=300)
    found = {
        path
        for _, path, content in layers_over_base(docker, "localhost/leaky", tmp_path)
        if MARK.encode() in content or SECRET_NAMES.search(path)
    }
    docker("rmi", "--force", "localhost/leaky")
    assert {"app/.env", "app/plain", ""} <= found


def test_nothing_is_said_of_secrets_by_the_image(docker):
    """No variable or step of the build names one; the settings that are set are these."""
    (image,) = json.loads(docker("image", "inspect", "ecan-web").stdout)
    names = {entry.partition("=")[0] for entry in image["Config"]["Env"]}
    assert {name for name in names if name.startswith("ECAN_")} == {"ECAN_MODE", "ECAN_DATA_DIR"}
    history = docker("history", "--no-trunc", "ecan-web").stdout
    assert not re.search(r"(?i)password|secret|token", history + " ".join(names))


def test_the_bill_in_the_image_is_what_is_installed(docker, tmp_path):
    """/app/sbom.json names each distribution of the environment, and no other; all may be."""
    bill = docker("run", "--rm", "ecan-web", "cat", "/app/sbom.json").stdout
    parts = json.loads(bill)["components"]
    script = (
        "import importlib.metadata as m, json, re;"
        "print(json.dumps({re.sub('[-_.]+', '-', d.metadata['Name']).lower(): d.version"
        " for d in m.distributions(path=['/opt/ecan/lib/python3.13/site-packages'])}))"
    )
    installed = json.loads(docker("run", "--rm", "ecan-web", "python", "-c", script).stdout)
    del installed["ecan-web"]
    python = {p["name"]: p["version"] for p in parts if p["purl"].startswith("pkg:pypi/")}
    assert python == installed
    # What the build found in the browser app, with the texts of the licences.
    licences = docker("run", "--rm", "ecan-web", "cat", "/app/gui_v2/dist/licences.md").stdout
    bundled = set(re.findall(r"^## (\S+) - (\S+) \(", licences, flags=re.MULTILINE))
    npm = {(p["name"], p["version"]) for p in parts if p["purl"].startswith("pkg:npm/")}
    assert len(bundled) > 30
    assert bundled <= npm

    (tmp_path / "sbom.json").write_text(bill)
    words = [sys.executable, ROOT / "deploy" / "supply" / "licences.py", tmp_path / "sbom.json"]
    done = subprocess.run(words, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
