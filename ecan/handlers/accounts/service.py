"""The accounts as the server sees them: who is who, and whose sessions must end.

The order of things, so that a change always wins over a login at the same time (P15):
one lock per user around "record the login and open the session" and around "change
the account and end its sessions". A change made by another process (``ecan users``)
leaves its reason in the file, and `AccountService.watch` finds it within a second.
"""

from __future__ import annotations

import asyncio
import contextlib
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NoReturn, ParamSpec, TypeVar
from weakref import WeakValueDictionary

from ecan.errors import ConfigError, HandlerError, ReplyError
from ecan.handlers.accounts.passwords import (
    PasswordRuleError,
    check_new_password,
    generate_password,
)
from ecan.handlers.context import User
from ecan.observability import get_logger
from ecan.protocol.codes import ErrorCode
from ecan.protocol.redact import REDACTED
from ecan.store.users import UserExistsError, UserFieldError, clean_username

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    from ecan.handlers.accounts.passwords import Passwords
    from ecan.handlers.accounts.throttle import LoginThrottle
    from ecan.runtime.clock import Clock
    from ecan.store.users import AccountRole, UserRow, UserStore

    Revoke = Callable[[int, str], Awaitable[object]]

P = ParamSpec("P")
T = TypeVar("T")

USERNAME_TAKEN = "USERNAME_TAKEN"
USER_NOT_FOUND = "USER_NOT_FOUND"
USER_DISABLED = "USER_DISABLED"

WATCH_INTERVAL_S = 1.0
"""How late a change by another process may be noticed; a look costs 30 µs off the loop."""

_log = get_logger(__name__)


