"""LoopActor: turns, results, fences, ends."""

import asyncio
import contextvars
import gc
import logging
import threading
import tracemalloc
import weakref
from types import SimpleNamespace

import pykka
import pytest
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from ecan.runtime.actor import LoopActor
from ecan.runtime.mailbox import Mailbox, MailboxFullError

request_id = contextvars.ContextVar("request_id", default=None)


def item(**fields):
    return SimpleNamespace(size_bytes=1, **fields)


class Control(SimpleNamespace):
    control_lane = True


async def turns(count=5):
    for _ in range(count):
        await asyncio.sleep(0)


class Probe(LoopActor):
    """Calls the function it is sent; records its hooks."""

    registered = False
    stop_grace_s = 0.05

    def __init__(self, *, log=None, start=None, stop=None, failure=None, **wiring):
        super().__init__(**wiring)
        self.log = [] if log is None else log
        self.hooks = {"start": start, "stop": stop, "failure": failure}

    def hook(self, name):
        if self.hooks[name] is not None:
            self.hooks[name]()

    def on_start(self):
        self.log.append("start")
        self.hook("start")

    def on_stop(self):
        self.log.append("stop")
        self.hook("stop")

    def on_failure(self, exception_type, exception_value, traceback):
        assert exception_value.__traceback__ is traceback
        self.log.append(exception_type.__name__)
        self.hook("failure")

    def on_receive(self, message):
        if callable(message):
            return message()
        if isinstance(message, SimpleNamespace) and hasattr(message, "do"):
            return message.do(self)
        self.log.append(message)
        return message


def raiser(error):
    def raise_it(*_):
        raise error

    return raise_it


def async_raiser(error):
    async def raise_it(*_):
        await asyncio.sleep(0)
        raise error

    return raise_it


# -- sending and replies -------------------------------------------------------


async def test_ask_tell_and_offer_are_handled_in_order():
    """Three ways in, one queue."""
    log = []
    ref = Probe.start(log=log)
    bare = item()
    ref.tell("told")
    ref.actor_inbox.offer(bare)
    assert await ref.ask("asked", block=False) == "asked"
    assert log == ["start", "told", bare, "asked"]
    assert await ref.stop(block=False) is True
    assert await ref.stop(block=False) is False


async def test_awaitable_results_are_awaited():
    """A coroutine's value is the reply; so is a future's."""
    ref = Probe.start()
    loop = asyncio.get_running_loop()

    async def answer():
        await asyncio.sleep(0)
        return 42

    future = loop.create_future()
    loop.call_soon(future.set_result, 43)
    assert await ref.ask(answer, block=False) == 42
    assert await ref.ask(lambda: future, block=False) == 43
    assert await asyncio.wait_for(ref.ask(answer, block=False), 10) == 42


async def test_other_threads_tell_ask_and_stop():
    """Blocking calls are fine where no loop runs."""
    ref = Probe.start()

    def elsewhere():
        ref.tell("x")
        return ref.ask("y", timeout=10), ref.stop(timeout=10), ref.stop(timeout=10)

    assert await asyncio.to_thread(elsewhere) == ("y", True, False)


async def test_started_from_another_thread_with_a_loop():
    """start() needs the loop by name there; on_start runs on the loop's thread."""
    loop, me, seen = asyncio.get_running_loop(), threading.get_ident(), []
    ref = await asyncio.to_thread(
        lambda: Probe.start(loop=loop, start=lambda: seen.append(threading.get_ident()))
    )
    assert await ref.ask("x", block=False) == "x"
    assert seen == [me]


def test_start_without_a_loop_is_refused():
    """There is nothing to run it."""
    with pytest.raises(RuntimeError, match="no running event loop"):
        Probe.start()


@pytest.mark.parametrize("registered", [True, False])
def test_start_on_a_closed_loop_leaves_nothing_behind(registered):
    """Neither in the registry nor attached to the mailbox."""
    loop = asyncio.new_event_loop()
    loop.close()
    mailbox = Mailbox()
    cls = type("Any", (Probe,), {"registered": registered})
    with pytest.raises(RuntimeError, match="closed"):
        cls.start(mailbox=mailbox, loop=loop)
    assert not mailbox.attached


