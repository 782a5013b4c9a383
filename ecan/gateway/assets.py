"""The built browser app as a table in memory: no disk access per request."""

from __future__ import annotations

import base64
import gzip
import hashlib
import mimetypes
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from pathlib import Path

COMPRESSIBLE = ("text/", "application/javascript", "application/json", "image/svg+xml")

MIN_GZIP_BYTES = 512

IMMUTABLE = "public, max-age=31536000, immutable"
"""For files with a hash in their name: a year, never asked for again."""

REVALIDATE = "no-cache"
"""For index.html and the like: asked for each time, answered 304 by its ETag."""

SECURITY_HEADERS = (
    ("X-Content-Type-Options", "nosniff"),
    ("X-Frame-Options", "DENY"),
    ("Referrer-Policy", "no-referrer"),
    (
        "Content-Security-Policy",
        (
            "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
            "img-src 'self' data:; font-src 'self' data:; connect-src 'self' ws: wss:; "
            "object-src 'none'; base-uri 'none'; frame-ancestors 'none'"
        ),
    ),
)

NOT_BUILT = b"""<!doctype html><meta charset="utf-8"><title>eCan.ai Web</title>
<h1>The server runs, the browser app is not built.</h1>
<p>Run <code>make gui</code> (or <code>make run</code>, which does it) and start again.</p>
"""


@attrs.frozen
class Asset:
    """One file, ready to send."""

    body: bytes
    gzipped: bytes | None
    headers: tuple[tuple[str, str], ...]
    etag: str


@attrs.frozen
class Assets:
    """All files by URL path; `index` answers every other page (SPA fallback)."""

    files: dict[str, Asset]
    index: Asset

    @classmethod
    def load(cls, folder: Path) -> Assets:
        """Read a build; a missing one gives a page that says how to make it."""
        files: dict[str, Asset] = {}
        if folder.is_dir():
            for path in sorted(folder.rglob("*")):
                if path.is_file():
                    url = "/" + path.relative_to(folder).as_posix()
                    files[url] = make_asset(url, path.read_bytes())
        index = files.get("/index.html") or make_asset("/index.html", NOT_BUILT)
        return cls(files, index)

    def find(self, path: str) -> Asset | None:
        """The file for a path; None if it looks like a file and there is none.

        >>> table = Assets({}, make_asset("/index.html", b"<p>"))
        >>> table.find("/orders/5") is table.index, table.find("/assets/x.js")
        (True, None)
        """
        found = self.files.get(path)
        if found is not None:
            return found
        if path.startswith("/assets/") or "." in path.rpartition("/")[2]:
            return None
        return self.index


def make_asset(url: str, body: bytes) -> Asset:
    """Headers, ETag and compressed form of one file."""
    kind = mimetypes.guess_type(url)[0] or "application/octet-stream"
    compressible = kind.startswith(COMPRESSIBLE) or kind == "text/javascript"
    if kind.startswith("text/") or kind == "application/json":
        kind += "; charset=utf-8"
    gzipped = None
    if compressible and len(body) >= MIN_GZIP_BYTES:
        gzipped = gzip.compress(body, 9, mtime=0)
    tag = base64.urlsafe_b64encode(hashlib.sha256(body).digest()[:12]).decode()
    cache = IMMUTABLE if url.startswith("/assets/") else REVALIDATE
    headers = (("Content-Type", kind), ("Cache-Control", cache), ("Vary", "Accept-Encoding"))
    return Asset(body, gzipped, headers + SECURITY_HEADERS, f'"{tag}"')
