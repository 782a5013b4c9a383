"""The table of settings."""

from __future__ import annotations

import ipaddress
from pathlib import Path

import pytest

from ecan import config
from ecan.config import LoginRateLimit, RateLimit, Settings, SettingsError
from ecan.config.parsers import Budget
from ecan.errors import ConfigError

ANYWHERE = "0.0.0.0"  # noqa: S104 - the documented default


def _one(name: str, value: str) -> Settings:
    return Settings.from_env({name: value})


def test_defaults_are_those_of_the_contract():
    """An empty environment gives the defaults of CONTRACT §6."""
    settings = Settings.from_env({})
    assert settings == Settings()
    assert (settings.mode, settings.ws_host, settings.ws_port) == ("desktop", ANYWHERE, 8765)
    assert (settings.store, settings.durability) == ("sqlite", "commit")
    assert (settings.session_timeout_s, settings.token_ttl_s) == (86400, 86400)
    assert (settings.passivate_after_s, settings.passivate_detached_after_s) == (900, 180)
    assert (settings.max_sessions, settings.max_sessions_per_user) == (100_000, 20)
    assert (settings.mailbox_size, settings.max_frame) == (256, 1 << 20)
    assert (settings.request_timeout_s, settings.drain_timeout_s) == (30, 25)
    assert (settings.worker_threads, settings.max_connections) == (256, 50_000)
    assert settings.rate_limit == RateLimit(100, 200)
    assert settings.login_rate_limit == LoginRateLimit(5, 60)
    assert settings.allowed_origins is None
    assert not settings.signup_open
    assert not settings.debug_methods
    assert settings.admin_socket == settings.data_dir / "admin.sock"


def test_an_empty_variable_counts_as_not_set():
    """Compose files pass empty variables on; they mean the default."""
    assert _one("ECAN_WS_PORT", "  ") == Settings()


@pytest.mark.parametrize(
    ("name", "text", "field", "value"),
    [
        ("ECAN_MODE", "WEB", "mode", "web"),
        ("ECAN_WS_PORT", "0", "ws_port", 0),
        ("ECAN_LOG_LEVEL", "debug", "log_level", "DEBUG"),
        ("ECAN_LOG_FORMAT", "json", "log_format", "json"),
        ("ECAN_SESSION_TIMEOUT", "30", "session_timeout_s", 30),
        ("ECAN_SESSION_TIMEOUT", "30s", "session_timeout_s", 30),
        ("ECAN_SESSION_TIMEOUT", "500ms", "session_timeout_s", 0.5),
        ("ECAN_PASSIVATE_AFTER", "15m", "passivate_after_s", 900),
        ("ECAN_STORE", "Memory", "store", "memory"),
        ("ECAN_STORE", "SQLite", "store", "sqlite"),
        ("ECAN_STORE", "sqlite:/Data/s.db", "store", "sqlite:/Data/s.db"),
        ("ECAN_STORE", "sqlite:", "store", "sqlite"),
        ("ECAN_TOKEN_TTL", "24h", "token_ttl_s", 86400),
        ("ECAN_TOKEN_TTL", "1.5d", "token_ttl_s", 129600),
        ("ECAN_DRAIN_TIMEOUT", "0", "drain_timeout_s", 0),
        ("ECAN_MAX_FRAME", "1048576", "max_frame", 1 << 20),
        ("ECAN_MAX_FRAME", "1MiB", "max_frame", 1 << 20),
        ("ECAN_MAX_FRAME", "512 kib", "max_frame", 512 << 10),
        ("ECAN_RATE_LIMIT", "100", "rate_limit", RateLimit(100, 200)),
        ("ECAN_RATE_LIMIT", "100/s", "rate_limit", RateLimit(100, 200)),
        ("ECAN_RATE_LIMIT", "10/50", "rate_limit", RateLimit(10, 50)),
        ("ECAN_RATE_LIMIT", "0.1", "rate_limit", RateLimit(0.1, 1)),
        ("ECAN_RATE_LIMIT", "0", "rate_limit", RateLimit(0, 0)),
        ("ECAN_BUDGET_CPU", "20/50", "budget_cpu_s", Budget(20, 50)),
        ("ECAN_BUDGET_WALL", "500ms/1m", "budget_wall_s", Budget(0.5, 60)),
        ("ECAN_BUDGET_STATE", "1MiB/4MiB", "budget_state_bytes", Budget(2**20, 2**22)),
        ("ECAN_BUDGET_SENT", "off", "budget_sent_bytes", None),
        ("ECAN_LOGIN_RATE_LIMIT", "5/min", "login_rate_limit", LoginRateLimit(5, 60)),
        ("ECAN_LOGIN_RATE_LIMIT", "10/s", "login_rate_limit", LoginRateLimit(10, 1)),
        ("ECAN_LOGIN_RATE_LIMIT", "0", "login_rate_limit", LoginRateLimit(0, 60)),
        ("ECAN_SIGNUP", "open", "signup_open", True),
        ("ECAN_SIGNUP", "closed", "signup_open", False),
        ("ECAN_DEBUG_METHODS", "1", "debug_methods", True),
        ("ECAN_DEBUG_METHODS", "off", "debug_methods", False),
        ("ECAN_ALLOWED_ORIGINS", "https://A.b, *", "allowed_origins", ("*",)),
        ("ECAN_ALLOWED_ORIGINS", "https://A.b:1", "allowed_origins", ("https://a.b:1",)),
        ("ECAN_HANDLERS", "shop.handlers, x", "handlers", ("shop.handlers", "x")),
        ("ECAN_METRICS_PORT", "9100", "metrics_port", 9100),
        ("ECAN_ADMIN_PASSWORD", " with spaces ", "admin_password", " with spaces "),
        ("ECAN_ADMIN_SOCKET", "/run/e.sock", "admin_socket", Path("/run/e.sock")),
        ("ECAN_DATA_DIR", "/var/e", "admin_socket", Path("/var/e/admin.sock")),
        ("ECAN_STORE", "memory", "store", "memory"),
    ],
)
def test_accepted_forms(name, text, field, value):
    """Every documented way of writing a value is read."""
    assert getattr(_one(name, text), field) == value


