"""A site as it is deployed: real servers, and a real nginx with the shipped template."""

from __future__ import annotations

import json
import os
import shutil
import ssl
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from ecan.testing import Client
from ecan.testing.process import ROOT, ServerProcess, free_port

PASSWORD = "correct horse battery"
RATE, BURST, CONNECTIONS = "10r/s", 20, 18


def self_signed(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and localhost, and its key."""
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost", "-keyout", str(key), "-out", str(cert)],
        check=True, capture_output=True,
    )  # fmt: skip
    return cert, key


class Nginx:
    """Debian's nginx with deploy/nginx/nginx.conf.template, without privileges."""

    def __init__(self, folder: Path, backends: list[int]) -> None:
        self.folder = folder
        self.cert, key = self_signed(folder)
        self.http_port, self.https_port = free_port(), free_port()
        self.access_log = folder / "access.log"
        self.acme = folder / "acme"
        self.program = shutil.which("nginx", path=os.environ["PATH"] + ":/usr/sbin")
        assert self.program, "nginx is missing: make nginx"
        self.settings = {
            "NGINX_BACKENDS": " ".join(f"127.0.0.1:{port}" for port in backends),
            "NGINX_CERT": str(self.cert),
            "NGINX_KEY": str(key),
            "NGINX_ROOT": str(ROOT / "gui_v2" / "dist"),
            "NGINX_HTTP": f"127.0.0.1:{self.http_port}",
            "NGINX_HTTPS": f"127.0.0.1:{self.https_port}",
            "NGINX_PUBLIC_PORT": str(self.https_port),
            "NGINX_ACME_ROOT": str(self.acme),
            "NGINX_RATE": RATE,
            "NGINX_BURST": str(BURST),
            "NGINX_CONNECTIONS": str(CONNECTIONS),
            "NGINX_USER": "root" if os.getuid() == 0 else "-",
            "NGINX_RUN": str(folder),
            "NGINX_ACCESS_LOG": str(self.access_log),
        }
        self.config = folder / "nginx.conf"
        self.config.write_text(self.render())
        self.process: subprocess.Popen[bytes] | None = None

    def render(self) -> str:
        """What render.sh makes of the template."""
        return subprocess.run(
            [str(ROOT / "deploy" / "nginx" / "render.sh")],
            env={"PATH": os.environ["PATH"], **self.settings},
            check=True,
            capture_output=True,
            text=True,
        ).stdout

    def words(self, *more: str) -> list[str]:
        return [
            self.program,
            "-p",
            f"{self.folder}/",
            "-c",
            str(self.config),
            "-e",
            "stderr",
            *more,
        ]

    def start(self) -> None:
        with (self.folder / "nginx.err").open("wb") as err:
            self.process = subprocess.Popen(self.words("-g", "daemon off;"), stderr=err)
        deadline = time.monotonic() + 20
        while not (self.folder / "nginx.pid").exists():
            assert self.process.poll() is None, (self.folder / "nginx.err").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def stop(self) -> None:
        assert self.process is not None
        self.process.terminate()
        self.process.wait(20)


class Site:
    """Two servers, each with accounts and sessions of its own, behind one nginx."""

    def __init__(self, folder: Path) -> None:
        self.backends = [self._backend(folder / name) for name in ("one", "two")]
        self.nginx = Nginx(folder, [backend.port for backend in self.backends])
        self.https = f"https://127.0.0.1:{self.nginx.https_port}"
        self.url = f"wss://127.0.0.1:{self.nginx.https_port}/ws"
        self.tls = ssl.create_default_context(cafile=str(self.nginx.cert))

    def _backend(self, folder: Path) -> ServerProcess:
        folder.mkdir()
        return ServerProcess(
            folder,
            {
                "ECAN_ADMIN_PASSWORD": PASSWORD,
                "ECAN_DEBUG_METHODS": "1",
                "ECAN_TRUSTED_PROXIES": "127.0.0.1",
                "ECAN_LOGIN_RATE_LIMIT": "0",
                "ECAN_DRAIN_TIMEOUT": "5",
                "ECAN_LOG_FORMAT": "json",
            },
        )

    def start(self) -> None:
        for backend in self.backends:
            backend.start()
        self.nginx.start()

    def stop(self) -> None:
        if self.nginx.process is not None:
            self.nginx.stop()
        for backend in self.backends:
            backend.kill()

    def client(self, route: str = "", address: str = "", **headers: str) -> Client:
        """A client through nginx: with a cookie of its own, from an address of its own."""
        options: dict[str, Any] = {"ssl": self.tls}
        if route:
            headers["Cookie"] = f"ecan_route={route}"
        if headers:
            options["additional_headers"] = {
                name.replace("_", "-"): value for name, value in headers.items()
            }
        if address:
            options["local_addr"] = (address, 0)
        return Client(self.url, **options)

    def home_of(self, sid: str) -> ServerProcess:
        """The server that has this session."""
        homes = [backend for backend in self.backends if sid in self.sids(backend)]
        assert len(homes) == 1
        return homes[0]

    def sids(self, backend: ServerProcess) -> list[str]:
        return [row["sid"] for row in ops(backend, "sessions", "list")["sessions"]]


def ops(backend: ServerProcess, *words: str) -> Any:
    """``ecan ops WORDS --json`` beside a server."""
    done = subprocess.run(
        [sys.executable, "-m", "ecan", "ops", *words, "--json"],
        env=backend.env,
        cwd=backend.folder,
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)
