"""CONTRACT §5: what the port answers to plain HTTP."""

from __future__ import annotations

import gzip
import json

import pytest
from edge_kit import http

from ecan.gateway.assets import SECURITY_HEADERS
from ecan.testing import running_app

pytestmark = pytest.mark.each_transport

INDEX = b"<!doctype html><title>eCan</title>" + b"<p>page</p>" * 100
SCRIPT = b"console.log('x');" * 100
PIXEL = bytes(range(256)) * 4


@pytest.fixture
async def site(tmp_path, no_task_left):
    """A server with a built browser app."""
    gui = tmp_path / "dist"
    (gui / "assets").mkdir(parents=True)
    (gui / "index.html").write_bytes(INDEX)
    (gui / "assets" / "app-1a2b3c.js").write_bytes(SCRIPT)
    (gui / "assets" / "tiny-1.css").write_bytes(b"a{}")
    (gui / "pixel.png").write_bytes(PIXEL)
    (tmp_path / "secret.txt").write_text("not for you")
    async with running_app(gui=gui) as server:
        yield server


async def test_health(site):
    """GET /health says status, mode and sessions."""
    status, headers, body = await http(site.http, "/health")

    assert (status, json.loads(body)) == (200, {"status": "healthy", "mode": "web", "sessions": 0})
    assert headers["content-type"] == "application/json"
    assert headers["cache-control"] == "no-store"
    async with site.logged_in():
        _, _, body = await http(site.http, "/health?x=1")
        assert json.loads(body)["sessions"] == 1


async def test_health_while_draining(site):
    """P14: while draining 503 for /health and /health/ready, 200 for /health/live."""
    assert json.loads((await http(site.http, "/health/ready"))[2]) == {"status": "ready"}
    site.app._draining = True

    status, _, body = await http(site.http, "/health")
    assert (status, json.loads(body)["status"]) == (503, "draining")
    status, _, body = await http(site.http, "/health/ready")
    assert (status, json.loads(body)["status"]) == (503, "draining")
    status, _, body = await http(site.http, "/health/live")
    assert (status, json.loads(body)["status"]) == (200, "alive")


async def test_no_other_health(site):
    """/health/x is 404."""
    assert (await http(site.http, "/health/x"))[0] == 404


async def test_openrpc_is_the_document_of_rpc_discover(site):
    """GET /openrpc.json answers as rpc.discover."""
    status, headers, body = await http(site.http, "/openrpc.json")
    async with site.client() as client:
        expected = await client.call("rpc.discover")

    assert (status, headers["content-type"]) == (200, "application/json")
    assert json.loads(body) == expected


@pytest.mark.parametrize("path", ["/", "/index.html", "/orders/5", "/settings?tab=2", "//x", "//["])
async def test_every_page_is_the_app(site, path):
    """Whatever page is asked for, the browser app is sent and not cached."""
    status, headers, body = await http(site.http, path)

    assert (status, body) == (200, INDEX)
    assert headers["content-type"] == "text/html; charset=utf-8"
    assert headers["cache-control"] == "no-cache"


async def test_hashed_assets_are_cached_for_a_year(site):
    """Files below /assets/ have a hash in their name and never change."""
    status, headers, body = await http(site.http, "/assets/app-1a2b3c.js")

    assert (status, body) == (200, SCRIPT)
    assert headers["cache-control"] == "public, max-age=31536000, immutable"
    assert headers["content-type"].startswith(("text/javascript", "application/javascript"))


@pytest.mark.parametrize("path", ["/", "/pixel.png", "/assets/app-1a2b3c.js", "/health"])
async def test_security_headers(site, path):
    """Every file comes with nosniff, no framing, no referrer and a content security policy."""
    _, headers, _ = await http(site.http, path)

    if path != "/health":
        for name, value in SECURITY_HEADERS:
            assert headers[name.lower()] == value
    assert "server" not in headers


