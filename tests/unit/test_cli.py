"""`ecan call` against a server that is a script."""

from __future__ import annotations

import io
import json
import sys
import threading

import pytest
from websockets.sync.server import serve

from ecan.cli.call import call


@pytest.fixture(name="url")
def _url():
    """Answers login, logout, echo (after a pending frame and a push); refuses all else."""

    def answer(socket) -> None:
        for text in socket:
            request = json.loads(text)
            reply = {"id": request["id"], "type": "response", "status": "success"}
            if request["method"] == "login":
                reply["result"] = {"token": "t", "session_id": "s"}
            elif request["method"] == "echo":
                socket.send(json.dumps({"id": "p", "type": "request", "method": "x"}))
                socket.send(json.dumps({**reply, "status": "pending", "result": "half"}))
                reply["result"] = [request["params"], request["meta"].get("token")]
            elif request["method"] == "silent":
                continue
            elif request["method"] == "hang_up":
                return
            elif request["method"] != "logout":
                reply.update(status="error", error={"code": "METHOD_NOT_FOUND"})
            socket.send(json.dumps(reply))

    with serve(answer, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"ws://127.0.0.1:{server.socket.getsockname()[1]}/ws"
        server.shutdown()
        thread.join()


def test_result_on_stdout_pending_on_stderr(url, capsys):
    """Exit code 0."""
    assert call("echo", '{"a": 1}', url=url) == 0
    assert capsys.readouterr() == ('[{"a": 1}, null]\n', '"half"\n')


def test_with_a_user_it_logs_in_and_out(url, capsys, monkeypatch):
    """The password comes from stdin, the token goes with the request."""
    monkeypatch.setattr(sys, "stdin", io.StringIO("hunter2\n"))
    assert call("echo", url=url, user="ann", password_stdin=True) == 0
    assert capsys.readouterr().out == '[null, "t"]\n'


@pytest.mark.parametrize(
    ("method", "code", "words"),
    [
        ("nothing", 1, "METHOD_NOT_FOUND"),
        ("silent", 3, "no answer"),
        ("hang_up", 3, "closed the connection"),
    ],
)
def test_exit_codes(url, capsys, method, code, words):
    """1 the server said no, 3 no connection; the reason is on stderr."""
    assert call(method, url=url, timeout=0.5) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kwargs", "code", "words"),
    [
        ({"url": "ws://127.0.0.1:1/ws"}, 3, "cannot connect"),
        ({"url": "nonsense"}, 2, "--url"),
        ({"timeout": 0}, 2, "--timeout"),
        ({"password_stdin": True}, 2, "--password-stdin"),
        ({"user": "ann"}, 2, "no terminal"),
    ],
)
def test_wrong_usage(capsys, monkeypatch, kwargs, code, words):
    """2 usage, 3 cannot connect."""
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    assert call("ping", **kwargs) == code
    assert words in capsys.readouterr().err


@pytest.mark.parametrize("text", ['{"a":}', "[NaN]", "{"])
def test_wrong_json_says_where(capsys, monkeypatch, text):
    """Also when it comes from stdin."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(text))
    assert call("ping", "-") == 2
    assert "the params are not JSON" in capsys.readouterr().err
