"""HEALTHCHECK of the image: exit code 0 when /health says 200; there is no curl in it."""

from __future__ import annotations

import http.client
import os
import ssl
import sys

TIMEOUT_S = 4.0
"""Below the HEALTHCHECK's own, so that it is this that says what is wrong."""


def main() -> int:
    """Ask the server in this container."""
    port = int(os.environ.get("ECAN_WS_PORT") or 8765)
    connection: http.client.HTTPConnection
    if os.environ.get("ECAN_TLS_CERT"):
        # It is our own process; its certificate names another host.
        connection = http.client.HTTPSConnection(
            "127.0.0.1",
            port,
            timeout=TIMEOUT_S,
            context=ssl._create_unverified_context(),  # noqa: S323, SLF001
        )
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)
    try:
        connection.request("GET", "/health")
        answer = connection.getresponse()
        print(answer.read().decode("utf-8", "replace"))  # noqa: T201 - docker inspect shows it
    except (OSError, http.client.HTTPException) as error:
        print(error)  # noqa: T201
        return 1
    return 0 if answer.status == http.HTTPStatus.OK else 1


if __name__ == "__main__":
    sys.exit(main())
