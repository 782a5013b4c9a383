"""``ecan users``: in this process for every path, in its own where that is the point."""

from __future__ import annotations

import asyncio
import io
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from accounts_kit import PASSWORD

from ecan.cli import users as cli
from ecan.handlers.accounts.passwords import owasp_hasher
from ecan.store.users import UserStore

TERMINAL = SimpleNamespace(isatty=lambda: True)
RUN = [sys.executable, "-c", "from ecan.cli.users import app; app()"]


@pytest.fixture
def run(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ECAN_DATA_DIR", str(tmp_path / "data"))

    def run(*words, stdin=""):
        monkeypatch.setattr(sys, "stdin", stdin if stdin is TERMINAL else io.StringIO(stdin))
        with pytest.raises(SystemExit) as caught:
            cli.app(list(words))
        out, err = capsys.readouterr()
        return caught.value.code, out, err

    return run


@pytest.fixture
def terminal(monkeypatch):
    """Somebody types these passwords."""

    def typed(*passwords):
        answers = iter(passwords)
        monkeypatch.setattr(cli.getpass, "getpass", lambda _prompt: next(answers))

    return typed


def row_of(tmp_path, name):
    with UserStore(tmp_path / "data") as store:
        return store.get_by_name(name)


def test_add_with_a_password_from_stdin(run, tmp_path):
    code, out, err = run(
        "add", "ann", "--role", "admin", "--email", "a@b.c", "--name", "Ann", "--password-stdin",
        stdin=PASSWORD + "\r\nmore",
    )  # fmt: skip
    assert (code, out, err) == (0, "Added ann (admin).\n", "")
    row = row_of(tmp_path, "ann")
    assert (row.role, row.email, row.name) == ("admin", "a@b.c", "Ann")
    assert owasp_hasher().verify(row.password_hash, PASSWORD)


def test_add_on_a_terminal_asks_twice(run, terminal):
    terminal(PASSWORD, PASSWORD)
    assert run("add", "ann", stdin=TERMINAL)[0] == 0
    terminal(PASSWORD, PASSWORD + "x")
    code, out, err = run("add", "bob", stdin=TERMINAL)
    assert (code, out, err) == (1, "", "ecan users: the two passwords differ\n")


def test_a_generated_password_is_printed_and_fits(run, tmp_path):
    code, out, _ = run("add", "ann", "--generate")
    assert code == 0
    password = out.splitlines()[1].removeprefix("Password: ")
    assert owasp_hasher().verify(row_of(tmp_path, "ann").password_hash, password)


@pytest.mark.parametrize(
    ("words", "stdin", "says"),
    [
        (["add", "ann", "--generate"], "", "There is already a user 'ann'"),
        (["add", "bob"], "", "no terminal to ask on; use --password-stdin or --generate"),
        (["add", "bob", "--password-stdin"], "short\n", "the password must have 8 characters or more"),
        (["add", "b b", "--generate"], "", "username: 1 to 64 characters, without blanks or invisible characters"),
        (["passwd", "bob", "--generate"], "", "There is no user 'bob'"),
        (["disable", "bob"], "", "There is no user 'bob'"),
        (["enable", "bob"], "", "There is no user 'bob'"),
    ],
)  # fmt: skip
def test_refusals_are_one_line_and_exit_1(run, words, stdin, says):
    run("add", "ann", "--generate")
    assert run(*words, stdin=stdin) == (1, "", f"ecan users: {says}\n")


def test_a_wrong_data_dir_makes_no_file(run, tmp_path):
    for command in (["list"], ["passwd", "ann", "--generate"], ["disable", "ann"]):
        code, _, err = run(*command, "--data-dir", str(tmp_path / "typo"))
        assert code == 1
        assert "there are no accounts in" in err
    assert not (tmp_path / "typo").exists()


@pytest.mark.parametrize("words", [["add"], ["add", "ann", "--role", "root"], ["nonsense"]])
def test_wrong_usage_exits_2(run, words):
    assert run(*words)[0] == 2


def test_passwd_disable_enable(run, tmp_path):
    run("add", "ann", "--generate")
    code, out, _ = run("passwd", "ANN", "--password-stdin", stdin=PASSWORD)
    assert (code, out) == (0, "Changed the password of ann; their sessions end.\n")
    assert run("disable", "ann")[1] == "ann is locked out; their sessions end.\n"
    row = row_of(tmp_path, "ann")
    assert (row.disabled, row.auth_version, row.revoke_reason) == (True, 3, "disabled")
    assert run("enable", "ann")[1] == "ann may log in.\n"
    assert not row_of(tmp_path, "ann").disabled


def test_list(run, tmp_path):
    run("add", "ann", "--generate", "--name", "王小明", "--email", "a@b.c")
    run("add", "bob", "--generate")
    run("disable", "bob")
    with UserStore(tmp_path / "data") as store:
        store.record_login(1, 1, "192.0.2.1")
    code, out, _ = run("list")
    assert code == 0
    assert out == (
        "USER  ROLE  STATE     CREATED   LAST LOGIN  FROM       NAME    EMAIL\n"
        "ann   user  ok        just now  just now    192.0.2.1  王小明  a@b.c\n"
        "bob   user  disabled  just now  never       -          -       -\n"
    )
    rows = json.loads(run("list", "--json")[1])
    assert [(row["username"], row["disabled"]) for row in rows] == [("ann", False), ("bob", True)]
    assert "argon2" not in repr(rows)


def test_an_empty_list(run, tmp_path):
    with UserStore(tmp_path / "data"):
        pass
    assert run("list")[1] == "No users yet. Make one: ecan users add NAME\n"


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "just now"),
        (59, "just now"),
        (60, "1 min ago"),
        (3600, "1 h ago"),
        (47 * 3600, "47 h ago"),
        (48 * 3600, "2 days ago"),
        (31 * 86400, "2026-11-01"),
    ],
)
def test_ages_a_person_can_read(seconds, said):
    at = 1793491200.0  # 2026-11-01 UTC
    assert cli._age(at, at + seconds) == said


async def test_a_running_server_ends_the_sessions_of_a_locked_out_user_p15(accounts, ann, tmp_path):
    """P15 across processes: ``ecan users disable`` takes effect on the next look."""
    calls = asyncio.Queue()

    async def revoke(user_id, reason):
        calls.put_nowait((user_id, reason))

    watch = asyncio.create_task(accounts.watch(revoke, interval_s=0.05))
    data = ["--data-dir", str(tmp_path / "data")]
    for words, stdin, reason in (
        (["disable", "ann"], None, "disabled"),
        (["passwd", "ann", "--password-stdin"], "another long password", "password_changed"),
    ):
        done = await asyncio.to_thread(
            subprocess.run,
            [*RUN, *words, *data],
            input=stdin, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert await asyncio.wait_for(calls.get(), 5) == (ann.user_id, reason)
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)
