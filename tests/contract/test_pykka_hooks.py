"""What `ecan.runtime` relies on inside pykka; a failure here says what changed there."""

import inspect
import sys
import threading
import weakref
from importlib.metadata import version

import pykka
import pytest
from pykka import _actor, _future, _registry
from pykka._envelope import Envelope
from pykka.messages import ProxyCall, _ActorStop

from ecan.runtime.actor import LoopActor
from ecan.runtime.future import LoopFuture
from ecan.runtime.life import ActorLife
from ecan.runtime.mailbox import Mailbox


def source(function):
    return inspect.getsource(function)


def parameters(function):
    return list(inspect.signature(function).parameters)


def test_version_is_the_one_whose_source_was_read():
    """Another minor release must be read before the pin in pyproject moves."""
    assert version("pykka").split(".")[:2] == ["4", "5"]


@pytest.mark.parametrize("name", ["_create_actor_inbox", "_create_future"])
def test_factories_are_static_and_abstract(name):
    """Both are static: so a given mailbox replaces the inbox after super().__init__."""
    assert isinstance(inspect.getattr_static(pykka.Actor, name), staticmethod), (
        f"pykka.Actor.{name} is no static method any more: it could now be given the mailbox"
    )
    assert name in pykka.Actor.__abstractmethods__, f"pykka does not ask for {name} any more"


def test_the_three_hooks_are_all_that_is_abstract():
    """A new abstract hook would have to be implemented by LoopActor."""
    expected = {"_create_actor_inbox", "_create_future", "_start_actor_loop"}
    assert expected == set(pykka.Actor.__abstractmethods__), "pykka's hooks for actor types changed"
    assert not LoopActor.__abstractmethods__


def test_start_builds_registers_and_runs_the_hook():
    """LoopActor.start repeats this without the registry; if it does more, so must ours."""
    text = source(pykka.Actor.start.__func__)
    expected = ["obj = cls(*args, **kwargs)", "ActorRegistry.register(obj.actor_ref)"]
    for line in [*expected, "obj._start_actor_loop()", "return obj.actor_ref"]:
        assert line in text, f"pykka.Actor.start lost {line!r}"


def test_constructor_sets_exactly_what_ours_overwrites():
    """ActorRef copies inbox and stopped flag at construction, so the ref is remade after."""

    class Plain(pykka.Actor):
        _create_actor_inbox = staticmethod(lambda: "inbox")
        _create_future = staticmethod(LoopFuture)

        def _start_actor_loop(self): ...

    actor = Plain()
    assert {"actor_urn", "actor_inbox", "actor_stopped", "_actor_ref"} == set(vars(actor))
    assert type(actor.actor_stopped) is threading.Event
    ref = actor._actor_ref
    expected = {"_actor_weakref", "actor_class", "actor_urn", "actor_inbox", "actor_stopped"}
    assert expected == set(vars(ref)), "ActorRef copies something else from the actor now"
    assert isinstance(ref._actor_weakref, weakref.ref)
    assert ref.actor_inbox == "inbox"


def test_inbox_protocol_is_put_get_empty():
    """Mailbox implements pykka's inbox; a fourth method would be needed there."""
    members = {n for n in vars(_actor.ActorInbox) if not n.startswith("_")}
    assert members == {"put", "get", "empty"}, "pykka's ActorInbox protocol changed"
    assert all(hasattr(Mailbox, name) for name in members)


def test_envelope_has_message_and_reply_to():
    """The drain reads the two slots directly and compares types exactly."""
    assert list(Envelope.__slots__) == ["message", "reply_to"]
    assert Envelope("m").reply_to is None
    assert Envelope.__subclasses__() == [], "envelopes have subclasses: type() is too narrow"


