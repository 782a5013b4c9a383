"""The socket's file: private, taken over from the dead, never from the living."""

from __future__ import annotations

import contextlib
import os
import socket
import stat

import pytest
from admin_kit import a_server

from ecan.admin import socket_file
from ecan.admin.server import AdminServer
from ecan.errors import ConfigError


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


async def test_the_socket_is_its_owners_alone(tmp_path):
    """0600 in a directory of 0700, whatever the umask; gone at the end."""
    path = tmp_path / "new" / "admin.sock"
    before = os.umask(0)
    try:
        async with a_server(path):
            assert (mode(path), mode(path.parent)) == (0o600, 0o700)
            assert os.umask(0) == 0
    finally:
        os.umask(before)
    assert not path.exists()


async def test_the_socket_of_a_dead_server_is_taken_over(tmp_path):
    """Nobody answers there."""
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))

    async with a_server(path) as server, server.connect() as client:
        assert (await client.call("nope"))["error"]["code"] == -32601


async def test_the_socket_of_a_living_server_is_not(tmp_path):
    """The start ends with one line, and the other one goes on."""
    path = tmp_path / "admin.sock"
    async with a_server(path) as server:
        with pytest.raises(ConfigError, match=r"ECAN_ADMIN_SOCKET=.*another server"):
            await AdminServer(None, path).start()
        async with server.connect() as client:
            assert (await client.call("nope"))["error"]["code"] == -32601


async def test_a_server_too_busy_to_answer_is_alive(tmp_path):
    """Its queue of connections is full."""
    path = tmp_path / "admin.sock"
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(path))
        busy.listen(0)
        waiting = []
        with contextlib.suppress(BlockingIOError):
            for _ in range(10):
                client = socket.socket(socket.AF_UNIX)
                waiting.append(client)
                client.setblocking(False)
                client.connect(str(path))
        with pytest.raises(ConfigError, match="another server"):
            socket_file.bind(path)
        for client in waiting:
            client.close()


def test_a_file_that_is_no_socket_stays(tmp_path):
    """It is somebody's."""
    path = tmp_path / "admin.sock"
    path.write_text("mine")

    with pytest.raises(ConfigError, match="no socket"):
        socket_file.bind(path)

    assert path.read_text() == "mine"


def test_a_path_that_is_too_long_says_so(tmp_path):
    """With what to do about it."""
    with pytest.raises(ConfigError, match=r"107 bytes, this one \d+; set ECAN_ADMIN_SOCKET"):
        socket_file.bind(tmp_path / ("x" * 110))


def test_a_directory_that_cannot_be_made(tmp_path):
    """The reason is the system's."""
    (tmp_path / "file").write_text("")

    with pytest.raises(ConfigError, match="cannot listen there"):
        socket_file.bind(tmp_path / "file" / "admin.sock")


async def test_a_successors_file_is_not_removed(tmp_path):
    """The file at the path is another one by now."""
    path = tmp_path / "admin.sock"
    async with a_server(path):
        path.unlink()
        path.write_text("another server's")

    assert path.read_text() == "another server's"
