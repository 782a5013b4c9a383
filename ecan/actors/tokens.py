"""Session ids and tokens: random, stored hashed, with expiry and revocation (P15, P16)."""

from __future__ import annotations

import binascii
import hashlib
import os
from typing import TYPE_CHECKING, TypeAlias

import attrs

from ecan.protocol.frames import SessionId, Sid
from ecan.store import TokenRow

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

TOKEN_BYTES = 32
"""256 bits: not to be guessed, so a fast hash is enough to store them."""

REFRESH_GRACE_S = 60.0
"""How long a refreshed token stays good, for requests already on their way."""

MAX_TOKENS = 16
"""Of one session; the oldest goes first. A tab refreshes one at a time."""

SID_CHARS = 12
"""60 bits: at 100 000 sessions a collision has a chance of 1 in 10^8, and is looked for."""


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


def _new_secret() -> str:
    """As `secrets.token_urlsafe`, at half its cost."""
    data = binascii.b2a_base64(os.urandom(TOKEN_BYTES), newline=False)
    return data.translate(_URL_SAFE, b"=").decode()


def new_session_id() -> SessionId:
    """A fresh secret session id."""
    return SessionId(_new_secret())


def digest(secret: str) -> bytes:
    """What is stored instead of a session id or token."""
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()


_BASE32 = "abcdefghijklmnopqrstuvwxyz234567"
_PAIRS = [first + second for first in _BASE32 for second in _BASE32]
"""Ten bits each, as RFC 4648 writes them: four times as fast as the standard library."""


def sid_of(session_id_digest: bytes) -> Sid:
    """The public id of a session; it tells nothing of the secret one.

    >>> sid_of(digest("x"))
    'fvyrmqvxe2ye'
    """
    number = int.from_bytes(session_id_digest[:8], "big") >> 4
    return Sid("".join([_PAIRS[number >> shift & 0x3FF] for shift in (50, 40, 30, 20, 10, 0)]))


@attrs.define(eq=False)
class Token:
    """One token of a session, as its connections hold it.

    Attributes:
        digest: SHA-256 of the secret.
        expires_at: UTC epoch seconds.
        revoked: dies on every connection at its next frame.
    """

    digest: bytes
    expires_at: float
    revoked: bool = False

    def is_valid(self, now: float) -> bool:
        """Whether it may still be used."""
        return not self.revoked and now < self.expires_at


def new_token(now: float, ttl_s: float) -> tuple[str, Token]:
    """A token that is in no table yet: its secret, which is kept nowhere, and its record."""
    secret = _new_secret()
    return secret, Token(digest(secret), now + ttl_s)


SavedTokens: TypeAlias = tuple[tuple[Token, float, bool], ...]
"""A table as it was: tokens, when they expired, whether they were revoked."""


class TokenTable:
    """The tokens of one session."""

    __slots__ = ("_tokens",)

    def __init__(self, tokens: Iterable[Token] = ()) -> None:
        self._tokens: dict[bytes, Token] = {token.digest: token for token in tokens}

    def __iter__(self) -> Iterator[Token]:
        return iter(self._tokens.values())

    def __len__(self) -> int:
        return len(self._tokens)

    def issue(self, now: float, ttl_s: float) -> tuple[str, Token]:
        """A new token; returns the secret, which is kept nowhere, and its record."""
        self._prune(now)
        secret, token = new_token(now, ttl_s)
        self.add(token)
        return secret, token

    def add(self, token: Token) -> None:
        """Take a token into the table; the oldest gives way."""
        self._tokens[token.digest] = token
        while len(self._tokens) > MAX_TOKENS:
            oldest = next(iter(self._tokens.values()))
            oldest.revoked = True
            del self._tokens[oldest.digest]

    def find(self, secret: str, now: float) -> Token | None:
        """The live token with this secret, or None."""
        # Looking up a hash of the secret leaks nothing about stored ones by its timing.
        token = self._tokens.get(digest(secret))
        return token if token is not None and token.is_valid(now) else None

    def newest(self, now: float) -> Token | None:
        """The live token that lasts longest, or None."""
        live = [token for token in self._tokens.values() if token.is_valid(now)]
        return max(live, key=lambda token: token.expires_at, default=None)

    def refresh(self, old: Token, now: float, ttl_s: float) -> tuple[str, Token]:
        """A new token; the old one lives on for a short grace."""
        old.expires_at = min(old.expires_at, now + REFRESH_GRACE_S)
        return self.issue(now, ttl_s)

    def rows(self) -> tuple[TokenRow, ...]:
        """All tokens as stored."""
        return tuple(
            TokenRow(digest=token.digest, expires_at=token.expires_at)
            for token in self._tokens.values()
        )

    def saved(self) -> SavedTokens:
        """The table as it is, for `restore`."""
        return tuple((t, t.expires_at, t.revoked) for t in self._tokens.values())

    def restore(self, saved: SavedTokens) -> None:
        """Back to how it was: the change could not be written. Newer tokens die."""
        for token in self._tokens.values():
            token.revoked = True
        self._tokens.clear()
        for token, expires_at, revoked in saved:
            token.expires_at, token.revoked = expires_at, revoked
            self._tokens[token.digest] = token

    def revoke_all(self) -> None:
        """Every token dies now, on every connection."""
        for token in self._tokens.values():
            token.revoked = True
        self._tokens.clear()

    def _prune(self, now: float) -> None:
        for token in [t for t in self._tokens.values() if not t.is_valid(now)]:
            del self._tokens[token.digest]
