"""Settings that change while the server runs."""

from __future__ import annotations

import pytest

from ecan.config import LiveSettings, LoginRateLimit, RateLimit, Settings
from ecan.config.live import text_of
from ecan.config.parsers import Budget
from ecan.config.settings import fields
from ecan.errors import ConfigError


def test_a_change_is_seen_by_whoever_holds_the_settings():
    """And whoever has to do something about it is told the new value."""
    settings, told = Settings(), []
    live = LiveSettings(settings, {"ECAN_RATE_LIMIT": told.append, "ECAN_TOKEN_TTL": None})

    live.set("ECAN_RATE_LIMIT", " 5/6 ")
    live.set("ECAN_TOKEN_TTL", "1h")

    assert (settings.rate_limit, settings.token_ttl_s) == (RateLimit(5.0, 6), 3600.0)
    assert told == [RateLimit(5.0, 6)]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("ECAN_NOPE", "1", "no such setting"),
        ("ECAN_WS_PORT", "1", "needs a new start"),
        ("ECAN_RATE_LIMIT", "fast", "must be a rate like"),
    ],
)
def test_what_cannot_be_set_changes_nothing(name, value, words):
    """In the words of a start."""
    settings = Settings()
    live = LiveSettings(settings, {"ECAN_RATE_LIMIT": None})

    with pytest.raises(ConfigError, match=words):
        live.set(name, value)

    assert settings == Settings()


def test_p16_a_secret_is_neither_shown_nor_repeated():
    """The password of the first account, and one in an address."""
    settings = Settings(admin_password="hunter2-hunter2", store="redis://u:geheim@host/0")
    live = LiveSettings(settings, {})

    shown = str(live.rows())
    with pytest.raises(ConfigError) as refused:
        live.set("ECAN_ADMIN_PASSWORD", "another-secret")

    assert "hunter2" not in shown
    assert "geheim" not in shown
    assert "another-secret" not in str(refused.value)


def test_rows_say_where_a_value_comes_from():
    """The default, the environment, or an operator."""
    settings = Settings(max_sessions=7)
    live = LiveSettings(settings, {"ECAN_TOKEN_TTL": None})
    live.set("ECAN_TOKEN_TTL", "1h")

    rows = {row["name"]: row for row in live.rows()}

    assert [rows[f"ECAN_{name}"]["from"] for name in ("MAX_SESSIONS", "TOKEN_TTL", "MODE")] == [
        "environment",
        "admin",
        "default",
    ]
    assert rows["ECAN_ADMIN_SOCKET"]["from"] == "default"


@pytest.mark.parametrize("field", fields(), ids=lambda field: field.name)
def test_a_value_is_shown_as_it_could_be_set(field):
    """Parsing what is shown gives the value again."""
    samples = {
        RateLimit: [RateLimit(0.0, 0), RateLimit(2.5, 9)],
        LoginRateLimit: [LoginRateLimit(0, 60.0), LoginRateLimit(7, 3600.0)],
        bool: [True, False],
    }
    value = getattr(Settings(), field.name)
    values = [value, *samples.get(type(value), [])]
    if field.name.startswith("budget_") and value is None:
        values = [None, Budget(1.0, 2.0), Budget(1048576.0, 33554432.0)]
    for sample in values:
        text = text_of(field, sample)
        if text:
            assert field.metadata["parse"](text) == sample
