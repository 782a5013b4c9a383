"""`ctx.user.collection`: documents of a user, as one request sees them."""

from __future__ import annotations

from datetime import date
from typing import Any

import attrs
import pytest
from fakes import committed, user_ctx

from ecan.errors import ConflictError, HandlerError, SlotError
from ecan.handlers.documents import MAX_DOCUMENT_BYTES, MAX_KEY_CHARS, Document, Page


@attrs.define
class Note:
    """A typed document."""

    text: str
    due: date | None = None
    tags: list[str] = attrs.field(factory=list)


async def stored(server, documents: dict[str, Any], collection: str = "notes", user_id: int = 1):
    """Put by an earlier request."""
    ctx = user_ctx(server, user_id=user_id)
    for key, value in documents.items():
        ctx.user.collection(collection).put(key, value)
    await committed(ctx)


# -- reading ----------------------------------------------------------------------------


async def test_a_document_is_there_or_it_is_the_default(server):
    """None, or what the caller wants instead."""
    await stored(server, {"a": {"n": 1}})
    notes = user_ctx(server).user.collection("notes")
    assert await notes.get("a") == {"n": 1}
    assert await notes.get("b") is None
    assert await notes.get("b", 5) == 5


async def test_p4_what_is_read_is_a_copy(server):
    """Changing it changes nothing: that takes a put."""
    await stored(server, {"a": {"n": 1}})
    ctx = user_ctx(server)
    notes = ctx.user.collection("notes")
    (await notes.get("a"))["n"] = 2
    assert await notes.get("a") == {"n": 1}
    value = {"n": 3}
    notes.put("a", value)
    value["n"] = 4
    assert await notes.get("a") == {"n": 3}
    assert ctx.documents.as_writes()[0].data == b'{"n":3}'


async def test_the_user_is_there_with_all_fields(server):
    """`ctx.user` is still who is logged in."""
    user = user_ctx(server, role="admin").user
    assert (user.user_id, user.username, user.role) == (1, "ann", "admin")
    assert user.public()["username"] == "ann"
    assert "ann" in repr(user)
    with pytest.raises(AttributeError):
        _ = user.password


async def test_typed_documents_come_back_as_their_type(server):
    """Structured on reading, unstructured on writing, alone and in pages."""
    ctx = user_ctx(server)
    note = Note("milk", date(2026, 1, 2), ["shop"])
    notes = ctx.user.collection("notes", Note)
    notes.put("a", note)
    assert await notes.get("a") == note
    await committed(ctx)
    again = user_ctx(server).user.collection("notes", Note)
    assert await again.get("a") == note
    assert await again.list() == Page([Document("a", note)], None)
    raw = user_ctx(server).user.collection("notes")
    assert await raw.get("a") == {"text": "milk", "due": "2026-01-02", "tags": ["shop"]}


async def test_a_document_that_does_not_fit_its_type_is_named(server):
    """Collection and key are in the message."""
    await stored(server, {"a": {"words": "milk"}})
    notes = user_ctx(server).user.collection("notes", Note)
    with pytest.raises(SlotError, match=r"notes/a.*does not fit Note"):
        await notes.get("a")
    with pytest.raises(SlotError, match="notes/a"):
        await notes.list()


async def test_own_writes_are_seen_by_get(server):
    """Also deletions; nothing is asked of the store for them."""
    await stored(server, {"a": 1, "b": 2})
    ctx = user_ctx(server)
    notes = ctx.user.collection("notes")
    notes.put("a", 10)
    notes.delete("b")
    assert (await notes.get("a"), await notes.get("b"), await notes.get("b", "gone")) == (
        10,
        None,
        "gone",
    )
    other = ctx.user.collection("notes")  # the same collection, opened again
    assert await other.get("a") == 10
    assert ctx.session.reads == []
    assert ctx.documents.as_checks() == ()
    notes.put("b", 3)
    assert await notes.get("b") == 3


# -- lists ------------------------------------------------------------------------------


