"""JupyterLab as a process of its own, for the browser tests."""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from tests.browser.warm import READY, kernel_spec

REPOSITORY = Path(__file__).resolve().parents[2]


class LabServer:
    """JupyterLab in its own process group, on 127.0.0.1, a free port and an empty folder."""

    def __init__(self, env: dict[str, str] | None = None, *, warm: bool = False) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="sae-widget-lab-")
        self.home = Path(self._folder.name)
        self.root = self.home / "notebooks"
        self.log = self.home / "server.log"
        self.url = f"http://127.0.0.1:{_free_port()}"
        for name in ("notebooks", "config", "data", "runtime", "settings", "workspaces", "ipython", "state"):
            (self.home / name).mkdir()
        self._settings()
        command = [
            *(sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"),
            f"--ServerApp.root_dir={self.root}",
            "--ServerApp.ip=127.0.0.1",
            f"--ServerApp.port={self.url.rsplit(':', 1)[1]}",
            "--ServerApp.port_retries=0",
            "--IdentityProvider.token=",
            "--LabApp.expose_app_in_browser=True",
            "--LabApp.extension_manager=readonly",
        ]
        self.process, self._warm = self._start(command, env or {}), None
        try:
            self._wait_until_up()
            if warm:
                address = str(self.home / "warm.sock")
                kernel_spec(self.home / "kernels", address)
                self._warm = self._start([sys.executable, "-m", "tests.browser.warm", address], env or {}, talks=True)
        except BaseException:
            self.close()
            raise

    def _start(self, command: list[str], env: dict[str, str], *, talks: bool = False) -> subprocess.Popen[bytes]:
        """A process whose words go to the log, or, if it ``talks``, its answers to us."""
        with self.log.open("ab") as log:
            return subprocess.Popen(
                command,
                env=self._environment(env),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE if talks else log,
                stderr=log,
                start_new_session=True,
                preexec_fn=_end_with_parent if sys.platform == "linux" else None,
            )

    def _settings(self) -> None:
        """No news, no questions, no side panels that take room, no look at whether JupyterLab should be built again."""
        self.setting("apputils-extension/notification", {"fetchNews": "false", "checkForUpdates": False})
        self.setting("docmanager-extension/plugin", {"autosave": False})
        page = self.home / "config" / "labconfig" / "page_config.json"
        page.parent.mkdir()
        page.write_text(json.dumps({"buildAvailable": False, "buildCheck": False}), encoding="utf-8")

    def setting(self, name: str, values: dict[str, Any]) -> None:
        """Write a setting of JupyterLab's, for the pages that are loaded from now on."""
        path = self.home / "settings" / "@jupyterlab" / f"{name}.jupyterlab-settings"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(values), encoding="utf-8")

    def start_kernel(self, notebook: str) -> None:
        """Start the kernel of a notebook that no page has opened yet; the page will find it by the notebook's path."""
        self._wait_until_warm()
        session = {"path": notebook, "name": notebook, "type": "notebook", "kernel": {"name": "python3"}}
        # Against forged requests the server wants one value twice, as a cookie and as a header; any will do.
        headers = {"Content-Type": "application/json", "Cookie": "_xsrf=aa", "X-XSRFToken": "aa"}
        asked = urllib.request.Request(f"{self.url}/api/sessions", json.dumps(session).encode(), headers)
        with urllib.request.urlopen(asked, timeout=60) as answer:
            assert answer.status == 201, f"the server did not start a kernel: {answer.status}"

    def _wait_until_warm(self) -> None:
        """Until the process of which warm kernels are copies has imported everything."""
        assert self._warm is not None and self._warm.stdout is not None
        if not self._warm.stdout.closed:
            said = self._warm.stdout.readline().decode()
            assert said == READY, f"there are no warm kernels: {said or self.log.read_text(encoding='utf-8')[-3000:]}"
            self._warm.stdout.close()

    def _environment(self, more: dict[str, str]) -> dict[str, str]:
        env = {k: v for k, v in os.environ.items() if not k.startswith(("JUPYTER", "OMP_NUM", "PYTEST"))}
        home = self.home
        env |= {
            "JUPYTER_CONFIG_DIR": str(home / "config"),
            "JUPYTER_DATA_DIR": str(home / "data"),
            "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
            "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
            "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
            "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel is this Python, whatever the person has installed
            "JUPYTER_PATH": str(home / "kernels"),  # which goes in front of it
            "IPYTHONDIR": str(home / "ipython"),
            "SAE_WIDGET_HOME": str(home / "state"),
            "HF_HUB_OFFLINE": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "PYTHONPATH": os.pathsep.join([str(REPOSITORY), *filter(None, [env.get("PYTHONPATH")])]),
        }
        return env | more

    def _wait_until_up(self, seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                break
            with contextlib.suppress(urllib.error.URLError, ConnectionError, TimeoutError):
                with urllib.request.urlopen(f"{self.url}/api/status", timeout=2) as answer:
                    if answer.status == 200:
                        return
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(0.1)
        tail = self.log.read_text(encoding="utf-8", errors="replace")[-3000:]
        raise RuntimeError(f"JupyterLab did not come up within {seconds:.0f} s:\n{tail}")

    def close(self) -> None:
        """End the server, and its kernels, by its process group; then what the kernels are copies of."""
        if self._warm is not None and self._warm.stdout is not None:
            self._warm.stdout.close()
        for process in filter(None, (self.process, self._warm)):
            for sign in (signal.SIGTERM, signal.SIGKILL):
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, sign)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(10)
        with contextlib.suppress(OSError):
            self._folder.cleanup()


def _end_with_parent() -> None:
    """In the new process: ask Linux for SIGTERM when the tests are killed, so that no server is left behind."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
