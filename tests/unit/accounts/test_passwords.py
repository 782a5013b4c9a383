"""The rules for passwords, and hashing that never blocks the loop and has an end."""

from __future__ import annotations

import asyncio
import itertools

import argon2
import pytest
from accounts_kit import FakeMono
from argon2 import Type, extract_parameters
from hypothesis import given
from hypothesis import strategies as st

from ecan.errors import ReplyError
from ecan.handlers.accounts.hashing import HashingProcess
from ecan.handlers.accounts.passwords import (
    MAX_RETRY_S,
    MAX_WAIT_S,
    MIN_RETRY_S,
    PasswordRuleError,
    Passwords,
    check_new_password,
    generate_password,
    hash_password,
    normalize,
)


@pytest.fixture
def mono():
    return FakeMono()


@pytest.fixture
async def passwords(hasher, mono):
    passwords = Passwords(hasher, max_waiting=3, clock=mono)
    await passwords.start()
    yield passwords
    hasher.gate.set()
    await passwords.close()


async def until(condition):
    while not condition():
        await asyncio.sleep(0.001)


async def test_hashes_are_argon2id_as_owasp_says_p16(passwords):
    for password_hash in (await passwords.hash("correct horse"), hash_password("correct horse")):
        parameters = extract_parameters(password_hash)
        assert (
            parameters.type, parameters.memory_cost, parameters.time_cost, parameters.parallelism,
        ) == (Type.ID, 19456, 2, 1)  # fmt: skip
        assert not passwords.needs_rehash(password_hash)


async def test_what_is_shipped_is_owasp_in_a_process_p16():
    passwords = Passwords()
    assert isinstance(passwords._hashes, HashingProcess)
    assert passwords._max_admitted == passwords._hashes.threads + 64
    await passwords.start()
    made = await passwords.hash("correct horse")
    assert extract_parameters(made) == extract_parameters(hash_password("correct horse"))
    assert await passwords.verify(made, "correct horse")
    await passwords.close()


async def test_a_password_fits_its_own_hash_only(passwords):
    password_hash = await passwords.hash("correct horse")
    assert await passwords.verify(password_hash, "correct horse")
    assert not await passwords.verify(password_hash, "correct hors")
    assert not await passwords.verify(None, "correct horse")


async def test_every_refusal_costs_one_hash(passwords, hasher):
    """Nobody, an unusable password and a wrong one are the same work."""
    password_hash = await passwords.hash("correct horse")
    for stored, typed in (
        (None, "correct horse"),
        (password_hash, "wrong"),
        (password_hash, "x" * 100_000),
        (password_hash, "\ud800"),
        (None, ""),
    ):
        hasher.verified.clear()
        assert not await passwords.verify(stored, typed)
        assert len(hasher.verified) == 1
        assert extract_parameters(hasher.verified[0]) == extract_parameters(password_hash)


async def test_the_dummy_is_no_password(passwords):
    """An empty or overlong password must not fit the hash that stands for nobody."""
    assert not await passwords.verify(passwords._dummy, "")


async def test_a_hash_that_cannot_be_read_fits_nothing(passwords):
    assert not await passwords.verify("$2b$nonsense", "correct horse")


async def test_old_parameters_are_noticed(passwords):
    old = argon2.PasswordHasher(time_cost=1, memory_cost=1024, parallelism=1).hash("x" * 9)
    assert passwords.needs_rehash(old)


async def test_composed_and_decomposed_are_one_password(passwords):
    password_hash = await passwords.hash("pa\u0308sswort \uff21")
    assert await passwords.verify(password_hash, "p\u00e4sswort A")


@pytest.mark.parametrize("password", ["", "1234567", "\u00e4\u0308\u0308"[:1] * 7, "\ufb03" * 2])
def test_too_short(password):
    with pytest.raises(PasswordRuleError, match="8 characters or more"):
        check_new_password(password, "ann")


@pytest.mark.parametrize(
    "password",
    ["x" * 1025, "x" * 10_000_000, "\U00020000" * 1025, "\ufdfa" * 100, "12345678\ud800"],
)
def test_too_long_or_no_text(password):
    with pytest.raises(PasswordRuleError, match="8 to 1024"):
        check_new_password(password, "ann")


@pytest.mark.parametrize("password", ["annabell", "ANNABELL", "\uff21nnabell"])
def test_the_user_name_is_no_password(password):
    with pytest.raises(PasswordRuleError, match="user name"):
        check_new_password(password, "Annabell")


@pytest.mark.parametrize(
    "password", ["12345678", "x" * 1024, "\U00020000" * 1024, "密码密码密码密码"]
)
def test_any_characters_will_do(password):
    check_new_password(password, "ann")


