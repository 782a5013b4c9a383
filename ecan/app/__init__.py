"""The composition root: `root.App` makes every part and says who gets what.

`process` runs one as a process, `figures` is what it tells of itself, `methods` which
modules with handlers it has. Nothing below knows of this package.
"""

from ecan.app.methods import build_registry
from ecan.app.process import main, serve
from ecan.app.root import App

__all__ = ["App", "build_registry", "main", "serve"]