async def test_blocking_on_the_loop_is_refused_before_anything_is_sent():
    """Else the request would run although its sender got an error."""
    log = []
    ref = Probe.start(log=log)
    for blocking in (lambda: ref.ask("x"), ref.stop):
        with pytest.raises(RuntimeError, match="await"):
            blocking()
    await turns()
    assert log == ["start"]
    assert ref.is_alive()


async def test_dead_actors_say_so():
    """tell raises, ask answers, stop is False."""
    ref = Probe.start()
    await ref.stop(block=False)
    with pytest.raises(pykka.ActorDeadError):
        ref.tell("x")
    with pytest.raises(pykka.ActorDeadError):
        await ref.ask("x", block=False)


async def test_ask_between_the_end_and_its_notice_is_answered():
    """pykka looks at the flag, then puts; the mailbox closed in between."""
    ref = Probe.start()
    ref.actor_inbox.close()
    with pytest.raises(pykka.ActorDeadError, match="owned"):
        await asyncio.wait_for(ref.ask("x", block=False), 10)
    assert await ref.stop(block=False) is False
    for offer in (ref.actor_inbox.offer, ref.actor_inbox.offer_control):
        with pytest.raises(pykka.ActorDeadError):
            offer(item())


async def test_full_mailbox_surfaces_in_tell_and_ask():
    """Back-pressure reaches the sender; a stop passes."""
    ref = Probe.start(mailbox=Mailbox(max_items=1))
    ref.tell("x")
    for send in (ref.tell, lambda m: ref.ask(m, block=False)):
        with pytest.raises(MailboxFullError):
            send("y")
    assert await ref.stop(block=False) is True


async def test_proxies_still_work():
    """Envelopes go through pykka's own dispatch."""
    ref = Probe.start()
    future = ref.proxy().log
    assert await future == ["start"]


async def test_registration_is_a_choice():
    """Session actors stay out of pykka's linear registry."""
    listed = type("Listed", (Probe,), {"registered": True}).start()
    Probe.start()
    assert pykka.ActorRegistry.get_all() == [listed]
    await listed.stop(block=False)
    assert pykka.ActorRegistry.get_all() == []


# -- turns -----------------------------------------------------------------------


async def test_flooded_actor_delays_others_by_one_turn_only():
    """10 000 waiting messages of one are 16 a turn for everybody else."""
    handled = []
    flooded = Probe.start(log=handled, mailbox=Mailbox(max_items=20_000))
    other = Probe.start()
    await turns()
    for number in range(10_000):
        flooded.tell(number)
    reply = other.ask("me too", block=False)
    before = len(handled)
    await reply
    assert len(handled) - before <= 2 * LoopActor.throughput
    per_turn = []
    for _ in range(20):
        before = len(handled)
        await asyncio.sleep(0)
        per_turn.append(len(handled) - before)
    assert per_turn == [LoopActor.throughput] * 20


async def test_idle_actor_has_nothing_scheduled():
    """No task and no timer: idle sessions cost no CPU."""
    ref = Probe.start()
    await ref.ask("x", block=False)
    await turns()
    loop = asyncio.get_running_loop()
    assert not loop._ready and not [h for h in loop._scheduled if not h.cancelled()]
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_user_lane_waits_for_an_awaitable_and_control_goes_on():
    """One request at a time; a cancel or ping passes."""
    log, gate = [], asyncio.Event()
    ref = Probe.start(log=log)

    async def slow():
        await gate.wait()
        log.append("slow")

    ref.tell(slow)
    ref.tell("next")
    await turns()
    ref.tell(Control(do=lambda actor: actor.log.append(("control", actor.busy))))
    ref.actor_inbox.offer_control("bare control")
    await turns()
    assert log == ["start", ("control", True), "bare control"]
    gate.set()
    await turns()
    assert log[3:] == ["slow", "next"]