@given(st.text(max_size=1100))
def test_normalising_twice_is_normalising_once(password):
    try:
        text = normalize(password)
    except PasswordRuleError as error:
        assert len(password) < 8 or password not in str(error)  # noqa: PT017 - P16
        return
    assert normalize(text) == text


def test_generated_passwords_are_good_and_differ():
    made = {generate_password() for _ in range(100)}
    assert len(made) == 100
    for password in made:
        check_new_password(password, "ann")
        assert len(password) >= 20
        assert not set("0O1lI ") & set(password)


async def login(passwords):
    with passwords.admit():
        return await passwords.verify(None, "x")


def refusal(passwords):
    """Seconds after which one who is not admitted is told to come again; None: is admitted."""
    try:
        with passwords.admit():
            return None
    except ReplyError as error:
        return error.retry_after_ms / 1000 if error.code == "RATE_LIMITED" else None


async def test_the_queue_has_an_end(passwords, hasher):
    """Two at work, three waiting; whoever comes then is told to come again."""
    hasher.gate.clear()
    logins = [asyncio.create_task(login(passwords)) for _ in range(8)]
    await asyncio.sleep(0)
    await until(lambda: sum(task.done() for task in logins) == 3)
    for task in logins[5:]:
        error = task.exception()
        assert isinstance(error, ReplyError)
        assert error.code == "RATE_LIMITED"
        assert error.retry_after_ms >= MIN_RETRY_S * 1000
    await until(lambda: hasher.running == 2)
    hasher.gate.set()
    assert await asyncio.gather(*logins[:5]) == [False] * 5
    assert passwords._admitted == 0


async def test_those_who_are_refused_are_told_one_moment_each(passwords, hasher, mono):
    """As many as there will be turns until then; all in a second would come in vain."""
    passwords._hash_s = 0.1
    hasher.gate.clear()
    logins = [asyncio.create_task(login(passwords)) for _ in range(5)]
    await until(lambda: passwords._admitted == 5)
    told = [refusal(passwords) for _ in range(100)]
    assert told[0] == MIN_RETRY_S
    steps = [after - before for before, after in itertools.pairwise(told)]
    assert steps == pytest.approx([0.05] * 99, abs=0.002)  # two at a time
    mono.at += 3.0
    assert refusal(passwords) == pytest.approx(told[-1] + 0.05 - 3.0, abs=0.002)
    told = [refusal(passwords) for _ in range(2000)]
    assert max(told) == MAX_RETRY_S, "nobody is sent away for longer, whoever asks how often"
    mono.at += 100.0
    assert refusal(passwords) == MIN_RETRY_S
    hasher.gate.set()
    await asyncio.gather(*logins)


async def test_a_queue_that_takes_too_long_is_full(passwords, hasher):
    """Where sessions want all CPUs, hashes take longer; so many need not be promised."""
    passwords._hash_s = 0.9 * MAX_WAIT_S
    hasher.gate.clear()
    logins = [asyncio.create_task(login(passwords)) for _ in range(3)]
    await until(lambda: passwords._admitted == 3)
    assert refusal(passwords) is not None
    hasher.gate.set()
    await asyncio.gather(*logins)
    passwords._hash_s = 100.0
    assert refusal(passwords) is None, "but never so full that nobody may try"


async def test_how_long_a_hash_takes_is_learnt(passwords, hasher, mono):
    """From those that are made."""
    for _ in range(50):
        hasher.gate.clear()
        hashing = asyncio.create_task(passwords.hash("correct horse"))
        await until(lambda: hasher.running)
        mono.at += 0.3
        hasher.gate.set()
        await hashing
    assert passwords._hash_s == pytest.approx(0.3, rel=0.01)


async def test_cancelled_logins_leave_no_work_behind(passwords, hasher):
    """Those at work go on, those that waited do not; the next is served."""
    hasher.gate.clear()
    hasher.verified.clear()
    for _ in range(5):
        tasks = [asyncio.create_task(passwords.verify(None, "x")) for _ in range(10)]
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    assert len(hasher.verified) == hasher.running == 2
    hasher.gate.set()
    assert await passwords.verify(None, "x") is False


async def test_a_hash_that_fails_when_nobody_waits_any_more_is_no_noise(passwords, hasher, caplog):
    """The login was cancelled, then the process died."""
    hasher.gate.clear()
    task = asyncio.create_task(passwords.verify("$nonsense", "x"))
    await until(lambda: hasher.running)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    async def dies(*_):
        raise ReplyError("BUSY", "gone")

    hasher._work = dies
    hasher.gate.set()
    with pytest.raises(ReplyError):
        await passwords.verify("$nonsense", "x")
    await until(lambda: not hasher.running and passwords._turns._value == 2)
    assert "never retrieved" not in caplog.text
