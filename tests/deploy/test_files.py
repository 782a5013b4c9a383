"""Files that no test runs are read by the validators of what reads them. `make deploy-check`."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess

import pytest

from ecan.testing.process import ROOT
from tests.deploy.aws import AWS, run, tool
from tests.deploy.blocks import committed_files

pytestmark = [pytest.mark.aws, pytest.mark.timeout(300)]


def test_compose_fits_its_schema():
    """The schema of the compose specification."""
    run(
        tool("check-jsonschema"),
        "--builtin-schema",
        "vendor.compose-spec",
        "docker-compose.web.yml",
    )


def test_systemd_units(tmp_path):
    """`systemd-analyze verify` finds only the program missing, which is not installed here."""
    assert shutil.which("systemd-analyze"), "systemd-analyze is missing: apt-get install systemd"
    here = tmp_path / "ecan"
    here.write_text("#!/bin/sh\n")
    here.chmod(0o755)
    units = []
    for unit in (ROOT / "deploy" / "systemd").iterdir():
        copy = tmp_path / unit.name
        copy.write_text(unit.read_text().replace("/opt/ecan/venv/bin/ecan", str(here)))
        units.append(copy)
    done = subprocess.run(
        ["systemd-analyze", "verify", *units], check=False, capture_output=True, text=True
    )
    said = [line for line in done.stderr.splitlines() if str(tmp_path) in line or "ecan-" in line]
    assert said == []


def test_systemd_waits_longer_than_a_drain():
    """TimeoutStopSec is above ECAN_DRAIN_TIMEOUT, or systemd kills what should finish."""
    unit = (ROOT / "deploy" / "systemd" / "ecan-web.service").read_text()
    assert int(re.search(r"^TimeoutStopSec=(\d+)$", unit, flags=re.MULTILINE)[1]) > 25 + 5


def test_the_task_definitions_agree():
    """The JSON for `aws ecs` and the one in the template run the container in the same way."""
    task = json.loads((AWS / "ecs-task-definition.json").read_text())
    (container,) = task["containerDefinitions"]
    template = (AWS / "ecan-web.cfn.yml").read_text()
    settings = {entry["name"]: entry["value"] for entry in container["environment"]}
    assert container["stopTimeout"] > float(settings["ECAN_DRAIN_TIMEOUT"].removesuffix("s")) + 10
    assert f"StopTimeout: {container['stopTimeout']}" in template
    assert f"ECAN_DRAIN_TIMEOUT, Value: {settings['ECAN_DRAIN_TIMEOUT']}" in template
    assert "ECAN_ADMIN_PASSWORD" not in settings
    assert [entry["name"] for entry in container["secrets"]] == ["ECAN_ADMIN_PASSWORD"]


def test_amplify(tmp_path):
    """Its commands, in one shell, in a clean copy of what is committed, make the site."""
    committed_files(tmp_path, "gui_v2")
    text = (ROOT / "amplify.yml").read_text()
    commands = re.findall(r"^ +- (npm .+)$", text, flags=re.MULTILINE)
    assert len(commands) == 2
    env = {**os.environ, "VITE_WS_URL": "wss://api.example.com/ws"}
    done = subprocess.run(
        ["sh", "-ec", "\n".join(commands)],
        check=False,
        cwd=tmp_path / "gui_v2",
        env=env,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "gui_v2" / "dist" / "index.html").exists()
    scripts = (tmp_path / "gui_v2" / "dist" / "assets").glob("*.js")
    assert any("wss://api.example.com/ws" in script.read_text() for script in scripts)
    # What it is made of goes with it, as its licences ask for: names, versions, their texts.
    licences = (tmp_path / "gui_v2" / "dist" / "licences.md").read_text()
    for name in ("react", "react-dom", "antd", "i18next"):
        assert re.search(rf"^## {name} - [\d.]+ \(MIT\)$", licences, flags=re.MULTILINE), name
    assert "Permission is hereby granted, free of charge" in licences


def test_dockerfiles():
    """hadolint has nothing to say."""
    assert run(tool("hadolint"), "Dockerfile.web", "deploy/nginx/Dockerfile") == ""


def test_nginx_configuration(tmp_path):
    """gixy has nothing to say, but for two checks with a reason."""
    env = {**os.environ, "NGINX_CERT": "/etc/ssl/a.pem", "NGINX_KEY": "/etc/ssl/a.key"}
    config = tmp_path / "nginx.conf"
    config.write_text(run("deploy/nginx/render.sh", env=env))
    skipped = [
        "host_spoofing",  # the server compares it with Origin, and both have the port
        "try_files_is_evil_too",  # a few small files; open_file_cache would serve old ones
    ]
    said = json.loads(run(tool("gixy"), "-f", "json", "--skips", ",".join(skipped), config))
    assert said == []


def test_the_bill_of_materials_fits_its_schema():
    """The schema of CycloneDX 1.6, strict."""
    bill = run("make", "--silent", "sbom") or (ROOT / "build" / "sbom.json").read_text()
    script = (
        "import sys; from cyclonedx.schema import SchemaVersion;"
        "from cyclonedx.validation.json import JsonStrictValidator;"
        "print(JsonStrictValidator(SchemaVersion.V1_6).validate_str(sys.stdin.read()))"
    )
    assert run(tool("python"), "-c", script, input=bill) == "None\n"
