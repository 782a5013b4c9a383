"""Sources of modules as the server has loaded them, for itself and for its worker processes.

A worker process imports by name, maybe long after the file was changed; with the sources
handed to it, it runs the code of the server and not that of the disk (ADR 12).
"""

from __future__ import annotations

import os
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import PathFinder, SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import CodeType, ModuleType


@attrs.frozen
class Source:
    """A module's source.

    Attributes:
        path: of the file.
        data: the text, as bytes.
        package: whether modules are below it.
    """

    path: str
    data: bytes
    package: bool


def source_of(module: ModuleType) -> Source | None:
    """The source as it is on the disk now; None: the module has none."""
    path = getattr(module, "__file__", None)
    if not path:
        return None
    try:
        return Source(path, Path(path).read_bytes(), hasattr(module, "__path__"))
    except OSError:
        return None


class _Loader(SourceFileLoader):
    """Compiles a source as given: a ``.pyc`` tells versions apart by seconds and size only."""

    def __init__(self, name: str, source: Source) -> None:
        super().__init__(name, source.path)
        self._source = source

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002 - importlib's signature
        code: CodeType = self.source_to_code(self._source.data, self._source.path)
        return code


class DiskFinder(MetaPathFinder):
    """Finds as ever, reads each file once, and keeps what it read.

    Args:
        wants: names of modules it is for; others are found as ever.
    """

    def __init__(self, wants: Callable[[str], bool]) -> None:
        self._wants = wants
        self.sources: dict[str, Source] = {}

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        if not self._wants(fullname):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and type(spec.loader) is SourceFileLoader:
            file = spec.loader.path
            package = spec.submodule_search_locations is not None
            source = Source(file, Path(file).read_bytes(), package)
            self.sources[fullname] = source
            spec.loader = _Loader(fullname, source)
        return spec


class _GivenFinder(MetaPathFinder):
    """Finds modules whose sources were handed over, and no other."""

    def __init__(self, sources: Mapping[str, Source]) -> None:
        self._sources = sources

    def find_spec(
        self,
        fullname: str,
        path: Sequence[str] | None,  # noqa: ARG002 - importlib's signature
        target: ModuleType | None = None,  # noqa: ARG002
    ) -> ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        source = self._sources.get(fullname)
        if source is None:
            return None
        below = [os.path.dirname(source.path)] if source.package else None  # noqa: PTH120 - a str
        loader = _Loader(fullname, source)
        return spec_from_file_location(
            fullname, source.path, loader=loader, submodule_search_locations=below
        )


def import_from(sources: Mapping[str, Source]) -> None:
    """Have these modules imported from these sources from now on.

    Runs on: the main thread of a worker process, before its first job.
    """
    for name in sources:
        sys.modules.pop(name, None)
    sys.meta_path.insert(0, _GivenFinder(sources))