def test_stop_message_is_a_class_of_its_own():
    """The control lane and the drain recognise it by its exact type."""
    assert _ActorStop() == ()
    assert type(_ActorStop()) is _ActorStop
    assert "_ActorStop()" in source(pykka.Actor.stop)
    assert "_ActorStop()" in source(pykka.ActorRef.stop)


def test_ref_looks_at_the_flag_then_puts():
    """tell and ask are a look at actor_stopped and one put, which may raise."""
    for name in ("tell", "ask"):
        text = source(getattr(pykka.ActorRef, name))
        assert "self.is_alive()" in text and "self.actor_inbox.put(Envelope(" in text, (
            f"ActorRef.{name} delivers in another way"
        )
    assert "actor_class._create_future()" in source(pykka.ActorRef.ask)
    assert "self.actor_stopped.is_set()" in source(pykka.ActorRef.is_alive)
    assert {"message", "block", "timeout"} <= set(parameters(pykka.ActorRef.ask))
    assert {"block", "timeout"} <= set(parameters(pykka.ActorRef.stop))


def test_failure_hooks_keep_their_names_and_arguments():
    """ActorLife overrides them; a renamed one would never be called."""
    three = ["self", "exception_type", "exception_value", "traceback"]
    assert parameters(pykka.Actor._handle_failure) == three
    assert parameters(pykka.Actor.on_failure) == three
    for name in ("_handle_failure", "_stop", "_start_actor_loop"):
        assert name in vars(ActorLife) and hasattr(pykka.Actor, name), f"pykka lost {name}"
    assert "self._handle_failure(" in source(pykka.Actor._actor_loop_setup)


def test_an_actor_has_these_attributes_and_no_more():
    """ActorLife.__init__ makes them in pykka's place."""

    class Probe(pykka.ThreadingActor):
        pass

    assert set(vars(Probe())) == {"actor_urn", "actor_inbox", "actor_stopped", "_actor_ref"}


def test_handle_receive_dispatches_to_on_receive():
    """Envelopes go through pykka's dispatch, so that proxies work; bare items do not."""
    text = source(pykka.Actor._handle_receive)
    for expected in ("_ActorStop", "ProxyCall", "return self.on_receive(message)"):
        assert expected in text, f"pykka's _handle_receive lost {expected}"
    assert ProxyCall._fields == ("attr_path", "args", "kwargs")


def test_pykkas_own_loop_still_stops_everything():
    """The trap we avoid; when pykka mends it, the comment in actor.py can go."""
    assert "ActorRegistry.stop_all()" in source(pykka.Actor._actor_loop_running)
    assert "_actor_loop_running" not in vars(LoopActor) | vars(ActorLife)


def test_futures_are_subclassed_with_these_methods():
    """LoopFuture overrides all that touches the value."""
    expected = {"get", "set", "set_exception", "set_get_hook", "__await__", "__iter__"}
    assert expected <= set(vars(pykka.Future)) and expected <= set(vars(LoopFuture))
    inherited = {n for n in vars(pykka.Future) if callable(getattr(pykka.Future, n))}
    assert {"filter", "join", "map", "reduce", *expected} >= {
        n for n in inherited if not n.startswith("__") and not n.startswith("_")
    }, "pykka.Future has a new method; does it block?"
    future = pykka.Future()
    assert future._get_hook is None, "the marker of lazy futures was renamed"
    assert "self.get()" in source(pykka.Future.__await__), "pykka awaits without blocking now"
    assert "sys.exc_info()" in source(pykka.ThreadingFuture.set_exception)
    assert parameters(_future.Future.set_exception) == ["self", "exc_info"]


def test_registry_is_a_list():
    """The reason for ``registered = False``: leaving it is linear in all actors."""
    assert isinstance(_registry.ActorRegistry._actor_refs, list)


def test_errors_are_exceptions():
    """They are set on futures and raised through awaits."""
    assert issubclass(pykka.ActorDeadError, Exception)
    assert issubclass(pykka.Timeout, Exception)
    assert "pykka" in sys.modules
