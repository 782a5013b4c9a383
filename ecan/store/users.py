"""User accounts: one SQLite file, shared by the server and ``ecan users``.

A change that ends the logins made before it (new password, disabled, other role)
raises ``auth_version`` and leaves its ``revoke_reason`` in the same transaction. The
server ends the user's sessions and then calls `clear_revocation`; until then the
reason stands, across processes and restarts.
"""

from __future__ import annotations

import time
import unicodedata
from typing import TYPE_CHECKING, Any, Literal, Self

import apsw
import attrs

from ecan.errors import StoreError
from ecan.store.sqlite_db import open_database

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

AccountRole = Literal["user", "admin"]
RevokeReason = Literal["password_changed", "disabled", "role_changed"]

USERS_FILE = "accounts.sqlite3"

MAX_USERNAME_CHARS = 64
"""Long enough for e-mail addresses people log in with, short enough for logs and tables."""

MAX_FIELD_CHARS = 254
"""Of e-mail (RFC 5321 §4.5.3.1.3) and display name."""


class UserExistsError(StoreError):
    """The user name is taken, in whatever spelling."""

    def __init__(self, username: str) -> None:
        super().__init__(f"There is already a user {username!r}")
        self.username = username


class UserNotFoundError(StoreError):
    """There is no such user."""

    def __init__(self, who: str | int) -> None:
        super().__init__(f"There is no user {who!r}")
        self.who = who


class UserFieldError(StoreError):
    """A field of an account cannot have this value; the message says what it may be."""

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem


def username_key(username: str) -> str:
    r"""What makes two user names the same: compatibility forms and case do not count.

    After Unicode 15 §3.13, "compatibility caseless match"; two rounds, because folding
    can make characters that fold again.

    >>> username_key("\uff21nn"), username_key("STRASSE") == username_key("straße")
    ('ann', True)
    """
    key = unicodedata.normalize("NFD", username)
    for _ in range(2):
        key = unicodedata.normalize("NFKD", key).casefold()
    return unicodedata.normalize("NFKC", key)


def clean_username(username: str) -> str:
    """The name as it is kept and shown.

    Raises:
        UserFieldError: it is empty, too long, or has blanks within or invisible characters.
    """
    username = username.strip()
    if len(username) <= MAX_USERNAME_CHARS:
        name = unicodedata.normalize("NFKC", username)
        if 1 <= len(name) <= MAX_USERNAME_CHARS and all(map(_is_name_character, name)):
            return name
    raise UserFieldError(
        "username",
        f"1 to {MAX_USERNAME_CHARS} characters, without blanks or invisible characters",
    )


def _is_name_character(character: str) -> bool:
    return unicodedata.category(character)[0] not in "CZ"


def clean_text(field: str, value: str) -> str:
    """A one-line field of an account.

    Raises:
        UserFieldError: it is too long or has control characters.
    """
    breaks = {"Cc", "Cs", "Zl", "Zp"}
    if len(value) > MAX_FIELD_CHARS or any(unicodedata.category(c) in breaks for c in value):
        raise UserFieldError(field, f"at most {MAX_FIELD_CHARS} characters on one line")
    return value.strip()


@attrs.frozen(kw_only=True)
class UserRow:
    """An account as stored."""

    user_id: int
    username: str
    email: str
    name: str
    role: str
    lang: str
    password_hash: str = attrs.field(repr=False)
    disabled: bool = attrs.field(converter=bool)
    auth_version: int
    revoke_reason: str | None
    created_at: float
    last_login_at: float | None
    last_login_address: str
    previous_login_at: float | None
    previous_login_address: str


_COLUMNS = ", ".join(field.name for field in attrs.fields(UserRow))


