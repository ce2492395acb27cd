"""Serves one page to this machine alone, and takes what is decided on it.

It listens on 127.0.0.1 under a secret path, and answers no other site's pages: neither by another
host name (DNS rebinding) nor from another origin.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from synthct.errors import SynthCTError

_HOST = "127.0.0.1"

#: Most bytes of an answer.
_MOST_BYTES = 64 * 1024


@dataclass(frozen=True)
class Site:
    """A page, what it shows, and what becomes of the answers.

    Attributes:
        html: The page.
        policy: Its content security policy.
        item: The n-th thing to look at, as JSON; an ``IndexError`` if there is none.
        answer: Takes an answer, and gives what the page then needs to know.
    """

    html: str
    policy: str
    item: Callable[[int], Mapping[str, Any]]
    answer: Callable[[Mapping[str, Any]], Mapping[str, Any]]


@contextmanager
def serving(site: Site, port: int = 0) -> Iterator[str]:
    """Serve a page until the end of the ``with`` block.

    Args:
        site: The page.
        port: Where to listen; 0 for any free one.

    Yields:
        The address, with a random secret in its path.
    """
    token, lock = secrets.token_urlsafe(24), threading.Lock()

    class Handler(_Handler):
        pass

    Handler.site, Handler.token, Handler.turn = site, token, lock
    with ThreadingHTTPServer((_HOST, port), Handler) as server:
        server.daemon_threads = True
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://{_HOST}:{server.server_port}/{token}/"
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    """Answers one request; one at a time is worked on."""

    site: Site
    token: str
    turn: threading.Lock

    def do_GET(self) -> None:
        """The page, or an item."""
        rest = self._rest()
        if rest == "":
            self._send(HTTPStatus.OK, self.site.html.encode(), "text/html; charset=utf-8")
        elif rest is not None and rest.startswith("items/") and rest[6:].isdecimal():
            self._send_result(lambda: self.site.item(int(rest[6:])))
        else:
            self._refuse(HTTPStatus.NOT_FOUND)

    def do_POST(self) -> None:
        """An answer."""
        length = self.headers.get("Content-Length", "")
        origin = self.headers.get("Origin")
        if self._rest() != "answers":
            self._refuse(HTTPStatus.NOT_FOUND)
        elif (
            self.headers.get_content_type() != "application/json"
            or (origin is not None and origin != f"http://{self.headers['Host']}")
            or not length.isdecimal()
            or int(length) > _MOST_BYTES
        ):
            self._refuse(HTTPStatus.BAD_REQUEST)
        else:
            body = self.rfile.read(int(length))
            self._send_result(lambda: self.site.answer(_object(body)))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Nothing: the address holds the secret."""

    def _rest(self) -> str | None:
        """The path below the secret; None for a request without the secret."""
        assert isinstance(self.server, ThreadingHTTPServer)
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{_HOST}:{port}", f"localhost:{port}"):
            return None
        token, slash, rest = self.path.removeprefix("/").partition("/")
        known = secrets.compare_digest(token.encode("utf-8", "replace"), self.token.encode())
        return rest if known and slash else None

    def _send_result(self, work: Callable[[], Mapping[str, Any]]) -> None:
        try:
            with self.turn:
                result, status = work(), HTTPStatus.OK
        except IndexError:
            return self._refuse(HTTPStatus.NOT_FOUND)
        except (SynthCTError, ValueError, OSError) as err:
            result, status = {"error": str(err)}, HTTPStatus.BAD_REQUEST
        self._send(status, json.dumps(result).encode(), "application/json")
        return None

    def _refuse(self, status: HTTPStatus) -> None:
        self.close_connection = True
        self._send(status, status.phrase.encode(), "text/plain")

    def _send(self, status: HTTPStatus, body: bytes, kind: str) -> None:
        self.send_response(status)
        for name, value in {
            "Content-Type": kind,
            "Content-Length": str(len(body)),
            "Content-Security-Policy": f"{self.site.policy}; frame-ancestors 'none'",
            "Cache-Control": "no-store",
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


def _object(body: bytes) -> Mapping[str, Any]:
    """An answer's JSON.

    Raises:
        ValueError: If it is no object.
    """
    value = json.loads(body)
    if not isinstance(value, dict):
        raise ValueError("an answer is a JSON object")
    return value
