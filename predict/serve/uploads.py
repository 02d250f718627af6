"""Uploads and connections of many clients: few of each, and none for long without news.

A stalled upload costs its sender's share, not the page. A client is an address.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from typing import IO

from starlette.requests import ClientDisconnect
from uvicorn.protocols.http.h11_impl import H11Protocol

MOST_OF_A_CLIENT = 4
# Their files are on disk, and one of them is predicted at a time.
MOST_IN_ALL = 16
# Of a client; a browser opens six or eight.
_CONNECTIONS = 16
CONNECTIONS_IN_ALL = 128
# After so long a sender has to have sent so much on average.
PATIENCE_SECONDS = 10.0
LEAST_RATE = 64_000  # bytes a second


class Refused(Exception):
    """An upload that is not taken in: a status of HTTP, and why."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Uploads:
    """How many there are, of whom; from arrival until the answer."""

    def __init__(self) -> None:
        self._of: Counter[str] = Counter()

    @contextlib.contextmanager
    def one_of(self, client: str) -> Iterator[None]:
        """Count one for the length of the block. Raises Refused where there are as many as may be."""
        if self._of[client] >= MOST_OF_A_CLIENT:
            raise Refused(429, f"{MOST_OF_A_CLIENT} songs from here are waiting already: try again later")
        if self._of.total() >= MOST_IN_ALL:
            raise Refused(503, f"{MOST_IN_ALL} songs are waiting already: try again later")
        self._of[client] += 1
        try:
            yield
        finally:
            self._of -= Counter([client])  # and forgets those that have none


async def receive(chunks: AsyncIterator[bytes], file: IO[bytes], most_bytes: int) -> None:
    """Write an upload to a file.

    Raises:
        Refused: it is larger than `most_bytes`, or comes too slowly.
        OSError: there is no room.
    """
    started, size = asyncio.get_running_loop().time(), 0
    while True:
        try:
            async with asyncio.timeout_at(started + PATIENCE_SECONDS + size / LEAST_RATE):
                chunk = await anext(chunks)
        except StopAsyncIteration:
            file.flush()
            return
        except TimeoutError:
            raise Refused(408, f"the upload came too slowly: {size:,} bytes in all") from None
        size += len(chunk)
        if size > most_bytes:
            raise Refused(413, f"the file is larger than {most_bytes:,} bytes")
        file.write(chunk)


async def pass_over(chunks: AsyncIterator[bytes], most_bytes: int) -> None:
    """Take the rest of an upload that was refused, within bounds: who still sends would not hear the answer."""
    with contextlib.suppress(TimeoutError, ClientDisconnect):
        async with asyncio.timeout(PATIENCE_SECONDS):
            async for chunk in chunks:
                most_bytes -= len(chunk)
                if most_bytes < 0:
                    return


class Connection(H11Protocol):
    """An HTTP connection that ends when no request comes over it, or its answer is not taken, for some time."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._before: tuple[bool, int] = (False, 0)
        self._look = self.loop.call_later(PATIENCE_SECONDS, self._end_if_stalled)
        others = (each.client for each in self.connections if isinstance(each, Connection))
        if sum(bool(client and self.client and client[0] == self.client[0]) for client in others) > _CONNECTIONS:
            transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._look.cancel()
        super().connection_lost(exc)

    def _end_if_stalled(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        now = (self.cycle is None or self.cycle.response_complete, unsent)
        if now == self._before and (now[0] or unsent):
            self.transport.abort()
            return
        self._before = now
        self._look = self.loop.call_later(PATIENCE_SECONDS, self._end_if_stalled)
