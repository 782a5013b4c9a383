"""Secrets by file: ``ECAN_X_FILE`` names a file that holds what ``ECAN_X`` would.

The convention of container images: an orchestrator mounts secrets as files, and variables
are seen by whoever may inspect a container.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ecan.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SUFFIX = "_FILE"

MAX_SECRET_FILE_BYTES = 64 * 1024
"""A larger one is some other file, and should not be read into memory."""


def read_secret_files(
    environ: Mapping[str, str], names: Iterable[str]
) -> tuple[dict[str, str], list[ConfigError]]:
    """The environment with the content of secret files in it, and what is wrong with them.

    One newline at a file's end is not part of the secret.

    Args:
        environ: as the process has it; empty variables count as not set.
        names: the variables that may come from a file.
    """
    found = dict(environ)
    problems = []
    for name in names:
        path = environ.get(name + SUFFIX, "").strip()
        if not path:
            continue
        if environ.get(name, "").strip():
            problems.append(ConfigError(name + SUFFIX, path, f"{name} is set too; one is enough"))
            continue
        try:
            found[name] = _read(Path(path))
        except (OSError, ValueError) as error:
            words = error.strerror if isinstance(error, OSError) else str(error)
            problems.append(ConfigError(name + SUFFIX, path, f"cannot be read: {words}"))
    return found, problems


def _read(path: Path) -> str:
    with path.open("rb") as file:
        raw = file.read(MAX_SECRET_FILE_BYTES + 1)
    if len(raw) > MAX_SECRET_FILE_BYTES:
        raise ValueError(f"it has more than {MAX_SECRET_FILE_BYTES} bytes")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError("it is not UTF-8 text") from None
    text = text.removesuffix("\n").removesuffix("\r")
    if not text:
        raise ValueError("it is empty")
    return text
