"""What the tests of the edge share: raw sockets, plain HTTP, and the server as a process."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

from ecan.testing import Client
from ecan.testing.process import free_port  # noqa: F401 - part of this kit

ROOT = Path(__file__).parents[2]

TIMEOUT_S = 30.0
"""Generous: a test that waits for it has failed."""

TEXT, BINARY, CONT, CLOSE, PING, PONG = 0x1, 0x2, 0x0, 0x8, 0x9, 0xA

UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


async def eventually(condition, what="the condition", within_s=TIMEOUT_S):
    """Wait until it holds."""
    try:
        async with asyncio.timeout(within_s):
            while not (value := condition()):
                await asyncio.sleep(0.01)
            return value
    except TimeoutError:
        raise AssertionError(f"{what} did not come true within {within_s:g} s") from None


def address_of(url):
    """Host and port of a http:// or ws:// URL."""
    host, _, port = url.split("//")[1].split("/")[0].rpartition(":")
    return host, int(port)


def cell_of(server, client):
    """The session of a logged-in client."""
    return server.app.directory.get(client.login_result["sid"])


def token_of(server, client):
    """The record of the token that a client uses."""
    cell = cell_of(server, client)
    return cell.tokens.find(client.session["token"], server.app.clock.now())


async def answer_to(client, raw):
    """Send a frame as it is and return the response that nobody waits for."""
    before = len(client.strays)
    await client.send_raw(raw)
    await eventually(lambda: len(client.strays) > before, "an answer to the raw frame")
    return client.strays[before]


# -- HTTP ---------------------------------------------------------------------------------


def request_bytes(method, path, headers, body=b""):
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1") + body


async def http(url, path="/", method="GET", headers=(), body=b""):
    """One request over a connection of its own; (status, headers, body)."""
    host, port = address_of(url)
    headers = list(headers.items() if isinstance(headers, dict) else headers)
    if "host" not in {name.lower() for name, _ in headers}:
        headers.insert(0, ("Host", f"{host}:{port}"))
    return parse_response(await exchange(url, request_bytes(method, path, headers, body)))


async def exchange(url, data):
    """Send bytes and read until the server closes, or has answered an upgrade."""
    reader, writer = await asyncio.open_connection(*address_of(url))
    received = b""
    try:
        async with asyncio.timeout(TIMEOUT_S):
            writer.write(data)
            with contextlib.suppress(ConnectionError):
                while chunk := await reader.read(65536):
                    received += chunk
                    if received.startswith(b"HTTP/1.1 101") and b"\r\n\r\n" in received:
                        break
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
    return received


def parse_response(data):
    head, _, body = data.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {}
    for line in lines:
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    return int(status.split()[1]), headers, body


# -- frames by hand -----------------------------------------------------------------------


def frame(opcode, payload=b"", *, fin=True, rsv=0, masked=True):
    """One WebSocket frame (RFC 6455 §5.2), right or wrong."""
    head = bytes([(0x80 if fin else 0) | rsv << 4 | opcode])
    bit = 0x80 if masked else 0
    if len(payload) < 126:
        head += bytes([bit | len(payload)])
    elif len(payload) < 65536:
        head += struct.pack("!BH", bit | 126, len(payload))
    else:
        head += struct.pack("!BQ", bit | 127, len(payload))
    # A mask of zeros is as good as any other to the server.
    return head + (b"\0\0\0\0" if masked else b"") + payload


