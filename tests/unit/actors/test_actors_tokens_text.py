"""Secrets and public ids as text: what the standard library would make."""

from __future__ import annotations

import base64
import re

import attrs
from hypothesis import given
from hypothesis import strategies as st

from ecan.actors.tokens import SID_CHARS, TOKEN_BYTES, new_session_id, new_token, sid_of
from ecan.handlers.context import User


@given(st.binary(min_size=32, max_size=32))
def test_a_public_id_is_base32_of_the_digest(digest):
    """RFC 4648, in small letters."""
    assert sid_of(digest) == base64.b32encode(digest[:8]).decode()[:SID_CHARS].lower()


def test_secrets_are_random_and_fit_into_an_address():
    """256 bits, in the alphabet of URLs, without padding."""
    secrets = {new_session_id() for _ in range(200)} | {new_token(0.0, 1.0)[0] for _ in range(200)}
    assert len(secrets) == 400
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", secret) for secret in secrets)
    assert all(len(base64.urlsafe_b64decode(s + "=")) == TOKEN_BYTES for s in secrets)
    assert {"-", "_"} <= set("".join(secrets))


def test_a_users_row_has_every_field():
    """A new one must not be forgotten."""
    user = User(user_id=7, username="ann", role="admin", email="a@b", name="Ann", lang="zh")
    assert user.as_row() == attrs.asdict(user)
    assert list(user.as_row()) == [field.name for field in attrs.fields(User)]
