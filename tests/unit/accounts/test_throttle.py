"""How often somebody may try."""

from __future__ import annotations

import asyncio

import pytest
from accounts_kit import FakeMono

from ecan.errors import ReplyError
from ecan.handlers.accounts.throttle import LoginThrottle, Windows, network_of

HERE, THERE = "192.0.2.1", "192.0.2.2"


@pytest.fixture
def throttle(mono):
    return LoginThrottle(5, 60, clock=mono)


async def fail(throttle, user="ann", address=HERE):
    async with throttle.attempt(user, address):
        pass


async def succeed(throttle, user="ann", address=HERE):
    async with throttle.attempt(user, address) as attempt:
        attempt.succeeded()


async def refused(awaitable):
    with pytest.raises(ReplyError) as caught:
        await awaitable
    assert caught.value.code == "RATE_LIMITED"
    return caught.value


async def test_the_sixth_failure_of_a_user_is_refused_from_anywhere(throttle, mono):
    for number in range(5):
        await fail(throttle, address=f"192.0.2.{number}")
    error = await refused(fail(throttle, address="192.0.2.99"))
    assert error.retry_after_ms == 60_000
    assert "60 s" in error.message
    mono.at += 59.5
    assert (await refused(fail(throttle, user=" ANN"))).retry_after_ms == 500
    mono.at += 0.5
    await fail(throttle)
    mono.at += 60
    await fail(throttle)


async def test_the_window_moves(throttle, mono):
    for _ in range(5):
        await fail(throttle, address=None)
        mono.at += 10
    assert (await refused(fail(throttle))).retry_after_ms == 10_000
    mono.at += 10
    await fail(throttle)
    assert (await refused(fail(throttle))).retry_after_ms == 10_000


async def test_the_sixth_failure_from_an_address_is_refused_for_anybody(throttle):
    for number in range(5):
        await fail(throttle, user=f"user{number}")
    await refused(fail(throttle, user="user9"))
    await succeed(throttle, user="user9", address=THERE)


async def test_a_refused_attempt_takes_no_place_of_the_user(throttle, mono):
    """Else one bad address could lock out every name it makes up."""
    for number in range(5):
        await fail(throttle, user=f"user{number}")
    for _ in range(10):
        await refused(fail(throttle, user="ann"))
    for number in range(5):
        await fail(throttle, user="ann", address=f"198.51.100.{number}")


async def test_successes_never_count(throttle):
    """Many people share an address behind one router."""
    for number in range(50):
        await succeed(throttle, user=f"user{number % 3}")


async def test_a_success_forgets_the_users_failures_not_the_addresses(throttle):
    for _ in range(4):
        await fail(throttle)
    await succeed(throttle)
    await fail(throttle)
    await refused(fail(throttle))
    for number in range(4):
        await fail(throttle, address=f"192.0.2.1{number}")
    await refused(fail(throttle, address=THERE))


async def test_attempts_at_the_same_time_do_not_slip_through(throttle):
    begun = []

    async def attempt():
        async with throttle.attempt("ann", HERE):
            begun.append(1)
            await asyncio.sleep(0.01)

    results = await asyncio.gather(*(attempt() for _ in range(20)), return_exceptions=True)
    assert len(begun) == 5
    assert sum(isinstance(result, ReplyError) for result in results) == 15


async def test_an_attempt_that_crashes_or_is_cancelled_counts(throttle):
    for error in (ValueError, asyncio.CancelledError) * 2 + (ValueError,):
        with pytest.raises(error):
            async with throttle.attempt("ann", HERE):
                raise error
    await refused(fail(throttle))


async def test_sign_ups_count_in_every_case_and_apart(throttle):
    for _ in range(5):
        await throttle.sign_up(HERE)
    await refused(throttle.sign_up(HERE))
    await throttle.sign_up(THERE)
    await fail(throttle)


async def test_zero_is_no_limit(mono):
    throttle = LoginThrottle(0, 60, clock=mono)
    for _ in range(20):
        await fail(throttle)
        await throttle.sign_up(HERE)
    await succeed(throttle)
    assert len(throttle._windows) == 0


async def test_names_and_addresses_are_forgotten(mono):
    throttle = LoginThrottle(5, 60, clock=mono, max_keys=10)
    for number in range(100):
        await fail(throttle, user=f"user{number}", address=None)
    assert len(throttle._windows) == 10
    mono.at += 60
    await fail(throttle)
    assert len(throttle._windows) == 2
    await succeed(throttle)
    await succeed(throttle, address=THERE)
    assert len(throttle._windows) == 1


async def test_made_up_names_of_a_megabyte_cost_nothing(throttle):
    for _ in range(5):
        await fail(throttle, user="x" * 1_000_000, address=None)
    await refused(fail(throttle, user="x" * 1_000_000, address=None))
    assert all(len(key) < 100 for key in throttle._windows._hits)


async def test_a_window_gives_back_only_what_was_taken():
    windows = Windows(FakeMono())
    windows.give_back("nobody")
    assert await windows.get_moving_window("nobody", 5, 60) == (100.0, 0)
    assert await windows.acquire_entry("a", 2, 60, 2)
    assert not await windows.acquire_entry("a", 2, 60)
    windows.give_back("a")
    assert await windows.get_moving_window("a", 2, 60) == (100.0, 1)
    windows.give_back("a")
    assert len(windows) == 0


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("2001:db8::1", "2001:db8::/64"),
        ("2001:db8::ffff:1", "2001:db8::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("192.0.2.1", "192.0.2.1"),
        ("unix:" + "x" * 100, "unix:" + "x" * 59),
        ("", ""),
    ],
)
def test_what_counts_as_one_address(address, network):
    assert network_of(address) == network