async def test_an_unchanged_file_is_304(site):
    """The ETag asked back gives 304 without a body; another one the file."""
    _, headers, _ = await http(site.http, "/")
    etag = headers["etag"]

    for value in (etag, f"W/{etag}", f'"other", {etag}'):
        status, headers, body = await http(site.http, "/", headers={"If-None-Match": value})
        assert (status, body, headers["etag"]) == (304, b"", etag)
    assert (await http(site.http, "/", headers={"If-None-Match": '"other"'}))[0] == 200


async def test_gzip_for_those_who_take_it(site):
    """Texts of some size are sent compressed if the client says so; images are not."""
    asks = {"Accept-Encoding": "br, gzip"}
    _, headers, body = await http(site.http, "/assets/app-1a2b3c.js", headers=asks)
    assert headers["content-encoding"] == "gzip"
    assert int(headers["content-length"]) == len(body) < len(SCRIPT)
    assert gzip.decompress(body) == SCRIPT
    assert headers["vary"] == "Accept-Encoding"

    for path in ("/pixel.png", "/assets/tiny-1.css"):
        _, headers, _ = await http(site.http, path, headers=asks)
        assert "content-encoding" not in headers
    _, headers, _ = await http(site.http, "/assets/app-1a2b3c.js")
    assert "content-encoding" not in headers


@pytest.mark.parametrize("path", ["/", "/health", "/openrpc.json", "/assets/app-1a2b3c.js"])
async def test_head_is_get_without_the_body(site, path):
    """HEAD has the headers of GET, its length included."""
    status, got, body = await http(site.http, path)
    head_status, headers, nothing = await http(site.http, path, "HEAD")

    assert (head_status, nothing) == (status, b"")
    assert headers == got
    assert int(headers["content-length"]) == len(body)


@pytest.mark.parametrize("path", ["/assets/none.js", "/favicon.ico", "/.env", "/app.js.map"])
async def test_a_missing_file_is_404(site, path):
    """What looks like a file and is none is 404, not the app."""
    assert (await http(site.http, path))[0] == 404


@pytest.mark.parametrize(
    "path",
    [
        "/../secret.txt",
        "/assets/../../secret.txt",
        "/%2e%2e/secret.txt",
        "/..%2fsecret.txt",
        "/assets/..\\..\\secret.txt",
        "//etc/passwd",
        "/../../../../etc/passwd",
        "/%00",
    ],
)
async def test_no_path_leads_out_of_the_app(site, path):
    """Only the files of the build can be read."""
    status, _, body = await http(site.http, path)

    assert (status, body) in ((404, b"Not found.\n"), (200, INDEX))


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "BREW"])
@pytest.mark.parametrize("path", ["/", "/ws", "/health", "/openrpc.json"])
async def test_other_methods_are_405(site, method, path):
    """Only GET and HEAD are answered."""
    status, headers, _ = await http(site.http, path, method)

    assert (status, headers["allow"]) == (405, "GET, HEAD")


async def test_a_plain_get_of_the_websocket_is_426(site):
    """GET /ws without an upgrade says what to do."""
    status, headers, body = await http(site.http, "/ws")

    assert (status, headers["upgrade"]) == (426, "websocket")
    assert b"WebSocket" in body


async def test_when_the_app_is_not_built_a_page_says_so(tmp_path):
    """Without a build the server runs all the same and says how to make one."""
    async with running_app(gui=tmp_path / "nowhere") as server:
        status, _, body = await http(server.http, "/")
        assert status == 200
        assert b"make gui" in body
        assert (await http(server.http, "/health"))[0] == 200


async def test_metrics_on_their_own_port():
    """ECAN_METRICS_PORT serves the metrics, and the server's own port does not."""
    async with running_app(metrics_port=0) as server, server.logged_in():
        port = server.app._metrics_server.port
        status, _, body = await http(f"http://127.0.0.1:{port}", "/metrics")
        assert status == 200
        assert b"ecan_sessions" in body
        assert b"ecan_connections 1.0" in body
        assert b"ecan_frames_in_total" not in (await http(server.http, "/metrics"))[2]
