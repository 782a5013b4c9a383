"""What the gateway and a transport ask of each other. A transport is a port and its frames."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ecan.errors import ConfigError
from ecan.gateway.connection import Wire

if TYPE_CHECKING:
    import ssl

    from websockets.http11 import Request, Response

    from ecan.config import Settings
    from ecan.gateway.connection import Connection
    from ecan.gateway.router import Router
    from ecan.gateway.turns import Doors

OPEN_TIMEOUT_S = 10.0
"""For a handshake, from the connection to the last byte of its request."""

CLOSE_TIMEOUT_S = 2.0
"""A frozen peer holds its own closing for this long, not the library's ten seconds."""

PING_INTERVAL_S = PING_TIMEOUT_S = 20.0

BACKLOG = 1024

MAX_WAITING_BYTES = 2**16
"""Of a client that sends on while its handshake waits for its turn."""


class ClientWire(Wire, Protocol):
    """A wire and the connection at its end."""

    client: Connection


class Edge(Protocol):
    """What a transport asks of the gateway. Runs on: the loop."""

    router: Router
    doors: Doors

    def answer(self, request: Request) -> Response | None:
        """The response to plain HTTP and to who may not upgrade; None: shake hands."""

    def connect(self, wire: ClientWire, remote: str, request: Request) -> Connection:
        """The connection of a wire whose handshake is being answered."""

    def opened(self, wire: ClientWire) -> None:
        """Its handshake is done."""

    def closed(self, wire: ClientWire, code: int) -> None:
        """It is gone; the code that the other end sent, or 1006. Once for each `opened`."""


class Listener(Protocol):
    """What the gateway asks of a transport."""

    async def start(self, tls: ssl.SSLContext | None) -> None:
        """Listen.

        Raises:
            OSError: the address cannot be used.
        """

    @property
    def port(self) -> int:
        """Where it listens."""

    def stop_listening(self) -> None:
        """Take no new connections; open ones stay."""

    async def cut(self) -> None:
        """Drop every connection that is still there, half-open ones too, and wait for the end."""


def make_listener(settings: Settings, edge: Edge) -> Listener:
    """The transport that ECAN_TRANSPORT names.

    Raises:
        ConfigError: it is not installed.
    """
    if settings.transport == "picows":
        try:
            from ecan.gateway.picows_listener import PicowsListener  # noqa: PLC0415 - optional
        except ImportError as error:
            raise ConfigError(
                "ECAN_TRANSPORT", "picows", "needs the extra `fast`: pip install 'ecan-web[fast]'"
            ) from error
        return PicowsListener(settings, edge)
    from ecan.gateway.websocket import WebsocketsListener  # noqa: PLC0415 - as its sibling

    return WebsocketsListener(settings, edge)
