"""A Hugging Face Hub on loopback: the requests that ``huggingface_hub`` 2 makes, over real HTTP.

Large files go the way of git LFS (basic, or in parts), not through Xet.
"""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from hub.faults import Fault, Faults
from hub.store import Entry, RefusedError, Repo, Store, is_large

#: How long a request that hangs is kept waiting.
HANG_S = 1.0

_ID = r"(?P<name>[\w.-]+/[\w.-]+)"
_API = rf"/api/(?P<kind>model|dataset)s/{_ID}"
_FILE = rf"(?P<kind>/datasets)?/{_ID}"


class Answer(NamedTuple):
    """An answer to a request."""

    status: int = 200
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def as_json(value: Any, *headers: tuple[str, str]) -> Answer:
    """An answer of JSON."""
    return Answer(200, json.dumps(value).encode(), (("Content-Type", "application/json"), *headers))


class HubServer:
    """A Hub that listens on loopback, and answers once it is started.

    Attributes:
        store: What it keeps.
        faults: What goes wrong.
        page_size: Files in one page of a listing.
        part_size: Larger files are asked for in parts of this size; None: never.
        retry_after_s: What it asks those to wait who ask too often.
    """

    def __init__(self) -> None:
        self.store, self.faults = Store(), Faults()
        self.page_size, self.retry_after_s = 1000, 0
        self.part_size: int | None = None
        self.parts: dict[tuple[str, int], bytes] = {}
        self._http = _Server(("127.0.0.1", 0), _Handler)
        self._http.hub = self
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._thread: threading.Thread | None = None

    def start(self) -> HubServer:
        """Begin to answer."""
        if self._thread is None:
            self._thread = threading.Thread(
                target=self._http.serve_forever, args=(0.05,), daemon=True
            )
            self._thread.start()
        return self

    def stop(self) -> None:
        """Answer no more."""
        if self._thread is not None:
            self._http.shutdown()
        self._http.server_close()

    def reset(self) -> None:
        """Forget everything."""
        self.store, self.page_size, self.part_size = Store(), 1000, None
        self.retry_after_s = 0
        self.faults.arm()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64
    hub: HubServer

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that are killed, or whose connection is closed on them, are expected."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: _Server

    def log_message(self, *_: object) -> None:
        """Nothing to a terminal."""

    def _handle(self) -> None:
        hub = self.server.hub
        fault = hub.faults.next(f"{self.command} {self.path}")
        kind = fault.kind if fault else ""
        if kind == "reset":
            self._reset()
            return
        body = self._body()
        if kind == "hang":
            time.sleep(HANG_S)
            self._reset()
            return
        if fault is not None and kind in ("pause", "kill"):
            fault.call()
        if kind == "kill":
            self._reset()
            return
        if kind.isdecimal():
            said = f"{kind} as ordered; you are {self.headers.get('Authorization')}"
            text, headers = _refusal(int(kind), said)
            if kind == "429":
                headers = (*headers, ("Retry-After", str(hub.retry_after_s)))
            self._send(Answer(int(kind), text, headers))
            return
        with hub.store.lock:
            answer = self._answer(body)
        self._spoilt(answer, fault) if fault else self._send(answer)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = _handle  # noqa: N815

    def _spoilt(self, answer: Answer, fault: Fault) -> None:
        """Send an answer, or not quite."""
        if fault.kind in ("lost", "kill after"):
            fault.call()
            self._reset()
        elif fault.kind == "garbage":
            self._send(Answer(200, b"<html>a captive portal</html>", answer.headers))
        elif fault.kind == "cut":
            self._send(answer, cut=True)
        else:
            self._send(answer)

    def _answer(self, body: bytes) -> Answer:
        url = urlsplit(self.path)
        request = Request(
            self.server.hub,
            self.headers.get("Authorization", "").removeprefix("Bearer ") or None,
            {key: value[-1] for key, value in parse_qs(url.query).items()},
            self.headers.get("Range"),
            body,
        )
        method = "GET" if self.command == "HEAD" else self.command
        try:
            for verb, pattern, action in ROUTES:
                if verb == method and (match := pattern.fullmatch(url.path)):
                    parts = {k: unquote(v) for k, v in match.groupdict().items() if v is not None}
                    return action(request, **parts)
            raise RefusedError(404, f"no such page: {self.command} {url.path}")
        except RefusedError as refused:
            return Answer(refused.status, *_refusal(refused.status, refused.message, refused.code))

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() == "chunked":
            chunks = []
            while size := int(self.rfile.readline(), 16):
                chunks.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(chunks)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _send(self, answer: Answer, *, cut: bool = False) -> None:
        self.send_response(answer.status)
        for key, value in answer.headers:
            self.send_header(key, value)
        self.send_header("Content-Length", str(len(answer.body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
        if cut:
            self._reset()

    def _reset(self) -> None:
        """Close the connection under the client."""
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.shutdown(socket.SHUT_RDWR)


def _refusal(
    status: int, message: str, code: str | None = None
) -> tuple[bytes, tuple[tuple[str, str], ...]]:
    headers = [("X-Error-Message", message), ("Content-Type", "application/json")]
    if code is not None:
        headers.append(("X-Error-Code", code))
    return json.dumps({"error": message}).encode(), tuple(headers)


class Request(NamedTuple):
    """What is asked."""

    hub: HubServer
    token: str | None
    query: dict[str, str]
    range: str | None
    body: bytes

    @property
    def store(self) -> Store:
        """What the Hub keeps."""
        return self.hub.store

    def json(self) -> Any:
        """Its body."""
        return json.loads(self.body)

    def repo(self, kind: str, name: str) -> Repo:
        """A repository that the asker may read."""
        return self.store.readable(kind, name, self.token)

    def own_repo(self, kind: str, name: str) -> Repo:
        """A repository that the asker may write to."""
        return self.store.writable(kind, name, self.token)


def whoami(request: Request) -> Answer:
    name, role = request.store.user(request.token)
    token = {"type": "access_token", "accessToken": {"displayName": "test", "role": role}}
    return as_json({"type": "user", "name": name, "orgs": [], "auth": token})


def create(request: Request) -> Answer:
    asked = request.json()
    owner = asked.get("organization") or request.store.user(request.token)[0]
    request.store.may_write(owner, request.token)
    name, kind = f"{owner}/{asked['name']}", asked.get("type", "model")
    private = asked.get("visibility") == "private"
    request.store.create(kind, name, private=private)
    prefix = "datasets/" if kind == "dataset" else ""
    return as_json({"url": f"{request.hub.url}/{prefix}{name}"})


def validate_yaml(request: Request) -> Answer:
    header = request.json()["content"].partition("---\n")[2].partition("\n---")[0]
    if "license:" in header:
        return as_json({"errors": [], "warnings": []})
    errors = {"errors": [{"message": '"license" is required'}], "warnings": []}
    return as_json(errors)._replace(status=400)


def info(request: Request, kind: str, name: str, revision: str = "main") -> Answer:
    repo = request.repo(kind, name)
    commit = repo.at(revision)
    return as_json(
        {
            "_id": "0",
            "id": name,
            "author": name.partition("/")[0],
            "sha": commit.oid,
            "private": repo.private,
            "gated": repo.gated,
            "disabled": False,
            "lastModified": commit.date,
            "createdAt": "2026-01-01T00:00:00.000Z",
            "downloads": 0,
            "likes": 0,
            "tags": [],
            "siblings": [sibling(path, commit.tree[path]) for path in sorted(commit.tree)],
        }
    )


def sibling(path: str, entry: Entry) -> dict[str, Any]:
    """A file as the description of a repository lists it if asked for its hashes."""
    size = len(entry.data)
    row: dict[str, Any] = {"rfilename": path, "size": size, "blobId": entry.oid}
    if entry.sha256 is not None:
        row["lfs"] = {"sha256": entry.sha256, "size": size, "pointerSize": 134}
    return row


def refs(request: Request, kind: str, name: str) -> Answer:
    repo = request.repo(kind, name)

    def listed(what: str, found: dict[str, str]) -> list[dict[str, str]]:
        return [
            {"name": ref, "ref": f"refs/{what}/{ref}", "targetCommit": oid}
            for ref, oid in found.items()
        ]

    branches, tags = listed("heads", repo.branches), listed("tags", repo.tags)
    return as_json({"branches": branches, "tags": tags, "converts": []})


def tree(request: Request, kind: str, name: str, revision: str, path: str = "") -> Answer:
    commit = request.repo(kind, name).at(revision)
    below = f"{path}/" if path else ""
    listed: dict[str, dict[str, Any]] = {}
    for file, entry in sorted(commit.tree.items()):
        if not file.startswith(below):
            continue
        parts = file.removeprefix(below).split("/")
        for depth in range(1, len(parts)):
            folder = below + "/".join(parts[:depth])
            listed[folder] = {"type": "directory", "path": folder, "oid": "0" * 40, "size": 0}
        listed[file] = described(file, entry)
    if path and not listed:
        raise RefusedError(404, f"{path} does not exist", "EntryNotFound")
    rows = list(listed.values())
    if request.query.get("recursive", "").lower() not in ("1", "true"):
        rows = [row for row in rows if "/" not in row["path"].removeprefix(below)]
    return paged(request, rows, f"/api/{kind}s/{name}/tree/{commit.oid}/{path}".rstrip("/"))


def described(path: str, entry: Entry) -> dict[str, Any]:
    """A file in a listing."""
    row: dict[str, Any] = {
        "type": "file",
        "path": path,
        "oid": entry.oid,
        "size": len(entry.data),
    }
    if entry.sha256 is not None:
        row["lfs"] = {"oid": entry.sha256, "size": len(entry.data), "pointerSize": 134}
    return row


def paged(request: Request, rows: list[Any], path: str) -> Answer:
    """A page of a listing, and where the next one is."""
    start, size = int(request.query.get("cursor", 0)), request.hub.page_size
    if start + size >= len(rows):
        return as_json(rows[start:])
    query = "&".join(f"{k}={v}" for k, v in {**request.query, "cursor": start + size}.items())
    link = f'<{request.hub.url}{path}?{query}>; rel="next"'
    return as_json(rows[start : start + size], ("Link", link))


def commits(request: Request, kind: str, name: str, revision: str) -> Answer:
    rows = [
        {"id": one.oid, "title": one.title, "message": "", "date": one.date, "authors": []}
        for one in request.repo(kind, name).history(revision)
    ]
    return paged(request, rows, f"/api/{kind}s/{name}/commits/{revision}")


def paths_info(request: Request, kind: str, name: str, revision: str) -> Answer:
    commit = request.repo(kind, name).at(revision)
    rows = []
    for path in parse_qs(request.body.decode()).get("paths", ()):
        if path in commit.tree:
            rows.append(described(path, commit.tree[path]))
        elif any(file.startswith(f"{path.rstrip('/')}/") for file in commit.tree):
            rows.append({"type": "directory", "path": path, "oid": "0" * 40, "size": 0})
    return as_json(rows)


def preupload(request: Request, kind: str, name: str, revision: str) -> Answer:
    there = request.own_repo(kind, name).at(revision).tree
    ignored = there[".gitignore"].data.decode().split() if ".gitignore" in there else []
    files = []
    for file in request.json()["files"]:
        path, entry = file["path"], there.get(file["path"])
        files.append(
            {
                "path": path,
                "uploadMode": "lfs" if is_large(path, file["size"]) else "regular",
                "shouldIgnore": any(path.startswith(start) for start in ignored),
                "oid": (entry.sha256 or entry.oid) if entry else None,
            }
        )
    return as_json({"files": files})


def commit(request: Request, kind: str, name: str, branch: str) -> Answer:
    repo = request.own_repo(kind, name)
    lines = [json.loads(line) for line in request.body.splitlines()]
    made = request.store.commit(repo, branch, lines)
    url = f"{request.hub.url}/{name}/commit/{made.oid}"
    return as_json({"success": True, "commitOid": made.oid, "commitUrl": url})


def add_branch(request: Request, kind: str, name: str, branch: str) -> Answer:
    repo = request.own_repo(kind, name)
    if branch in repo.branches:
        raise RefusedError(409, "Reference already exists")
    asked = request.json() if request.body else {}
    repo.branches[branch] = repo.at(asked.get("startingPoint", "main")).oid
    return as_json({})


def delete_branch(request: Request, kind: str, name: str, branch: str) -> Answer:
    repo = request.own_repo(kind, name)
    if branch == "main":
        raise RefusedError(403, "main cannot be deleted")
    if repo.branches.pop(branch, None) is None:
        raise RefusedError(404, f"Invalid rev id: {branch}", "RevisionNotFound")
    return as_json({})


def add_tag(request: Request, kind: str, name: str, revision: str) -> Answer:
    repo, tag = request.own_repo(kind, name), request.json()["tag"]
    target = repo.at(revision).oid
    if tag in repo.tags:
        raise RefusedError(409, "Tag reference exists already")
    repo.tags[tag] = target
    return as_json({})


def settings(request: Request, kind: str, name: str) -> Answer:
    repo, asked = request.own_repo(kind, name), request.json()
    repo.gated = asked.get("gated", repo.gated)
    if "visibility" in asked:
        repo.private = asked["visibility"] == "private"
    return as_json({})


def lfs_batch(request: Request, name: str, kind: str = "") -> Answer:
    request.own_repo("dataset" if kind else "model", name)
    objects = []
    for wanted in request.json()["objects"]:
        sha256, size = wanted["oid"], wanted["size"]
        answer: dict[str, Any] = {"oid": sha256, "size": size}
        if sha256 not in request.store.blobs:
            upload: dict[str, Any] = {"href": f"{request.hub.url}/lfs/{sha256}"}
            step = request.hub.part_size
            if step is not None and size > step:
                parts = range(1, -(-size // step) + 1)
                upload["header"] = {
                    "chunk_size": str(step),
                    **{str(part): f"{request.hub.url}/lfs/{sha256}/{part}" for part in parts},
                }
            verify = {"href": f"{request.hub.url}/lfs/{sha256}/verify"}
            answer["actions"] = {"upload": upload, "verify": verify}
        objects.append(answer)
    return as_json({"transfer": "basic", "objects": objects})


def lfs_put(request: Request, sha256: str) -> Answer:
    request.store.receive(sha256, request.body)
    return Answer(headers=(("ETag", f'"{sha256}"'),))


def lfs_put_part(request: Request, sha256: str, part: str) -> Answer:
    request.hub.parts[sha256, int(part)] = request.body
    return Answer(headers=(("ETag", f'"{part}"'),))


def lfs_complete(request: Request, sha256: str) -> Answer:
    parts = [request.hub.parts[sha256, one["partNumber"]] for one in request.json()["parts"]]
    request.store.receive(sha256, b"".join(parts))
    return as_json({})


def lfs_verify(request: Request, sha256: str) -> Answer:
    found = request.store.blobs.get(sha256)
    if found is None or len(found) != request.json()["size"]:
        raise RefusedError(404, "the object was not received")
    return as_json({})


def resolve(request: Request, name: str, revision: str, path: str, kind: str = "") -> Answer:
    found = request.repo("dataset" if kind else "model", name).at(revision)
    entry = found.tree.get(path)
    headers = [("X-Repo-Commit", found.oid), ("Accept-Ranges", "bytes")]
    if entry is None:
        body, refusal = _refusal(404, f"{path} does not exist", "EntryNotFound")
        return Answer(404, body, (*refusal, *headers))
    headers.append(("ETag", f'"{entry.sha256 or entry.oid}"'))
    if entry.sha256 is not None:
        headers.append(("X-Linked-Etag", f'"{entry.sha256}"'))
        headers.append(("X-Linked-Size", str(len(entry.data))))
    match = re.fullmatch(r"bytes=(\d+)-(\d*)", request.range or "")
    if match is None:
        return Answer(200, entry.data, tuple(headers))
    start, size = int(match[1]), len(entry.data)
    if start >= size:
        return Answer(416, b"", (("Content-Range", f"bytes */{size}"),))
    stop = min(size, int(match[2] or size - 1) + 1)
    headers.append(("Content-Range", f"bytes {start}-{stop - 1}/{size}"))
    return Answer(206, entry.data[start:stop], tuple(headers))


_REV = r"(?P<revision>[^/]+)"
_BRANCH = r"(?P<branch>[^/]+)"
_SHA = r"(?P<sha256>[0-9a-f]{64})"
ROUTES: list[tuple[str, re.Pattern[str], Callable[..., Answer]]] = [
    (verb, re.compile(pattern), action)
    for verb, pattern, action in (
        ("GET", "/api/whoami-v2", whoami),
        ("POST", "/api/repos/create", create),
        ("POST", "/api/validate-yaml", validate_yaml),
        ("GET", _API, info),
        ("GET", rf"{_API}/revision/{_REV}", info),
        ("GET", rf"{_API}/refs", refs),
        ("GET", rf"{_API}/tree/{_REV}(/(?P<path>.+))?", tree),
        ("GET", rf"{_API}/commits/{_REV}", commits),
        ("POST", rf"{_API}/paths-info/{_REV}", paths_info),
        ("POST", rf"{_API}/preupload/{_REV}", preupload),
        ("POST", rf"{_API}/commit/{_BRANCH}", commit),
        ("POST", rf"{_API}/branch/{_BRANCH}", add_branch),
        ("DELETE", rf"{_API}/branch/{_BRANCH}", delete_branch),
        ("POST", rf"{_API}/tag/{_REV}", add_tag),
        ("PUT", rf"{_API}/settings", settings),
        ("POST", rf"{_FILE}\.git/info/lfs/objects/batch", lfs_batch),
        ("PUT", rf"/lfs/{_SHA}", lfs_put),
        ("PUT", rf"/lfs/{_SHA}/(?P<part>\d+)", lfs_put_part),
        ("POST", rf"/lfs/{_SHA}", lfs_complete),
        ("POST", rf"/lfs/{_SHA}/verify", lfs_verify),
        ("GET", rf"{_FILE}/resolve/{_REV}/(?P<path>.+)", resolve),
    )
]