async def test_control_messages_may_be_awaitable_while_a_request_runs():
    """They run beside it; the user lane opens when both are done."""
    log, gates = [], [asyncio.Event(), asyncio.Event()]
    ref = Probe.start(log=log)
    ref.tell(gates[0].wait)
    await turns()
    asked = ref.ask(Control(do=lambda _: gates[1].wait()), block=False)
    ref.tell("next")
    gates[0].set()
    await turns()
    assert log == ["start"]
    gates[1].set()
    assert await asked is True
    await turns()
    assert log == ["start", "next"]


async def test_hold_and_release():
    """The actor itself may keep the user lane closed; twice is fine."""
    log = []
    ref = Probe.start(log=log)

    def hold(actor):
        actor.hold()
        assert actor.held

    ref.actor_inbox.offer(item(do=hold))
    ref.tell("waits")
    await turns()
    ref.tell(Control(do=lambda actor: log.append("control")))
    await turns()
    assert log == ["start", "control"]
    ref.tell(Control(do=lambda actor: (actor.release(), actor.release())))
    await turns()
    assert log == ["start", "control", "waits"]


async def test_pause_and_resume():
    """Operators pause a session; mail waits."""
    log = []
    ref = Probe.start(log=log)
    ref.actor_inbox.pause()
    ref.tell("waits")
    await turns()
    assert log == ["start"]
    ref.actor_inbox.resume()
    await turns()
    assert log == ["start", "waits"]


async def test_senders_context_does_not_leak():
    """Not into messages, not into tasks; an actor's own stays its own."""
    seen = []

    async def look():
        seen.append(request_id.get())

    async def keep():
        request_id.set("mine")

    ref, other = Probe.start(), Probe.start()
    await turns()  # their first turn has the context of start()
    request_id.set("sender's")
    started_inside = Probe.start()
    for each in (ref, started_inside):
        each.tell(lambda: seen.append(request_id.get()))
        each.tell(look)
    ref.tell(keep)
    ref.tell(look)
    other.tell(look)
    await turns(10)
    assert sorted(map(str, seen)) == ["None"] * 5 + ["mine"]
    assert request_id.get() == "sender's"


async def test_on_start_comes_before_mail_that_waited():
    """A new incarnation sets itself up first."""
    mailbox, log = Mailbox(), []
    mailbox.offer(item(do=lambda _: log.append("waited")))
    Probe.start(mailbox=mailbox, log=log)
    assert log == []
    await turns()
    assert log == ["start", "waited"]


# -- failures ----------------------------------------------------------------------


@pytest.mark.parametrize("make", [raiser, async_raiser])
@pytest.mark.parametrize("error", [KeyError("k"), RecursionError(), MemoryError(), StopIteration()])
async def test_exception_during_ask_goes_to_the_caller(make, error):
    """The actor lives, as in pykka."""
    log = []
    ref = Probe.start(log=log)
    with pytest.raises((type(error), RuntimeError)):
        await ref.ask(make(error), block=False)
    assert await ref.ask("alive", block=False) == "alive"
    assert log == ["start", "alive"]


@pytest.mark.parametrize("make", [raiser, async_raiser])
@pytest.mark.parametrize("bare", [True, False])
async def test_exception_during_tell_stops_the_actor(make, bare, caplog):
    """on_failure once, then dead; the exception is logged once."""
    log = []
    ref = Probe.start(log=log)
    fail = make(KeyError("k"))
    ref.actor_inbox.offer(item(do=fail)) if bare else ref.tell(fail)
    await turns()
    assert log == ["start", "KeyError"]
    assert not ref.is_alive()
    assert [r.name for r in caplog.records] == ["ecan.runtime"]


FENCED = [
    SystemExit(1),
    KeyboardInterrupt(),
    asyncio.CancelledError(),
    GeneratorExit(),
    BaseException("other"),
]


@pytest.mark.parametrize("make", [raiser, async_raiser])
@pytest.mark.parametrize("error", FENCED, ids=lambda e: type(e).__name__)
async def test_base_exceptions_fail_that_actor_only(make, error):
    """pykka's own loop would stop all actors; asyncio would end the loop."""
    log, others = [], type("Listed", (Probe,), {"registered": True}).start()
    ref = Probe.start(log=log)
    ref.tell(make(error))
    await turns()
    assert log == ["start", type(error).__name__]
    asked = Probe.start(log=log)
    with pytest.raises(pykka.ActorDeadError) as caught:
        await asyncio.wait_for(asked.ask(make(error), block=False), 10)
    assert caught.value.__cause__ is error
    assert not asked.is_alive() and log[2:] == ["start", type(error).__name__]
    assert others.is_alive()
    await others.stop(block=False)


