"""What the tests of accounts share."""

from __future__ import annotations

import asyncio

import argon2

from ecan.handlers.accounts.hashing import owasp_hasher

PASSWORD = "correct horse battery"


class CountingHasher:
    """argon2id as shipped, two at a time; remembers what was asked of it, and can be held."""

    threads = 2

    def __init__(self):
        self._real = owasp_hasher()
        self.verified = []
        self.hashed = 0
        self.running = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def start(self):
        pass

    async def close(self):
        pass

    async def hash(self, text):
        self.hashed += 1
        return await self._work(self._real.hash, text)

    async def verify(self, password_hash, text):
        self.verified.append(password_hash)
        try:
            return await self._work(self._real.verify, password_hash, text)
        except (argon2.exceptions.VerifyMismatchError, argon2.exceptions.InvalidHashError):
            return False

    async def _work(self, function, *args):
        self.running += 1
        assert self.running <= self.threads
        try:
            async with asyncio.timeout(10):
                await self.gate.wait()
            return await asyncio.to_thread(function, *args)
        finally:
            self.running -= 1


class FakeMono:
    """Seconds that pass when told to."""

    at = 100.0

    def __call__(self):
        return self.at
