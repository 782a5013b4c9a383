"""Real nginx with the shipped template before two real servers. `make nginx-test`."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import signal
import socket
import ssl
import subprocess
import warnings
from collections.abc import Iterator

import pytest
from playwright.sync_api import expect, sync_playwright
from websockets.exceptions import InvalidStatus

from ecan.testing import ReplyFailed
from ecan.testing.process import ROOT
from tests.deploy.site import BURST, CONNECTIONS, PASSWORD, Site, ops
from tests.e2e.conftest import CHROMIUM_ARGS, shots
from tests.e2e.test_browser import by_id, in_session, log_in

pytestmark = [pytest.mark.nginx, pytest.mark.timeout(120)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Two servers behind nginx."""
    assert (ROOT / "gui_v2" / "dist" / "index.html").exists(), "not built: make gui"
    made = Site(tmp_path_factory.mktemp("site"))
    try:
        made.start()
        yield made
    finally:
        made.stop()


def get(site: Site, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    connection = http.client.HTTPSConnection(
        "127.0.0.1", site.nginx.https_port, timeout=20, context=site.tls
    )
    try:
        connection.request(
            "GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, answer.headers, answer.read()
    finally:
        connection.close()


# -- what the configuration is -------------------------------------------------------------


def test_nginx_has_nothing_to_say_about_it(site):
    """`nginx -t` gives no warning; no variable of the template is left."""
    done = subprocess.run(
        site.nginx.words("-t"), capture_output=True, text=True, check=True, timeout=20
    )
    assert "warn" not in done.stderr
    assert "${" not in site.nginx.config.read_text()


def test_a_missing_certificate_is_named(site):
    """render.sh says which variable it needs."""
    script = str(ROOT / "deploy" / "nginx" / "render.sh")
    done = subprocess.run(
        [script], check=False, env={"PATH": "/bin:/usr/bin"}, capture_output=True, text=True
    )
    assert done.returncode != 0
    assert "NGINX_CERT" in done.stderr


# -- pages ---------------------------------------------------------------------------------


def test_pages_and_their_headers(site):
    """The page is asked for each time, hashed files never again; deep links are the page."""
    status, headers, page = get(site, "/")
    assert (status, headers["Cache-Control"]) == (200, "no-cache")
    assert headers["Strict-Transport-Security"] == "max-age=63072000"
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["X-Frame-Options"] == "DENY"
    assert "script-src 'self';" in headers["Content-Security-Policy"]
    assert "nginx/" not in headers["Server"]
    assert "Secure; HttpOnly; SameSite=Lax" in headers["Set-Cookie"]
    assert "Set-Cookie" not in get(site, "/", Cookie="ecan_route=mine")[1]
    assert get(site, "/orders/5")[2] == page
    assert get(site, "/orders/5.js")[0] == 404

    script = next(path for path in page.decode().split('"') if path.startswith("/assets/"))
    status, headers, _ = get(site, script, Accept_Encoding="gzip")
    assert status == 200
    assert headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert headers["Content-Encoding"] == "gzip"
    assert headers["X-Content-Type-Options"] == "nosniff"
    status, headers, _ = get(site, "/assets/gone.js")
    assert status == 404
    assert "immutable" not in (headers["Cache-Control"] or "")


def test_health_and_openrpc_are_the_servers(site):
    """They go through, with the server's own Cache-Control."""
    status, headers, body = get(site, "/health")
    assert (status, json.loads(body)["status"]) == (200, "healthy")
    assert headers.get_all("Cache-Control") == ["no-store"]
    assert json.loads(get(site, "/openrpc.json")[2])["openrpc"]


def test_http_is_redirected_except_for_certificates(site):
    """Port 80 says where the site is; certbot's files are served."""
    challenge = site.nginx.acme / ".well-known" / "acme-challenge"
    challenge.mkdir(parents=True)
    (challenge / "token").write_text("proof")
    answers = []
    for path in ("/orders?x=1", "/.well-known/acme-challenge/token"):
        connection = http.client.HTTPConnection("127.0.0.1", site.nginx.http_port, timeout=20)
        connection.request("GET", path)
        answer = connection.getresponse()
        answers.append((answer.status, answer.headers["Location"], answer.read()))
        connection.close()
    assert answers[0][:2] == (301, f"{site.https}/orders?x=1")
    assert answers[1] == (200, None, b"proof")


@pytest.mark.parametrize(
    ("version", "works"), [(ssl.TLSVersion.TLSv1_1, False), (ssl.TLSVersion.TLSv1_2, True)]
)
def test_tls_is_modern(site, version, works):
    """TLS 1.2 with forward secrecy and HTTP/2; nothing older."""
    context = ssl.create_default_context(cafile=str(site.nginx.cert))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of TLS 1.1, which is the point
        context.minimum_version = context.maximum_version = version
    context.set_ciphers("ALL:@SECLEVEL=0")
    context.set_alpn_protocols(["h2", "http/1.1"])
    with socket.create_connection(("127.0.0.1", site.nginx.https_port), timeout=20) as plain:
        if not works:
            with pytest.raises(ssl.SSLError):
                context.wrap_socket(plain, server_hostname="localhost")
            return
        with context.wrap_socket(plain, server_hostname="localhost") as wrapped:
            assert wrapped.selected_alpn_protocol() == "h2"
            assert wrapped.cipher()[0].startswith("ECDHE")


# -- sessions ------------------------------------------------------------------------------


async def test_sticky_after_reconnect(site):
    """Each cookie has its server: eight people, both servers used, everyone resumes twice."""
    homes = set()
    for number in range(8):
        async with site.client(f"person-{number}", address=f"127.0.1.{number + 1}") as client:
            sid = (await client.login("admin", PASSWORD))["sid"]
            session = client.session
        homes.add(site.home_of(sid).port)
        for _ in range(2):
            async with site.client(f"person-{number}", address="127.0.2.1") as client:
                assert (await client.resume(session))["sid"] == sid
    assert homes == {backend.port for backend in site.backends}


async def test_an_address_is_sticky_without_a_cookie(site):
    """Clients that keep no cookies come back to the same server too."""
    async with site.client(address="127.0.3.1") as client:
        sid = (await client.login("admin", PASSWORD))["sid"]
        session = client.session
    async with site.client(address="127.0.3.1") as client:
        assert (await client.resume(session))["sid"] == sid


async def test_the_forwarded_address_cannot_be_forged(site):
    """The biography has the address nginx saw, whatever the client claims, with or without nginx."""
    claim = {"X_Forwarded_For": "6.6.6.6, 127.0.0.1"}
    async with site.client(address="127.0.4.1", **claim) as client:
        sid = (await client.login("admin", PASSWORD))["sid"]
        shown = ops(site.home_of(sid), "sessions", "show", sid)
        assert [tab["address"] for tab in shown["tabs"]] == ["127.0.4.1"]
        assert shown["created_by"]["address"] == "127.0.4.1"

    backend = site.backends[0]
    past = type(client)(
        backend.url,
        local_addr=("127.0.4.2", 0),
        additional_headers={"X-Forwarded-For": "6.6.6.6"},
    )
    async with past as client:
        sid = (await client.login("admin", PASSWORD))["sid"]
        assert ops(backend, "sessions", "show", sid)["created_by"]["address"] == "127.0.4.2"


async def test_a_drained_server_moves_its_users_and_gets_them_back(site):
    """Without a shared store they log in again elsewhere; the old session waits for its server."""
    async with site.client("mover", address="127.0.5.1") as client:
        sid = (await client.login("admin", PASSWORD))["sid"]
        await client.call("debug.state_set", {"key": "colour", "value": "green"})
        session = client.session
        home = site.home_of(sid)
        (other,) = [backend for backend in site.backends if backend is not home]
        running = await client.start("debug.sleep", {"seconds": 0.5})
        home.process.send_signal(signal.SIGTERM)
        assert (await running)["status"] == "success"
        assert (await client.closed())[0] == 1012

    async with site.client("mover", address="127.0.5.1") as client:
        with pytest.raises(ReplyFailed) as refused:
            await client.resume(session)
        assert refused.value.code in ("UNAUTHENTICATED", "SESSION_NOT_FOUND")
        client.session = {}
        moved = await client.login("admin", PASSWORD)
        assert moved["sid"] in site.sids(other)
    assert home.wait() == 0
    assert get(site, "/health", Cookie="ecan_route=mover")[0] == 200

    home.start()
    await asyncio.sleep(5.5)  # fail_timeout: until then nginx does not try it
    async with site.client("mover", address="127.0.5.1") as client:
        assert (await client.resume(session))["sid"] == sid
        assert await client.call("debug.state_get", {"key": "colour"}) == "green"


# -- limits --------------------------------------------------------------------------------


async def test_too_many_requests_of_one_address_are_answered_429(site):
    """Over rate and burst: 429 for that address, and nobody else."""

    async def attempt(address):
        try:
            async with site.client(address=address):
                return 101
        except InvalidStatus as refused:
            return refused.response.status_code

    statuses = [await attempt("127.0.6.1") for _ in range(BURST + 60)]
    assert set(statuses) == {101, 429}
    assert statuses[: BURST + 1] == [101] * (BURST + 1)
    assert await attempt("127.0.6.2") == 101


async def test_too_many_connections_of_one_address_are_answered_429(site):
    """Connections that stay open are counted too."""
    clients = [site.client(address="127.0.7.1") for _ in range(CONNECTIONS)]
    try:
        for client in clients:
            await client.open()
        with pytest.raises(InvalidStatus) as refused:
            await site.client(address="127.0.7.1").open()
        assert refused.value.response.status_code == 429
    finally:
        for client in clients:
            await client.close()


# -- a browser -----------------------------------------------------------------------------


def test_the_app_in_chromium(site, request):
    """wss login under the Content-Security-Policy; nginx restarts, the page is back at its server."""
    path = shutil.which("chromium")
    assert path, "chromium is missing: make chromium"
    said, sockets = [], []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[*CHROMIUM_ARGS, "--ignore-certificate-errors"]
        )
        context = browser.new_context(ignore_https_errors=True, locale="en-US")
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("websocket", lambda opened: sockets.append(opened.url))
        page.goto(site.https)
        log_in(page, password=PASSWORD)
        sid = in_session(page)
        cookies = {cookie["name"]: cookie for cookie in context.cookies()}
        assert cookies["ecan_route"]["secure"]

        site.nginx.stop()
        expect(by_id(page, "connection-state")).not_to_have_attribute("data-state", "open")
        site.nginx.start()
        assert in_session(page) == sid
        page.reload()
        assert in_session(page) == sid
        shots(context, request.node.name)
        browser.close()
    assert set(sockets) == {site.url}
    assert [text for text in said if "Content Security Policy" in text] == []
