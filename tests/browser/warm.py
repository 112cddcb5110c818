"""A process that has imported what a kernel needs, of which each warm kernel is a copy (``fork``).

The imports are seconds of a processor, and no test's subject apart from the quickstart's: its kernel is cold, as a
person's is. A copy has them at once. ``launcher`` is its other end.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import socket
import sys
import threading
from pathlib import Path

# All that an explorer has imported by the end of its first training; ipykernel first, since others look for it.
HEAVY = (
    *("ipykernel.kernelapp", "torch._dynamo", "transformers.models.gpt2.modeling_gpt2"),
    *("sae_widget.explorer", "sae_widget.views"),
)
READY = "warm\n"  # what is printed once a kernel can be asked for


def kernel_spec(folder: Path, address: str) -> None:
    """Describe the kernel ``python3`` in a data folder of Jupyter's."""
    launcher = Path(__file__).with_name("launcher.py")
    argv = [sys.executable, "-I", str(launcher), address, "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Python 3 (ipykernel)", "language": "python", "metadata": {"debugger": True}}
    made = folder / "kernels" / "python3"
    made.mkdir(parents=True)
    (made / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")


def serve(address: str) -> None:
    """Import, then make a copy for each launcher that asks."""
    for name in HEAVY:
        importlib.import_module(name)
    assert threading.active_count() == 1, "a copy has no thread but one"  # numpy's own come back by themselves
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the copies
    with socket.socket(socket.AF_UNIX) as door:
        door.bind(address)
        door.listen()
        print(READY, end="", flush=True)
        while True:
            asked, _ = door.accept()
            if os.fork() == 0:
                door.close()
                _become_kernel(asked)
            asked.close()


def _become_kernel(asked: socket.socket) -> None:
    """In the copy: be a process as JupyterLab starts one, then the kernel."""
    os.setsid()
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    _, streams, _, _ = socket.recv_fds(asked, 1, 3)
    with asked.makefile() as lines:
        wanted = json.loads(lines.readline())
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(wanted["environment"])
    os.chdir(wanted["folder"])
    asked.sendall(b"%d\n" % os.getpid())
    threading.Thread(target=_end_with_launcher, args=(asked,), name="launcher", daemon=True).start()
    sys.argv = ["ipykernel_launcher", *wanted["arguments"]]
    from ipykernel.kernelapp import IPKernelApp

    app = IPKernelApp.instance(parent_handle=os.getppid())  # it ends with the process that it is a copy of
    app.initialize()
    importlib.import_module("ipywidgets").register_comm_target()  # which it does when a kernel imports it
    app.start()
    os._exit(0)


def _end_with_launcher(asked: socket.socket) -> None:
    """JupyterLab kills a kernel that does not end: the launcher, that is, and its end of the connection."""
    asked.recv(1)
    os._exit(1)


if __name__ == "__main__":
    serve(sys.argv[1])
