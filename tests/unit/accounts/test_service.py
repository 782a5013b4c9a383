"""Logins, sign-ups and changes of accounts, and whose sessions end by them."""

from __future__ import annotations

import asyncio

import argon2
import pytest
import structlog
from accounts_kit import PASSWORD

from ecan.errors import ConfigError, HandlerError, ReplyError, StoreError
from ecan.handlers.context import User
from ecan.store.users import UserStore

HERE, THERE = "192.0.2.1", "192.0.2.2"
NEW = "another long password"


class Revoked:
    """Stands for the sessions: remembers whom it was told to end."""

    def __init__(self):
        self.calls = []
        self.error = None
        self.called = asyncio.Event()

    async def __call__(self, user_id, reason):
        self.calls.append((user_id, reason))
        self.called.set()
        if self.error:
            raise self.error


@pytest.fixture
def revoked():
    return Revoked()


@pytest.fixture
async def watched(accounts, revoked):
    watch = asyncio.create_task(accounts.watch(revoked, interval_s=0.01))
    while accounts._revoke is None or accounts._must_look:
        await asyncio.sleep(0.001)
    yield accounts
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def refusal(awaitable):
    with pytest.raises(ReplyError) as caught:
        await awaitable
    return caught.value


async def test_a_login_with_name_and_password(accounts, ann):
    user = await accounts.authenticate(" ANN", PASSWORD, HERE)
    assert user == ann == User(user_id=ann.user_id, username="ann")


async def test_unknown_wrong_and_disabled_are_told_the_same_for_the_same_work(
    accounts, ann, hasher
):
    await accounts.create("bob", PASSWORD)
    await accounts.set_disabled("bob", True)
    errors = []
    for username, password in (
        ("nobody", PASSWORD),
        ("no such\x00name", PASSWORD),
        ("x" * 10_000, PASSWORD),
        ("ann", "wrong password"),
        ("ann", "x" * 10_000),
        ("bob", PASSWORD),
        ("bob", "wrong password"),
    ):
        hasher.verified.clear()
        hashed = hasher.hashed
        errors.append(
            await refusal(accounts.authenticate(username, password, f"10.0.0.{len(errors)}"))
        )
        assert (len(hasher.verified), hasher.hashed) == (1, hashed)
    answers = {(e.code, e.message, e.details, e.retryable, e.retry_after_ms) for e in errors}
    assert answers == {("INVALID_CREDENTIALS", "User name or password is wrong.", None, None, None)}


async def test_of_many_wrong_logins_at_once_five_are_checked(accounts, ann, hasher):
    hasher.verified.clear()
    results = await asyncio.gather(
        *(accounts.authenticate("ann", f"wrong password {n}", HERE) for n in range(20)),
        return_exceptions=True,
    )
    assert len(hasher.verified) == 5
    assert [error.code for error in results].count("RATE_LIMITED") == 15
    assert all(e.retry_after_ms for e in results if e.code == "RATE_LIMITED")
    limited = await refusal(accounts.authenticate("ann", PASSWORD, THERE))
    assert limited.code == "RATE_LIMITED"


async def test_many_good_logins_from_one_address(accounts, ann):
    users = await asyncio.gather(*(accounts.authenticate("ann", PASSWORD, HERE) for _ in range(5)))
    assert set(users) == {ann}


async def test_a_storm_of_logins_is_bounded(accounts, hasher):
    """More than 66 at once, from different people and places: the rest come again later."""
    hasher.gate.clear()
    hasher.verified.clear()
    logins = [
        asyncio.create_task(accounts.authenticate(f"user{n}", "x", f"10.0.{n}.1"))
        for n in range(100)
    ]
    while sum(task.done() for task in logins) < 34:
        await asyncio.sleep(0.001)
    assert {task.exception().code for task in logins if task.done()} == {"RATE_LIMITED"}
    hasher.gate.set()
    await asyncio.gather(*logins, return_exceptions=True)
    assert len(hasher.verified) == 66


