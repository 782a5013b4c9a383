"""What the user has set: preferences of the interface and settings of the application."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypedDict

import attrs
import orjson

from ecan.errors import HandlerError, ReplyError
from ecan.handlers.context import UserContext  # noqa: TC001 - read at run time by `handler`
from ecan.handlers.registry import handler
from ecan.protocol.codes import ErrorCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ecan.handlers.documents import Collection

MAX_BYTES = 64 * 1024
"""Of the settings, and of the preferences' values: they are encoded at every change."""

COLLECTION = "settings"
"""Of the user's documents: every session of the user has the same settings."""

PREFERENCES = "preferences"
SETTINGS = "settings"

_short = attrs.validators.optional(attrs.validators.max_len(64))


@attrs.define(kw_only=True)
class Preferences:
    """The document ``preferences``.

    Attributes:
        language: for example ``en`` or ``zh-CN``; null: the browser's.
        theme: for example ``dark``; null: the browser's.
        values: whatever else the interface keeps.
    """

    language: str | None = None
    theme: str | None = None
    values: dict[str, Any] = attrs.field(factory=dict)


@attrs.frozen(kw_only=True)
class UpdatePreferences:
    """What to change; fields that are absent stay as they are.

    Attributes:
        language: for example ``en`` or ``zh-CN``.
        theme: for example ``dark``.
        values: merged key by key; null deletes a key.
    """

    language: str | None = attrs.field(default=None, validator=_short)
    theme: str | None = attrs.field(default=None, validator=_short)
    values: dict[str, Any] | None = None


class PreferencesResult(TypedDict):
    """The preferences as they are now."""

    preferences: dict[str, Any]


class SettingsResult(TypedDict):
    """Settings and preferences as they are now."""

    settings: dict[str, Any]
    preferences: dict[str, Any]
    message: str


class SavedResult(TypedDict):
    """The settings as they are now, and which keys changed them."""

    saved: bool
    settings: dict[str, Any]
    updated_fields: list[str]
    message: str


@handler("update_user_preferences")
async def update_user_preferences(ctx: UserContext, params: UpdatePreferences) -> PreferencesResult:
    """Changes language, theme and other preferences of the interface.

    All sessions of the user have the same ones.

    Raises:
        HandlerError: SETTINGS_TOO_LARGE, above 64 KiB.
    """
    preferences = await _preferences(ctx)
    if params.language is not None:
        preferences.language = params.language
    if params.theme is not None:
        preferences.theme = params.theme
    if params.values is not None:
        preferences.values = _merged(preferences.values, params.values)
    ctx.user.collection(COLLECTION, Preferences).put(PREFERENCES, preferences)
    return {"preferences": attrs.asdict(preferences)}


@handler("get_settings", activity=False, reads=True)
async def get_settings(ctx: UserContext, params: Any) -> SettingsResult:  # noqa: ARG001 - see below
    """The user's settings and preferences.

    Params are not used: the existing client sends its user's name.
    """
    return {
        "settings": await ctx.user.collection(COLLECTION).get(SETTINGS, {}),
        "preferences": attrs.asdict(await _preferences(ctx)),
        "message": "Settings read.",
    }


@handler("save_settings")
async def save_settings(ctx: UserContext, params: Any) -> SavedResult:
    """Merges settings key by key, for all of the user's sessions; null deletes a key.

    Takes ``{"settings": {…}}``; or the settings alone, as the existing client sends them.

    Raises:
        HandlerError: SETTINGS_TOO_LARGE, above 64 KiB.
    """
    changes = _settings_of(params)
    documents: Collection[dict[str, Any]] = ctx.user.collection(COLLECTION)
    merged = _merged(await documents.get(SETTINGS, {}), changes)
    documents.put(SETTINGS, merged)
    return {
        "saved": True,
        "settings": merged,
        "updated_fields": list(changes),
        "message": "Settings saved.",
    }


async def _preferences(ctx: UserContext) -> Preferences:
    documents = ctx.user.collection(COLLECTION, Preferences)
    found: Preferences | None = await documents.get(PREFERENCES)
    return found if found is not None else Preferences()


def _settings_of(params: Any) -> dict[str, Any]:
    if type(params) is list and len(params) == 1:
        params = params[0]
    if type(params) is dict and len(params) == 1 and "settings" in params:
        params = params["settings"]
    if type(params) is not dict or not params:
        problem = "expected an object with at least one setting"
        raise ReplyError(
            ErrorCode.INVALID_PARAMS,
            f"params.settings: {problem}",
            details=[{"path": "params.settings", "problem": problem}],
        )
    return params


def _merged(before: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    merged = {**before, **changes}
    merged = {key: value for key, value in merged.items() if value is not None}
    size = len(orjson.dumps(merged))
    if size > MAX_BYTES:
        raise HandlerError(
            "SETTINGS_TOO_LARGE",
            f"They would take {size} bytes; {MAX_BYTES} are allowed.",
            details={"size_bytes": size, "limit_bytes": MAX_BYTES},
        )
    return merged


HANDLERS: list[Callable[..., Any]] = [update_user_preferences, get_settings, save_settings]
