"""Where a page of documents ends and the next begins; the same for every store.

Ordered by key, a cursor is the last key; by age, the number of the last document.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ecan.store.rows import Order

MAX_NUMBER_CHARS = 18
"""Of a cursor by age: what fits into SQL's 64 bits."""

_LAST = 0x10FFFF
_SURROGATES = 0xD800, 0xE000


def by_key(order: Order) -> bool:
    """Whether the order is one of keys."""
    return order in {"key", "-key"}


def check_page(prefix: str, order: Order, cursor: str | None, limit: int) -> None:
    """See whether such a page can be asked for.

    Raises:
        ValueError: the cursor cannot be one of ours, or the limit is none.
    """
    check_limit(limit)
    if cursor is None:
        return
    if by_key(order):
        good = cursor.startswith(prefix)
    else:
        good = cursor.isascii() and cursor.isdigit() and len(cursor) <= MAX_NUMBER_CHARS
    if not good:
        raise ValueError("cursor: not from a page with this prefix and order")


def check_limit(limit: int) -> None:
    """See whether a page may be so long.

    Raises:
        ValueError: it is less than 1.
    """
    if limit < 1:
        raise ValueError("limit: at least 1")


def prefix_end(prefix: str) -> str | None:
    """The first string behind all that begin with the prefix; None: there is none.

    Code points order as their UTF-8 does, so this holds in Python and in SQLite.

    >>> prefix_end("ab"), prefix_end("a" + chr(0x10FFFF)), prefix_end("")
    ('ac', 'b', None)
    """
    kept = prefix.rstrip(chr(_LAST))
    if not kept:
        return None
    following = ord(kept[-1]) + 1
    first, behind = _SURROGATES  # no text of UTF-8 has these
    return kept[:-1] + chr(behind if following == first else following)
