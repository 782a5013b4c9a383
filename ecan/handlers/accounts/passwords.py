"""Passwords: the rules for new ones, and argon2id that never blocks the loop.

A hash costs 20 ms and 19 MiB on purpose. Two at a time, and a bounded number of
logins that wait for their turn, keep a storm of logins from eating the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import sys
import threading
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, TypeVar

import argon2

from ecan.errors import ReplyError
from ecan.protocol.codes import ErrorCode
from ecan.store.users import username_key

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

T = TypeVar("T")

MIN_CHARS = 8
MAX_CHARS = 1024
"""NIST SP 800-63B §5.1.1.2: length counts, rules of composition do harm."""

MAX_BYTES = 4096
"""Of UTF-8, so that no alphabet gets less than `MAX_CHARS`."""

TIME_COST, MEMORY_KIB, PARALLELISM = 2, 19456, 1
"""OWASP Password Storage Cheat Sheet, Argon2id (P16)."""

THREADS = 2
HASHING_NICE = 10
"""A tenth of the loop's weight where they share a CPU."""

MAX_WAITING = 64
"""A login at the end of this queue waits 0.7 s; whoever comes then is told to come again."""

BUSY_RETRY_MS = 1000

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


def owasp_hasher() -> argon2.PasswordHasher:
    """argon2id as P16 promises it."""
    return argon2.PasswordHasher(
        time_cost=TIME_COST,
        memory_cost=MEMORY_KIB,
        parallelism=PARALLELISM,
        type=argon2.Type.ID,
    )


def hash_password(password: str) -> str:
    """A hash for the command line; blocks for 20 ms. Runs on: any thread but the loop's.

    Raises:
        PasswordRuleError: see `normalize`.
    """
    return owasp_hasher().hash(normalize(password))


def _give_way() -> None:
    """Whoever works in a session goes before whoever logs in. Runs in a hashing thread."""
    if sys.platform == "linux":  # where a thread has a priority of its own
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), HASHING_NICE)


class Passwords:
    """Hashing and verifying off the loop.

    Args:
        hasher: its parameters are those of new hashes; others are replaced at login.
        threads: hashes at one time.
        max_waiting: requests that may wait for a thread.
    """

    def __init__(
        self,
        hasher: argon2.PasswordHasher | None = None,
        *,
        threads: int = THREADS,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        self._hasher = hasher or owasp_hasher()
        self._max_admitted = threads + max_waiting
        self._admitted = 0
        self._turns = asyncio.Semaphore(threads)
        self._pool = ThreadPoolExecutor(
            threads, thread_name_prefix="ecan-argon2", initializer=_give_way
        )
        self._dummy = ""

    async def start(self) -> None:
        """Make the hash that is verified for users who do not exist."""
        self._dummy = await self.hash(secrets.token_urlsafe())

    def close(self) -> None:
        """Let the threads end; running hashes finish."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    @contextlib.contextmanager
    def admit(self) -> Iterator[None]:
        """Hold a place in the queue for what happens inside.

        Raises:
            ReplyError: RATE_LIMITED, the queue is full.
        """
        if self._admitted >= self._max_admitted:
            raise ReplyError(
                ErrorCode.RATE_LIMITED,
                "Too many people are logging in. Try again in a moment.",
                retry_after_ms=BUSY_RETRY_MS,
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
        fits = await self._run(self._verify, password_hash or self._dummy, text)
        return fits and password_hash is not None

    async def hash(self, password: str) -> str:
        """A new hash.

        Raises:
            PasswordRuleError: see `normalize`.
        """
        return await self._run(self._hasher.hash, normalize(password))

    def needs_rehash(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than new ones are."""
        return self._hasher.check_needs_rehash(password_hash)

    def _verify(self, password_hash: str, text: str) -> bool:
        try:
            return self._hasher.verify(password_hash, text)
        except (argon2.exceptions.VerifyMismatchError, argon2.exceptions.InvalidHashError):
            return False

    async def _run(self, function: Callable[..., T], *args: str) -> T:
        # INVARIANT: the pool's own queue, which nobody bounds, stays empty: a turn ends
        # with the thread's work, not with the caller's patience (hence the shield).
        await self._turns.acquire()
        work = asyncio.get_running_loop().run_in_executor(self._pool, function, *args)
        work.add_done_callback(lambda _: self._turns.release())
        return await asyncio.shield(work)
