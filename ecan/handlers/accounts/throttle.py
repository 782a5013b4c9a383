"""How often somebody may try to log in or sign up.

What counts:

- per user name: failed logins. A success forgets them.
- per address: failed logins. Successes do not count, many people share an address
  behind one router. IPv6 counts by /64, which is what one customer gets.
- per address: sign-ups, successful or not; what is unwanted there is the accounts.

A login takes its place in both windows before its password is checked and gets it
back on success, so attempts at the same time cannot slip through together.
"""

from __future__ import annotations

import contextlib
import ipaddress
import math
import time
from collections import OrderedDict
from typing import TYPE_CHECKING

from limits import RateLimitItemPerSecond
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import MovingWindowRateLimiter

from ecan.errors import ReplyError
from ecan.protocol.codes import ErrorCode
from ecan.store.users import MAX_USERNAME_CHARS, username_key

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

MAX_KEYS = 65_536
"""Names and addresses remembered at one time, 300 bytes each; the one quiet longest goes first."""

_V6_CUSTOMER_BITS = 64


class Windows(MemoryStorage):
    """The moving windows of `limits`, with an injected clock, a bound, and places given back.

    The library's own memory storage reads ``time.time``, keeps every key, and after
    each hit walks through all of them with a thread hop per key: whoever makes up
    names would have the server do that.
    """

    STORAGE_SCHEME: list[str] = []  # noqa: RUF012 - the library's attribute; not found by a URI

    def __init__(self, clock: Callable[[], float], max_keys: int = MAX_KEYS) -> None:
        super().__init__()
        self._clock = clock
        self._max_keys = max_keys
        self._hits: OrderedDict[str, list[float]] = OrderedDict()  # least recently hit first

    def __len__(self) -> int:
        return len(self._hits)

    async def acquire_entry(self, key: str, limit: int, expiry: float, amount: int = 1) -> bool:
        """Take a place in the window of a key, if one is free."""
        now = self._clock()
        hits = self._current(key, now - expiry)
        if len(hits) + amount > limit:
            return False
        hits.extend([now] * amount)
        self._hits[key] = hits
        self._hits.move_to_end(key)
        self._forget(now - expiry)
        return True

    async def get_moving_window(self, key: str, limit: int, expiry: int) -> tuple[float, int]:  # noqa: ARG002 - the library's signature
        """When the oldest place was taken, and how many are."""
        now = self._clock()
        hits = self._current(key, now - expiry)
        return (hits[0], len(hits)) if hits else (now, 0)

    async def clear(self, key: str) -> None:
        """Forget a key."""
        self._hits.pop(key, None)

    def give_back(self, key: str) -> None:
        """Free the place taken last."""
        hits = self._hits.get(key)
        if hits:
            hits.pop()
            if not hits:
                del self._hits[key]

    def _current(self, key: str, since: float) -> list[float]:
        return [at for at in self._hits.get(key, ()) if at > since]

    def _forget(self, since: float) -> None:
        while self._hits:
            oldest = next(iter(self._hits))
            if len(self._hits) <= self._max_keys and self._hits[oldest][-1] > since:
                return
            del self._hits[oldest]


class Attempt:
    """One login on its way; without a word it counts as failed."""

    def __init__(self) -> None:
        self.is_success = False

    def succeeded(self) -> None:
        """The password fitted and the account may be used."""
        self.is_success = True


class LoginThrottle:
    """The limits of logins and sign-ups.

    Args:
        count: attempts in one window, per user name and per address; 0 is no limit.
        per_s: length of the window in seconds; whole ones, rounded up.
        clock: monotonic seconds.
        max_keys: names and addresses remembered at one time.
    """

    def __init__(
        self,
        count: int,
        per_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self.set_limit(count, per_s)
        self._clock = clock
        self._windows = Windows(clock, max_keys)
        self._limiter = MovingWindowRateLimiter(self._windows)

    def set_limit(self, count: int, per_s: float) -> None:
        """Another limit from now on; attempts under the old one are forgotten."""
        self._on = count > 0
        self._item = RateLimitItemPerSecond(max(1, count), max(1, math.ceil(per_s)))

    @contextlib.asynccontextmanager
    async def attempt(self, username: str, address: str | None) -> AsyncIterator[Attempt]:
        """A login (or another check of a password), from before the check to its outcome.

        Args:
            username: as typed.
            address: of the client; None where the user is already known.

        Raises:
            ReplyError: RATE_LIMITED, with retry_after_ms.
        """
        keys = [("user", _user(username))]
        if address is not None:
            keys.append(("address", network_of(address)))
        taken: list[tuple[str, str]] = []
        try:
            for key in keys:
                await self._take(key)
                taken.append(key)
        except ReplyError:
            self._give_back(taken)
            raise
        attempt = Attempt()
        try:
            yield attempt
        finally:
            if attempt.is_success:
                self._give_back(taken)
                await self._limiter.clear(self._item, *keys[0])

    async def sign_up(self, address: str) -> None:
        """Count a sign-up.

        Raises:
            ReplyError: RATE_LIMITED, with retry_after_ms.
        """
        await self._take(("signup", network_of(address)))

    async def _take(self, key: tuple[str, str]) -> None:
        if not self._on or await self._limiter.hit(self._item, *key):
            return
        free_at, _ = await self._limiter.get_window_stats(self._item, *key)
        wait_s = max(0.001, free_at - self._clock())
        raise ReplyError(
            ErrorCode.RATE_LIMITED,
            f"Too many attempts. Try again in {math.ceil(wait_s)} s.",
            retry_after_ms=math.ceil(wait_s * 1000),
        )

    def _give_back(self, keys: list[tuple[str, str]]) -> None:
        for key in keys:
            self._windows.give_back(self._item.key_for(*key))


def _user(username: str) -> str:
    # Cut first: folding a megabyte would hold the loop.
    return username_key(username.strip()[: MAX_USERNAME_CHARS + 1])


def network_of(address: str) -> str:
    """What counts as one address.

    >>> network_of("192.0.2.7"), network_of("::ffff:192.0.2.7"), network_of("2001:db8::1:2:3:4")
    ('192.0.2.7', '192.0.2.7', '2001:db8::/64')
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address[:MAX_USERNAME_CHARS]
    if ip.version == 4:  # noqa: PLR2004 - its name
        return str(ip)
    if ip.ipv4_mapped is not None:
        return str(ip.ipv4_mapped)
    return str(ipaddress.ip_network((ip, _V6_CUSTOMER_BITS), strict=False))
