"""Puts the application on a socket: uvicorn with a limit on how slowly a client may send its headers, and a stop that does not
wait for event streams. It knows nothing of what is served.
"""

from __future__ import annotations

import asyncio
import logging
import socket

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

HEADER_SECONDS = 10.0
"""How long a client may take from connecting, or from the answer before, to the end of its request's headers."""

CONNECTIONS = 2000
STOP_SECONDS = 5
IDLE_SECONDS = 75
"""How long a connection is kept for the next request; longer than usual load balancers do, so that they close it first."""

log = logging.getLogger(__name__)


class Impatient(H11Protocol):
    """HTTP/1.1 that lets go of a client which connects and then dawdles over its headers."""

    header_seconds = HEADER_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._expect_headers()

    def data_received(self, data: bytes) -> None:
        self._expect_headers()
        before = self.cycle
        super().data_received(data)
        if self.cycle is not before:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self.conn.trailing_data[0]:
            self._expect_headers()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _expect_headers(self) -> None:
        """Starts the clock, unless it runs or a request is being answered."""
        if self._deadline is None and (self.cycle is None or self.cycle.response_complete):
            self._deadline = self.loop.call_later(self.header_seconds, self._let_go)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _let_go(self) -> None:
        log.info("a client was let go: its request's headers did not arrive within %.0f s", self.header_seconds)
        self.transport.close()


class Server(uvicorn.Server):
    """Uvicorn that ends the application's event streams before it waits for its connections to close."""

    def __init__(self, app: FastAPI, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._app.state.service.streams.stop()
        await super().shutdown(sockets)

    @property
    def port(self) -> int:
        """The port that is bound, also where 0 was asked for."""
        return int(self.servers[0].sockets[0].getsockname()[1])


def server(app: FastAPI, *, host: str, port: int) -> Server:
    """A server for an application; `await server.serve()` runs it until SIGINT or SIGTERM."""
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        http=Impatient,
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        limit_concurrency=CONNECTIONS,
        timeout_keep_alive=IDLE_SECONDS,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    return Server(app, config)
