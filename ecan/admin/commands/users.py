"""Accounts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ecan.admin import params as p
    from ecan.admin.ports import AdminPort, Function

_OK = {"ok": True}


async def list_(port: AdminPort, _params: p.Nothing) -> dict[str, Any]:
    """All accounts, with how many sessions each has."""
    users = await port.accounts.list_users()
    sessions = await port.store.count_by_user()
    return {"users": [{**user, "sessions": sessions.get(user["user_id"], 0)} for user in users]}


async def add(port: AdminPort, params: p.AddUser) -> dict[str, str]:
    """A new account."""
    user = await port.accounts.create(params.username, params.password, role=params.role)
    return {"username": user.username, "role": user.role}


async def passwd(port: AdminPort, params: p.SetPassword) -> dict[str, bool]:
    """A new password; the user's sessions end."""
    await port.accounts.set_password(params.username, params.password)
    return _OK


async def disable(port: AdminPort, params: p.OneUser) -> dict[str, bool]:
    """Lock an account out; its sessions end."""
    await port.accounts.set_disabled(params.username, disabled=True)
    return _OK


COMMANDS: dict[str, Function] = {
    "users.list": list_,
    "users.add": add,
    "users.passwd": passwd,
    "users.disable": disable,
}
