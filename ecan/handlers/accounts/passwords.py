"""Passwords: the rules for new ones, and the queue of those who wait for a hash.

A hash costs 20 ms and 19 MiB on purpose, in a process of its own (`hashing`). Few at a
time, and a bounded number of logins that wait for their turn, keep a storm of logins from
eating the server; whoever finds the queue full is told when there will be room.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import time
import unicodedata
from typing import TYPE_CHECKING

from ecan.errors import ReplyError
from ecan.handlers.accounts.hashing import HashingProcess, owasp_hasher
from ecan.protocol.codes import ErrorCode
from ecan.store.users import username_key

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from typing import TypeVar

    from ecan.handlers.accounts.hashing import Hashes

    T = TypeVar("T")

MIN_CHARS = 8
MAX_CHARS = 1024
"""NIST SP 800-63B §5.1.1.2: length counts, rules of composition do harm."""

MAX_BYTES = 4096
"""Of UTF-8, so that no alphabet gets less than `MAX_CHARS`."""

MAX_WAITING = 64
"""A login at the end of this queue waits 0.7 s with two CPUs."""

MAX_WAIT_S = 5.0
"""Nobody is put into a queue that takes longer, as it does when sessions want all CPUs."""

FIRST_GUESS_S = 0.02
"""Of a hash, until some were made."""

MIN_RETRY_S, MAX_RETRY_S = 1.0, 30.0
"""After these who found the queue full is told to come again."""

# Without characters that look alike: 31^20 is 99 bits.
_ALPHABET = "abcdefghijkmnpqrstuvwxyz23456789"
_GROUPS, _GROUP_CHARS = 4, 5


class PasswordRuleError(ValueError):
    """A new password that is not accepted; the message says why and never what it was."""


def normalize(password: str) -> str:
    """The form that is hashed, the same for every way to type it (NIST SP 800-63B §5.1.1.2).

    Raises:
        PasswordRuleError: it is longer than any password can be, or is no text.
    """
    # The raw length first: normalising a megabyte would hold the loop.
    if len(password) <= MAX_BYTES:
        text = unicodedata.normalize("NFKC", password)
        with contextlib.suppress(UnicodeEncodeError):
            if len(text) <= MAX_CHARS and len(text.encode()) <= MAX_BYTES:
                return text
    raise PasswordRuleError(f"must be text of {MIN_CHARS} to {MAX_CHARS} characters")


def check_new_password(password: str, username: str) -> None:
    """The rules for a new password.

    Raises:
        PasswordRuleError: too short, too long, or the user name itself.

    >>> check_new_password("correct horse", "ann")
    """
    text = normalize(password)
    if len(text) < MIN_CHARS:
        raise PasswordRuleError(f"must have {MIN_CHARS} characters or more")
    if username_key(text) == username_key(username):
        raise PasswordRuleError("must not be the user name")


def generate_password() -> str:
    """A random password that can be read out and typed in.

    >>> len(generate_password())
    23
    """
    return "-".join(
        "".join(secrets.choice(_ALPHABET) for _ in range(_GROUP_CHARS)) for _ in range(_GROUPS)
    )


def hash_password(password: str) -> str:
    """A hash for the command line; blocks for 20 ms. Runs on: any thread but the loop's.

    Raises:
        PasswordRuleError: see `normalize`.
    """
    return owasp_hasher().hash(normalize(password))


class Passwords:
    """Hashing and verifying off the loop, in turns.

    Args:
        hashes: who does it; belongs to this from `start` to `close`.
        max_waiting: requests that may wait for their turn.
        clock: monotonic seconds.
    """

    def __init__(
        self,
        hashes: Hashes | None = None,
        *,
        max_waiting: int = MAX_WAITING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._hashes = hashes or HashingProcess()
        self._parameters = owasp_hasher()
        self._max_admitted = self._hashes.threads + max_waiting
        self._admitted = 0
        self._turns = asyncio.Semaphore(self._hashes.threads)
        self._clock = clock
        self._hash_s = FIRST_GUESS_S
        self._next_free = 0.0
        self._dummy = ""

    async def start(self) -> None:
        """Make the hash that is verified for users who do not exist."""
        await self._hashes.start()
        self._dummy = await self.hash(secrets.token_urlsafe())

    async def close(self) -> None:
        """Let the process end; hashes under way fail."""
        await self._hashes.close()

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """Hold a place in the queue for what happens inside.

        Raises:
            ReplyError: RATE_LIMITED, the queue is full.
        """
        # One that nobody waits in is never too long.
        too_long = self._admitted * self._each_s > MAX_WAIT_S and (
            self._admitted >= self._hashes.threads
        )
        if too_long or self._admitted >= self._max_admitted:
            raise ReplyError(
                ErrorCode.RATE_LIMITED,
                "Too many people are logging in. Try again in a moment.",
                retry_after_ms=round(self._book() * 1000),
            )
        self._admitted += 1
        try:
            yield
        finally:
            self._admitted -= 1

    async def verify(self, password_hash: str | None, password: str) -> bool:
        """Whether the password fits; None, for nobody's hash, costs the same and never fits."""
        try:
            text = normalize(password)
        except PasswordRuleError:
            text, password_hash = "", None
        fits = await self._in_turn(self._hashes.verify, password_hash or self._dummy, text)
        return fits and password_hash is not None

    async def hash(self, password: str) -> str:
        """A new hash.

        Raises:
            PasswordRuleError: see `normalize`.
        """
        return await self._in_turn(self._hashes.hash, normalize(password))

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than new ones are."""
        return self._parameters.check_needs_rehash(password_hash)

    @property
    def _each_s(self) -> float:
        """Between the ends of two hashes while there is a queue."""
        return self._hash_s / self._hashes.threads

    def _book(self) -> float:
        """Seconds until there will be room: nobody else is told the same moment.

        All told "in a second" would all come in a second, and nearly all in vain.
        """
        now = self._clock()
        free_at = max(self._next_free + self._each_s, now + MIN_RETRY_S)
        self._next_free = min(free_at, now + MAX_RETRY_S)
        return self._next_free - now

    async def _in_turn(self, ask: Callable[..., Awaitable[T]], *args: str) -> T:
        # INVARIANT: a turn ends with the work, not with the caller's patience (hence the
        # shield): what cancelled logins left behind would be a queue that nobody bounds.
        await self._turns.acquire()
        work = asyncio.ensure_future(self._timed(ask, *args))
        work.add_done_callback(self._turn_ended)
        return await asyncio.shield(work)

    async def _timed(self, ask: Callable[..., Awaitable[T]], *args: str) -> T:
        began = self._clock()
        answer = await ask(*args)
        self._hash_s += (self._clock() - began - self._hash_s) / 8
        return answer

    def _turn_ended(self, work: asyncio.Future[T]) -> None:
        self._turns.release()
        if not work.cancelled():
            work.exception()  # told to who still waits, if anybody does
