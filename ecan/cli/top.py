"""``ecan top``: the live screen of a running server."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path  # noqa: TC003 - cyclopts reads the types
from typing import Annotated

import cyclopts

from ecan.config import load_client

_USAGE = 2


def top(
    *,
    socket: Annotated[
        Path | None,
        cyclopts.Parameter(
            help="Of the server; else ECAN_ADMIN_SOCKET, else ECAN_DATA_DIR/admin.sock."
        ),
    ] = None,
    every: Annotated[
        float,
        cyclopts.Parameter(
            help="Seconds from look to look, 0.2 to 60.",
            validator=cyclopts.validators.Number(gte=0.2, lte=60),
        ),
    ] = 1.0,
) -> int:
    """Watch a running server, full screen: sessions, rates, events; ? there explains the keys."""
    if importlib.util.find_spec("textual") is None:
        sys.stderr.write("ecan: ecan top needs textual: pip install 'ecan-web[ops]'\n")
        return _USAGE
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        sys.stderr.write("ecan: ecan top needs a terminal; for scripts: ecan ops status --json\n")
        return _USAGE
    from ecan.admin.top.app import TopApp  # noqa: PLC0415 - optional and slow

    screen = TopApp(socket or load_client().admin_socket, every)
    screen.run()
    return screen.return_code or 0
