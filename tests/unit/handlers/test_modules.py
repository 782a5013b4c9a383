"""Changed modules are imported beside the loaded ones, wholly or not at all (ADR 12)."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
import textwrap
from pathlib import Path

import pytest

from ecan.errors import ReloadError
from ecan.handlers.modules import HandlerModules
from ecan.handlers.sources import Source

_numbers = itertools.count(1)

ONE_HANDLER = """
from ecan.handlers import UserContext, handler

@handler("{method}", inline=True)
def one(ctx: UserContext) -> int:
    return {value}

HANDLERS = [one]
"""


class Package:
    """An author's package on the disk."""

    def __init__(self, folder: Path) -> None:
        self.name = f"authors{next(_numbers)}"
        self.folder = folder / self.name
        self.folder.mkdir()
        self.write("__init__", "")

    def write(self, module: str, text: str) -> Path:
        path = self.folder / f"{module}.py"
        path.write_text(textwrap.dedent(text).replace("PACKAGE", self.name))
        return path

    def handlers(self, value: object, method: str = "x.one", module: str = "handlers") -> Path:
        return self.write(module, ONE_HANDLER.format(method=method, value=value))

    def modules(self, *names: str) -> HandlerModules:
        """Import them and watch them."""
        roots = [f"{self.name}.{name}" for name in names or ("handlers",)]
        for root in roots:
            importlib.import_module(root)
        return HandlerModules([], roots)

    def loaded(self) -> dict[str, object]:
        return {name: m for name, m in sys.modules.items() if name.partition(".")[0] == self.name}


@pytest.fixture
def package(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))
    made = Package(tmp_path)
    yield made
    for name in made.loaded():
        del sys.modules[name]


def run(generation, method="x.one"):
    return generation.registry.get(method).function(None)


def test_nothing_changed_nothing_is_loaded(package):
    package.handlers(1)
    modules = package.modules()
    assert modules.changed() == []
    assert modules.load() is None


def test_a_change_is_loaded_beside_what_there_is(package):
    """Same length, same second: the time stamp of the .pyc would not tell."""
    path = package.handlers(1)
    modules = package.modules()
    stamp = path.stat()
    package.handlers(2)
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    before = package.loaded()
    fresh = modules.load()
    assert run(fresh) == 2
    assert package.loaded() == before
    assert sorted(fresh.modules) == [package.name, f"{package.name}.handlers"]


def test_installed_modules_are_the_loaded_ones(package):
    package.handlers(1)
    modules = package.modules()
    package.handlers(2)
    fresh = modules.load()
    fresh.install()
    modules.installed(fresh)
    name = f"{package.name}.handlers"
    assert sys.modules[name] is fresh.modules[name]
    assert sys.modules[package.name].handlers is fresh.modules[name]
    assert modules.load() is None
    package.handlers(3)
    assert run(modules.load()) == 3


def test_a_helper_below_the_package_counts(package):
    package.write("prices", "PRICE = 1\n")
    package.handlers("PRICE").write_text(
        package.handlers("PRICE").read_text() + f"from {package.name}.prices import PRICE\n"
    )
    modules = package.modules()
    package.write("prices", "PRICE = 2\n")
    assert modules.changed() == [f"{package.name}.prices"]
    assert run(modules.load()) == 2


def test_a_helper_that_a_handler_imported_later_counts(package):
    package.write("late", "VALUE = 1\n")
    package.handlers(f"__import__('{package.name}.late').late.VALUE")
    modules = package.modules()
    importlib.import_module(f"{package.name}.late")
    assert modules.changed() == []
    path = package.write("late", "VALUE = 2\n")
    os.utime(path, (2**31, 2**31))
    assert modules.changed() == [f"{package.name}.late"]
    fresh = modules.load()
    fresh.install()
    assert run(fresh) == 2


@pytest.mark.parametrize(
    ("text", "line", "error"),
    [
        ("x = (\n", 1, "SyntaxError"),
        ("a = 1\nb = a + nowhere\n", 2, "NameError: name 'nowhere'"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit: 3"),
        ("import PACKAGE.missing\n", 1, "ModuleNotFoundError"),
        ("HANDLERS = 3\n", 1, "needs a list HANDLERS"),
        ("def f(): pass\nHANDLERS = [f]\n", 1, "needs @handler"),
        (
            "from ecan.handlers import handler as h\n\n@h('x')\ndef f(a, b, c): pass\nHANDLERS = [f]\n",
            3,
            "a handler takes (ctx) or (ctx, params)",
        ),
        ("HANDLERS = []\nMIGRATIONS = {'a': 1}\n", 1, "MIGRATIONS must be"),
    ],
)
def test_a_module_that_is_wrong_changes_nothing_and_says_where(package, text, line, error):
    package.handlers(1)
    modules = package.modules()
    before = package.loaded()
    path = package.write("handlers", text)
    with pytest.raises(ReloadError) as caught:
        modules.load()
    assert package.loaded() == before
    assert sys.modules[package.name].handlers is before[f"{package.name}.handlers"]
    assert caught.value.details["file"] == str(path)
    assert caught.value.details["line"] == line
    assert error in caught.value.details["error"]
    assert str(path) in str(caught.value)
    package.handlers(2)
    assert run(modules.load()) == 2


def test_an_error_in_a_helper_names_the_helper(package):
    package.write("prices", "PRICE = 1\n")
    package.write("handlers", "from PACKAGE.prices import PRICE\nHANDLERS = []\n")
    modules = package.modules()
    path = package.write("prices", "\nPRICE = 1 / 0\n")
    with pytest.raises(ReloadError) as caught:
        modules.load()
    assert (caught.value.details["file"], caught.value.details["line"]) == (str(path), 2)


def test_two_methods_of_one_name_change_nothing(package):
    package.handlers(1, module="a")
    package.handlers(1, "x.two", module="b")
    modules = package.modules("a", "b")
    package.handlers(1, "x.one", module="b")
    with pytest.raises(ReloadError, match=r"x\.one is already defined by .*\.a:one"):
        modules.load()


def test_a_deleted_module_is_an_error(package):
    path = package.handlers(1)
    modules = package.modules()
    path.unlink()
    with pytest.raises(ReloadError, match="ModuleNotFoundError"):
        modules.load()


def test_of_our_own_modules_only_the_changed_ones_are_loaded(monkeypatch, package):
    """Here: told to be, for the sources are not for tests to write to."""
    package.handlers(1)
    root = f"{package.name}.handlers"
    importlib.import_module(root)
    modules = HandlerModules(["ecan.handlers.session", "ecan.handlers.settings"], [root])
    session = sys.modules["ecan.handlers.session"]
    modules._sources["ecan.handlers.session"] = Source("", b"", package=False)
    fresh = modules.load()
    assert sorted(fresh.modules) == ["ecan.handlers.session"]
    assert sys.modules["ecan.handlers.session"] is session
    assert sys.modules["ecan.handlers"].session is session
    function = fresh.registry.get("session.info").function
    assert function is fresh.modules["ecan.handlers.session"].info is not session.info
