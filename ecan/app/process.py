"""A server as a process: settings, signals, ready line, exit code."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any

import attrs

from ecan.actors.log_context import log_facts, log_secrets
from ecan.app.root import App
from ecan.config import Settings, load
from ecan.errors import ConfigError, StoreError
from ecan.observability import configure, get_logger, tracing
from ecan.runtime import run_fenced

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

EXIT_CONFIG = 2
"""As CONTRACT §8: usage or configuration."""

log = get_logger("ecan.app")


async def serve(config: Settings) -> int:
    """Run a server until a signal ends it.

    Returns:
        The process's exit code.
    """
    app = App(config)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, app.ask_stop)
    await app.start()
    if app.gateway.certificate is not None:
        # Only then: a server without one ends with its terminal, as programs do.
        loop.add_signal_handler(signal.SIGHUP, app.gateway.certificate.reload)
    app.garbage.start()
    app.huge_pages.start()
    print(  # noqa: T201 - the ready line is part of the contract
        f"ecan: ready on {'https' if config.tls_cert else 'http'}://{_host(config)}:"
        f"{app.gateway.port} (mode={config.mode}, store={app.store.name}, "
        f"handlers={len(app.registry)})",
        flush=True,
    )
    await app.stop_asked.wait()
    drain = loop.create_task(app.drain())
    second = loop.create_task(app.stop_at_once.wait())
    await asyncio.wait((drain, second), return_when=asyncio.FIRST_COMPLETED)
    hurried = not drain.done()
    for task in (drain, second):
        task.cancel()
    app.huge_pages.stop()
    app.garbage.stop()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(1.0 if hurried else 10.0):
            await app.stop()
    log.info("server.stopped", hurried=hurried)
    return 0


def _host(config: Settings) -> str:
    return f"[{config.ws_host}]" if ":" in config.ws_host else config.ws_host


def main() -> None:
    """Entry point of `web_server.py` and `ecan serve`; ends the process."""
    try:
        config = attrs.evolve(load(), mode="web")
        configure(config.log_level, config.log_format, facts=log_facts, secrets=log_secrets)
        for name, suggestion in config.unknown:
            log.warning("settings.unknown", name=name, did_you_mean=suggestion)
        tracing.start(os.environ)
        try:
            code = _run(serve(config))
        finally:
            tracing.stop()
    except (ConfigError, StoreError) as error:
        sys.stderr.write("".join(f"ecan: {line}\n" for line in str(error).splitlines()))
        sys.exit(EXIT_CONFIG)
    sys.exit(code)


def _run(coroutine: Coroutine[Any, Any, int]) -> int:
    try:
        import uvloop  # noqa: PLC0415 - not everywhere

        factory: Callable[[], asyncio.AbstractEventLoop] = uvloop.new_event_loop
    except ImportError:  # pragma: no cover - where there is no uvloop
        factory = asyncio.new_event_loop
    return run_fenced(coroutine, factory)
