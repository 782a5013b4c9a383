"""The modules that handlers come from: which of them changed, and how they are imported anew.

What is imported anew stands beside what is loaded until `Generation.install`: nobody but
the caller of `HandlerModules.load` gets to see it, and an import that fails leaves no trace
(ADR 12). All of it runs on the loop, which waits.
"""

from __future__ import annotations

import importlib
import sys
import time
import traceback
from importlib.machinery import ExtensionFileLoader
from pathlib import Path
from typing import TYPE_CHECKING, Any

import attrs

from ecan.errors import ConfigError, ReloadError
from ecan.handlers.migrations import gather
from ecan.handlers.registry import Registry, handlers_of
from ecan.handlers.sources import DiskFinder, Source, import_from, source_of
from ecan.handlers.structure import CONVERTER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import ModuleType

OURS = "ecan"
"""Our own package, of which single modules are loaded anew, not everything."""


@attrs.define
class Generation:
    """What was imported anew.

    Attributes:
        modules: by name.
        registry: all methods, those of unchanged modules too.
        sources: of the modules.
    """

    modules: dict[str, ModuleType]
    registry: Registry
    sources: dict[str, Source]
    _stale: Callable[[str], bool]

    def install(self) -> None:
        """Let the names of these modules mean them from now on."""
        for name in [name for name in sys.modules if self._stale(name)]:
            del sys.modules[name]
        sys.modules.update(self.modules)
        for name, module in self.modules.items():
            _set_in_parent(name, module)


class HandlerModules:
    """The modules that methods come from.

    Args:
        built_in: our own modules with a `HANDLERS` table.
        named: those of ECAN_HANDLERS. With each belongs all of its top-level package.
    """

    def __init__(self, built_in: Sequence[str], named: Sequence[str]) -> None:
        self._roots = [*built_in, *named]
        tops = {name.partition(".")[0] for name in named} - {OURS}
        self._tops = frozenset(tops)
        self._ours = frozenset(name for name in self._roots if name.partition(".")[0] not in tops)
        found = {name: source_of(sys.modules[name]) for name in self._loaded()}
        self._sources = {name: source for name, source in found.items() if source is not None}
        self._read_at = time.time()

    @property
    def setup(self) -> tuple[Callable[..., Any], Any]:
        """What a worker process has to call, and with what, to run the same code."""
        return import_from, dict(self._sources)

    def _loaded(self) -> list[str]:
        return [name for name in sys.modules if self._is_authors(name) or name in self._ours]

    def _is_authors(self, name: str) -> bool:
        return name.partition(".")[0] in self._tops and not _is_compiled(sys.modules.get(name))

    def changed(self) -> list[str]:
        """Modules whose source is no longer what was loaded, by name."""
        return sorted(name for name in self._loaded() if self._has_changed(name))

    def _has_changed(self, name: str) -> bool:
        module = sys.modules[name]
        known = self._sources.get(name)
        if known is not None:
            return source_of(module) != known
        # A namespace, or imported by a handler, later than all else.
        path = getattr(module, "__file__", None)
        if not path:
            return False
        return not Path(path).exists() or Path(path).stat().st_mtime > self._read_at

    def load(self) -> Generation | None:
        """Import what changed into modules of its own; None: nothing did.

        If a module of the authors' packages changed, all of these are imported anew; else
        there would be two classes of one name.

        Raises:
            ReloadError: it does not import, or what it declares is wrong.
        """
        changed = self.changed()
        if not changed:
            return None
        authors = any(name not in self._ours for name in changed)
        ours = frozenset(changed) & self._ours

        def stale(name: str) -> bool:
            return name in ours or (authors and self._is_authors(name))

        before = {name: module for name, module in sys.modules.items() if stale(name)}
        finder = DiskFinder(lambda name: name in ours or name.partition(".")[0] in self._tops)
        sys.meta_path.insert(0, finder)
        try:
            for name in before:
                del sys.modules[name]
            importlib.invalidate_caches()
            modules = [_import(name) for name in self._roots]
            registry = _registry_of(modules)
            fresh = {name: module for name, module in sys.modules.items() if stale(name)}
        finally:
            sys.meta_path.remove(finder)
            for name in [name for name in sys.modules if stale(name)]:
                del sys.modules[name]
            sys.modules.update(before)
            for name, module in before.items():
                _set_in_parent(name, module)
        return Generation(fresh, registry, finder.sources, stale)

    def installed(self, generation: Generation) -> None:
        """These are the loaded ones now."""
        for name in [name for name in self._sources if name not in sys.modules]:
            del self._sources[name]
        self._sources.update(generation.sources)
        self._read_at = time.time()


def _import(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except BaseException as error:  # SystemExit too is a module that does not import
        raise _wrong_code(f"{name} does not import", error, _place(error)) from error


def _registry_of(modules: Iterable[ModuleType]) -> Registry:
    function: Any = None
    try:
        tables = [(module, handlers_of(module)) for module in modules]
        migrations = gather(
            (module.__name__, getattr(module, "MIGRATIONS", None)) for module, _ in tables
        )
        registry = Registry((), migrations)
        for _, functions in tables:
            for function in functions:
                registry.add(function)
        # Now, while the names in its annotations mean the modules they were written for.
        for declared in migrations.by_slot.values():
            if declared.to is not None:
                CONVERTER.get_structure_hook(declared.to)
    except ConfigError as error:
        code = getattr(function, "__code__", None)
        if code is not None:
            place = (code.co_filename, code.co_firstlineno)
        else:
            place = (str(getattr(sys.modules[error.value], "__file__", "?")), 1)
        raise _wrong_code("the handlers cannot be taken", error, place) from error
    except Exception as error:
        raise _wrong_code("the migrations cannot be taken", error, _place(error)) from error
    return registry


def _wrong_code(what: str, error: BaseException, place: tuple[str, int]) -> ReloadError:
    file, line = place
    words = str(error) if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
    details = {"file": file, "line": line, "error": words}
    return ReloadError(f"{what}: {file}:{line}: {words}", details)


def _place(error: BaseException) -> tuple[str, int]:
    """Where the author has to look."""
    if isinstance(error, SyntaxError) and error.filename:
        return error.filename, error.lineno or 1
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen importlib") and frame.filename != __file__
    ]
    if not frames:
        return "?", 1
    return frames[-1].filename, frames[-1].lineno or 1


def _set_in_parent(name: str, module: ModuleType) -> None:
    parent, dot, child = name.rpartition(".")
    if dot and parent in sys.modules:
        setattr(sys.modules[parent], child, module)


def _is_compiled(module: ModuleType | None) -> bool:
    """Whether it is an extension, which cannot be loaded twice."""
    spec = getattr(module, "__spec__", None)
    return isinstance(getattr(spec, "loader", None), ExtensionFileLoader)
