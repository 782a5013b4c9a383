"""TLS without a proxy: the certificate is renewed under open connections."""

from __future__ import annotations

import asyncio
import shutil
import signal
import ssl

import pytest

from ecan.testing import Client
from ecan.testing.process import ServerProcess
from tests.deploy.site import PASSWORD, self_signed


@pytest.mark.parametrize("transport", ["websockets", "picows"])
async def test_sighup_takes_a_new_certificate(tmp_path, transport):
    """Who is connected stays so; who comes sees the new one; a bad file changes nothing."""
    (tmp_path / "new").mkdir()
    cert, key = self_signed(tmp_path)
    new_cert, new_key = self_signed(tmp_path / "new")
    settings = {
        "ECAN_ADMIN_PASSWORD": PASSWORD,
        "ECAN_TLS_CERT": str(cert),
        "ECAN_TLS_KEY": str(key),
        "ECAN_TRANSPORT": transport,
    }
    old_pem, new_pem = cert.read_text(), new_cert.read_text()

    with ServerProcess(tmp_path, settings) as server:
        url = f"wss://127.0.0.1:{server.port}/ws"

        def shown():
            return ssl.get_server_certificate(("127.0.0.1", server.port), timeout=20).split()

        trust_old = ssl.create_default_context(cafile=str(cert))
        async with Client(url, ssl=trust_old) as early:
            await early.login("admin", PASSWORD)
            assert await asyncio.to_thread(shown) == old_pem.split()

            shutil.copy(new_cert, cert)
            server.process.send_signal(signal.SIGHUP)  # half of the pair: not taken
            await asyncio.to_thread(server.wait_for_output, "tls.reload_failed")
            assert await asyncio.to_thread(shown) == old_pem.split()

            shutil.copy(new_key, key)
            server.process.send_signal(signal.SIGHUP)
            await asyncio.to_thread(server.wait_for_output, "tls.reloaded")
            assert await asyncio.to_thread(shown) == new_pem.split()

            assert await early.call("ping") is not None
            trust_new = ssl.create_default_context(cafile=str(cert))
            async with Client(url, ssl=trust_new) as late:
                await late.resume(early.session)
        assert server.stop() == 0
