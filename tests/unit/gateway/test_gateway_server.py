"""The listening socket's own rules: idle connections, faults of ours, TLS."""

from __future__ import annotations

import asyncio
import ssl
import subprocess

import pytest

from ecan.app import App
from ecan.config import Settings
from ecan.gateway import server as server_module
from ecan.testing import Client, running_app

pytestmark = pytest.mark.each_transport


async def test_a_connection_without_login_is_closed_when_idle(monkeypatch):
    """4002 for a connection that neither logs in nor says anything; who is logged in stays."""
    monkeypatch.setattr(server_module, "UNBOUND_IDLE_S", 1.0)  # a login takes its time
    async with (
        running_app() as server,
        server.logged_in() as user,
        server.client() as talker,
        server.client() as idler,
    ):
        closed = asyncio.ensure_future(idler.closed())
        while not closed.done():
            await talker.call("ping")
            await asyncio.sleep(0.01)
        assert (await closed) == (4002, "No login for ten minutes.")
        assert (await talker.call("ping"))["pong"]
        assert (await user.call("ping"))["pong"]


async def test_a_connection_that_is_gone_is_not_looked_at(monkeypatch):
    """The table of idle deadlines may be behind the table of connections."""
    async with running_app() as server:
        gateway = server.app.gateway
        gateway._idle.schedule("no-such", 0.0)
        gateway._look_for_idle()
        assert gateway.connection_count == 0


async def test_a_fault_of_ours_closes_that_connection_only(monkeypatch, no_task_left):
    """P17: an exception in the router is 1011 for the connection that met it."""
    async with running_app() as server, server.client() as good, server.client() as bad:
        receive = server.app.router.receive

        def faulty(connection, data):
            if b"poison" in data:
                raise RuntimeError("a bug")
            receive(connection, data)

        monkeypatch.setattr(server.app.router, "receive", faulty)
        await bad.send_raw("poison")
        await bad.send_raw("poison")
        assert await bad.closed() == (1011, "Internal error.")
        assert (await good.call("ping"))["pong"]


@pytest.fixture
def certificate(tmp_path):
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    words = [
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-days",
        "2",
        "-subj",
        "/CN=localhost",
    ]
    words += ["-addext", "subjectAltName=DNS:localhost", "-keyout", key, "-out", cert]
    try:
        subprocess.run(["openssl", *words], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("no openssl here")
    return cert, key


async def test_tls(certificate, no_task_left):
    """ECAN_TLS_CERT and ECAN_TLS_KEY serve wss and https without a proxy."""
    cert, key = certificate
    async with running_app(tls_cert=cert, tls_key=key) as server:
        trust = ssl.create_default_context(cafile=cert)
        url = server.url.replace("ws://127.0.0.1", "wss://localhost")
        async with Client(url, ssl=trust) as client:
            assert (await client.call("ping"))["pong"]


async def test_close_before_start_does_nothing(tmp_path):
    """A gateway that never listened has nothing to close."""
    app = App(Settings(data_dir=tmp_path))
    await app.gateway.close()
    await app.stop()
