"""The rule of `ecan.observability.redact`, for params of frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ecan.observability import REDACTED, is_secret_name, redact, scrub, secret_values

if TYPE_CHECKING:
    from ecan.protocol.frames import Request

__all__ = ["REDACTED", "is_secret_name", "redact", "request_secrets", "scrub"]


def request_secrets(request: Request) -> set[str]:
    """What a request brought in secret fields: a message made from it may hold them (P16)."""
    return secret_values(request.params) | {
        secret for secret in (request.session_id, request.token) if secret
    }
