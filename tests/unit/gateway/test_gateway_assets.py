"""The browser app in memory."""

from __future__ import annotations

import gzip

import pytest

from ecan.gateway.assets import IMMUTABLE, NOT_BUILT, REVALIDATE, Assets, make_asset


def test_every_file_of_the_build_is_in_the_table(tmp_path):
    """By its URL path, folders left out."""
    (tmp_path / "assets" / "deep").mkdir(parents=True)
    for name in ("index.html", "assets/a.js", "assets/deep/b.css"):
        (tmp_path / name).write_text(name)

    assets = Assets.load(tmp_path)

    assert sorted(assets.files) == ["/assets/a.js", "/assets/deep/b.css", "/index.html"]
    assert assets.index is assets.files["/index.html"]
    assert assets.find("/assets/deep/b.css").body == b"assets/deep/b.css"


def test_a_folder_that_is_not_there(tmp_path):
    """Every page then says how to build."""
    assets = Assets.load(tmp_path / "none")

    assert assets.files == {}
    assert assets.find("/x").body == NOT_BUILT


@pytest.mark.parametrize(
    ("url", "kind", "cache"),
    [
        ("/index.html", "text/html; charset=utf-8", REVALIDATE),
        ("/assets/x.css", "text/css; charset=utf-8", IMMUTABLE),
        ("/manifest.json", "application/json; charset=utf-8", REVALIDATE),
        ("/logo.svg", "image/svg+xml", REVALIDATE),
        ("/assets/unknown.zzz", "application/octet-stream", IMMUTABLE),
    ],
)
def test_headers_by_name(url, kind, cache):
    """Type and caching follow from the path."""
    headers = dict(make_asset(url, b"x").headers)

    assert (headers["Content-Type"], headers["Cache-Control"]) == (kind, cache)


@pytest.mark.parametrize(
    ("url", "size", "compressed"),
    [("/a.js", 511, False), ("/a.js", 512, True), ("/a.svg", 600, True), ("/a.png", 6000, False)],
)
def test_what_is_compressed(url, size, compressed):
    """Texts of 512 bytes and more."""
    asset = make_asset(url, b"x" * size)

    assert (asset.gzipped is not None) is compressed
    if compressed:
        assert gzip.decompress(asset.gzipped) == asset.body


def test_the_etag_is_of_the_content():
    """Equal bytes, equal tag; other bytes, another one."""
    assert make_asset("/a", b"1").etag == make_asset("/b", b"1").etag
    assert make_asset("/a", b"1").etag != make_asset("/a", b"2").etag
