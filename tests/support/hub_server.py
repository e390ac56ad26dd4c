"""A hub on this machine: the part of the hub's protocol that its Python client speaks.

Repository information, trees (in pages), path information, and files with etags, ranges and the
redirection of large files. It counts what it serves, and can be slow, cut a connection or damage a
file.
"""

import hashlib
import json
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

# Entries of a page of a tree; the real hub's are a thousand.
PAGE = 4
CHUNK = 4096
LARGE = (".safetensors", ".parquet")


@dataclass(frozen=True)
class Repository:
    """A repository with one commit, which is also its main branch."""

    kind: str
    name: str
    commit: str
    files: dict[str, bytes]

    @classmethod
    def of_folder(cls, kind: str, name: str, commit: str, folder: Path) -> "Repository":
        found = (path for path in folder.rglob("*") if path.is_file())
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}
        return cls(kind, name, commit, files)

    @cached_property
    def tree(self) -> list[dict[str, Any]]:
        entries = []
        for path, content in sorted(self.files.items()):
            blob = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
            entry = {"type": "file", "oid": blob, "size": len(content), "path": path}
            if path.endswith(LARGE):
                digest = hashlib.sha256(content).hexdigest()
                entry["lfs"] = {"oid": digest, "size": len(content), "pointerSize": 134}
            entries.append(entry)
        folders = {str(above) for path in self.files for above in Path(path).parents} - {"."}
        return entries + [
            {"type": "directory", "oid": "0" * 40, "size": 0, "path": path}
            for path in sorted(folders)
        ]


@dataclass
class Hub:
    """What is served, how, and what was asked for.

    Attributes:
        repositories: that there are.
        gated: names of those that nobody may read.
        seconds_a_chunk: waited after every 4 KiB of a large file.
        cut: paths → bytes after which the connection is closed, once each.
        damaged: paths → how many more times their first byte is wrong.
        requests: `METHOD address`, in order.
        sent: path → bytes of its content that were sent.
        ranges: of the requests for a part of a file: path and first byte.
        longer: paths → bytes that come after all that was announced.
        crawling: paths that are sent byte by byte.
        authorizations: what requests said of who asks, in order.
    """

    repositories: list[Repository]
    gated: set[str] = field(default_factory=set)
    seconds_a_chunk: float = 0.0
    cut: dict[str, int] = field(default_factory=dict)
    damaged: dict[str, int] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=dict)
    ranges: list[tuple[str, int]] = field(default_factory=list)
    longer: dict[str, int] = field(default_factory=dict)
    crawling: set[str] = field(default_factory=set)
    authorizations: list[str] = field(default_factory=list)
    address: str = ""

    def find(self, kind: str, name: str) -> Repository | None:
        of_name = (one for one in self.repositories if (one.kind, one.name) == (kind, name))
        return next(of_name, None)


