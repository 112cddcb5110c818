"""Stop, interrupt and shutdown in a real kernel, of every line of ipykernel (F24, F25, F33, F39).

``make test`` tries the installed ipykernel, ``make soak`` the older lines as well, each from a folder of its own.
"""

from __future__ import annotations

import contextlib
import os
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ipywidgets
import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
START = """
from ipywidgets.widgets.widget import _instances
from sae_widget import SuperpositionExplorer
explorer = SuperpositionExplorer("a short text", model={model!r}, layer=1, corpus="text", d_sae=24, k=3,
                                 steps=10**7, batch_size=32)
explorer.wait(60)
(stop,) = [w for w in _instances.values() if getattr(w, "description", "") == "Stop"]
print(stop.model_id)
"""

TRAIN_LATER = """
import threading, time
from pathlib import Path
def later():
    while not Path({path!r}).exists():
        time.sleep(0.02)
    explorer.train()
threading.Thread(target=later, daemon=True).start()
"""


class Kernel:
    """A kernel and what it prints."""

    def __init__(self, folder: str | None) -> None:
        from jupyter_client.manager import KernelManager

        env = dict(os.environ)
        env["PYTHONPATH"] = os.pathsep.join([*([folder] if folder else []), str(REPOSITORY)])
        self.manager = KernelManager(kernel_name="python3")  # the kernel of this environment
        self.errors = tempfile.TemporaryFile(mode="w+")
        self.manager.start_kernel(env=env, stderr=self.errors)
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)

    def run(self, code: str, timeout: float = 120) -> str:
        """What some code prints; an error fails."""
        printed: list[str] = []

        def hook(message: dict[str, Any]) -> None:
            if message["msg_type"] == "stream":
                printed.append(message["content"]["text"])
            if message["msg_type"] == "error":
                raise AssertionError("\n".join(message["content"]["traceback"]))

        self.client.execute_interactive(code, timeout=timeout, output_hook=hook)
        return "".join(printed).strip()

    def click(self, model_id: str, subshell: str | None = None) -> None:
        """What the page sends when a button is pressed."""
        self.send(
            "comm_msg", {"comm_id": model_id, "data": {"method": "custom", "content": {"event": "click"}}}, subshell
        )

    def send(self, kind: str, content: dict[str, Any], subshell: str | None = None) -> None:
        """Send a message as a page does, which asks for a subshell of its own first where the kernel has them."""
        message = self.client.session.msg(kind, content)
        message["header"]["subshell_id"] = subshell
        message["metadata"] = {"version": ipywidgets.widgets.widget.__control_protocol_version__}
        self.client.shell_channel.send(message)

    def control(self, kind: str, content: dict[str, Any]) -> dict[str, Any]:
        """Ask on the control channel; returns the content of the reply."""
        self.client.control_channel.send(self.client.session.msg(kind, content))
        reply: dict[str, Any] = self.client.get_control_msg(timeout=30)["content"]
        assert reply["status"] == "ok", reply
        return reply

    def news_of(self, model_id: str, trait: str, value: Any, seconds: float = 60) -> None:
        """Wait until the kernel tells the page that a trait of a widget, or a field of its message, has a value."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                content = self.client.get_iopub_msg(timeout=0.5)["content"]
                data = content.get("data") if content.get("comm_id") == model_id else None
                if data is not None and (data | data.get("state", {})).get(trait) == value:
                    return
        raise AssertionError(f"{trait} never was {value!r}")

    def until(self, expression: str, seconds: float = 30) -> None:
        """Wait until an expression is true in the kernel."""
        end = time.monotonic() + seconds
        while self.run(f"print(bool({expression}))") != "True":
            assert time.monotonic() < end, f"{expression}: {self.run('print(explorer.state.status)')}"
            time.sleep(0.05)

    def close(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        self.errors.close()


def older(version: str) -> str:
    """A folder with another ipykernel; installed once."""
    folder = REPOSITORY / ".venv" / "kernels" / version
    if not (folder / "ipykernel").is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, f"ipykernel=={version}"], check=True)
    return str(folder)


@pytest.fixture(
    params=[
        "installed",
        *(pytest.param(version, marks=pytest.mark.soak) for version in ("6.31.0", "7.1.0", "7.3.0")),
    ]
)
def kernel(request: pytest.FixtureRequest) -> Iterator[Kernel]:
    made = Kernel(None if request.param == "installed" else older(request.param))
    if request.param != "installed":
        assert made.run("import ipykernel; print(ipykernel.__version__)") == request.param
    yield made
    made.close()


@pytest.mark.timeout(300)
def test_stop_interrupt_and_shutdown(kernel: Kernel, tiny_gpt2_dir: Path) -> None:
    stop = kernel.run(START.format(model=str(tiny_gpt2_dir)))

    kernel.run("explorer.train()")
    kernel.until("explorer.state.status.phase == 'training' and explorer.state.status.step > 10")
    kernel.click(stop)
    kernel.until("explorer.state.status.phase == 'ready'")
    assert "Stopped at step" in kernel.run("print(explorer.status)")

    # The square button while nothing runs in a cell: the training goes on, and nothing is torn.
    kernel.run("explorer.train()")
    kernel.until("explorer.state.status.phase == 'training' and explorer.state.status.step > 10")
    kernel.manager.interrupt_kernel()
    time.sleep(0.3)
    before = int(kernel.run("print(explorer._runner.desk.trainer.step)"))
    kernel.until(f"explorer._runner.desk.trainer.step > {before}")
    kernel.run("explorer.stop(); explorer.wait(30)")

    # The same while a cell waits for the training: it ends at a step boundary and the cell returns.
    message = kernel.client.execute("explorer.train(blocking=True); print('returned')")
    end = time.monotonic() + 30
    interrupted = False
    printed = ""
    while "returned" not in printed:
        assert time.monotonic() < end
        if not interrupted and time.monotonic() > end - 28:
            kernel.manager.interrupt_kernel()
            interrupted = True
        try:
            news = kernel.client.get_iopub_msg(timeout=0.5)
        except queue.Empty:
            continue  # no news for half a second
        if news["parent_header"].get("msg_id") == message and news["msg_type"] == "stream":
            printed += news["content"]["text"]
    assert "Stopped at step" in kernel.run("print(explorer.status)")
    assert kernel.run("print(len(explorer.history) == explorer._runner.desk.trainer.step)") == "True"

    # Shutting down with a training on takes no longer than the kernel itself.
    kernel.run("explorer.train()")
    kernel.until("explorer.state.status.phase == 'training'")
    asked = time.monotonic()
    kernel.manager.shutdown_kernel()
    took = time.monotonic() - asked
    print(f"shutdown took {took:.2f} s")
    assert took < 3.0
    kernel.errors.seek(0)
    assert "Traceback" not in kernel.errors.read()


@pytest.mark.timeout(300)
def test_a_page_that_goes_takes_no_button_along(kernel: Kernel, tiny_gpt2_dir: Path, tmp_path: Path) -> None:
    """ipykernel 7.4 sends what comes for a widget to the subshell that the widget last answered, even if that is gone.

    A page that loads opens such a subshell for a moment, to ask what widgets there are.
    """
    if "kernel subshells" not in kernel.client.kernel_info(reply=True)["content"].get("supported_features", ()):
        pytest.skip("this ipykernel has no subshells")
    stop = kernel.run(START.format(model=str(tiny_gpt2_dir)))
    page = kernel.control("create_subshell_request", {})["subshell_id"]
    passing = kernel.control("create_subshell_request", {})["subshell_id"]
    go_on = tmp_path / "go on"
    kernel.run(TRAIN_LATER.format(path=str(go_on)))
    kernel.send("comm_open", {"comm_id": "asks", "target_name": "jupyter.widget.control", "data": {}}, passing)
    kernel.send("comm_msg", {"comm_id": "asks", "data": {"method": "request_states"}}, passing)
    kernel.news_of("asks", "method", "update_states")
    go_on.touch()
    kernel.news_of(stop, "disabled", False)  # told by a thread, while the last message was the passing page's
    kernel.control("delete_subshell_request", {"subshell_id": passing})
    kernel.click(stop, page)
    kernel.until("explorer.state.status.phase == 'ready'", 10)
    assert "Stopped" in kernel.run("print(explorer.status)")


@pytest.mark.timeout(300)
def test_stop_works_while_a_cell_runs(kernel: Kernel, tiny_gpt2_dir: Path) -> None:
    """Where there are subshells, a page's button is answered in its own, whatever the notebook's cell is doing."""
    if "kernel subshells" not in kernel.client.kernel_info(reply=True)["content"].get("supported_features", ()):
        pytest.skip("this ipykernel has no subshells: a click waits for the end of the cell")
    stop = kernel.run(START.format(model=str(tiny_gpt2_dir)))
    page = kernel.control("create_subshell_request", {})["subshell_id"]
    kernel.client.execute("explorer.train(blocking=True); print(explorer.status)")
    kernel.news_of(stop, "disabled", False)
    kernel.click(stop, page)
    kernel.news_of(stop, "disabled", True, 20)
    assert "Stopped" in kernel.run("print(explorer.status)")
