"""containers.sh, with programs that only note what they are asked."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.deploy.blocks import Shell
from tests.deploy.engine import SCRIPT

REMOVED = """\
for word; do package=$word; done
case $package in podman) echo config-files ;; runc) exit 1 ;; *) echo installed ;; esac"""
"""`dpkg-query` where podman was removed, but not purged, and runc never was there."""


@pytest.fixture
def up(tmp_path):
    """Runs `containers.sh up` among fakes; the finished process."""

    def run(**fakes):
        shell = Shell(tmp_path, {**os.environ, "ECAN_CONTAINERS": str(tmp_path / "state")})
        shell.with_tools(tmp_path / "bin", **fakes)
        # In a group of its own: what kills the group is to be seen, not felt.
        return subprocess.run(
            [str(SCRIPT), "up"],
            check=False,
            env=shell.env,
            capture_output=True,
            text=True,
            timeout=20,
            start_new_session=True,
        )

    return run


def test_a_package_that_was_removed_is_installed_again(up, tmp_path):
    """For `dpkg -s` it is still there, as long as its configuration is."""
    up(**{"dpkg-query": REMOVED, "apt-get": f'echo "$@" >>{tmp_path}/asked; [ "$1" = update ]'})
    *_, asked = (tmp_path / "asked").read_text().splitlines()
    assert asked.split()[-2:] == ["podman", "runc"]


def test_a_base_image_that_cannot_be_made_says_why(up):
    """mmdebstrap kills its process group when it fails: pytest and make must not be in it."""
    done = up(
        **{
            "dpkg-query": "echo installed",
            "podman": "exit 1",
            "mmdebstrap": "echo 'E: no mirror answers' >&2; kill -HUP 0; exit 1",
        }
    )
    assert (done.returncode, "E: no mirror answers" in done.stderr) == (1, True)


def test_a_base_image_that_cannot_be_kept_says_why(up):
    """The same of `podman import`."""
    done = up(
        **{
            "dpkg-query": "echo installed",
            "podman": 'if [ "$1" = import ]; then echo no space left >&2; fi; exit 125',
            "mmdebstrap": "exit 0",
        }
    )
    assert (done.returncode, done.stderr) == (125, "no space left\n")