async def test_old_parameters_are_renewed_at_login(accounts, ann, store):
    old = argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash(PASSWORD)
    await accounts._db(
        store.rehash, ann.user_id, (await row_of(accounts, store, ann)).password_hash, old
    )
    await accounts.authenticate("ann", PASSWORD, HERE)
    row = await row_of(accounts, store, ann)
    assert row.password_hash.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert (row.auth_version, row.revoke_reason) == (1, None)
    await accounts.authenticate("ann", PASSWORD, HERE)


async def row_of(accounts, store, user):
    return await accounts._db(store.get, user.user_id)


async def test_the_login_before_this_one_is_told(accounts, ann):
    assert await accounts.last_login(ann.user_id) is None
    await accounts.authenticate("ann", PASSWORD, HERE)
    assert await accounts.last_login(ann.user_id) is None
    await accounts.authenticate("ann", PASSWORD, THERE)
    last = await accounts.last_login(ann.user_id)
    assert (last["username"], last["address"]) == ("ann", HERE)
    assert last["at"].endswith("+00:00")
    assert await accounts.last_login(999) is None


async def test_a_change_while_the_password_is_checked_wins_p15(accounts, ann, hasher, store):
    hasher.gate.clear()
    login = asyncio.create_task(accounts.authenticate("ann", PASSWORD, HERE))
    while accounts._passwords._turns._value == 2:
        await asyncio.sleep(0.001)
    await accounts._db(store.set_password, ann.user_id, "other hash")
    hasher.gate.set()
    assert (await refusal(login)).code == "INVALID_CREDENTIALS"


async def test_a_change_while_the_session_opens_ends_that_session_p15(watched, ann, revoked):
    opened = []
    async with watched.authenticated("ann", PASSWORD, HERE) as user:
        change = asyncio.create_task(watched.set_disabled("ann", True))
        await asyncio.sleep(0.05)
        assert not change.done()
        assert revoked.calls == []
        opened.append(user)
    await change
    assert revoked.calls == [(ann.user_id, "disabled")]
    assert opened == [ann]


async def test_an_error_while_the_session_opens_is_the_callers(accounts, ann):
    for _ in range(7):
        with pytest.raises(ReplyError, match="SESSION_LIMIT"):
            async with accounts.authenticated("ann", PASSWORD, HERE):
                raise ReplyError("SESSION_LIMIT", "full")


async def test_sign_up(accounts):
    user = await accounts.signup(
        "zoe", PASSWORD, address=HERE, email="z@x.y", name="Zoé", lang="zh"
    )
    assert (user.username, user.role, user.email, user.name, user.lang) == (
        "zoe", "user", "z@x.y", "Zoé", "zh",
    )  # fmt: skip
    assert await accounts.authenticate("zoe", PASSWORD, HERE) == user


async def test_sign_up_closed(accounts, hasher):
    accounts.signup_open = False
    error = await refusal(accounts.signup("zoe", PASSWORD, address=HERE))
    assert error.code == "FORBIDDEN"
    assert "operator" in error.message
    assert hasher.hashed == 1  # the dummy


async def test_sign_ups_are_throttled(accounts):
    for number in range(5):
        await accounts.signup(f"zoe{number}", PASSWORD, address=HERE)
    assert (await refusal(accounts.signup("zoe9", PASSWORD, address=HERE))).code == "RATE_LIMITED"


async def test_a_name_is_taken(accounts, ann):
    error = await refusal(accounts.signup("ANN", PASSWORD, address=HERE))
    assert isinstance(error, HandlerError)
    assert error.code == "USERNAME_TAKEN"


async def test_the_same_name_twice_at_once_makes_one_account(accounts, store):
    results = await asyncio.gather(
        *(accounts.create("zoe", PASSWORD) for _ in range(3)), return_exceptions=True
    )
    assert sorted(getattr(result, "code", "made") for result in results) == [
        "USERNAME_TAKEN", "USERNAME_TAKEN", "made",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("fields", "path"),
    [
        ({"username": "a b"}, "params.username"),
        ({"password": "short"}, "params.password"),
        ({"password": "zoezoezoe", "username": "ZoeZoeZoe"}, "params.password"),
        ({"email": "a\nb"}, "params.email"),
        ({"name": "x" * 300}, "params.name"),
    ],
)
async def test_bad_fields_are_named_and_passwords_not_repeated_p16(accounts, fields, path):
    given = {"username": "zoe", "password": PASSWORD, **fields}
    error = await refusal(accounts.create(**given))
    assert error.code == "INVALID_PARAMS"
    assert [detail["path"] for detail in error.details] == [path]
    assert given["password"] not in str(error) + repr(error.details)


