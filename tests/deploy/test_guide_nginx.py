"""deploy.md's block about nginx, run as it stands. `make nginx-test`."""

from __future__ import annotations

import os
import shutil
import ssl
import time
import urllib.request

import pytest

from ecan.testing.process import ROOT
from tests.deploy.blocks import Shell, block
from tests.deploy.site import Nginx, self_signed

pytestmark = [pytest.mark.nginx, pytest.mark.timeout(60)]


@pytest.fixture
def nginx(tmp_path):
    """Debian's nginx, running with another certificate."""
    made = Nginx(tmp_path, [1])
    made.start()
    yield made
    made.stop()


def test_rendered_tested_and_reloaded(nginx, tmp_path):
    """The configuration is filled in, `nginx -t` takes it, the reload serves the site with it."""
    (tmp_path / "new").mkdir()
    cert, key = self_signed(tmp_path / "new")
    dist = tmp_path / "dist"
    shutil.copytree(ROOT / "gui_v2" / "dist", dist)
    in_the_block = ("NGINX_CERT", "NGINX_KEY", "NGINX_SERVER_NAME", "NGINX_ROOT")
    theirs = {key: value for key, value in nginx.settings.items() if key not in in_the_block}
    program = " ".join(nginx.words())
    reader = Shell(ROOT, {**os.environ, **theirs}).with_tools(
        tmp_path / "bin",
        nginx=f'exec {program} "$@"',
        systemctl=f'[ "$*" = "reload nginx" ] && exec {program} -s reload',
    )
    reader(
        block(
            "deploy/Nginx/1",
            {
                "/etc/ssl/ecan/fullchain.pem": str(cert),
                "/etc/ssl/ecan/privkey.pem": str(key),
                "/opt/ecan/gui_v2/dist": str(dist),
                "/etc/nginx/nginx.conf": str(nginx.config),
            },
        )
    )
    assert "server_name ecan.example.com;" in nginx.config.read_text()
    trust = ssl.create_default_context(cafile=str(cert))
    deadline = time.monotonic() + 20
    while True:
        try:
            url = f"https://127.0.0.1:{nginx.https_port}/"
            with urllib.request.urlopen(url, timeout=5, context=trust) as answer:
                page = answer.read()
            break
        except OSError:  # the old workers, with the old certificate
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert page == (dist / "index.html").read_bytes()
