"""What runs inside a worker process; imports as little as it can."""

from __future__ import annotations

import os
import pickle
import queue
import signal
import threading
import time
import traceback
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from ecan.errors import EcanError

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

__all__ = ["Answer", "serve", "serve_requests"]

_LEAVE_S: Final = 1.0


class Answer(NamedTuple):
    """The outcome of one call.

    Attributes:
        value: what the function returned.
        error: (type name, message, traceback) of what it raised, or None.
        declared: the error itself, if it is one of the project's own: a reply, not a crash.
        cpu_s: CPU seconds of the process, its other threads included.
    """

    value: Any = None
    error: tuple[str, str, str] | None = None
    declared: EcanError | None = None
    cpu_s: float = 0.0


def serve(pipe: Connection[Any, Any], setup: tuple[Callable[..., Any], Any] | None = None) -> None:
    """Answer calls until the parent closes its end of the pipe, or dies.

    Args:
        pipe: to the parent.
        setup: a function to call first, and its argument.

    Runs on: the main thread of a worker process.
    """
    # Ctrl-C goes to the whole foreground group; the parent decides what ends here.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if setup is not None:
        setup[0](setup[1])
    requests: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    working = threading.Event()
    reader = threading.Thread(target=_read, args=(pipe, requests, working), daemon=True)
    reader.start()
    serve_requests(pipe, requests, working)
    # A thread that a handler left behind must not keep the process.
    last = threading.Timer(_LEAVE_S, os._exit, (0,))
    last.daemon = True
    last.start()


def _read(
    pipe: Connection[Any, Any], requests: queue.SimpleQueue[bytes | None], working: threading.Event
) -> None:
    try:
        while True:
            request = pipe.recv_bytes()
            working.set()
            requests.put(request)
    except (EOFError, OSError):
        if working.is_set():
            # The parent is gone and a call runs, maybe for hours: nobody wants it.
            os._exit(1)
        requests.put(None)


def serve_requests(
    pipe: Connection[Any, Any], requests: queue.SimpleQueue[bytes | None], working: threading.Event
) -> None:
    """Answer requests until None comes."""
    while (request := requests.get()) is not None:
        before_s = time.process_time()
        try:
            function, args = pickle.loads(request)  # noqa: S301  from the parent, over an anonymous pipe
            answer = Answer(function(*args))
        except BaseException as error:  # noqa: BLE001  SystemExit too is an outcome
            answer = _failed(error)
        answer = answer._replace(cpu_s=time.process_time() - before_s)
        working.clear()
        try:
            pipe.send(answer)
        except OSError:  # the parent is gone
            return
        except Exception as error:  # noqa: BLE001  the result does not pickle
            pipe.send(_failed(error))


def _failed(error: BaseException) -> Answer:
    if isinstance(error, EcanError):
        return Answer(declared=error)
    text = "".join(traceback.format_exception(error))
    return Answer(error=(type(error).__qualname__, str(error), text))