@contextmanager
def serving(*repositories: Repository) -> Iterator[Hub]:
    """Serve repositories from a thread on a free port."""
    hub = Hub(list(repositories))
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"
    # An answer's head and body are sent one after the other: with Nagle's algorithm the body waits
    # for 40 ms until the head is acknowledged.
    disable_nagle_algorithm = True

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def do_POST(self) -> None:
        self._answer(with_body=True)

    def _answer(self, *, with_body: bool) -> None:
        self.hub.requests.append(f"{self.command} {self.path}")
        if "Authorization" in self.headers:
            self.hub.authorizations.append(self.headers["Authorization"])
        asked = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        address = urlsplit(self.path)
        parts = [unquote(part) for part in address.path.strip("/").split("/")]
        query = {key: values[0] for key, values in parse_qs(address.query).items()}
        if parts == [""]:
            self._send(200, b"", with_body)
        elif parts[0] == "api":
            kind, name, rest = parts[1].removesuffix("s"), "/".join(parts[2:4]), parts[4:]
            repository = self._repository(kind, name, rest[1] if len(rest) > 1 else "main")
            if repository is not None:
                self._api(repository, rest, query, asked)
        elif parts[0] == "large":
            kind, name, path = parts[1], "/".join(parts[2:4]), "/".join(parts[4:])
            found = self.hub.find(kind, name)
            assert found is not None
            self._content(found, path, {}, with_body)
        else:
            kind = "dataset" if parts[0] == "datasets" else "model"
            parts = parts[1:] if kind == "dataset" else parts
            name, revision, path = "/".join(parts[:2]), parts[3], "/".join(parts[4:])
            repository = self._repository(kind, name, revision)
            if repository is not None:
                self._resolve(repository, path, with_body)

    def _repository(self, kind: str, name: str, revision: str) -> Repository | None:
        found = self.hub.find(kind, name)
        if found is None:
            self._error(404, "RepoNotFound")
        elif name in self.hub.gated:
            self._error(403, "GatedRepo")
        elif revision not in ("main", found.commit):
            self._error(404, "RevisionNotFound")
        else:
            return found
        return None

    def _api(
        self, repository: Repository, rest: list[str], query: dict[str, str], asked: bytes
    ) -> None:
        what = rest[0] if rest else "revision"
        if what == "revision":
            siblings = [{"rfilename": path} for path in repository.files]
            self._json(
                {
                    "_id": "0",
                    "id": repository.name,
                    "sha": repository.commit,
                    "siblings": siblings,
                    "private": False,
                    "gated": False,
                    "disabled": False,
                    "downloads": 0,
                    "likes": 0,
                    "tags": [],
                }
            )
        elif what == "tree":
            self._tree(repository, "/".join(rest[2:]), query)
        elif what == "paths-info":
            paths = set(
                json.loads(asked)["paths"]
                if self.headers["Content-Type"] == "application/json"
                else parse_qs(asked.decode())["paths"]
            )
            self._json([entry for entry in repository.tree if entry["path"] in paths])
        else:
            self._error(404, "EntryNotFound")

    def _tree(self, repository: Repository, below: str, query: dict[str, str]) -> None:
        prefix = f"{below}/" if below else ""
        entries = [one for one in repository.tree if one["path"].startswith(prefix)]
        if query.get("recursive", "false").lower() not in ("true", "1"):
            entries = [one for one in entries if "/" not in one["path"].removeprefix(prefix)]
        if below and not entries:
            self._error(404, "EntryNotFound")
            return
        start = int(query.get("cursor", 0))
        headers = {}
        if start + PAGE < len(entries):
            address = urlsplit(self.path)
            kept = "".join(f"&{key}={value}" for key, value in query.items() if key != "cursor")
            following = f"{self.hub.address}{address.path}?cursor={start + PAGE}{kept}"
            headers["Link"] = f'<{following}>; rel="next"'
        self._json(entries[start : start + PAGE], headers)

    def _resolve(self, repository: Repository, path: str, with_body: bool) -> None:
        entry = next((one for one in repository.tree if one["path"] == path), None)
        if entry is None or entry["type"] == "directory":
            self._error(404, "EntryNotFound", {"X-Repo-Commit": repository.commit})
            return
        headers = {"X-Repo-Commit": repository.commit, "ETag": f'"{entry["oid"]}"'}
        if "lfs" not in entry:
            self._content(repository, path, headers, with_body)
            return
        # Large files come from another host; the client asks no more about a file there.
        headers["X-Linked-Size"] = str(entry["size"])
        headers["X-Linked-ETag"] = f'"{entry["lfs"]["oid"]}"'
        elsewhere = self.hub.address.replace("127.0.0.1", "localhost")
        large = f"{elsewhere}/large/{repository.kind}/{repository.name}/{path}"
        self._send(302, b"", with_body, {**headers, "Location": large})

    def _content(
        self, repository: Repository, path: str, headers: dict[str, str], with_body: bool
    ) -> None:
        content, status, start = repository.files[path], 200, 0
        if (given := self.headers.get("Range")) is not None:
            first, _, last = given.removeprefix("bytes=").partition("-")
            start, end = int(first), int(last) if last else len(content) - 1
            self.hub.ranges.append((path, start))
            headers = {**headers, "Content-Range": f"bytes {start}-{end}/{len(content)}"}
            content, status = content[start : end + 1], 206
        if with_body and self.hub.damaged.get(path, 0) > 0 and start == 0:
            self.hub.damaged[path] -= 1
            content = bytes([content[0] ^ 1]) + content[1:]
        cut = self.hub.cut.pop(path, None) if with_body else None
        more = self.hub.longer.get(path, 0) if with_body else 0
        length = None if more else len(content)
        self._head(status, length, {"Accept-Ranges": "bytes", **headers})
        if not with_body:
            return
        self.close_connection = bool(more)
        content += b"x" * more
        step = 1 if path in self.hub.crawling else CHUNK
        for offset in range(0, len(content), step):
            if cut is not None and offset >= cut:
                self.close_connection = True
                return
            chunk = content[offset : offset + step]
            try:
                self.wfile.write(chunk)
                self.wfile.flush()
            except OSError:
                # The client is gone.
                self.close_connection = True
                return
            self.hub.sent[path] = self.hub.sent.get(path, 0) + len(chunk)
            if path.endswith(LARGE):
                time.sleep(self.hub.seconds_a_chunk)
            if step == 1:
                time.sleep(0.05)

    def _json(self, content: object, headers: dict[str, str] | None = None) -> None:
        body = json.dumps(content).encode()
        self._send(200, body, True, {"Content-Type": "application/json", **(headers or {})})

    def _error(self, status: int, code: str, headers: dict[str, str] | None = None) -> None:
        body = json.dumps({"error": code}).encode()
        with_body = self.command != "HEAD"
        self._send(status, body, with_body, {"X-Error-Code": code, **(headers or {})})

    def _send(
        self, status: int, body: bytes, with_body: bool, headers: dict[str, str] | None = None
    ) -> None:
        self._head(status, len(body), headers or {})
        if with_body:
            self.wfile.write(body)

    def _head(self, status: int, length: int | None, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()


class DeadHub:
    """What hangs up on whoever calls: the hub's own client would ask again for more than a minute.

    Attributes:
        address: where it listens.
        calls: how often it was called.
    """

    def __init__(self) -> None:
        self.calls = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = Thread(target=self._hang_up, daemon=True)

    def __enter__(self) -> "DeadHub":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Wakes the thread, which a mere close does not.
        self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join()
        self._socket.close()

    def _hang_up(self) -> None:
        while True:
            try:
                called, _ = self._socket.accept()
            except OSError:
                return
            self.calls += 1
            called.close()