@pytest.mark.parametrize("error", [ValueError(), *FENCED], ids=lambda e: type(e).__name__)
async def test_failure_of_on_start_reaches_on_failure(error):
    """Unlike pykka: else no supervisor would learn of it."""
    log = []
    ref = Probe.start(log=log, start=raiser(error))
    asked = ref.ask("x", block=False)
    with pytest.raises(pykka.ActorDeadError, match="before handling"):
        await asked
    assert log == ["start", type(error).__name__]


@pytest.mark.parametrize("hook", ["stop", "failure"])
@pytest.mark.parametrize("error", [ValueError(), SystemExit()])
async def test_failure_of_a_last_hook_is_logged_only(hook, error, caplog):
    """The end goes on: askers are answered."""
    ref = Probe.start(**{hook: raiser(error)})
    if hook == "failure":
        ref.tell(raiser(KeyError()))
        waits = ref.ask("x", block=False)
        with pytest.raises(pykka.ActorDeadError):
            await waits
    else:
        assert await ref.stop(block=False) is True
    assert type(error).__name__ in caplog.text


async def test_crash_leaves_the_user_lane_to_the_next_incarnation():
    """The message that crashed is gone, the others are handled in order by the next."""
    mailbox, log = Mailbox(), []
    first = Probe.start(mailbox=mailbox, log=log)
    first.tell(raiser(KeyError()))
    asked = first.ask("asked", block=False)
    bare = item()
    mailbox.offer(bare)
    await turns()
    assert not first.is_alive() and len(mailbox) == 2
    late = item()
    mailbox.offer(late)
    Probe.start(mailbox=mailbox, log=log)
    assert await asked == "asked"
    await turns()
    assert log == ["start", "KeyError", "start", "asked", bare, late]


async def test_stops_are_not_inherited():
    """Stops for a dead incarnation are answered, queued or late; other control mail is kept."""
    mailbox, log = Mailbox(), []
    ref = Probe.start(mailbox=mailbox, log=log)
    stops = [ref.stop(block=False) for _ in range(3)]
    ref.tell(Control(name="kept"))
    assert [await s for s in stops] == [True, True, True]
    # RACE: this thread looked at the flag before the end and puts after it.
    mailbox.put(Envelope(_ActorStop()))
    late = ref.actor_class._create_future()
    mailbox.put(Envelope(_ActorStop(), late))
    successor = Probe.start(mailbox=mailbox, log=log)
    await late
    await turns()
    assert log == ["start", "stop", "start", Control(name="kept")]
    assert successor.is_alive()


async def test_second_actor_on_a_mailbox_is_refused():
    """And does not disturb the first, nor take its stops."""
    mailbox = Mailbox()
    ref = Probe.start(mailbox=mailbox)
    stop = ref.stop(block=False)
    with pytest.raises(RuntimeError, match="not ended"):
        Probe.start(mailbox=mailbox)
    assert mailbox.attached
    assert await stop is True and not mailbox.attached


async def test_own_mailbox_ends_with_the_actor():
    """Waiting asks get ActorDeadError, tells vanish."""
    ref = Probe.start()
    ref.actor_inbox.pause()
    asked = ref.ask("x", block=False)
    ref.tell("y")
    await ref.stop(block=False)
    with pytest.raises(pykka.ActorDeadError, match="before handling"):
        await asked


# -- stopping -------------------------------------------------------------------------


async def test_stop_passes_the_queue():
    """It goes by the control lane."""
    log, mailbox = [], Mailbox()
    ref = Probe.start(log=log, mailbox=mailbox)
    await turns()
    for number in range(100):
        ref.tell(number)
    await ref.stop(block=False)
    assert log == ["start", "stop"] and len(mailbox) == 100


