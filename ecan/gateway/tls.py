"""The server's certificate, for TLS without a proxy."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

from ecan.errors import ConfigError
from ecan.observability import get_logger

if TYPE_CHECKING:
    from pathlib import Path

log = get_logger("ecan.gateway")


class Certificate:
    """A certificate chain and its key, which may be exchanged while connections are open.

    Args:
        cert: PEM file of ``ECAN_TLS_CERT``.
        key: PEM file of ``ECAN_TLS_KEY``.

    Attributes:
        context: what listeners take; it stays the same object.

    Raises:
        ConfigError: they cannot be used.
    """

    def __init__(self, cert: Path, key: Path | None) -> None:
        self._cert = cert
        self._key = key
        self.context = self._load()

    def reload(self) -> bool:
        """Take the files as they are now for connections from here on; False if they are wrong.

        Open connections keep what they agreed on. Files that do not fit change nothing.
        """
        try:
            self._load()  # tried first: files that do not fit leave a context half changed
            self.context.load_cert_chain(self._cert, self._key)
        except (ConfigError, OSError) as error:
            log.error("tls.reload_failed", reason=str(error))  # noqa: TRY400 - the reason is all there is
            return False
        log.info("tls.reloaded", cert=str(self._cert))
        return True

    def _load(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        try:
            context.load_cert_chain(self._cert, self._key)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(
                "ECAN_TLS_CERT",
                str(self._cert),
                f"cannot be used with ECAN_TLS_KEY={str(self._key)!r}: {error.strerror or error}",
            ) from error
        return context