async def test_change_password(watched, ann, revoked):
    ended = []

    async def end_others():
        ended.append("others")

    await watched.change_password(ann.user_id, PASSWORD, NEW, end_sessions=end_others)
    assert ended == ["others"]
    assert (
        await refusal(watched.authenticate("ann", PASSWORD, HERE))
    ).code == "INVALID_CREDENTIALS"
    assert await watched.authenticate("ann", NEW, HERE) == ann
    await asyncio.sleep(0.05)
    assert revoked.calls == []  # this session stays


async def test_change_password_needs_the_old_one(accounts, ann):
    for _ in range(5):
        error = await refusal(accounts.change_password(ann.user_id, "wrong", NEW))
        assert error.code == "INVALID_CREDENTIALS"
    error = await refusal(accounts.change_password(ann.user_id, PASSWORD, NEW))
    assert error.code == "RATE_LIMITED"


async def test_change_password_of_nobody_and_to_a_bad_one(accounts, ann):
    assert (await refusal(accounts.change_password(9, "x", NEW))).code == "INVALID_CREDENTIALS"
    error = await refusal(accounts.change_password(ann.user_id, PASSWORD, "short"))
    assert error.details[0]["path"] == "params.new_password"


async def test_of_two_changes_at_once_one_wins(accounts, ann):
    results = await asyncio.gather(
        accounts.change_password(ann.user_id, PASSWORD, NEW),
        accounts.change_password(ann.user_id, PASSWORD, NEW + "2"),
        return_exceptions=True,
    )
    assert sorted(getattr(result, "code", "done") for result in results) == [
        "INVALID_CREDENTIALS", "done",
    ]  # fmt: skip


async def test_operators_changes_end_sessions_at_once_p15(watched, ann, revoked):
    await watched.set_password("ANN", NEW)
    await watched.set_disabled("ann", True)
    await watched.set_disabled("ann", False)
    await watched.set_role("ann", "admin")
    await watched.set_role("ann", "admin")
    user_id = ann.user_id
    assert revoked.calls == [
        (user_id, "password_changed"), (user_id, "disabled"), (user_id, "role_changed"),
    ]  # fmt: skip
    assert (await watched.authenticate("ann", NEW, HERE)).role == "admin"


async def test_operators_changes_need_a_user(accounts):
    for change in (
        accounts.set_password("nobody", NEW),
        accounts.set_disabled("nobody", True),
        accounts.set_role("nobody", "admin"),
    ):
        assert (await refusal(change)).code == "USER_NOT_FOUND"


async def test_operators_passwords_follow_the_rules(accounts, ann):
    assert (await refusal(accounts.set_password("ann", "short"))).code == "INVALID_PARAMS"


async def test_list_users_has_everything_but_the_secret_p16(accounts, ann):
    await accounts.authenticate("ann", PASSWORD, HERE)
    (user,) = await accounts.list_users()
    assert (user["username"], user["last_login_address"]) == ("ann", HERE)
    assert "argon2" not in repr(user)


async def test_a_change_before_anybody_watches_is_done_later_p15(accounts, ann, revoked):
    """Locked out while the server was down: sessions in the store end at its start."""
    await accounts.set_disabled("ann", True)
    watch = asyncio.create_task(accounts.watch(revoked, interval_s=0.01))
    await revoked.called.wait()
    await asyncio.sleep(0.05)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
    assert revoked.calls == [(ann.user_id, "disabled")]


async def test_a_change_by_another_connection_is_noticed_p15(watched, ann, revoked, tmp_path):
    with UserStore(tmp_path / "data") as other:
        other.set_password(ann.user_id, "hash")
    await asyncio.wait_for(revoked.called.wait(), 5)
    await asyncio.sleep(0.05)
    assert revoked.calls == [(ann.user_id, "password_changed")]