async def test_stop_cancels_the_running_request_and_then_calls_on_stop_once():
    """on_stop sees an actor that does nothing else; the asker hears of it."""
    log = []
    ref = Probe.start(log=log)

    async def slow():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            log.append("unwound")

    asked = ref.ask(slow, block=False)
    await turns()
    stops = [ref.stop(block=False), ref.stop(block=False)]
    assert [await s for s in stops] == [True, True]
    assert log == ["start", "unwound", "stop"]
    with pytest.raises(pykka.ActorDeadError, match="while handling"):
        await asked


async def test_request_that_finishes_while_being_stopped_is_answered():
    """Its work is done; the reply is true."""
    ref = Probe.start()

    async def stubborn():
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            return "done"

    asked = ref.ask(stubborn, block=False)
    await turns()
    await ref.stop(block=False)
    assert await asked == "done"


async def test_error_while_unwinding_is_logged(caplog):
    """It is not on_failure's any more."""
    log = []
    ref = Probe.start(log=log)

    async def clumsy():
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("while unwinding")

    ref.tell(clumsy)
    await turns()
    await ref.stop(block=False)
    assert log == ["start", "stop"]
    assert "while unwinding" in caplog.text


async def test_request_that_refuses_to_be_cancelled_does_not_keep_the_end(caplog):
    """After a grace the last hook comes; what the task does later is nobody's."""
    log, gate = [], asyncio.Event()
    ref = Probe.start(log=log)

    async def deaf():
        while not gate.is_set():
            try:
                await gate.wait()
            except asyncio.CancelledError:
                log.append("deaf")

    ref.tell(deaf)
    await turns()
    assert await asyncio.wait_for(ref.stop(block=False), 10) is True
    assert log == ["start", "deaf", "stop"]
    assert "actor.stuck" in caplog.text
    gate.set()
    await turns()
    assert log == ["start", "deaf", "stop"]


async def test_stop_in_the_turn_of_the_request_it_cancels():
    """A task cancelled before its first step never enters its coroutine."""
    log = []
    ref = Probe.start(log=log)

    async def never():
        log.append("never")

    def start_and_stop(actor):
        actor.stop()
        return never()

    asked = ref.ask(SimpleNamespace(do=start_and_stop), block=False)
    with pytest.raises(pykka.ActorDeadError):
        await asyncio.wait_for(asked, 10)
    future = asyncio.get_running_loop().create_future()
    other = Probe.start(log=log)

    def future_and_stop(actor):
        actor.stop()
        return future

    other.tell(SimpleNamespace(do=future_and_stop))
    await turns()
    assert log == ["start", "stop", "start", "stop"]


async def test_actor_may_stop_itself_while_handling():
    """A plain handler finishes first."""
    log = []
    ref = Probe.start(log=log)
    asked = ref.ask(SimpleNamespace(do=lambda actor: actor.stop() or "reply"), block=False)
    assert await asked == "reply"
    await turns()
    assert log == ["start", "stop"]


async def test_failing_control_message_cancels_the_request():
    """on_failure waits for it to unwind, as on_stop does."""
    log = []
    ref = Probe.start(log=log)

    async def slow():
        try:
            await asyncio.Event().wait()
        finally:
            log.append("unwound")

    ref.tell(slow)
    await turns()
    ref.tell(Control(do=raiser(KeyError())))
    await turns(10)
    assert log == ["start", "unwound", "KeyError"]


async def test_wake_that_comes_after_the_end_does_nothing():
    """A drain was scheduled when the running request failed."""
    log, gate = [], asyncio.Event()
    mailbox = Mailbox()
    ref = Probe.start(log=log, mailbox=mailbox)

    async def fail():
        await gate.wait()
        raise KeyError

    ref.tell(fail)
    await turns()
    gate.set()
    await asyncio.sleep(0)
    ref.tell(Control(name="late"))
    ref.tell("user")
    await turns()
    assert log[:2] == ["start", "KeyError"] or log[1] == Control(name="late")
    assert len(mailbox) == 1
    actor = ref._actor_weakref()
    if actor is not None:
        actor._drain()
        actor.release()
    assert len(mailbox) == 1


