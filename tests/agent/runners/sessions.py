"""A server that makes sessions and does nothing in them: in place of the Appium of a device."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Sessions:
    """In place of the device's Appium: counts sessions, and knows what they asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.refusal = ""
        """Why no session is made; empty where they are."""
        sessions = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                asked = json.loads(self.rfile.read(length))["capabilities"]["alwaysMatch"]
                sessions.asked.append({**asked, "path": self.path})
                if sessions.refusal:
                    return self._refuse()
                self._answer({"value": {"sessionId": f"session-{len(sessions.asked)}", "capabilities": {}}})

            def do_DELETE(self) -> None:
                self._answer({"value": None})

            def _refuse(self) -> None:
                refused = {"error": "session not created", "message": sessions.refusal, "stacktrace": ""}
                self._answer({"value": refused}, 500)

            def _answer(self, value: object, code: int = 200) -> None:
                self.send_response(code)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(json.dumps(value).encode())

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name is the library's
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = int(self.server.server_address[1])


@contextmanager
def serving_sessions() -> Iterator[Sessions]:
    """Serve until the block ends."""
    sessions = Sessions()
    thread = threading.Thread(target=sessions.server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield sessions
    finally:
        sessions.server.shutdown()
        thread.join()
        sessions.server.server_close()
