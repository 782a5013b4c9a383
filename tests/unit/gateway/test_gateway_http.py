"""Plain HTTP without sockets; where a client is."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.datastructures import Headers
from websockets.http11 import Request

from ecan.config import Settings
from ecan.gateway.assets import Assets, make_asset
from ecan.gateway.http import HttpAnswers, client_address, header

PROXIES = Settings(
    trusted_proxies=(ipaddress.ip_network("10.0.0.0/8"), ipaddress.ip_network("fd00::/8"))
)

proxies = st.sampled_from(["10.0.0.1", "10.200.3.4", "fd00::1"])
strangers = (
    st.ip_addresses(v=4, network="192.0.2.0/24") | st.ip_addresses(v=6, network="2001:db8::/32")
).map(str)
junk = st.text(st.characters(codec="ascii", exclude_characters="\r\n"), max_size=60)


@given(remote=strangers | st.just(""), forwarded=st.lists(junk | strangers | proxies))
def test_a_stranger_cannot_forge_an_address(remote, forwarded):
    """X-Forwarded-For of anybody but a trusted proxy is ignored."""
    assert client_address(remote, forwarded, PROXIES) == remote
    assert client_address(remote, forwarded, Settings()) == remote


@given(
    forged=st.lists(junk | strangers | proxies, max_size=4),
    client=strangers,
    chain=st.lists(proxies, max_size=3),
    remote=proxies,
    split=st.booleans(),
)
def test_behind_proxies_the_last_untrusted_address_counts(forged, client, chain, remote, split):
    """Whatever a client writes itself, what our first proxy saw is taken."""
    parts = [*forged, client, *chain]
    values = parts if split else [", ".join(parts)]

    assert client_address(remote, values, PROXIES) == client


@given(values=st.lists(junk), remote=proxies)
def test_an_address_is_an_address(values, remote):
    """Whatever is in the header, the answer is an IP address."""
    assert ipaddress.ip_address(client_address(remote, values, PROXIES))


def test_proxies_all_the_way_down():
    """A request of a proxy itself is the proxy's."""
    assert client_address("10.0.0.1", ["10.0.0.7, 10.0.0.2"], PROXIES) == "10.0.0.7"
    assert client_address("10.0.0.1", [], PROXIES) == "10.0.0.1"


def test_nonsense_from_a_proxy_is_the_last_known_address():
    """What is no address is not shown as one."""
    assert client_address("10.0.0.1", ["unknown, 10.0.0.2"], PROXIES) == "10.0.0.2"


@pytest.mark.parametrize(("values", "expected"), [([], ""), (["a"], "a"), (["a", "b"], "a, b")])
def test_headers_given_twice_are_one_list(values, expected):
    """RFC 9110 §5.3."""
    request = Request("/", Headers([("X", value) for value in values]))

    assert header(request, "x") == expected


def answers(status="healthy", connections=0, **settings):
    assets = Assets({}, make_asset("/index.html", b"<p>"))
    return HttpAnswers(
        Settings(**settings), assets, lambda: (status, 3), lambda: b"{}", lambda: connections
    )


def ask(path="/", method="GET", **headers):
    return Request(path, Headers(headers.items()), method)


@pytest.mark.parametrize(
    ("allowed", "origin", "host", "status"),
    [
        (None, "http://a.example", "a.example", None),
        (None, "HTTPS://A.example:8443", "a.EXAMPLE:8443", None),
        (None, "http://a.example", "a.example:8765", 403),
        (None, "http://a.example:8765", "b.example:8765", 403),
        (None, "null", "null", 403),
        (None, "file://", "", 403),
        (None, "", "", 403),
        (("https://a.example",), "https://a.example", "b", None),
        (("https://a.example",), "https://A.EXAMPLE", "b", None),
        (("https://a.example",), "http://a.example", "b", 403),
        ((), "http://a.example", "a.example", 403),
        (("*",), "null", "b", None),
    ],
)
def test_origins(allowed, origin, host, status):
    """Same origin by default, else the list, else everybody; case does not matter."""
    request = ask("/ws", Upgrade="websocket", Origin=origin, Host=host)

    response = answers(allowed_origins=allowed).answer(request)

    assert (response.status_code if response else None) == status


@pytest.mark.parametrize(
    ("status", "connections", "expected"),
    [
        ("healthy", 9, None),
        ("healthy", 10, 503),
        ("degraded", 9, None),
        ("draining", 0, 503),
        ("starting", 0, 503),
    ],
)
def test_who_may_upgrade_now(status, connections, expected):
    """Not while the server starts, drains or is full."""
    response = answers(status, connections, max_connections=10).answer(
        ask("/ws", Upgrade="WebSocket")
    )

    assert (response.status_code if response else None) == expected


def test_a_server_that_cannot_write_is_up_and_says_so():
    """Another one would not fare better: it stays ready, and its health says degraded."""
    response = answers("degraded").answer(ask("/health"))
    assert (response.status_code, b'"degraded"' in response.body) == (200, True)
    assert answers("degraded").answer(ask("/health/ready")).status_code == 200


def test_a_server_that_starts_is_not_ready():
    """/health while starting is 503 and says so; /health/live is 200."""
    response = answers("starting").answer(ask("/health"))
    assert response.status_code == 503
    assert b'"starting"' in response.body
    assert answers("starting").answer(ask("/health/live")).status_code == 200
