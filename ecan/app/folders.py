"""Where things that are no Python lie."""

from __future__ import annotations

from pathlib import Path

GUI_FOLDER = Path("gui_v2") / "dist"
"""Of the built browser app: beside the package, or, when that was installed elsewhere, here."""


def gui_folder() -> Path:
    """Where the built browser app is, or would be."""
    beside = Path(__file__).parent.parent.parent / GUI_FOLDER
    return beside if beside.is_dir() else Path.cwd() / GUI_FOLDER
