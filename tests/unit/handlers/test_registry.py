"""The table of methods."""

from __future__ import annotations

import enum
from collections.abc import AsyncGenerator
from typing import Any

import attrs
import pytest

from ecan.errors import ConfigError, ReplyError
from ecan.handlers import Kind, Registry, Scope, UserContext, handler
from ecan.handlers.registry import load_handlers, spec_of


class Tone(enum.Enum):
    LOW = "low"


@attrs.define
class Params:
    n: int


@attrs.define
class WithToken:
    token: str | None = None


@attrs.define
class Unreadable:
    n: Missing  # type: ignore[name-defined]  # noqa: F821


@handler("m.async", role="admin", timeout_s=5, public=False, activity=False)
async def async_(ctx: UserContext, params: Params) -> int:
    """Summary.

    More.
    """
    return params.n


@handler("m.thread")
def thread(ctx: UserContext) -> None: ...


@handler("m.inline", inline=True, control=True)
def inline(ctx: UserContext, params: Any) -> None: ...


@handler("m.stream", concurrent=True)
async def stream(ctx: UserContext, params: WithToken) -> AsyncGenerator[int, None]:
    yield 1


@handler("m.process", isolation="process")
def process(params: dict[str, int]) -> None: ...


@handler("m.untyped")
def untyped(ctx, params): ...


def test_a_spec_says_how_a_handler_runs():
    """Told from the function itself and its marks."""
    kinds = {fn.__name__: spec_of(fn).kind for fn in (async_, thread, inline, stream, process)}
    assert kinds == {
        "async_": Kind.ASYNC,
        "thread": Kind.THREAD,
        "inline": Kind.INLINE,
        "stream": Kind.STREAM,
        "process": Kind.PROCESS,
    }
    spec = spec_of(async_)
    assert (spec.name, spec.role, spec.timeout_s) == ("m.async", "admin", 5)
    assert (spec.public, spec.activity, spec.scope) == (False, False, Scope.SESSION)
    assert (spec.params_type, spec.result_type) == (Params, int)
    assert spec.doc == "Summary.\n\nMore."
    assert spec.takes_context
    assert not spec_of(process).takes_context
    assert spec_of(thread).params_type is None
    assert spec_of(thread).doc == ""
    assert spec_of(untyped).params_type is Any


def test_control_implies_concurrent():
    """What passes the queue overlaps with what runs."""
    spec = spec_of(inline)
    assert spec.control
    assert spec.concurrent
    assert not spec_of(thread).concurrent


def test_params_are_structured():
    """To the declared type; absent ones are an empty object."""
    assert spec_of(async_).structure({"n": 1}) == Params(1)
    assert spec_of(inline).structure([1]) == [1]
    assert spec_of(inline).structure(None) == {}
    assert spec_of(process).structure({"a": 1}) == {"a": 1}
    with pytest.raises(ReplyError, match="INVALID_PARAMS"):
        spec_of(async_).structure(None)


def test_methods_without_params():
    """Null and empty ones are none; others are refused by name."""
    spec = spec_of(thread)
    assert spec.structure(None) is None
    assert spec.structure({}) is None
    with pytest.raises(ReplyError) as caught:
        spec.structure({"x": 1})
    assert caught.value.details == [{"path": "params.x", "problem": "unknown field"}]
    with pytest.raises(ReplyError) as caught:
        spec.structure([1])
    assert caught.value.details == [{"path": "params", "problem": "expected no params"}]


def test_p16_credentials_in_params_reach_only_who_asks_for_them():
    """P16: they may travel in params, a handler that did not declare them never sees them."""
    params = {"n": 1, "token": "t", "session_id": "s"}
    assert spec_of(async_).without_credentials(params) == {"n": 1}
    assert spec_of(inline).without_credentials(params) == {"n": 1}
    assert spec_of(thread).without_credentials({"token": "t"}) == {}
    assert spec_of(stream).without_credentials({"token": "t", "session_id": "s"}) == {"token": "t"}
    assert params == {"n": 1, "token": "t", "session_id": "s"}
    for without in ({"n": 1}, ["token"], None):
        assert spec_of(async_).without_credentials(without) is without


def _bad_inline() -> Any:
    @handler("x", inline=True)
    async def bad(ctx: UserContext) -> None: ...

    return bad


def _bad_process() -> Any:
    @handler("x", isolation="process")
    def bad(ctx: UserContext, params: Any) -> None: ...

    return bad


def _slow_before_login() -> Any:
    @handler("x", scope=Scope.ANY)
    def bad(ctx: UserContext) -> None: ...

    return bad


def _slow_control() -> Any:
    @handler("x", control=True)
    async def bad(ctx: UserContext) -> None: ...

    return bad


def _no_parameters() -> Any:
    @handler("x")
    def bad() -> None: ...

    return bad


def _too_many() -> Any:
    @handler("x")
    def bad(ctx: UserContext, params: Any, more: Any) -> None: ...

    return bad


def _bad_annotation() -> Any:
    @handler("x")
    def bad(ctx: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    return bad


def _bad_params() -> Any:
    @handler("x")
    def bad(ctx: UserContext, params: Unreadable) -> None: ...

    return bad


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_bad_inline, "plain functions"),
        (_bad_process, r"a process handler takes \(params\)"),
        (_slow_before_login, "before login only inline and async handlers run"),
        (_slow_control, "control handlers must be inline"),
        (_no_parameters, r"a handler takes \(ctx\)"),
        (_too_many, r"a handler takes \(ctx\)"),
        (_bad_annotation, "annotations cannot be read"),
        (_bad_params, "params type"),
        (lambda: print, "needs @handler"),
        (lambda: 5, "needs @handler"),
    ],
)
def test_a_function_that_does_not_fit_is_refused_at_the_start(make, words):
    """With its name, not at the first call."""
    with pytest.raises(ConfigError, match=words) as caught:
        spec_of(make())
    assert caught.value.name == "ECAN_HANDLERS"


def test_the_registry_is_a_table():
    """By name, in order, each name once."""
    registry = Registry([async_, thread])
    assert [spec.name for spec in registry] == ["m.async", "m.thread"]
    assert len(registry) == 2
    assert "m.async" in registry
    assert registry.get("m.thread").function is thread
    assert registry.get("nothing") is None
    with pytest.raises(ConfigError, match=r"m\.thread is already defined by .*thread"):
        registry.add(thread)


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A working directory with its own sys.path."""
    import sys

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_modules_of_applications_are_loaded_from_the_working_directory(here):
    """As with `python script.py`."""
    (here / "my_shop_handlers.py").write_text("HANDLERS = (1, 2)")
    assert load_handlers("my_shop_handlers") == [1, 2]
    assert load_handlers("my_shop_handlers") == [1, 2]


@pytest.mark.parametrize(
    ("text", "words"),
    [("1 / 0", "does not import: ZeroDivisionError"), ("HANDLERS = 5", "needs a list HANDLERS")],
)
def test_a_module_that_cannot_be_used_is_named(here, text, words):
    """ECAN_HANDLERS is a setting like any other."""
    name = f"broken_{abs(hash(text))}"
    (here / f"{name}.py").write_text(text)
    with pytest.raises(ConfigError, match=words):
        load_handlers(name)
