"""The rule of `ecan.observability.redact`, for those who deal with frames."""

from ecan.observability.redact import REDACTED, is_secret_name, redact

__all__ = ["REDACTED", "is_secret_name", "redact"]