async def test_a_login_after_a_change_is_not_ended_by_it(accounts, ann, revoked, store, tmp_path):
    """Ended first, then opened: the change before a login never ends that login's session."""
    watch = asyncio.create_task(accounts.watch(revoked, interval_s=3600))
    while accounts._revoke is None or accounts._must_look:
        await asyncio.sleep(0.001)
    with UserStore(tmp_path / "data") as other:
        other.set_role(ann.user_id, "admin")
    async with accounts.authenticated("ann", PASSWORD, HERE) as user:
        assert user.role == "admin"
        assert revoked.calls == [(ann.user_id, "role_changed")]
    assert await accounts._db(store.pending_revocations) == []
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def test_watch_survives_errors_and_tries_again(watched, ann, revoked, tmp_path):
    revoked.error = RuntimeError("sessions are busy")
    with structlog.testing.capture_logs() as logs:
        with UserStore(tmp_path / "data") as other:
            other.set_disabled(ann.user_id, True)
        while len(revoked.calls) < 2:
            await asyncio.sleep(0.001)
        revoked.error = None
        while "user.sessions_ended" not in [log["event"] for log in logs]:
            await asyncio.sleep(0.001)
    assert "accounts.watch_failed" in [log["event"] for log in logs]
    assert set(revoked.calls) == {(ann.user_id, "disabled")}


async def test_a_change_cancelled_half_way_still_ends_sessions_p15(watched, ann, revoked):
    async def never():
        await asyncio.Event().wait()

    change = asyncio.create_task(
        watched.change_password(ann.user_id, PASSWORD, NEW, end_sessions=never)
    )
    while not watched._locks.get(ann.user_id) or not watched._locks[ann.user_id].locked():
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.05)
    change.cancel()
    await asyncio.wait_for(revoked.called.wait(), 5)
    await asyncio.gather(change, return_exceptions=True)
    assert revoked.calls == [(ann.user_id, "password_changed")]


async def test_locks_are_forgotten(accounts, ann):
    await accounts.authenticate("ann", PASSWORD, HERE)
    assert len(accounts._locks) == 0


async def test_the_first_start_makes_an_admin(accounts, store):
    password = await accounts.ensure_admin("root", None)
    assert len(password) >= 20
    assert (await accounts.authenticate("root", password, HERE)).role == "admin"
    assert await accounts.ensure_admin("root", None) is None
    assert await accounts.ensure_admin("other", None) is None
    assert await accounts._db(store.count) == 1


async def test_the_first_admin_may_bring_a_password(accounts):
    assert await accounts.ensure_admin("root", PASSWORD) is None
    assert (await accounts.authenticate("root", PASSWORD, HERE)).role == "admin"


async def test_a_bad_first_admin_ends_the_start_p16(accounts):
    with pytest.raises(ConfigError, match="ECAN_ADMIN_PASSWORD") as caught:
        await accounts.ensure_admin("root", "tiny123")
    assert "tiny123" not in str(caught.value)
    with pytest.raises(ConfigError, match="ECAN_ADMIN_USER='a b'"):
        await accounts.ensure_admin("a b", PASSWORD)


async def test_another_process_may_make_the_admin_first(accounts, store, monkeypatch, ann):
    monkeypatch.setattr(store, "count", lambda: 0)
    assert await accounts.ensure_admin("ann", None) is None


async def test_an_unusable_file_ends_the_start(accounts, tmp_path):
    (tmp_path / "bad").write_text("a file, not a directory")
    accounts._store = UserStore(tmp_path / "bad")
    with pytest.raises(StoreError, match="cannot be opened"):
        await accounts.start()


async def test_no_secret_in_logs_p16(watched, ann, tmp_path):
    with structlog.testing.capture_logs() as logs:
        await watched.create("zoe", "zoes long password")
        await watched.authenticate("zoe", "zoes long password", HERE)
        await refusal(watched.authenticate("typed password as name", "wrong password", HERE))
        await watched.set_password("zoe", NEW)
    assert {log["event"] for log in logs} >= {
        "user.created",
        "login.refused",
        "user.sessions_ended",
    }
    for secret in ("zoes long", "typed password", "wrong password", NEW, "argon2"):
        assert secret not in repr(logs)
