"""What the tests of accounts share."""

from __future__ import annotations

import threading

from ecan.handlers.accounts.passwords import owasp_hasher

PASSWORD = "correct horse battery"


class CountingHasher:
    """argon2id as shipped; remembers what was asked of it, and can be held."""

    def __init__(self):
        self._real = owasp_hasher()
        self.verified = []
        self.hashed = 0
        self.gate = threading.Event()
        self.gate.set()

    def hash(self, password):
        self.gate.wait(10)
        self.hashed += 1
        return self._real.hash(password)

    def verify(self, password_hash, password):
        self.gate.wait(10)
        self.verified.append(password_hash)
        return self._real.verify(password_hash, password)

    def check_needs_rehash(self, password_hash):
        return self._real.check_needs_rehash(password_hash)


class FakeMono:
    """Seconds that pass when told to."""

    at = 100.0

    def __call__(self):
        return self.at