async def test_pages_follow_each_other(server):
    """By key, prefix, order and cursor, each document once."""
    await stored(server, {key: key for key in ("a2", "a1", "b1", "a3")})
    notes = user_ctx(server).user.collection("notes")
    first = await notes.list(prefix="a", limit=2)
    assert [document.key for document in first.documents] == ["a1", "a2"]
    second = await notes.list(prefix="a", limit=2, cursor=first.cursor)
    assert ([document.value for document in second.documents], second.cursor) == (["a3"], None)
    for order, keys in {
        "-key": ["b1", "a3", "a2", "a1"],
        "oldest": ["a2", "a1", "b1", "a3"],
        "newest": ["a3", "b1", "a1", "a2"],
    }.items():
        page = await notes.list(order=order)
        assert [document.key for document in page.documents] == keys
    assert await notes.list(prefix="c") == Page([], None)


async def test_a_list_after_a_write_is_refused(server):
    """It would not show the write; other collections may still be listed."""
    ctx = user_ctx(server)
    ctx.user.collection("notes").put("a", 1)
    with pytest.raises(SlotError, match="before writing"):
        await ctx.user.collection("notes").list()
    assert await ctx.user.collection("others").list() == Page([], None)


async def test_a_cursor_that_is_none_is_a_declared_error(server):
    """Clients pass cursors through: the error is theirs."""
    notes = user_ctx(server).user.collection("notes")
    with pytest.raises(HandlerError) as caught:
        await notes.list(order="oldest", cursor="nonsense")
    assert caught.value.code == "BAD_CURSOR"


@pytest.mark.parametrize("limit", [0, -1, 1001])
async def test_p8_a_page_has_a_bound(server, limit):
    """1 to 1000 documents."""
    with pytest.raises(ValueError, match="1 to 1000"):
        await user_ctx(server).user.collection("notes").list(limit=limit)


# -- writing ----------------------------------------------------------------------------


async def test_writes_are_the_last_of_each_document(server):
    """One write per key goes into the commit, nothing is in the store before."""
    ctx = user_ctx(server)
    notes = ctx.user.collection("notes")
    notes.put("a", 1)
    notes.put("a", 2)
    notes.put("b", 1)
    notes.delete("b")
    writes = [(write.collection, write.key, write.data) for write in ctx.documents.as_writes()]
    assert writes == [("notes", "a", b"2"), ("notes", "b", None)]
    assert await server.store.document(1, "notes", "a") is None


async def test_p8_a_document_has_a_bound(server):
    """1 MiB, with a declared error that says how large it is."""
    ctx = user_ctx(server)
    notes = ctx.user.collection("notes")
    notes.put("fits", "x" * (MAX_DOCUMENT_BYTES - 2))
    with pytest.raises(HandlerError) as caught:
        notes.put("a", "x" * (MAX_DOCUMENT_BYTES - 1))
    assert caught.value.code == "DOCUMENT_TOO_LARGE"
    assert caught.value.details == {
        "size_bytes": MAX_DOCUMENT_BYTES + 1,
        "limit_bytes": MAX_DOCUMENT_BYTES,
    }
    assert [write.key for write in ctx.documents.as_writes()] == ["fits"]


@pytest.mark.parametrize("value", [{1, 2}, (1, 2), float("nan"), object(), Note("x")])
async def test_p4_what_cannot_be_stored_fails_when_it_is_put(server, value):
    """With collection and key; a value of another type than the collection's too."""
    ctx = user_ctx(server)
    with pytest.raises(SlotError, match="notes/a"):
        ctx.user.collection("notes").put("a", value)
    assert ctx.documents.as_writes() == ()


async def test_a_typed_value_that_reads_back_as_another_fails(server):
    """The declared type must fit what is put."""
    notes = user_ctx(server).user.collection("notes", Note)
    with pytest.raises(SlotError, match="notes/a"):
        notes.put("a", Note("x", tags=[1]))  # type: ignore[list-item]


@pytest.mark.parametrize("key", ["", "x" * (MAX_KEY_CHARS + 1), "a\0b", 5, None])
async def test_p17_a_key_is_a_short_string(server, key):
    """For get, put and delete, and for the collection's name."""
    ctx = user_ctx(server)
    notes = ctx.user.collection("notes")
    with pytest.raises(SlotError, match="a key is a string"):
        await notes.get(key)
    with pytest.raises(SlotError, match="a key is a string"):
        notes.put(key, 1)
    with pytest.raises(SlotError, match="a key is a string"):
        notes.delete(key)
    with pytest.raises(SlotError):
        ctx.user.collection(key)


