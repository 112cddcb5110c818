"""Asking the hub whether it can be reached and has a model, with a deadline on every part of the question.

``huggingface_hub`` waits up to 400 s, or for ever, on a network that swallows its packets; so the first
question is asked here, over one plain connection that can be closed at any moment.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import socket
import ssl
import threading
import time
import urllib.request
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from sae_widget.activations.base import LoadCancelled, ModelLoadError

if TYPE_CHECKING:
    from collections.abc import Mapping

STEP_SECONDS = 3.0  # to connect, and again to answer
TOTAL_SECONDS = 4.0
KEPT = "Nothing was loaded; what was there before is kept."
RETRY = "Use the bundled model, or try again when the network is back."


def endpoint() -> SplitResult:
    """The hub's address: ``HF_ENDPOINT``, or huggingface.co."""
    return urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")


def host_name() -> str:
    """The hub's name as it may be shown: never with a user name or password."""
    return endpoint().hostname or "the hub"


def has_token() -> bool:
    """Whether ``huggingface_hub`` would send a token of the person's; its value is never read here."""
    if os.environ.get("HF_TOKEN") or os.environ.get("HUGGING_FACE_HUB_TOKEN"):
        return True
    home = os.environ.get("HF_HOME") or os.path.join(  # noqa: PTH118 - only strings, and "~" comes last
        os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"
    )
    path = os.environ.get("HF_TOKEN_PATH") or f"{home}/token"
    return os.path.isfile(os.path.expanduser(os.path.expandvars(path)))  # noqa: PTH111, PTH113


@dataclass
class _Question:
    """One request, made in a thread of its own so that it can be left to itself."""

    path: str
    connection: http.client.HTTPConnection | None = None
    connected: bool = False
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict)
    error: BaseException | None = None
    done: threading.Event = field(default_factory=threading.Event)

    def ask(self) -> None:
        """Connect and read the status line and the headers."""
        try:
            self.connection, target = _connection(self.path)
            self.connection.connect()
            self.connected = True
            self.connection.request("GET", target, headers={"User-Agent": "sae-widget", "Host": endpoint().netloc})
            response = self.connection.getresponse()
            self.status, self.headers = response.status, dict(response.headers.items())
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.error = error
        finally:
            self.close()
            self.done.set()

    def close(self) -> None:
        """Cut the connection, which also ends a read that is waiting on it."""
        opened = getattr(self.connection, "sock", None)
        if opened is not None:
            with contextlib.suppress(OSError):
                opened.shutdown(socket.SHUT_RDWR)
            opened.close()


def ask_hub(repo: str, cancel: threading.Event, kind: str = "model") -> None:
    """Return when the hub answers and says that the model is there, within about four seconds.

    Args:
        repo: a name on the hub.
        cancel: ends the question at once when set.
        kind: ``"model"`` or ``"dataset"``.

    Raises:
        LoadCancelled: ``cancel`` was set.
        ModelLoadError: no connection, no answer, or a refusal; each in a sentence of its own.
    """
    question = _Question(f"/api/{kind}s/{repo}")
    thread = threading.Thread(target=question.ask, name="sae_widget-probe", daemon=True)
    end = time.monotonic() + TOTAL_SECONDS
    thread.start()
    while not question.done.wait(0.05):
        if cancel.is_set():
            question.close()
            raise cancelled(repo)
        if time.monotonic() > end:
            question.close()
            raise ModelLoadError(_unreachable(repo, TimeoutError(), question.connected))
    if cancel.is_set():
        raise cancelled(repo)
    if question.error is not None:
        raise ModelLoadError(_unreachable(repo, question.error, question.connected)) from question.error
    if question.status >= 400 and not (question.status in (401, 403, 404) and has_token()):
        raise ModelLoadError(refusal(repo, question.status, question.headers.get("X-Error-Code", ""), kind))


def cancelled(repo: str) -> LoadCancelled:
    """What Cancel leads to."""
    return LoadCancelled(f"Loading {repo} was cancelled. What was loaded before is kept.")


def refusal(repo: str, status: int, code: str = "", kind: str = "model") -> str:
    """A sentence for each way in which the hub can refuse.

    Args:
        repo: a name on the hub.
        status: of HTTP.
        code: the hub's ``X-Error-Code``.
        kind: of what has this name.
    """
    sign_in = "sign in with `hf auth login` in a terminal, and try again."
    if code == "GatedRepo" or status == 403:
        page = f"its page at {host_name()}"
        return f"{repo} is gated: its owners want their terms accepted on {page}. Do so, {sign_in}"
    if code == "RepoNotFound" or status == 404:
        return f"There is no {kind} {repo!r} on {host_name()}, or it is private. Check the spelling. {KEPT}"
    if status == 401 and has_token():
        return f"{host_name()} does not accept this machine's sign-in (401) for {repo}: {sign_in}"
    if status == 401:
        return f"{repo} is private or does not exist (401). Check the spelling; for a private {kind}, {sign_in}"
    if status == 429:
        return f"{host_name()} says that it was asked too often (429). Wait a few minutes and try again. {KEPT}"
    if status >= 500:
        return f"{host_name()} has a fault of its own ({status}) and sent no {repo}. Try again later. {KEPT}"
    return f"{host_name()} refused {repo} ({status}). {KEPT}"


def _connection(path: str) -> tuple[http.client.HTTPConnection, str]:
    """A connection to the hub that is not open yet, through the proxy of the environment if there is one."""
    hub = endpoint()
    secure = hub.scheme != "http"
    if not hub.hostname:
        raise ValueError("HF_ENDPOINT is not an address")
    target = hub.path.rstrip("/") + path
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    proxy = urllib.request.getproxies().get("https" if secure else "http")
    if not proxy or urllib.request.proxy_bypass(hub.hostname):
        return kind(hub.hostname, hub.port, timeout=STEP_SECONDS), target
    way = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    if not secure:
        return http.client.HTTPConnection(way.hostname or "", way.port, timeout=STEP_SECONDS), hub.geturl() + path
    connection = http.client.HTTPSConnection(way.hostname or "", way.port, timeout=STEP_SECONDS)
    connection.set_tunnel(hub.hostname, hub.port)
    return connection, target


def _unreachable(repo: str, error: BaseException, connected: bool) -> str:
    if isinstance(error, ssl.SSLError):
        reason = "the secure connection failed"
    elif isinstance(error, socket.gaierror):
        reason = "its name was not found, so there is no network or no name server"
    elif isinstance(error, ConnectionRefusedError):
        reason = "the connection was refused"
    elif isinstance(error, TimeoutError):
        reason = "it was reached but sent no answer in time" if connected else "no connection came about in time"
    elif isinstance(error, OSError):
        reason = (error.strerror or type(error).__name__).lower()
    else:
        reason = "what answered is not a hub"
    return f"Cannot reach {host_name()} to load {repo}: {reason}. {KEPT} {RETRY}"
