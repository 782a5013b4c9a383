"""P10, P12: a request id takes effect at most once; what was missed is replayed."""

from __future__ import annotations

import asyncio

import pytest
from sessions_kit import World, a_world

from ecan.actors.outbox import MAX_FRAMES
from ecan.errors import ReplyError

looptime = pytest.mark.looptime(start=1000)


@looptime
async def test_p10_a_done_request_is_answered_again_not_run_again(world: World) -> None:
    """The same id and params: the same reply, replayed true."""
    tab = await world.open()
    first = await tab.request("debug.incr", {"key": "n"}, id="once")
    again = await tab.request("debug.incr", {"key": "n"}, id="once")
    assert first["meta"]["replayed"] is False
    assert again == {**first, "meta": {**first["meta"], "replayed": True}}
    assert await tab.call("debug.state_get", {"key": "n"}) == 1


@looptime
async def test_p10_a_crash_and_a_timeout_are_remembered_too(world: World) -> None:
    """What may have had effects is not run again; what surely has not, may be."""
    tab = await world.open()
    await tab.error("debug.crash", id="crash")
    assert (await tab.request("debug.crash", id="crash"))["meta"]["replayed"] is True
    running = tab.send("t.wait", {"n": "a"}, deadline_s=1, id="ran")
    queued = tab.send("t.note", 1, deadline_s=0.5, id="waited")
    await tab.reply(running)
    await tab.reply(queued)
    again = await tab.request("t.wait", {"n": "a"}, id="ran")
    assert (again["error"]["code"], again["meta"]["replayed"]) == ("TIMEOUT", True)
    assert await tab.call("t.note", 1, id="waited") == 1
    assert world.ran == ["a", 1]


@looptime
async def test_p10_an_id_with_other_params_is_refused(world: World) -> None:
    """ID_REUSED, while the first one runs and after."""
    tab = await world.open()
    tab.send("t.wait", {"n": "a"}, id="same")
    for _ in range(2):
        with pytest.raises(ReplyError, match="ID_REUSED"):
            tab.send("t.wait", {"n": "b"}, id="same")
        world.async_gate("a").set()
        await tab.reply("same")


@looptime
async def test_p10_an_id_older_than_the_ledger_is_refused(world: World) -> None:
    """After 256 other requests, or ten minutes: ID_EXPIRED, never run again."""
    tab = await world.open()
    await tab.call("t.note", "first", id="first")
    await tab.call("t.note", "second", id="second")
    for n in range(255):
        await tab.call("t.note", n)
    with pytest.raises(ReplyError, match="ID_EXPIRED"):
        tab.send("t.note", "first", id="first")
    assert (await tab.request("t.note", "second", id="second"))["meta"]["replayed"] is True
    await asyncio.sleep(601)
    with pytest.raises(ReplyError, match="ID_EXPIRED"):
        tab.send("t.note", "second", id="second")
    assert world.ran.count("first") == world.ran.count("second") == 1


@pytest.mark.parametrize("method", ["debug.incr", "debug.state_get", "t.wait"])
async def test_p12_a_reply_that_its_tab_did_not_take_is_kept(world: World, method: str) -> None:
    """The tab looked open, and was found too far behind when the reply was to be sent."""
    tab = await world.open()

    def closes(frame: bytes) -> bool:
        tab.peer.is_open = False
        return False

    tab.peer.send = closes  # type: ignore[method-assign]
    world.async_gate("a").set()
    request = tab.send(method, {"n": "a"} if method == "t.wait" else {"key": "n"})
    await world.until(lambda: not tab.cell.pending)
    tab.leave()

    _, back = await world.resume(tab, last_seq=0)
    assert [frame["status"] for frame in back.peer.finals(request)] == ["success"]


@looptime
@looptime
async def test_p12_resume_replays_what_was_missed(world: World) -> None:
    """Pushes after last_seq come in order, undelivered replies too, once."""
    tab = await world.open()
    await tab.call("debug.push", {"method": "m", "count": 3})
    request = tab.send("t.wait", {"n": "a"})
    await world.has_started("a").wait()
    tab.leave()
    world.async_gate("a").set()
    await world.until(lambda: not tab.cell.pending)

    answer, back = await world.resume(tab, last_seq=2, epoch=tab.cell.outbox.epoch)
    assert answer == {
        "status": "resumed",
        "sid": tab.cell.sid,
        "incarnation": 1,
        "epoch": tab.cell.outbox.epoch,
        "seq": 4,
    }
    assert [push["meta"]["seq"] for push in back.peer.pushes()] == [3, 4]
    assert back.peer.finals(request)[0]["result"] == "a"
    _, third = await world.resume(tab, last_seq=4)
    assert third.peer.frames == []


