"""A small HTTP server on loopback for tests: it answers as a function says and keeps what it was asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One request. `values` are its query parameters and, where it has them, those of its form."""

    method: str
    path: str
    values: dict[str, str]
    headers: Mapping[str, str]
    body: bytes


Answer = Callable[[Asked], tuple[int, Any]]
"""The status and the body: bytes as they are, anything else as JSON."""


@dataclass(kw_only=True)
class Web:
    """A running server."""

    url: str
    asked: list[Asked] = field(default_factory=list)


@contextmanager
def web(answer: Answer) -> Iterator[Web]:
    """Serves until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def _any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = urlsplit(self.path)
            form = body.decode() if "urlencoded" in self.headers.get("Content-Type", "") else ""
            values = dict(parse_qsl(parts.query) + parse_qsl(form))
            asked = Asked(method=self.command, path=parts.path, values=values, headers=dict(self.headers), body=body)
            served.asked.append(asked)
            status, content = answer(asked)
            data = content if isinstance(content, bytes) else json.dumps(content).encode()
            self.send_response(status)
            self.send_header("Content-Type", "text/html" if isinstance(content, bytes) else "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = _any

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        served = Web(url=f"http://127.0.0.1:{server.server_address[1]}")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield served
        finally:
            server.shutdown()
            thread.join()