class Raw:
    """A WebSocket client without manners."""

    def __init__(self, reader, writer):
        self.reader = reader
        self.writer = writer

    @classmethod
    async def connect(cls, url, *, receive_buffer=None, path="/ws"):
        host, port = address_of(url)
        sock = socket.socket()
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=2**16)
        headers = [("Host", f"{host}:{port}"), *UPGRADE.items()]
        writer.write(request_bytes("GET", path, headers))
        async with asyncio.timeout(TIMEOUT_S):
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 101"), head
        return cls(reader, writer)

    def send(self, opcode, payload=b"", **options):
        self.writer.write(frame(opcode, payload, **options))

    def request(self, request_id, method, params=None, **meta):
        body = {"id": request_id, "type": "request", "method": method, "meta": meta}
        if params is not None:
            body["params"] = params
        self.send(TEXT, json.dumps(body).encode())

    async def frame(self):
        """The next frame, (opcode, payload); (None, b"") when the connection is gone."""
        try:
            async with asyncio.timeout(TIMEOUT_S):
                head, length = await self.reader.readexactly(2)
                if length == 126:
                    (length,) = struct.unpack("!H", await self.reader.readexactly(2))
                elif length == 127:
                    (length,) = struct.unpack("!Q", await self.reader.readexactly(8))
                return head & 0x0F, await self.reader.readexactly(length)
        except (ConnectionError, asyncio.IncompleteReadError):
            return None, b""

    async def json(self):
        """The next text frame."""
        while True:
            opcode, payload = await self.frame()
            assert opcode in (TEXT, PING, PONG), (opcode, payload)
            if opcode == TEXT:
                return json.loads(payload)

    async def outcome(self):
        """Everything up to the end: (texts, close code or None)."""
        texts = []
        while True:
            opcode, payload = await self.frame()
            if opcode == TEXT:
                texts.append(json.loads(payload))
            elif opcode == CLOSE:
                return texts, struct.unpack("!H", payload[:2])[0] if payload else 1005
            elif opcode is None:
                return texts, None

    async def close(self):
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        await self.close()


# -- the real process ---------------------------------------------------------------------


def environment(folder, **settings):
    """The environment of a server whose files are all in ``folder``."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("ECAN_")}
    return {
        **plain,
        "PYTHONPATH": str(ROOT),
        "ECAN_WS_HOST": "127.0.0.1",
        "ECAN_WS_PORT": "0",
        "ECAN_DATA_DIR": str(folder / "data"),
        **{name: str(value) for name, value in settings.items()},
    }


class Process:
    """``python web_server.py`` as an operator starts it."""

    count = 0

    def __init__(self, folder, **settings):
        Process.count += 1
        self.folder = folder
        self._out = folder / f"stdout-{Process.count}"
        self._err = folder / f"stderr-{Process.count}"
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.popen = subprocess.Popen(
                [sys.executable, str(ROOT / "web_server.py")],
                cwd=folder,
                env=environment(folder, **settings),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )

    @property
    def out(self):
        return self._out.read_text()

    @property
    def err(self):
        return self._err.read_text()

    async def ready(self):
        """Wait for the ready line and return it."""
        await eventually(
            lambda: "ecan: ready on" in self.out or self.popen.poll() is not None, "the ready line"
        )
        assert self.popen.poll() is None, self.err
        line = next(line for line in self.out.splitlines() if line.startswith("ecan: ready"))
        self.url = line.split()[3]
        return line

    def client(self):
        return Client(self.url.replace("http", "ws", 1) + "/ws")

    def signal(self, number=signal.SIGTERM):
        self.popen.send_signal(number)

    async def ended(self):
        """Wait for the end; the exit code."""
        await eventually(lambda: self.popen.poll() is not None, "the end of the process")
        return self.popen.returncode

    async def run(self, *words, stdin="", **settings):
        """``ecan WORDS`` beside it: (exit code, stdout, stderr)."""
        return await ecan(self.folder, *words, stdin=stdin, **settings)

    async def __aenter__(self):
        await self.ready()
        return self

    async def __aexit__(self, *_):
        self.kill()

    def kill(self):
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()


async def ecan(folder, *words, stdin="", **settings):
    """``ecan WORDS``: (exit code, stdout, stderr)."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "ecan",
        *words,
        cwd=folder,
        env=environment(folder, **settings),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    async with asyncio.timeout(TIMEOUT_S):
        out, err = await process.communicate(stdin.encode())
    return process.returncode, out.decode(), err.decode()