def test_trusted_proxies_are_networks():
    """Single addresses become networks of one."""
    assert _one("ECAN_TRUSTED_PROXIES", "10.0.0.0/8, ::1").trusted_proxies == (
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("::1/128"),
    )


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ECAN_MODE", "server"),
        ("ECAN_WS_PORT", "65536"),
        ("ECAN_WS_PORT", "-1"),
        ("ECAN_WS_PORT", "8765.0"),
        ("ECAN_WS_PORT", "²"),
        ("ECAN_SESSION_TIMEOUT", "0"),
        ("ECAN_SESSION_TIMEOUT", "1 week"),
        ("ECAN_BUDGET_CPU", "50"),
        ("ECAN_BUDGET_CPU", "50/20"),
        ("ECAN_BUDGET_CPU", "0/20"),
        ("ECAN_BUDGET_STATE", "1MiB/lots"),
        ("ECAN_SESSION_TIMEOUT", "nan"),
        ("ECAN_SESSION_TIMEOUT", "-5s"),
        ("ECAN_TOKEN_TTL", "500ms"),
        ("ECAN_MAX_FRAME", "1KB"),
        ("ECAN_MAX_FRAME", "10"),
        ("ECAN_MAX_FRAME", "1GiB"),
        ("ECAN_RATE_LIMIT", "100/min"),
        ("ECAN_RATE_LIMIT", "100/0"),
        ("ECAN_LOGIN_RATE_LIMIT", "5"),
        ("ECAN_SIGNUP", "yes"),
        ("ECAN_DEBUG_METHODS", "maybe"),
        ("ECAN_ALLOWED_ORIGINS", "app.example.com"),
        ("ECAN_ALLOWED_ORIGINS", "https://app.example.com/path"),
        ("ECAN_TRUSTED_PROXIES", "10.0.0.300"),
        ("ECAN_HANDLERS", "shop handlers"),
        ("ECAN_STORE", "postgres://db"),
        ("ECAN_STORE", "memory:x"),
    ],
)
def test_a_bad_value_names_variable_value_and_what_is_allowed(name, text):
    """One line is enough to put it right."""
    with pytest.raises(ConfigError) as caught:
        _one(name, text)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{name}={text!r}: must be ")


