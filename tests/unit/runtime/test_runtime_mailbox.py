"""What the property test does not reach: threads, closed loops, pykka's get()."""

import asyncio
import gc
import queue
import threading
import tracemalloc
from types import SimpleNamespace

import pytest
from pykka import ActorDeadError
from pykka._envelope import Envelope

from ecan.runtime.mailbox import Mailbox, MailboxFullError


def item(size=1):
    return SimpleNamespace(size_bytes=size)


def test_full_mailbox_says_how_full_it_is():
    """The error carries depth and bytes for the BUSY reply."""
    mailbox = Mailbox(max_items=2, max_bytes=10)
    mailbox.offer(item(4))
    mailbox.offer(item(4))
    with pytest.raises(MailboxFullError) as caught:
        mailbox.offer(item(1))
    assert (caught.value.depth, caught.value.nbytes) == (2, 8)
    assert "2 items, 8 bytes" in str(caught.value)


def test_item_larger_than_the_mailbox_is_refused_when_empty():
    """The byte bound holds for the first item too."""
    mailbox = Mailbox(max_bytes=10)
    with pytest.raises(MailboxFullError):
        mailbox.offer(item(11))
    assert mailbox.empty()


def test_get_reads_even_when_paused_and_raises_when_empty():
    """pykka's get() cannot wait on a loop."""
    mailbox = Mailbox()
    mailbox.offer(item())
    mailbox.pause()
    assert mailbox.take(user_lane_open=True) is None
    assert mailbox.get().size_bytes == 1
    assert mailbox.paused
    with pytest.raises(queue.Empty):
        mailbox.get()


def test_an_empty_mailbox_is_true():
    """``if mailbox`` asks whether there is one, not whether it has mail."""
    assert len(Mailbox()) == 0 and Mailbox()


async def test_only_one_actor_reads():
    """A second attach is an error and leaves the first in place."""
    mailbox = Mailbox()
    woken = []
    mailbox.attach(lambda: woken.append(1), asyncio.get_running_loop())
    with pytest.raises(RuntimeError, match="not ended"):
        mailbox.attach(lambda: woken.append(2), asyncio.get_running_loop())
    mailbox.offer(item())
    assert woken == [1]


async def test_put_from_another_thread_wakes_on_the_loop():
    """The wake runs on the loop's thread, whoever sends."""
    mailbox = Mailbox()
    woken = asyncio.get_running_loop().create_future()
    mailbox.attach(lambda: woken.set_result(threading.get_ident()), asyncio.get_running_loop())
    await asyncio.to_thread(mailbox.put, Envelope("hello"))
    assert await asyncio.wait_for(woken, 10) == threading.get_ident()
    assert mailbox.take(user_lane_open=True).message == "hello"


async def test_attach_from_another_thread_wakes_on_the_loop():
    """Mail that waited for an incarnation started elsewhere is not forgotten."""
    mailbox = Mailbox()
    mailbox.offer(item())
    woken = asyncio.get_running_loop().create_future()
    wake = lambda: woken.set_result(threading.get_ident())  # noqa: E731
    await asyncio.to_thread(mailbox.attach, wake, asyncio.get_running_loop())
    assert await asyncio.wait_for(woken, 10) == threading.get_ident()


def test_put_to_a_closed_loop_is_refused_and_leaves_nothing():
    """The asker hears of it; otherwise the reply would never come."""
    loop = asyncio.new_event_loop()
    mailbox = Mailbox()
    mailbox.attach(lambda: None, loop)
    loop.close()
    with pytest.raises(ActorDeadError, match="closed"):
        mailbox.put(Envelope("hello"))
    assert mailbox.empty()


async def test_many_threads_lose_nothing():
    """10 threads put 500 each while the loop reads and empties the lane again and again."""
    mailbox = Mailbox(max_items=10**6)
    loop = asyncio.get_running_loop()
    seen, all_there = [], asyncio.Event()

    def read():
        while (envelope := mailbox.take(user_lane_open=True)) is not None:
            seen.append(envelope.message)
        if len(seen) == 5000:
            all_there.set()

    mailbox.attach(read, loop)

    def send(number):
        for i in range(500):
            mailbox.put(Envelope((number, i)))

    threads = [threading.Thread(target=send, args=(n,)) for n in range(10)]
    for thread in threads:
        thread.start()
    await asyncio.wait_for(all_there.wait(), 30)
    for thread in threads:
        thread.join()
    for number in range(10):
        assert [i for n, i in seen if n == number] == list(range(500))


def test_sending_from_a_finaliser_inside_the_mailbox_does_not_deadlock():
    """The collector may run a __del__ that sends while the lock is held."""
    mailbox = Mailbox()

    class Dying:
        size_bytes = 1

        def __del__(self):
            mailbox.put(Envelope("last words"))

    mailbox.offer(Dying())
    mailbox.remove(lambda _: True)
    gc.collect()
    assert [e.message for e in mailbox.items()] == ["last words"]


def test_an_empty_mailbox_is_small():
    """Ten thousand idle sessions pay it; the lanes exist only while they hold mail."""
    boxes = [Mailbox() for _ in range(10)]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        boxes = [Mailbox() for _ in range(1000)]
        for box in boxes:
            box.offer(item())
            box.take(user_lane_open=True)
        each = (tracemalloc.get_traced_memory()[0] - before) / 1000
    finally:
        tracemalloc.stop()
    assert each < 400