class UserStore:
    """The accounts. Use from one thread at a time; every call may block.

    Args:
        data_dir: holds ``accounts.sqlite3``.
        now: UTC epoch seconds.

    Raises:
        StoreError: from any method, when SQLite says no.
    """

    def __init__(self, data_dir: Path, *, now: Callable[[], float] = time.time) -> None:
        self._path = data_dir / USERS_FILE
        self._now = now
        self._connection: apsw.Connection | None = None

    def open(self) -> None:
        """Make or migrate the file.

        Raises:
            StoreError: it cannot be used, or is of a newer version.
        """
        self._connection = open_database(self._path, "users")

    def close(self) -> None:
        """Let go of the file; twice is fine."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.close()

    def add(
        self,
        username: str,
        password_hash: str,
        *,
        role: AccountRole = "user",
        email: str = "",
        name: str = "",
        lang: str = "en",
    ) -> UserRow:
        """A new account.

        Raises:
            UserExistsError: the name is taken.
            UserFieldError: a field cannot be kept.
        """
        shown = clean_username(username)
        values = {
            "username": shown,
            "key": username_key(shown),
            "hash": password_hash,
            "role": role,
            "email": clean_text("email", email),
            "name": clean_text("name", name),
            "lang": clean_text("lang", lang),
            "now": self._now(),
        }
        try:
            row = self._one(
                "INSERT INTO users"  # noqa: S608 - only our own column names
                " (username, username_key, password_hash, role, email, name, lang, created_at)"
                " VALUES (:username, :key, :hash, :role, :email, :name, :lang, :now)"
                f" RETURNING {_COLUMNS}",
                values,
            )
        except StoreError as error:
            if isinstance(error.__cause__, apsw.ConstraintError) and self.get_by_name(shown):
                raise UserExistsError(shown) from None
            raise
        return _required(row, shown)

    def get_by_name(self, username: str) -> UserRow | None:
        """The account of that name in any spelling, or None."""
        try:
            key = username_key(clean_username(username))
        except UserFieldError:
            return None
        return self._one(
            f"SELECT {_COLUMNS} FROM users WHERE username_key = ?",  # noqa: S608 - see above
            (key,),
        )

    def get(self, user_id: int) -> UserRow | None:
        """The account with that id, or None."""
        return self._one(
            f"SELECT {_COLUMNS} FROM users WHERE user_id = ?",  # noqa: S608 - see above
            (user_id,),
        )

    def list_users(self) -> list[UserRow]:
        """All accounts by name."""
        return self._all(f"SELECT {_COLUMNS} FROM users ORDER BY username_key")  # noqa: S608

    def count(self) -> int:
        """How many accounts there are."""
        return int(self._execute("SELECT count(*) FROM users")[0][0])

    def set_password(self, user_id: int, password_hash: str) -> UserRow:
        """A new password: logins made with the old one end.

        Raises:
            UserNotFoundError: there is no such user.
        """
        return self._revoking(
            user_id, "password_changed", "password_hash = :value", password_hash, always=True
        )

    def set_disabled(self, user_id: int, disabled: bool) -> UserRow:
        """Lock an account out or let it in again; disabling ends its logins.

        Raises:
            UserNotFoundError: there is no such user.
        """
        if not disabled:
            row = self._one(
                f"UPDATE users SET disabled = 0 WHERE user_id = ? RETURNING {_COLUMNS}",  # noqa: S608
                (user_id,),
            )
            return _required(row, user_id)
        return self._revoking(user_id, "disabled", "disabled = :value", 1)

    def set_role(self, user_id: int, role: AccountRole) -> UserRow:
        """Another role: logins made with the old one end.

        Raises:
            UserNotFoundError: there is no such user.
        """
        return self._revoking(user_id, "role_changed", "role = :value", role)

    def _revoking(
        self, user_id: int, reason: RevokeReason, change: str, value: Any, *, always: bool = False
    ) -> UserRow:
        """Apply the change, and have the user's sessions ended if it changes anything."""
        column = change.partition(" ")[0]
        row = self._one(
            f"UPDATE users SET {change}, auth_version = auth_version + 1,"  # noqa: S608 - as above
            " revoke_reason = :reason"
            f" WHERE user_id = :user_id AND (:always OR {column} IS NOT :value)"
            f" RETURNING {_COLUMNS}",
            {"value": value, "reason": reason, "user_id": user_id, "always": int(always)},
        )
        return _required(row or self.get(user_id), user_id)

    def rehash(self, user_id: int, old_hash: str, new_hash: str) -> None:
        """The same password under other parameters; nothing if it was changed meanwhile."""
        self._execute(
            "UPDATE users SET password_hash = ? WHERE user_id = ? AND password_hash = ?",
            (new_hash, user_id, old_hash),
        )

    def record_login(self, user_id: int, auth_version: int, address: str) -> UserRow | None:
        """Note a login, if the account is still what the password was checked against.

        Returns:
            The account as it is now; None if it was disabled or got another password or
            role meanwhile.
        """
        # RACE: checking a password takes 20 ms, and a change in that time must win.
        return self._one(
            "UPDATE users SET previous_login_at = last_login_at,"  # noqa: S608 - see above
            " previous_login_address = last_login_address,"
            " last_login_at = :now, last_login_address = :address"
            " WHERE user_id = :user_id AND auth_version = :auth_version AND NOT disabled"
            f" RETURNING {_COLUMNS}",
            {
                "now": self._now(),
                "address": address,
                "user_id": user_id,
                "auth_version": auth_version,
            },
        )

    def pending_revocations(self) -> list[UserRow]:
        """Users whose sessions must end and have not been reported ended."""
        return self._all(f"SELECT {_COLUMNS} FROM users WHERE revoke_reason IS NOT NULL")  # noqa: S608

    def clear_revocation(self, user_id: int, auth_version: int) -> None:
        """The user's sessions have ended; a change made since then stays to be done."""
        self._execute(
            "UPDATE users SET revoke_reason = NULL WHERE user_id = ? AND auth_version = ?",
            (user_id, auth_version),
        )

    def data_version(self) -> int:
        """A number that is another one after another process (or connection) changed the file."""
        return int(self._execute("PRAGMA data_version")[0][0])

    def _execute(self, sql: str, values: Any = ()) -> list[tuple[Any, ...]]:
        if self._connection is None:
            raise StoreError(f"{self._path} is not open")
        try:
            return self._connection.execute(sql, values).fetchall()
        except apsw.Error as error:
            # SQLite's messages name columns, never values (P16).
            raise StoreError(f"{self._path}: {error}") from error

    def _all(self, sql: str, values: Any = ()) -> list[UserRow]:
        names = [field.name for field in attrs.fields(UserRow)]
        return [UserRow(**dict(zip(names, row, strict=True))) for row in self._execute(sql, values)]

    def _one(self, sql: str, values: Any) -> UserRow | None:
        rows = self._all(sql, values)
        return rows[0] if rows else None


def _required(row: UserRow | None, who: str | int) -> UserRow:
    if row is None:
        raise UserNotFoundError(who)
    return row
