"""deploy.md's block about a VM, run under a real systemd (in a container). `make image-test`."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator

import pytest

from tests.deploy.blocks import Shell, block, commands, committed_files
from tests.deploy.engine import Engine

pytestmark = [pytest.mark.containers, pytest.mark.timeout(900)]

VM = """\
FROM localhost/node:20-slim
RUN apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \\
    systemd systemd-sysv dbus sudo python3-venv procps >/dev/null && rm -rf /var/lib/apt/lists/*
COPY clone /src
WORKDIR /src
STOPSIGNAL SIGRTMIN+3
CMD ["/sbin/init"]
"""
"""Debian with systemd as process 1, Python 3.11, Node 20 and a clone."""


READY = "ecan: ready on http://127.0.0.1:8765 "


class Machine:
    """It; and the root shell of somebody who reads the guide."""

    def __init__(self, engine: Engine, shell: Shell) -> None:
        self.engine = engine
        self.shell = shell

    def __call__(self, script: str, *, check: bool = True) -> str:
        done = self.engine("exec", "vm", "sh", "-euc", script, check=check, timeout_s=300)
        return done.stdout + done.stderr

    def terminal(self, script: str):
        """On a terminal, until it ends or is stopped."""
        quoted = script.replace("'", "'\\''")
        return self.shell.start(f"exec podman exec -it vm sh -euc '{quoted}'")

    def unit(self, name: str) -> dict[str, str]:
        """What systemd knows of it."""
        shown = self(f"systemctl show {name}")
        return dict(line.partition("=")[::2] for line in shown.splitlines())

    def until(self, name: str, **wanted: str) -> None:
        deadline = time.monotonic() + 60
        while not wanted.items() <= (unit := self.unit(name)).items():
            assert time.monotonic() < deadline, ({key: unit[key] for key in wanted}, self.log())
            time.sleep(0.2)

    def until_logged(self, text: str, times: int) -> None:
        deadline = time.monotonic() + 60
        while self.log().count(text) < times:
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.2)

    def log(self) -> str:
        return self("journalctl -u ecan-web --no-pager -o cat")

    def health(self) -> dict:
        script = "import urllib.request as u;print(u.urlopen('http://127.0.0.1:8765/health').read().decode())"
        return json.loads(self(f'python3 -c "{script}"'))


@pytest.fixture
def machine(docker: Engine, tmp_path) -> Iterator[Machine]:
    """A VM that has booted."""
    folder = tmp_path / "vm"
    committed_files(folder / "clone")
    (folder / "Dockerfile").write_text(VM)
    docker("build", "--pull=never", "-t", "ecan-vm", str(folder), timeout_s=300)
    docker("run", "-d", "--systemd=always", "--privileged", "--name", "vm", "ecan-vm")
    made = Machine(docker, Shell(tmp_path, docker.env))
    deadline = time.monotonic() + 60
    while made("systemctl is-system-running", check=False).strip() != "running":
        assert time.monotonic() < deadline, made("systemctl --failed", check=False)
        time.sleep(0.2)
    yield made
    docker("rm", "--force", "--time", "1", "vm")
    docker("rmi", "--force", "ecan-vm")


def test_installed_run_backed_up_and_restarted(machine):
    """The block; then sandbox, backup, kill -9, a wrong setting, upgrade and back, and a drain."""
    install(machine)
    look_at_the_sandbox(machine)
    back_up(machine)
    die(machine)
    misconfigure(machine)
    upgrade_and_go_back(machine)
    machine("systemctl stop ecan-web")
    stopped = machine.unit("ecan-web")
    assert (stopped["Result"], stopped["ExecMainStatus"]) == ("success", "0")
    assert '"event":"server.stopped"' in machine.log()


def install(machine):
    """As the guide says, until the ready line."""
    *steps, journal, status = commands("deploy/systemd (a VM, EC2)/1")
    machine("\n".join(steps))
    with machine.terminal(journal) as shown:
        shown.until("ecan: first account 'admin', password: ")
        shown.until(r"ecan: ready on http://127\.0\.0\.1:8765 ")
    assert "healthy" in machine(status)
    assert "dist" in machine("ls /opt/ecan/gui_v2")


def look_at_the_sandbox(machine):
    """The unit's own promises, by the process they are about."""
    process = f"/proc/{machine.unit('ecan-web')['MainPID']}"
    state = dict(
        line.partition(":\t")[::2] for line in machine(f"cat {process}/status").splitlines()
    )
    uid = machine("id -u ecan").strip()
    assert state["Uid"].split() == [uid] * 4
    assert (int(state["CapEff"], 16), state["NoNewPrivs"], state["Seccomp"]) == (0, "1", "2")
    mounts = [line.split() for line in machine(f"cat {process}/mountinfo").splitlines()]
    (root,) = (mount for mount in mounts if mount[4] == "/")
    assert root[5].split(",")[0] == "ro"
    assert machine("stat -c '%U %a' /var/lib/ecan /etc/ecan/web.env").split() == [
        "ecan", "700", "root", "600",
    ]  # fmt: skip


def back_up(machine):
    """The nightly backup, now."""
    assert "ecan-backup.service" in machine("systemctl list-timers --no-pager")
    machine("systemctl start ecan-backup")
    archive = machine("find /var/lib/ecan-backup -name '*.tar' -printf '%u %m %f\n'")
    assert re.fullmatch(r"ecan 600 ecan-[\d-]+\.tar\n", archive)


def die(machine):
    """It is back within seconds."""
    ready = machine.log().count(READY)
    machine("systemctl kill -s KILL ecan-web")
    machine.until("ecan-web", SubState="running", NRestarts="1")
    machine.until_logged(READY, ready + 1)


def misconfigure(machine):
    """One line in the log at each try; put right, the next try succeeds by itself."""
    ready = machine.log().count(READY)
    machine("echo ECAN_SESSION_TIMEOUT=soon >>/etc/ecan/web.env")
    machine("systemctl restart ecan-web", check=False)
    machine.until_logged("ecan: ECAN_SESSION_TIMEOUT", 2)
    assert re.search(r"^ecan: ECAN_SESSION_TIMEOUT.*'soon'", machine.log(), re.MULTILINE)
    machine("sed -i /soon/d /etc/ecan/web.env")
    machine.until_logged(READY, ready + 1)


def upgrade_and_go_back(machine):
    """A new version that migrates, then the old one with the data of before."""
    users = "sudo -u ecan ECAN_DATA_DIR=/var/lib/ecan /opt/ecan/venv/bin/ecan users"
    migrations = "/src/ecan/store/migrations/sessions"
    machine(f"{users} add before --generate")
    machine(
        f"n=$(ls {migrations}/*.sql | wc -l)\n"
        f"echo 'CREATE TABLE next (x INTEGER);' >{migrations}/$(printf %04d_next.sql $((n + 1)))"
    )
    ready = machine.log().count(READY)
    machine(block("deploy/Upgrade and rollback/4"))
    machine.until_logged(READY, ready + 1)
    machine(f"{users} add after --generate")

    machine(f"rm {migrations}/*_next.sql")
    machine(block("deploy/Upgrade and rollback/5"))
    machine.until_logged(READY, ready + 2)
    listed = machine(f"{users} list")
    assert "before" in listed
    assert "after" not in listed
    assert machine.health()["status"] == "healthy"
