"""What JupyterLab starts as a kernel in the tests: a copy of the warm process for a warm notebook, else a new Python.

``python launcher.py SOCKET ARGUMENTS OF IPYKERNEL``; nothing but the standard library, so that it costs nothing. To
JupyterLab it is the kernel: it hands signals on, and ends with it.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from pathlib import Path

WARM = "warm-"  # in front of the name of a notebook whose kernel is to be warm


def main(address: str, *arguments: str) -> None:
    """Start the kernel, and stay until it ends."""
    notebook = Path(os.environ.get("JPY_SESSION_NAME", "")).name  # Jupyter's server says whose kernel it is
    if not notebook.startswith(WARM):
        os.execv(sys.executable, [sys.executable, "-m", "ipykernel_launcher", *arguments])
    with socket.socket(socket.AF_UNIX) as kernel:
        kernel.connect(address)
        socket.send_fds(kernel, [b"."], [0, 1, 2])
        asked = {"environment": dict(os.environ), "folder": str(Path.cwd()), "arguments": arguments}
        kernel.sendall(json.dumps(asked).encode() + b"\n")
        with kernel.makefile() as answers:
            number = int(answers.readline())
            for name in (signal.SIGINT, signal.SIGTERM):
                signal.signal(name, lambda sign, _frame: os.kill(number, sign))
            answers.readline()  # the connection ends with the kernel


if __name__ == "__main__":
    main(*sys.argv[1:])
