"""The command ``ecan``: ``serve``, ``ops``, ``top``, ``users``, ``call``, ``config`` and others.

Commands are thin: they read arguments, call what they need and turn the outcome into
an exit code (0 done, 1 the server said no, 2 usage or configuration, 3 cannot connect).
The server is imported only when it is to run, so that ``--help`` is quick.
"""

from __future__ import annotations

import textwrap

import cyclopts

from ecan import __version__
from ecan.cli.call import call
from ecan.config import describe_settings

__all__ = ["app", "main"]


def _settings_help() -> str:
    lines = ["Settings are environment variables:", ""]
    for row in describe_settings():
        lines.append(f"{row.env}  (default: {row.default})")
        text = f"{row.doc} Allowed: {row.allowed}."
        lines += textwrap.wrap(text, 78, initial_indent="    ", subsequent_indent="    ")
    return "\n".join(lines)


app = cyclopts.App(
    name="ecan",
    help="eCan.ai Web: many users, one supervised session actor each.",
    version=__version__,
    help_format="plaintext",
)

_serve = cyclopts.App(
    name="serve",
    help="Run the web server until it gets SIGTERM or SIGINT (= python web_server.py).",
    help_epilogue=_settings_help(),
)


@_serve.default
def serve() -> None:
    """Run the web server until it gets SIGTERM or SIGINT (= python web_server.py)."""
    from ecan.app import main as run  # noqa: PLC0415 - the server is big and this is the CLI

    run()


app.command(_serve)
app.command(call)
app.command(
    "ecan.cli.users:app", name="users", help="Add, list, disable users and set their passwords."
)
app.command(
    "ecan.cli.backup:backup", name="backup", help="Copy accounts, sessions, documents to one file."
)
app.command("ecan.cli.backup:restore", name="restore", help="Put such a copy back.")
app.command("ecan.cli.ops:app", name="ops", help="See and steer a running server.")
app.command(
    "ecan.cli.loadtest:loadtest", name="loadtest", help="Load a server, check it, write a report."
)
app.command("ecan.cli.top:top", name="top", help="Watch a running server, full screen.")
app.command("ecan.cli.config:app", name="config", help="Check the settings of this environment.")
app.register_install_completion_command()


def main() -> None:
    """Entry point of ``ecan`` and ``python -m ecan``; ends the process with an exit code."""
    app()
