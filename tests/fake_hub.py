"""A hub on the loopback that serves model directories, and five networks that are broken in their own way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub(ThreadingHTTPServer):
    """As much of the hub as a download needs, and its refusals.

    Set ``refusals[repo] = (status, code)`` to refuse everything about a model, ``file_refusals`` only its
    files; ``bytes_per_second`` slows the weights down, ``stall_after`` stops them after so many bytes.
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: dict[str, Path] = {}
        self.refusals: dict[str, tuple[int, str]] = {}
        self.file_refusals: dict[str, tuple[int, str]] = {}
        self.requests: list[str] = []
        self.bytes_per_second = 0
        self.stall_after: int | None = None
        self.closing = threading.Event()

    @property
    def url(self) -> str:
        """What ``HF_ENDPOINT`` is set to."""
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: FakeHub
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._answer(send_body=True)

    def do_HEAD(self) -> None:
        self._answer(send_body=False)

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""

    def _answer(self, send_body: bool) -> None:
        path = self.path.split("?")[0]
        asked = re.search(r"/(?:resolve|revision)/([0-9a-f]{40})(?:/|$)", path)
        self.commit = asked.group(1) if asked else COMMIT  # a commit that is asked for by its hash is answered as that
        self.server.requests.append(f"{self.command} {path}")
        if about := re.fullmatch(r"/api/models/([\w./-]+?)(/revision/\w+)?", path):
            repo = about.group(1)
            if self._refuse(repo, self.server.refusals):
                return
            self._send(json.dumps(_model_info(repo, self.server.repos[repo])).encode(), send_body, "application/json")
        elif file := re.fullmatch(r"/([\w./-]+?)/resolve/\w+/([\w./:-]+)", unquote(path)):
            repo = file.group(1)
            if self._refuse(repo, self.server.refusals) or self._refuse(repo, self.server.file_refusals):
                return
            found = self.server.repos[repo] / file.group(2)
            if found.is_file():
                self._send(found.read_bytes(), send_body, "application/octet-stream", found.suffix == ".safetensors")
            else:
                self._error(404, "EntryNotFound")
        else:
            self._error(404, "")

    def _refuse(self, repo: str, refusals: dict[str, tuple[int, str]]) -> bool:
        if repo in refusals:
            self._error(*refusals[repo])
            return True
        if repo not in self.server.repos:
            self._error(404, "RepoNotFound")
            return True
        return False

    def _error(self, status: int, code: str) -> None:
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, body: bytes, send_body: bool, kind: str, is_weights: bool = False) -> None:
        start = 0
        if found := re.fullmatch(r"bytes=(\d+)-\d*", self.headers.get("Range", "")):
            start = int(found.group(1))
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body) - start))
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", f'"{hashlib.sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", self.commit)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        self.end_headers()
        if send_body:
            with contextlib.suppress(OSError):  # the other side may hang up at any time
                self._write(body[start:], is_weights)

    def _write(self, body: bytes, is_weights: bool) -> None:
        stall, pace = self.server.stall_after, self.server.bytes_per_second
        if not is_weights or (stall is None and not pace):
            self.wfile.write(body)
            return
        size = max(1, pace // 20) if pace else 1000
        for at in range(0, len(body), size):
            if stall is not None and at >= stall:
                self.server.closing.wait(60)
                return
            self.wfile.write(body[at : at + size])
            self.wfile.flush()
            if pace and self.server.closing.wait(0.05):
                return


def _model_info(repo: str, folder: Path) -> dict[str, Any]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        "id": repo,
        "modelId": repo,
        "sha": COMMIT,
        "private": False,
        "gated": False,
        "tags": [],
        "downloads": 0,
        "siblings": [{"rfilename": path.relative_to(folder).as_posix(), "size": path.stat().st_size} for path in files],
    }


@contextlib.contextmanager
def fake_hub() -> Iterator[FakeHub]:
    """A running hub, stopped on leaving."""
    hub = FakeHub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        hub.shutdown()
        hub.server_close()
        thread.join()


@contextlib.contextmanager
def broken_network(kind: str) -> Iterator[str]:
    """The address of a hub that cannot be reached, in one of the ways of ``BROKEN``."""
    with contextlib.ExitStack() as stack:
        yield BROKEN[kind](stack)


def _no_dns(stack: contextlib.ExitStack) -> str:
    return "http://hub.invalid"


def _refused(stack: contextlib.ExitStack) -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return f"http://127.0.0.1:{port}"


def _silent(stack: contextlib.ExitStack) -> str:
    """The kernel accepts the connection; nobody ever reads it."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=50))
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def _dropped(stack: contextlib.ExitStack) -> str:
    """A listening socket whose queue is full, so that the kernel drops what knocks."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
    for _ in range(8):
        client = stack.enter_context(socket.socket())
        client.setblocking(False)
        client.connect_ex(server.getsockname())
    time.sleep(0.1)
    return f"http://127.0.0.1:{server.getsockname()[1]}"


def _trickle(stack: contextlib.ExitStack) -> str:
    """An answer that comes a byte at a time and never ends."""
    server = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
    stop = threading.Event()

    def feed() -> None:
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            with connection:
                for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 10_000:
                    connection.sendall(bytes([byte]))
                    if stop.wait(0.2):
                        return

    thread = threading.Thread(target=feed, daemon=True)
    thread.start()

    def end() -> None:
        stop.set()
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        thread.join(5)

    stack.callback(end)
    return f"http://127.0.0.1:{server.getsockname()[1]}"


BROKEN = {"no DNS": _no_dns, "refused": _refused, "silent": _silent, "dropped": _dropped, "trickle": _trickle}
