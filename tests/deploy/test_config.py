"""`ecan config`, secrets by file, and the example files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys

import pytest

from ecan.config import Settings, check, env_example
from ecan.errors import ConfigError
from ecan.testing.process import ROOT
from tests.deploy.site import self_signed

SECRET = "correct horse battery"


def config(folder, *words, **settings):
    """``ecan config WORDS`` in a folder."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("ECAN_")}
    return subprocess.run(
        [sys.executable, "-m", "ecan", "config", *words],
        check=False,
        cwd=folder,
        env={**env, "PYTHONPATH": str(ROOT), **settings},
        capture_output=True,
        text=True,
    )


def problems(**environ):
    return {
        finding.name: finding.text for finding in check(environ)[1] if finding.level == "problem"
    }


def notes(**environ):
    return {finding.name for finding in check(environ)[1] if finding.level == "note"}


# -- secrets by file -----------------------------------------------------------------------


@pytest.mark.parametrize("end", ["", "\n", "\r\n"])
def test_the_first_password_may_come_from_a_file(tmp_path, end):
    """One newline at its end, which editors and `echo` write, is not part of it."""
    file = tmp_path / "password"
    file.write_bytes(f" {SECRET} {end}".encode())
    settings = Settings.from_env({"ECAN_ADMIN_PASSWORD_FILE": str(file)})
    assert settings.admin_password == f" {SECRET} "
    assert settings.unknown == ()


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file"),
        (b"", "it is empty"),
        (b"\n", "it is empty"),
        (b"\xff\xfe", "it is not UTF-8 text"),
        (b"x" * 70_000, "it has more than 65536 bytes"),
    ],
)
def test_a_secret_file_that_cannot_be_used(tmp_path, content, words):
    """The variable and the file are named, its content is not."""
    file = tmp_path / "password"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ConfigError) as error:
        Settings.from_env({"ECAN_ADMIN_PASSWORD_FILE": str(file)})
    assert error.value.name == "ECAN_ADMIN_PASSWORD_FILE"
    assert words in str(error.value)


def test_a_secret_both_ways_is_refused(tmp_path):
    """Nobody has to guess which one counts."""
    both = {"ECAN_ADMIN_PASSWORD": SECRET, "ECAN_ADMIN_PASSWORD_FILE": str(tmp_path)}
    with pytest.raises(ConfigError, match="ECAN_ADMIN_PASSWORD is set too"):
        Settings.from_env(both)


def test_a_secret_in_a_file_is_checked_and_not_shown(tmp_path):
    """What is wrong with it is said without it."""
    file = tmp_path / "password"
    file.write_text("x" * 2000)
    found = problems(ECAN_ADMIN_PASSWORD_FILE=str(file))
    assert list(found) == ["ECAN_ADMIN_PASSWORD"]
    assert "xxx" not in str(found)


# -- ecan config check ---------------------------------------------------------------------


def test_every_setting_and_where_it_comes_from(tmp_path):
    """Default, environment, file; secrets are hidden; exit code 0."""
    (tmp_path / "password").write_text(SECRET)
    settings = {"ECAN_WS_PORT": "9000", "ECAN_ADMIN_PASSWORD_FILE": str(tmp_path / "password")}
    done = config(tmp_path, "check", "--json", **settings)
    assert (done.returncode, done.stderr) == (0, "")
    said = json.loads(done.stdout)
    rows = {row["name"]: (row["value"], row["source"]) for row in said["settings"]}
    assert rows["ECAN_WS_PORT"] == ("9000", "environment")
    assert rows["ECAN_ADMIN_PASSWORD"] == ("[hidden]", "file")
    assert rows["ECAN_DRAIN_TIMEOUT"] == ("25s", "default")
    assert rows["ECAN_ADMIN_SOCKET"][0] == "data/admin.sock"
    assert said["findings"] == []
    assert SECRET not in done.stdout

    shown = config(tmp_path, "check", **settings).stdout
    assert re.search(r"^ECAN_WS_PORT +9000 +environment$", shown, flags=re.MULTILINE)
    assert len(shown.splitlines()) == 1 + len(rows)


def test_everything_that_is_wrong_is_said_at_once(tmp_path):
    """Bad values, misspelt names, missing halves: one line each on stderr, exit code 2."""
    done = config(
        tmp_path, "check", ECAN_WS_PORT="x", ECAN_TLS_CERT="cert.pem", ECAN_SIGNUPP="open"
    )
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "problem: ECAN_WS_PORT: 'x': must be a number from 0 to 65535",
        "problem: ECAN_TLS_CERT: 'cert.pem': needs ECAN_TLS_KEY beside it",
        "problem: ECAN_SIGNUPP: there is no such setting; did you mean ECAN_SIGNUP?",
    ]


def test_what_fits_and_will_not_work_here(tmp_path, monkeypatch):
    """A data directory that is a file, a certificate without its key, modules nobody has."""
    monkeypatch.chdir(tmp_path)
    cert, key = self_signed(tmp_path)
    (tmp_path / "shop.py").write_text("")
    assert problems(ECAN_TLS_CERT=str(cert), ECAN_TLS_KEY=str(key), ECAN_HANDLERS="shop") == {}
    assert "cannot be written to" in problems(ECAN_DATA_DIR=str(cert))["ECAN_DATA_DIR"]
    assert problems(ECAN_DATA_DIR=str(tmp_path / "new" / "data")) == {}
    wrong = problems(ECAN_TLS_CERT=str(key), ECAN_TLS_KEY=str(key))
    assert list(wrong) == ["ECAN_TLS_CERT"]
    assert "nobody.has.it" in problems(ECAN_HANDLERS="shop,nobody.has.it")["ECAN_HANDLERS"]


def test_choices_that_are_wrong_on_the_internet():
    """They are notes: right somewhere, and the exit code stays 0."""
    assert notes() == set()
    risky = {
        "ECAN_DEBUG_METHODS": "1",
        "ECAN_ALLOWED_ORIGINS": "*",
        "ECAN_SESSION_AUTH": "session_id",
        "ECAN_LOGIN_RATE_LIMIT": "0",
        "ECAN_RATE_LIMIT": "0",
        "ECAN_STORE": "memory",
        "ECAN_DURABILITY": "off",
        "ECAN_TRUSTED_PROXIES": "0.0.0.0/0",
    }
    assert notes(**risky) == set(risky)
    assert problems(**risky) == {}


# -- examples ------------------------------------------------------------------------------


def test_env_example_is_up_to_date():
    """`ecan config example >.env.example` if this fails."""
    assert (ROOT / ".env.example").read_text("utf-8") == env_example()


def test_env_example_says_what_holds_without_it(tmp_path):
    """With every line taken in, the settings are the defaults."""
    lines = re.findall(r"^#(ECAN_\w+)=(.*)$", env_example(), flags=re.MULTILINE)
    assert Settings.from_env(dict(lines)) == Settings()
    assert config(tmp_path, "example").stdout == env_example()


def test_the_browser_apps_example_has_its_variables():
    """Each is read by the app's build, and no other is."""
    text = (ROOT / "gui_v2" / ".env.example").read_text("utf-8")
    used = {
        name
        for path in (ROOT / "gui_v2").rglob("*.ts*")
        if "node_modules" not in path.parts and ".test." not in path.name
        for name in re.findall(r"VITE_[A-Z_]*[A-Z]", path.read_text("utf-8"))
    }
    assert set(re.findall(r"^# ?(VITE_\w+)=", text, flags=re.MULTILINE)) == used