@looptime
async def test_p12_a_new_tab_missed_nothing_and_takes_no_replies(world: World) -> None:
    """Without last_seq nothing is replayed, and undelivered replies stay for who resumes."""
    tab = await world.open()
    tab.send("debug.sleep", {"seconds": 1})
    tab.leave()
    await world.until(lambda: not tab.cell.pending)
    _, new = await world.resume(tab)
    assert new.peer.frames == []
    _, back = await world.resume(tab, last_seq=0)
    assert len(back.peer.frames) == 1


@looptime
async def test_p12_the_gap_is_told(world: World) -> None:
    """More pushes than are kept: gap from and to, then the rest in order."""
    tab = await world.open()
    tab.leave()
    other = tab.another()
    await other.call("debug.push", {"method": "m", "count": MAX_FRAMES + 10})
    answer, back = await world.resume(tab, last_seq=3)
    assert (answer["status"], answer["from"], answer["to"]) == ("gap", 4, 10)
    assert [push["meta"]["seq"] for push in back.peer.pushes()] == list(range(11, MAX_FRAMES + 11))


@looptime
async def test_p12_another_epoch_replays_from_the_start(world: World) -> None:
    """Numbers of another epoch mean nothing: all that is kept is sent."""
    tab = await world.open()
    await tab.call("debug.push", {"method": "m", "count": 2})
    _, back = await world.resume(tab, last_seq=500, epoch="another")
    assert [push["meta"]["seq"] for push in back.peer.pushes()] == [1, 2]
    _, ahead = await world.resume(tab, last_seq=500, epoch=tab.cell.outbox.epoch)
    assert ahead.peer.pushes() == []


@looptime
async def test_p12_resume_before_the_first_push(world: World) -> None:
    """Nothing to replay is no gap."""
    tab = await world.open()
    answer, back = await world.resume(tab, last_seq=0)
    assert (answer["status"], answer["seq"], back.peer.frames) == ("resumed", 0, [])


@looptime
async def test_p8_undelivered_replies_are_bounded() -> None:
    """The oldest replies give way, by count and by bytes."""
    async with a_world(mailbox_size=2000) as world:
        tab = await world.open()
        tab.peer.is_open = False
        for n in range(MAX_FRAMES + 5):
            tab.send("t.note", n)
        await world.until(lambda: not tab.cell.pending)
        replies = tab.cell.outbox.take_replies()
        assert len(replies) == MAX_FRAMES
        assert b'"result":5,' in replies[0].frame
        assert len((await world.store.load(tab.cell.sid)).replies) == MAX_FRAMES
        for _ in range(3):
            tab.send("t.note", "x" * 500_000)
        await world.until(lambda: not tab.cell.pending)
        assert len(tab.cell.outbox.take_replies()) == 2


@looptime
async def test_p12_the_old_socket_closes_after_the_new_one_came(world: World) -> None:
    """A late close names its own connection and does not detach the successor."""
    tab = await world.open()
    _, back = await world.resume(tab, last_seq=0)
    tab.leave()
    assert list(tab.cell.tabs) == [back.peer.id]
    await back.call("debug.push", {"method": "m"})
    assert len(back.peer.pushes()) == 1


# -- credentials ---------------------------------------------------------------------------


@looptime
async def test_p15_credentials_are_checked_each_time(world: World) -> None:
    """Wrong, missing, expired and revoked tokens, unknown sessions: a clear code each."""
    tab = await world.open()
    lookup = world.sessions.lookup
    assert lookup(tab.session_id, tab.token).cell is tab.cell
    cases = [
        ((tab.session_id, "wrong"), "INVALID_TOKEN"),
        ((tab.session_id, None), "TOKEN_REQUIRED"),
    ]
    for (session_id, token), code in cases:
        with pytest.raises(ReplyError) as refused:
            lookup(session_id, token)
        assert refused.value.code == code
    for session_id, code in [("", "TOKEN_REQUIRED"), (None, "TOKEN_REQUIRED")]:
        with pytest.raises(ReplyError) as refused:
            await world.sessions.authenticate(session_id, "t")
        assert refused.value.code == code
    with pytest.raises(ReplyError) as refused:
        await world.sessions.authenticate("unknown", "t")
    assert (refused.value.code, refused.value.details) == (
        "SESSION_NOT_FOUND",
        {"reason": "unknown"},
    )
    # Two secrets with one public id: only the right one opens it.
    with pytest.raises(ReplyError, match="SESSION_NOT_FOUND"):
        world.sessions._check(tab.cell, b"other", tab.token)


@looptime
async def test_p15_session_auth_by_id_alone() -> None:
    """ECAN_SESSION_AUTH=session_id takes the newest live token; with none left it refuses."""
    async with a_world(session_auth="session_id", token_ttl_s=100.0) as world:
        tab = await world.open()
        assert world.sessions.lookup(tab.session_id, None).token.is_valid(world.clock.now())
        await asyncio.sleep(101)
        with pytest.raises(ReplyError, match="INVALID_TOKEN"):
            world.sessions.lookup(tab.session_id, None)