class AccountService:
    """Users, passwords and logins.

    Runs on: the loop; SQLite has a thread of its own, hashing a process.

    Args:
        store: not yet open; belongs to this service from `start` to `stop`.
        passwords: not yet started.
        throttle: of logins and sign-ups.
        clock: for the pauses of `watch`.
        signup_open: whether anybody may make an account (ECAN_SIGNUP).
    """

    def __init__(
        self,
        store: UserStore,
        passwords: Passwords,
        throttle: LoginThrottle,
        *,
        clock: Clock,
        signup_open: bool = False,
    ) -> None:
        self._store = store
        self._passwords = passwords
        self._throttle = throttle
        self._clock = clock
        self.signup_open = signup_open
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="ecan-accounts")
        self._locks: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._revoke: Revoke | None = None
        self._must_look = True

    async def start(self) -> None:
        """Open the accounts.

        Raises:
            StoreError: the file cannot be used; the start ends.
        """
        await self._db(self._store.open)
        await self._passwords.start()

    async def stop(self) -> None:
        """Let go of file and threads; end `watch` first."""
        await self._passwords.close()
        await self._db(self._store.close)
        self._thread.shutdown(wait=False)

    async def ensure_admin(self, name: str, password: str | None) -> str | None:
        """Make the first account if there is none.

        Returns:
            The password, if one had to be made up: print it once and keep it nowhere.

        Raises:
            ConfigError: ECAN_ADMIN_USER or ECAN_ADMIN_PASSWORD cannot be used.
        """
        if await self._db(self._store.count):
            return None
        generated = None if password else generate_password()
        secret = password or generated or ""
        try:
            check_new_password(secret, name)
            hashed = await self._passwords.hash(secret)
            await self._db(self._store.add, name, hashed, role="admin")
        except PasswordRuleError as error:
            raise ConfigError("ECAN_ADMIN_PASSWORD", REDACTED, str(error)) from None
        except UserFieldError as error:
            raise ConfigError("ECAN_ADMIN_USER", name, error.problem) from None
        except UserExistsError:
            return None  # another process was first
        _log.info("user.created", username=name, role="admin", by="first start")
        return generated

    @contextlib.asynccontextmanager
    async def authenticated(
        self, username: str, password: str, address: str
    ) -> AsyncIterator[User]:
        """Check a login; open its session inside the ``async with``.

        While inside, no change of the account can come between (P15): it waits, and
        then ends the session that was opened.

        Raises:
            ReplyError: INVALID_CREDENTIALS (the same for unknown, wrong and disabled),
                RATE_LIMITED.
        """
        with self._passwords.admit():
            async with self._throttle.attempt(username, address) as attempt:
                row = await self._db(self._store.get_by_name, username)
                fits = await self._passwords.verify(row.password_hash if row else None, password)
                if row is None or not fits or row.disabled:
                    # Not the name: people type their password there.
                    _log.info("login.refused", user_id=row and row.user_id, address=address)
                    _refuse()
                if self._passwords.needs_rehash(row.password_hash):
                    better = await self._passwords.hash(password)
                    await self._db(self._store.rehash, row.user_id, row.password_hash, better)
                async with self._lock(row.user_id):
                    row = await self._db(
                        self._store.record_login, row.user_id, row.auth_version, address
                    )
                    if row is None:
                        _refuse()
                    await self._end_sessions(row, None)  # what a change before it left undone
                    attempt.succeeded()
                    yield _user(row)

    async def authenticate(self, username: str, password: str, address: str) -> User:
        """Check a login that opens no session; else see `authenticated`.

        Raises:
            ReplyError: INVALID_CREDENTIALS, RATE_LIMITED.
        """
        async with self.authenticated(username, password, address) as user:
            return user

    async def signup(
        self,
        username: str,
        password: str,
        *,
        address: str,
        email: str = "",
        name: str = "",
        lang: str = "en",
    ) -> User:
        """Make an account for somebody who asks for one.

        Raises:
            ReplyError: FORBIDDEN (closed), RATE_LIMITED, INVALID_PARAMS.
            HandlerError: USERNAME_TAKEN.
        """
        if not self.signup_open:
            raise ReplyError(
                ErrorCode.FORBIDDEN,
                "Sign-up is closed on this server. Ask its operator for an account.",
            )
        await self._throttle.sign_up(address)
        return await self.create(username, password, email=email, name=name, lang=lang)

    async def create(
        self,
        username: str,
        password: str,
        *,
        role: AccountRole = "user",
        email: str = "",
        name: str = "",
        lang: str = "en",
    ) -> User:
        """Make an account.

        Raises:
            ReplyError: INVALID_PARAMS, RATE_LIMITED (too many hashes to make).
            HandlerError: USERNAME_TAKEN.
        """
        try:
            shown = clean_username(username)
            _check_password("password", password, shown)
            with self._passwords.admit():
                await self._check_free(shown)
                hashed = await self._passwords.hash(password)
                row = await self._db(
                    self._store.add, shown, hashed, role=role, email=email, name=name, lang=lang
                )
        except UserFieldError as error:
            raise _invalid(error.field, error.problem) from None
        except UserExistsError as error:
            raise HandlerError(
                USERNAME_TAKEN, f"The user name {error.username} is taken. Choose another one."
            ) from None
        _log.info("user.created", user_id=row.user_id, username=shown, role=role)
        return _user(row)

    async def change_password(
        self,
        user_id: int,
        old: str,
        new: str,
        *,
        end_sessions: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        """Change a password, knowing the old one.

        Args:
            user_id: whose.
            old: counts as a login attempt of the user if it is wrong.
            new: the new one.
            end_sessions: ends those sessions of the user that must not go on; None: all.

        Raises:
            ReplyError: INVALID_CREDENTIALS (wrong old password), INVALID_PARAMS, RATE_LIMITED.
        """
        row = await self._db(self._store.get, user_id)
        if row is None:
            _refuse()
        _check_password("new_password", new, row.username)
        with self._passwords.admit():
            async with self._throttle.attempt(row.username, None) as attempt:
                if not await self._passwords.verify(row.password_hash, old):
                    _refuse()
                attempt.succeeded()
            hashed = await self._passwords.hash(new)
        async with self._lock(user_id):
            current = await self._db(self._store.get, user_id)
            if current is None or current.auth_version != row.auth_version:
                _refuse()
            await self._change(self._store.set_password, user_id, hashed, end=end_sessions)

    async def set_password(self, username: str, new: str) -> None:
        """Set a password on the operator's word; the user's sessions end.

        Raises:
            ReplyError: INVALID_PARAMS, RATE_LIMITED.
            HandlerError: USER_NOT_FOUND.
        """
        row = await self._by_name(username)
        _check_password("password", new, row.username)
        with self._passwords.admit():
            hashed = await self._passwords.hash(new)
        async with self._lock(row.user_id):
            await self._change(self._store.set_password, row.user_id, hashed)

    async def set_disabled(self, username: str, disabled: bool) -> None:
        """Lock a user out, sessions included, or let them in again.

        Raises:
            HandlerError: USER_NOT_FOUND.
        """
        row = await self._by_name(username)
        async with self._lock(row.user_id):
            await self._change(self._store.set_disabled, row.user_id, disabled)

    async def set_role(self, username: str, role: AccountRole) -> None:
        """Give a user another role; the sessions with the old one end.

        Raises:
            HandlerError: USER_NOT_FOUND.
        """
        row = await self._by_name(username)
        async with self._lock(row.user_id):
            await self._change(self._store.set_role, row.user_id, role)

    def limit_logins(self, count: int, per_s: float) -> None:
        """Another ECAN_LOGIN_RATE_LIMIT from now on."""
        self._throttle.set_limit(count, per_s)

    async def list_users(self) -> list[dict[str, Any]]:
        """All accounts, for operators."""
        return [
            {"user_id": row.user_id, **describe(row)}
            for row in await self._db(self._store.list_users)
        ]

    @contextlib.asynccontextmanager
    async def trusted(self, username: str) -> AsyncIterator[User]:
        """A user on an operator's word; open sessions inside the ``async with``.

        As with `authenticated`, no change of the account comes between (P15).

        Raises:
            HandlerError: USER_NOT_FOUND, USER_DISABLED.
        """
        user_id = (await self._by_name(username)).user_id
        async with self._lock(user_id):
            await self._end_if_revoked(user_id)
            row = await self._db(self._store.get, user_id)
            if row is None or row.disabled:
                raise HandlerError(USER_DISABLED, "The account is disabled.")
            yield _user(row)

    async def last_login(self, user_id: int) -> dict[str, str] | None:
        """The user's login before the latest one: ``{"username", "at", "address"}``."""
        row = await self._db(self._store.get, user_id)
        if row is None or row.previous_login_at is None:
            return None
        return {
            "username": row.username,
            "at": _iso(row.previous_login_at),
            "address": row.previous_login_address,
        }

    async def watch(self, revoke: Revoke, *, interval_s: float = WATCH_INTERVAL_S) -> NoReturn:
        """End the sessions of users whom another process locked out; runs until cancelled.

        At its first look it also does what was left undone when the server stopped.

        Args:
            revoke: ends all sessions of a user id, those at rest included, for the
                reason ``password_changed``, ``disabled`` or ``role_changed``. Called by
                the other methods too. It must not wait for the user's handlers.
            interval_s: seconds between two looks.
        """
        self._revoke = revoke
        seen: int | None = None
        while True:
            try:
                version = await self._db(self._store.data_version)
                if version != seen or self._must_look:
                    self._must_look = False
                    await self._end_all_revoked()
                    seen = version
            except Exception:  # noqa: BLE001 - whatever it was, the next look may succeed
                self._must_look = True
                _log.exception("accounts.watch_failed")
            await self._clock.sleep(interval_s)

    async def _end_all_revoked(self) -> None:
        for row in await self._db(self._store.pending_revocations):
            async with self._lock(row.user_id):
                await self._end_if_revoked(row.user_id)

    async def _end_if_revoked(self, user_id: int) -> None:
        row = await self._db(self._store.get, user_id)
        if row is not None:
            await self._end_sessions(row, None)

    async def _change(
        self,
        change: Callable[[int, Any], UserRow],
        user_id: int,
        value: Any,
        *,
        end: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        # If this is cancelled half-way, watch ends the sessions: its own connection's
        # changes do not show in data_version.
        self._must_look = True
        row = await self._db(change, user_id, value)
        await self._end_sessions(row, end)

    async def _end_sessions(
        self, row: UserRow, end: Callable[[], Awaitable[object]] | None
    ) -> None:
        if row.revoke_reason is None:
            return
        if end is not None:
            await end()
        elif self._revoke is not None:
            await self._revoke(row.user_id, row.revoke_reason)
        else:
            return  # nobody watches yet; the reason stays until somebody does
        await self._db(self._store.clear_revocation, row.user_id, row.auth_version)
        _log.info("user.sessions_ended", user_id=row.user_id, reason=row.revoke_reason)

    async def _check_free(self, username: str) -> None:
        if await self._db(self._store.get_by_name, username):
            raise UserExistsError(username)

    async def _by_name(self, username: str) -> UserRow:
        row = await self._db(self._store.get_by_name, username)
        if row is None:
            raise HandlerError(USER_NOT_FOUND, "There is no such user.")
        return row

    def _lock(self, user_id: int) -> asyncio.Lock:
        # Weak: a lock lives as long as somebody holds or awaits it.
        return self._locks.setdefault(user_id, asyncio.Lock())

    async def _db(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, lambda: function(*args, **kwargs)
        )


def describe(row: UserRow) -> dict[str, Any]:
    """An account for operators: everything but the secret."""
    return {
        "username": row.username,
        "role": row.role,
        "email": row.email,
        "name": row.name,
        "disabled": row.disabled,
        "created_at": _iso(row.created_at),
        "last_login_at": None if row.last_login_at is None else _iso(row.last_login_at),
        "last_login_address": row.last_login_address,
    }


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).isoformat(timespec="seconds")


def _user(row: UserRow) -> User:
    return User(
        user_id=row.user_id,
        username=row.username,
        role=row.role,
        email=row.email,
        name=row.name,
        lang=row.lang,
    )


def _refuse() -> NoReturn:
    raise ReplyError(ErrorCode.INVALID_CREDENTIALS, "User name or password is wrong.")


def _invalid(field: str, problem: str) -> ReplyError:
    path = f"params.{field}"
    return ReplyError(
        ErrorCode.INVALID_PARAMS,
        f"{path}: {problem}",
        details=[{"path": path, "problem": problem}],
    )


def _check_password(field: str, password: str, username: str) -> None:
    try:
        check_new_password(password, username)
    except PasswordRuleError as error:
        raise _invalid(field, str(error)) from None