@pytest.mark.parametrize(("text", "kind"), [("redis://h/0", "redis"), ("rediss://h", "redis")])
def test_stores_of_later_versions_are_refused_by_name(text, kind):
    """A store that is not there yet says so, and what is there."""
    with pytest.raises(ConfigError, match=f"the {kind} store is not available in this version"):
        _one("ECAN_STORE", text)


def test_all_problems_are_told_at_once():
    """One start shows everything that is wrong, one line each, in the table's order."""
    with pytest.raises(SettingsError) as caught:
        Settings.from_env({"ECAN_LOG_LEVEL": "loud", "ECAN_WS_PORT": "x", "ECAN_TLS_CERT": "c"})
    lines = str(caught.value).splitlines()
    assert [line.partition("=")[0] for line in lines] == [
        "ECAN_WS_PORT",
        "ECAN_LOG_LEVEL",
        "ECAN_TLS_CERT",
    ]
    assert caught.value.problems[0].name == caught.value.name


def test_a_certificate_needs_its_key_and_the_key_its_certificate():
    """Half of TLS is an error, not plain text."""
    with pytest.raises(ConfigError, match="needs ECAN_TLS_KEY"):
        _one("ECAN_TLS_CERT", "cert.pem")
    with pytest.raises(ConfigError, match="needs ECAN_TLS_CERT"):
        _one("ECAN_TLS_KEY", "key.pem")
    both = Settings.from_env({"ECAN_TLS_CERT": "c", "ECAN_TLS_KEY": "k"})
    assert (both.tls_cert, both.tls_key) == (Path("c"), Path("k"))


def test_metrics_cannot_share_the_port():
    """Two listeners on one port would fail later and less clearly."""
    with pytest.raises(ConfigError, match="must differ from ECAN_WS_PORT"):
        _one("ECAN_METRICS_PORT", "8765")


def test_p16_secrets_are_not_repeated():
    """P16: neither a password nor one inside a store's address appears anywhere."""
    with pytest.raises(ConfigError) as caught:
        _one("ECAN_ADMIN_PASSWORD", "hunter2" * 200)
    assert "hunter2" not in str(caught.value)
    with pytest.raises(ConfigError) as caught:
        _one("ECAN_STORE", "redis://:hunter2@host/0")
    assert "hunter2" not in str(caught.value)
    assert "hunter2" not in repr(_one("ECAN_ADMIN_PASSWORD", "hunter2"))


def test_unknown_variables_are_collected_with_what_was_meant():
    """A typo does not stop the start, but is named."""
    settings = Settings.from_env({"ECAN_WS_PROT": "1", "ECAN_ZZZ": "", "PATH": "x"})
    assert settings.unknown == (("ECAN_WS_PROT", "ECAN_WS_PORT"), ("ECAN_ZZZ", None))


def test_the_clients_variables_are_not_unknown():
    """`ecan call` shares the prefix with the server."""
    assert Settings.from_env({"ECAN_TOKEN": "t", "ECAN_SESSION_ID": "s"}).unknown == ()


def test_load_reads_the_environment_of_the_process(monkeypatch):
    """The two loaders are the only readers of os.environ."""
    monkeypatch.setenv("ECAN_WS_PORT", "4711")
    monkeypatch.setenv("ECAN_TOKEN", "secret-token")
    assert config.load().ws_port == 4711
    client = config.load_client()
    assert client.url == "ws://127.0.0.1:4711/ws"
    assert client.token == "secret-token"
    assert "secret-token" not in repr(client)


def test_the_clients_url_can_be_given_and_follows_tls():
    """ECAN_URL wins; with a certificate the server speaks TLS."""
    client = config.ClientEnvironment.from_env({"ECAN_URL": "ws://far/ws", "ECAN_WS_PORT": "bad"})
    assert client.url == "ws://far/ws"
    assert config.ClientEnvironment.from_env({"ECAN_TLS_CERT": "c"}).url.startswith("wss://")


def test_the_table_documents_every_setting():
    """Docs are made from the same rows as the parser."""
    rows = {row.env: row for row in config.describe_settings()}
    assert rows["ECAN_SESSION_TIMEOUT"].default == "86400s"
    assert rows["ECAN_WS_HOST"].default == ANYWHERE
    assert len(rows) == 44
    table = config.markdown_table()
    assert all(f"| `{name}` |" in table for name in rows)
    assert all(line.count("|") == 5 for line in table.splitlines())