@looptime
async def test_p15_refresh_gives_a_new_token_and_the_old_one_a_grace(world: World) -> None:
    """For a minute both are good, then the new one alone; without a connection too."""
    tab = await world.open()
    ctx = world.lobby(tab, session_id=tab.session_id, token=tab.token)
    answer = await world.sessions.refresh(ctx)
    for follow_up in ctx.after_reply:
        follow_up()
    assert tab.connection.bound.token.is_valid(world.clock.now())
    await asyncio.sleep(59)
    world.sessions.lookup(tab.session_id, tab.token)
    await asyncio.sleep(2)
    with pytest.raises(ReplyError, match="INVALID_TOKEN"):
        world.sessions.lookup(tab.session_id, tab.token)
    world.sessions.lookup(tab.session_id, answer["token"])
    ctx = world.lobby(session_id=tab.session_id, token=answer["token"])
    assert (await world.sessions.refresh(ctx))["expires_at"] > world.clock.now()
    assert ctx.after_reply == []


@looptime
async def test_p15_a_bound_connection_may_leave_its_credentials_out(world: World) -> None:
    """logout and refresh work on the connection's own session, with a live token only."""
    tab = await world.open()
    tab.connection.bound = world.sessions.lookup(tab.session_id, tab.token)
    with pytest.raises(ReplyError, match="INVALID_TOKEN"):
        await world.sessions.refresh(world.lobby(tab, token="wrong"))
    await world.sessions.refresh(world.lobby(tab, token=tab.token))
    await world.sessions.logout(world.lobby(tab))
    with pytest.raises(ReplyError, match="SESSION_CLOSED"):
        await world.sessions.logout(world.lobby(tab))


@looptime
async def test_p15_renewing_kills_every_other_token(world: World) -> None:
    """As after a change of password."""
    tab = await world.open()
    renewed = await tab.call("t.renew")
    with pytest.raises(ReplyError, match="INVALID_TOKEN"):
        world.sessions.lookup(tab.session_id, tab.token)
    assert world.sessions.lookup(tab.session_id, renewed["token"]).cell is tab.cell


@looptime
async def test_p15_the_end_of_a_session_revokes_what_connections_hold(world: World) -> None:
    """A connection keeps its token's record: it is dead with the session."""
    tab = await world.open()
    record = world.sessions.lookup(tab.session_id, tab.token).token
    await world.sessions.close(tab.cell.sid, "logout")
    assert not record.is_valid(world.clock.now())


@looptime
async def test_login_binds_the_connection_after_its_reply(world: World) -> None:
    """`open` answers with the secrets once, and the binding follows the reply."""
    tab = await world.open()
    ctx = world.lobby(tab)
    answer = await world.sessions.open(ctx, tab.cell.user)
    assert set(answer) == {"token", "session_id", "expires_at", "sid", "epoch", "seq"}
    assert tab.connection.bound is None
    for follow_up in ctx.after_reply:
        follow_up()
    assert tab.connection.bound.cell.sid == answer["sid"]
    unbound = await world.sessions.open(world.lobby(), tab.cell.user)
    assert unbound["sid"] != answer["sid"]


@looptime
async def test_session_info_and_list_say_what_is(world: World) -> None:
    """session.info describes the session to the asking tab; session.list all of the user's."""
    tab = await world.open(1, role="admin", email="a@b.c")
    second = tab.another()
    await tab.call("debug.state_set", {"key": "k", "value": "v"})
    await tab.error("debug.crash")
    await world.state(tab.cell, "active")
    info = await second.call("session.info")
    assert info["user"]["email"] == "a@b.c"
    assert "user_id" not in info["user"]
    assert [t["current"] for t in info["tabs"]] == [False, True]
    assert (info["state"], info["incarnation"], info["restarts"]) == ("active", 2, 1)
    assert info["state_bytes"] == 3
    assert info["queue"] == {"depth": 0, "bytes": 0}
    assert info["store"] == "memory"
    assert info["transitions"][-1]["event"] == "started"
    assert info["expires_at"] == pytest.approx(world.clock.now() + 86400, abs=1)
    other = await world.open(1)
    rows = (await tab.call("session.list"))["sessions"]
    assert {row["sid"]: row["current"] for row in rows} == {
        tab.cell.sid: True,
        other.cell.sid: False,
    }
    assert await tab.call("session.close", {"sid": other.cell.sid}) == {"closed": other.cell.sid}
    assert tab.cell.actor._view.brief() == {"tabs": 2, "incarnation": 2, "restarts": 1}
    assert tab.cell.actor.running is None