async def test_pykkas_own_stop_hook_ends_it_once():
    """_stop is what pykka's dispatch calls; the second end changes nothing."""
    log = []
    ref = Probe.start(log=log)
    await turns()
    actor = ref._actor_weakref()
    actor._stop()
    actor._stop()
    actor._handle_failure(KeyError, KeyError(), None)
    assert log == ["start", "stop"]


async def test_made_begun_and_halted_by_its_owner():
    """The supervisor holds the object: it is set up before, and closed at once."""
    log, mailbox = [], Mailbox()
    actor = Probe(log=log, mailbox=mailbox)
    assert not mailbox.attached
    actor.begin()
    await turns()
    actor.actor_ref.tell("left")
    actor.halt()
    actor.halt()
    assert log == ["start", "stop"]
    assert not actor.actor_ref.is_alive() and not mailbox.attached
    await turns()
    assert log == ["start", "stop"] and len(mailbox) == 1


async def test_failures_may_be_left_to_the_supervisor_to_log(caplog):
    """It knows the session and the request."""
    log = []
    ref = type("Silent", (Probe,), {"logs_failures": False}).start(log=log)
    ref.tell(raiser(KeyError()))
    await turns()
    assert log == ["start", "KeyError"] and caplog.records == []


async def test_request_that_ends_when_a_turn_is_scheduled_already():
    """A control message came in the same moment; one drain is enough."""
    log, gate = [], asyncio.Event()
    ref = Probe.start(log=log)

    ref.tell(gate.wait)
    ref.tell("next")
    await turns()
    gate.set()
    await asyncio.sleep(0)  # the task has ended, and its callback is queued
    ref.tell(Control(name="just now"))
    await turns()
    assert log == ["start", Control(name="just now"), "next"]


# -- memory --------------------------------------------------------------------------


async def test_ref_keeps_a_living_actor():
    """pykka's ref is weak: there, the actor is collected and asks never answered."""
    ref = Probe.start()
    await turns()
    gc.collect()
    assert await asyncio.wait_for(ref.ask("still there", block=False), 10) == "still there"


async def test_ended_actor_is_collected_though_its_mailbox_lives():
    """Otherwise each restart would leak one."""
    mailbox = Mailbox()
    ref = Probe.start(mailbox=mailbox)
    await ref.stop(block=False)
    await turns()
    weak = weakref.ref(mailbox)
    gc.collect()
    assert ref._actor_weakref() is None and weak() is mailbox


async def test_running_request_is_not_collected():
    """asyncio holds tasks weakly; this one waits for what only it refers to."""
    log = []

    async def lonely():
        try:
            await asyncio.get_running_loop().create_future()
        except GeneratorExit:
            log.append("collected")
            raise

    Probe.start().tell(lonely)
    await turns()
    gc.collect()
    await turns()
    assert log == []
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    await turns()


def test_coroutine_thrown_away_with_its_loop_is_left_alone():
    """No failure is reported for the interpreter's own GeneratorExit."""
    from ecan.runtime.actor import _drive

    class Waits:
        def __await__(self):
            yield

    coroutine = _drive(Waits())
    coroutine.send(None)
    coroutine.close()


async def test_ten_thousand_idle_actors_are_small(capsys):
    """DESIGN §3 counts on 2.6 to 3.0 KiB each."""
    Probe.start(log=[], mailbox=Mailbox())
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        refs = [LoopActorUnlisted.start(mailbox=Mailbox()) for _ in range(10_000)]
        await turns()
        for ref in refs:
            ref.actor_inbox.offer(item())
        await turns()
        gc.collect()
        each = (tracemalloc.get_traced_memory()[0] - before) / len(refs)
    finally:
        tracemalloc.stop()
    with capsys.disabled():
        print(f" [{each:.0f} bytes per idle actor] ", end="")
    assert each < 3 * 1024
    assert all(len(ref.actor_inbox) == 0 for ref in refs)


class LoopActorUnlisted(LoopActor):
    registered = False

    def on_receive(self, message): ...


def test_per_message_logging_is_silent(caplog):
    """Nothing at INFO for messages that go well."""

    async def scenario():
        ref = Probe.start()
        await ref.ask("x", block=False)
        await ref.stop(block=False)

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    assert [r for r in caplog.records if r.name == "ecan.runtime"] == []
