"""From a call to its function: params checked against the table, errors put in its words."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ecan.admin.commands import FUNCTIONS
from ecan.admin.jsonrpc import INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, REFUSED, RpcError
from ecan.admin.table import BY_NAME
from ecan.errors import (
    ConfigError,
    ReloadError,
    ReplyError,
    StoreError,
    StoreUnavailableError,
    SupervisionError,
)
from ecan.handlers.structure import structure_params
from ecan.observability import get_logger
from ecan.protocol.codes import ErrorCode

if TYPE_CHECKING:
    from ecan.admin.jsonrpc import Rpc
    from ecan.admin.ports import AdminPort
    from ecan.admin.table import Command

_READING = {"status", "metrics", "list", "show", "get", "watch"}

log = get_logger("ecan.admin")


def is_reading(method: str) -> bool:
    """Whether a command only looks, so that it needs no line in the log.

    >>> is_reading("sessions.list"), is_reading("sessions.kill")
    (True, False)
    """
    return method.rpartition(".")[2] in _READING


class Dispatcher:
    """Runs commands against one server."""

    def __init__(self, port: AdminPort) -> None:
        self._port = port

    def find(self, call: Rpc) -> tuple[Command, Any]:
        """The command of a call and its params.

        Raises:
            RpcError: there is none, or the params do not fit; ``data`` has every wrong field.
        """
        command = BY_NAME.get(call.method)
        if command is None:
            raise RpcError(METHOD_NOT_FOUND, f"there is no command {call.method[:100]!r}")
        try:
            return command, structure_params(call.params, command.params)
        except ReplyError as error:
            raise _as_rpc(error) from None

    async def run(self, command: Command, params: Any) -> Any:
        """Run a command.

        Raises:
            RpcError: it was refused, or failed.
        """
        try:
            return await FUNCTIONS[command.name](self._port, params)
        except RpcError:
            raise
        except (ReplyError, SupervisionError, StoreError, ConfigError, ReloadError) as error:
            raise _as_rpc(error) from None
        except Exception as error:
            log.error("admin.command_failed", command=command.name, exc_info=error)  # noqa: TRY400
            raise RpcError(INTERNAL_ERROR, "the command failed; the log has more") from None


def _as_rpc(error: Exception) -> RpcError:
    if isinstance(error, ReplyError):
        if error.code == ErrorCode.INVALID_PARAMS:
            return RpcError(INVALID_PARAMS, error.message, {"problems": error.details})
        return _refused(error.code, error.message, error.details)
    if isinstance(error, SupervisionError):
        return _refused("WRONG_STATE", str(error))
    if isinstance(error, ReloadError):
        return _refused("NOT_RELOADED", str(error), error.details)
    if isinstance(error, ConfigError):
        return _refused("BAD_VALUE", str(error), {"allowed": error.allowed})
    code = "BUSY" if isinstance(error, StoreUnavailableError) else "STORE_ERROR"
    return _refused(code, str(error))


def _refused(code: str, message: str, details: Any = None) -> RpcError:
    return RpcError(REFUSED, message, {"code": str(code), "details": details})
