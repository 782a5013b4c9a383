"""The mailbox against a model made of two lists."""

from dataclasses import dataclass

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule
from pykka import ActorDeadError
from pykka._envelope import Envelope
from pykka.messages import _ActorStop

from ecan.runtime.mailbox import Mailbox, MailboxFullError

MAX_ITEMS, MAX_BYTES, MAX_CONTROL = 4, 100, 2


@dataclass(eq=False)
class Item:
    size_bytes: int


class Control:
    control_lane = True


class Loop:
    """What a mailbox needs of one; wakes at once."""

    def call_soon_threadsafe(self, callback):
        callback()


def weight(item):
    return 0 if isinstance(item, Envelope) else item.size_bytes


class MailboxMachine(RuleBasedStateMachine):
    """FIFO in each lane, control first, bounds, bytes, wake-ups."""

    def __init__(self):
        super().__init__()
        self.mailbox = Mailbox(MAX_ITEMS, MAX_BYTES, MAX_CONTROL)
        self.user, self.control = [], []
        self.paused = self.closed = False
        self.loop = Loop()
        self.woken = False
        self.attached = False

    def wake(self):
        self.woken = True

    def expect(self, action, fits, lane, item):
        try:
            action()
        except ActorDeadError:
            assert self.closed
        except MailboxFullError as error:
            assert not fits and not self.closed
            expected = (len(lane), sum(map(weight, self.user)))
            assert expected == (error.depth, error.nbytes)  # noqa: PT017  both ways are right
        else:
            assert fits and not self.closed
            lane.append(item)

    @rule(size=st.integers(0, 120))
    def offer(self, size):
        item = Item(size)
        total = sum(map(weight, self.user)) + size
        fits = len(self.user) < MAX_ITEMS and total <= MAX_BYTES
        self.expect(lambda: self.mailbox.offer(item), fits, self.user, item)

    @rule()
    def offer_control(self):
        item = Item(7)
        fits = len(self.control) < MAX_CONTROL
        self.expect(lambda: self.mailbox.offer_control(item), fits, self.control, item)

    @rule(message=st.sampled_from([_ActorStop(), Control()]))
    def put_control(self, message):
        item = Envelope(message)
        self.expect(lambda: self.mailbox.put(item), True, self.control, item)

    @rule(size=st.integers(0, 500))
    def put_user(self, size):
        item = Envelope(Item(size))
        fits = len(self.user) < MAX_ITEMS
        self.expect(lambda: self.mailbox.put(item), fits, self.user, item)

    @rule(open_=st.booleans())
    def take(self, open_):
        if self.control:
            expected = self.control.pop(0)
        elif self.user and open_ and not self.paused:
            expected = self.user.pop(0)
        else:
            expected = None
        assert expected is self.mailbox.take(open_)

    @rule(kind=st.sampled_from([Item, Envelope]), modulus=st.integers(1, 3))
    def remove(self, kind, modulus):
        def matches(item):
            return isinstance(item, kind) and id(item) // 16 % modulus == 0

        expected = [i for i in self.user if matches(i)]
        self.user = [i for i in self.user if not matches(i)]
        assert expected == self.mailbox.remove(matches)

    @rule()
    def remove_stops(self):
        def is_stop(item):
            return isinstance(item, Envelope) and item.message == ()

        expected = [i for i in self.control if is_stop(i)]
        self.control = [i for i in self.control if not is_stop(i)]
        assert expected == self.mailbox.remove_control(is_stop)

    @rule()
    def clear(self):
        expected, self.user = self.user, []
        assert expected == self.mailbox.clear()

    @rule()
    def pause_or_resume(self):
        self.paused = not self.paused
        (self.mailbox.pause if self.paused else self.mailbox.resume)()

    @rule()
    def attach_or_detach(self):
        self.attached = not self.attached
        if self.attached:
            self.mailbox.attach(self.wake, self.loop)
        else:
            self.mailbox.detach()
            self.woken = False

    @rule(often=st.integers(0, 30))
    def close(self, often):
        if often == 0:
            assert [*self.control, *self.user] == self.mailbox.close()
            self.user, self.control, self.closed, self.attached = [], [], True, False

    @rule()
    def drain_as_an_actor(self):
        """A reader that was woken reads until there is nothing, then waits again."""
        self.woken = False
        while (item := self.mailbox.take(True)) is not None:
            lane = self.control or self.user
            assert item is lane.pop(0)

    @invariant()
    def agrees(self):
        assert len(self.user) == len(self.mailbox)
        assert sum(map(weight, self.user)) == self.mailbox.nbytes
        assert tuple(self.user) == self.mailbox.items()
        assert (self.user[0] if self.user else None) is self.mailbox.oldest()
        assert (not self.user and not self.control) is self.mailbox.empty()
        assert self.paused is self.mailbox.paused
        assert self.attached is self.mailbox.attached
        assert bool(self.control or (self.user and not self.paused)) is self.mailbox.readable(True)
        assert bool(self.control) is self.mailbox.readable(False)
        # INVARIANT: no lane keeps an empty deque.
        assert all(lane is None or lane for lane in (self.mailbox._user, self.mailbox._control))


class WakeMachine(RuleBasedStateMachine):
    """No lost wake-up: a reader that sleeps only when unwoken never sleeps on mail."""

    def __init__(self):
        super().__init__()
        self.mailbox = Mailbox(MAX_ITEMS, MAX_BYTES, MAX_CONTROL)
        self.loop = Loop()
        self.woken = 0
        self.mailbox.attach(self.wake, self.loop)

    def wake(self):
        self.woken += 1

    @rule(send=st.sampled_from(["offer", "offer_control", "put", "stop"]))
    def send(self, send):
        try:
            if send == "put":
                self.mailbox.put(Envelope("x"))
            elif send == "stop":
                self.mailbox.put(Envelope(_ActorStop()))
            else:
                getattr(self.mailbox, send)(Item(1))
        except MailboxFullError:
            pass

    @rule()
    def toggle_pause(self):
        (self.mailbox.resume if self.mailbox.paused else self.mailbox.pause)()

    @rule()
    def hand_over(self):
        """A new incarnation has not read anything and relies on attach."""
        self.mailbox.detach()
        self.woken = 0
        self.mailbox.attach(self.wake, self.loop)

    @rule()
    def read(self):
        if self.woken:
            self.woken = 0
            while self.mailbox.take(True) is not None:
                pass

    @invariant()
    def never_asleep_on_mail(self):
        assert self.woken or not self.mailbox.readable(True)


TestMailboxMachine = MailboxMachine.TestCase
TestMailboxMachine.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestWakeMachine = WakeMachine.TestCase
TestWakeMachine.settings = settings(max_examples=100, stateful_step_count=30, deadline=None)
