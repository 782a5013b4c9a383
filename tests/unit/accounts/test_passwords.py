"""The rules for passwords, and hashing that never blocks the loop and has an end."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time

import argon2
import pytest
from accounts_kit import CountingHasher
from argon2 import Type, extract_parameters
from hypothesis import given
from hypothesis import strategies as st

from ecan.errors import ReplyError
from ecan.handlers.accounts.passwords import (
    HASHING_NICE,
    PasswordRuleError,
    Passwords,
    check_new_password,
    generate_password,
    hash_password,
    normalize,
)


@pytest.fixture
def hasher():
    return CountingHasher()


@pytest.fixture
async def passwords(hasher):
    passwords = Passwords(hasher, threads=2, max_waiting=3)
    await passwords.start()
    yield passwords
    hasher.gate.set()
    passwords.close()


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


async def test_what_is_shipped_is_owasp():
    passwords = Passwords()
    assert passwords._hasher.memory_cost == 19456
    assert passwords._max_admitted == 66
    passwords.close()


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


async def test_the_queue_has_an_end(passwords, hasher):
    """Two at work, three waiting; whoever comes then is told to come again."""
    hasher.gate.clear()

    async def login():
        with passwords.admit():
            return await passwords.verify(None, "x")

    logins = [asyncio.create_task(login()) for _ in range(8)]
    await asyncio.sleep(0)
    await until(lambda: sum(task.done() for task in logins) == 3)
    for task in logins[5:]:
        error = task.exception()
        assert isinstance(error, ReplyError)
        assert (error.code, error.retry_after_ms) == ("RATE_LIMITED", 1000)
    await until(passwords._pool._work_queue.empty)  # the two at work have been taken
    await asyncio.sleep(0.01)
    assert passwords._pool._work_queue.empty()
    hasher.gate.set()
    assert await asyncio.gather(*logins[:5]) == [False] * 5
    assert passwords._admitted == 0


async def test_cancelled_logins_leave_no_work_behind(passwords, hasher):
    hasher.gate.clear()
    hasher.verified.clear()
    for _ in range(5):
        tasks = [asyncio.create_task(passwords.verify(None, "x")) for _ in range(10)]
        await asyncio.sleep(0)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await until(passwords._pool._work_queue.empty)  # the two at work have been taken
    await asyncio.sleep(0.01)
    assert passwords._pool._work_queue.empty()
    hasher.gate.set()
    assert await passwords.verify(None, "x") is False
    assert len(hasher.verified) == 3  # the two that had begun, and the last


async def test_the_loop_goes_on_while_passwords_are_hashed(passwords, hasher):
    hasher.gate.clear()
    login = asyncio.create_task(passwords.verify(None, "x"))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not login.done()
    hasher.gate.set()
    assert not await login


async def test_a_verification_takes_about_20_ms(passwords):
    password_hash = await passwords.hash("correct horse")
    begun = time.perf_counter()
    for _ in range(5):
        await passwords.verify(password_hash, "correct horse")
    print(f"verify: {(time.perf_counter() - begun) / 5 * 1000:.1f} ms")


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux")
async def test_hashing_gives_way_to_the_loop(passwords):
    """A storm of logins must not take the CPU from those who work."""
    loop_nice = os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    nice = await asyncio.get_running_loop().run_in_executor(
        passwords._pool, lambda: os.getpriority(os.PRIO_PROCESS, threading.get_native_id())
    )
    assert nice == min(19, HASHING_NICE)
    assert os.getpriority(os.PRIO_PROCESS, threading.get_native_id()) == loop_nice