@pytest.mark.parametrize("key", ["a", "x" * MAX_KEY_CHARS, "über/日本 %_", "' OR 1=1"])
async def test_p17_any_other_key_is_a_key(server, key):
    """Nothing in it means anything to the store."""
    await stored(server, {key: 1})
    notes = user_ctx(server).user.collection("notes")
    assert await notes.get(key) == 1
    assert [document.key for document in (await notes.list(prefix=key)).documents] == [key]


async def test_p4_methods_that_only_look_cannot_write(server):
    """Neither put nor delete; reading they may."""
    await stored(server, {"a": 1})
    ctx = user_ctx(server, reads=True)
    notes = ctx.user.collection("notes")
    assert await notes.get("a") == 1
    for write in (lambda: notes.put("a", 2), lambda: notes.delete("a")):
        with pytest.raises(SlotError, match="reads=True"):
            write()
    assert ctx.documents.as_writes() == ()


# -- what the commit checks -------------------------------------------------------------


async def test_what_was_read_is_checked(server):
    """Versions of documents, 0 for none; the whole collection for a list; once each."""
    await stored(server, {"a": 1, "b": 2})
    ctx = user_ctx(server)
    notes = ctx.user.collection("notes")
    await notes.get("b")
    await notes.get("b")
    await notes.get("none")
    await ctx.user.collection("others").list()
    checks = [(check.collection, check.key, check.version) for check in ctx.documents.as_checks()]
    assert checks == [("notes", "b", 2), ("notes", "none", 0), ("others", None, 0)]


async def test_a_single_read_needs_no_commit(server):
    """It is true by itself; two reads must be true at one moment; a write must land."""
    ctx = user_ctx(server)
    assert ctx.used_documents is None
    notes = ctx.user.collection("notes")
    assert ctx.used_documents is not None
    assert not ctx.documents.must_commit
    await notes.get("a")
    assert not ctx.documents.must_commit
    await notes.get("b")
    assert ctx.documents.must_commit
    blind = user_ctx(server)
    blind.user.collection("notes").put("a", 1)
    assert blind.documents.must_commit
    assert blind.documents.as_checks() == ()


@pytest.mark.parametrize("how", ["get", "list"])
async def test_p4_a_document_that_changes_while_it_is_read_is_a_conflict(server, how):
    """Read twice with another version in between: the request runs again at once."""
    await stored(server, {"a": 1})
    ctx = user_ctx(server)
    notes = ctx.user.collection("notes")
    await (notes.get("a") if how == "get" else notes.list())
    await stored(server, {"a": 2})
    with pytest.raises(ConflictError):
        await (notes.get("a") if how == "get" else notes.list())


async def test_p4_a_new_document_changes_the_collection_it_was_listed_from(server):
    """It may belong to the page: whoever listed runs again; whoever read another does not."""
    await stored(server, {"a": 1})
    lists, reads, blind = (user_ctx(server) for _ in range(3))
    await lists.user.collection("notes").list()
    await reads.user.collection("notes").get("a")
    for ctx in (lists, reads, blind):
        ctx.user.collection("notes").put("z", 1)
    await stored(server, {"b": 1})
    with pytest.raises(ConflictError):
        await committed(lists)
    await committed(reads)
    await committed(blind)


async def test_p1_documents_of_one_user_are_not_seen_by_another(server):
    """P1: the same collection and key are another document."""
    await stored(server, {"a": "ann's"})
    ctx = user_ctx(server, user_id=2)
    notes = ctx.user.collection("notes")
    assert await notes.get("a") is None
    assert (await notes.list()).documents == []
    other = user_ctx(server, user_id=2)
    other.user.collection("notes").put("a", "bob's")
    other.user.collection("notes").delete("b")
    await committed(other)
    assert await user_ctx(server).user.collection("notes").get("a") == "ann's"
