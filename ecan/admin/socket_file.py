"""The socket's file: private, taken over from a dead server, never from a living one."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
import struct
from typing import TYPE_CHECKING

from ecan.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

SETTING = "ECAN_ADMIN_SOCKET"

AVAILABLE = hasattr(socket, "AF_UNIX")
"""Whether this system has Unix sockets at all."""

MAX_PATH_BYTES = 107
"""Of ``sun_path`` on Linux, without the final NUL; others have three bytes less."""

DIRECTORY_MODE = 0o700
CONNECT_TIMEOUT_S = 1.0


def bind(path: Path) -> socket.socket:
    """A bound socket at that path, mode 0600, in a directory made with 0700 if it is missing.

    Raises:
        ConfigError: the path is too long or taken, or cannot be used.
    """
    size = len(os.fsencode(path))
    if size > MAX_PATH_BYTES:
        raise ConfigError(
            SETTING,
            str(path),
            f"a Unix socket's path has at most {MAX_PATH_BYTES} bytes, this one {size}; "
            f"set {SETTING} to a shorter one",
        )
    bound = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        _take_over(path)
        # RACE: set before bind, so there is no moment in which others could connect. The
        # mask is the whole process's, so another thread's file may be born too private.
        before = os.umask(0o177)
        try:
            bound.bind(os.fspath(path))
        finally:
            os.umask(before)
    except BaseException as error:
        bound.close()
        if isinstance(error, OSError):
            raise ConfigError(
                SETTING, str(path), f"cannot listen there: {error.strerror or error}"
            ) from error
        raise
    bound.setblocking(False)
    return bound


def _take_over(path: Path) -> None:
    """Remove the file of a server that is no more."""
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ConfigError(SETTING, str(path), "there is a file that is no socket; remove it")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(CONNECT_TIMEOUT_S)
        try:
            probe.connect(os.fspath(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except (TimeoutError, BlockingIOError):
            pass  # too busy to answer is not dead
    raise ConfigError(SETTING, str(path), "another server listens there")


def identity(path: Path) -> tuple[int, int] | None:
    """Which file it is, so that another server's is not removed."""
    with contextlib.suppress(OSError):
        found = path.lstat()
        return found.st_dev, found.st_ino
    return None


def peer_of(sock: socket.socket) -> tuple[int, int]:
    """Process and user id of the other end, as the kernel knows them; -1: it does not.

    Where the kernel cannot tell, the file's mode is what keeps others out.
    """
    if not hasattr(socket, "SO_PEERCRED"):  # pragma: no cover - not on Linux
        return -1, os.geteuid()
    size = struct.calcsize("3i")
    # A duplicate: the loop's own sockets do not let everybody ask.
    with socket.socket(fileno=os.dup(sock.fileno())) as same:
        pid, uid, _ = struct.unpack(
            "3i", same.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        )
    return pid, uid


def is_allowed(uid: int) -> bool:
    """Whether a user may steer this server: its own user, and root."""
    return uid in {0, os.geteuid()}
