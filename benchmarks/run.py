"""Run every ``bench_*.py`` of this folder and print what they measured as one Markdown table.

``python -m benchmarks.run`` runs all, ``python -m benchmarks.run browser original`` only those. Each file has a
function ``run()`` that returns rows of (what, measured, target), and runs in a process of its own. Those that compare
us with other libraries run in the environment of these (``.venv-peers``; ``make bench`` makes it), so that
everything in such a comparison has the same torch.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
MARK = "benchmark rows: "
LIMIT = 1800.0  # seconds that one file may take
WITH_PEERS = ("gpu", "quality", "throughput")
PEERS = HERE.parent / ".venv-peers" / "bin" / "python"


def main(argv: list[str] | None = None) -> int:
    """Run the benchmarks and print the table; the status is 1 when one of them failed."""
    known = sorted(path.stem.removeprefix("bench_") for path in HERE.glob("bench_*.py"))
    parser = argparse.ArgumentParser(prog="benchmarks.run", description=__doc__)
    parser.add_argument("names", nargs="*", help=f"which to run: {', '.join(known)}")
    parser.add_argument("--peers", type=Path, default=PEERS, help="the Python that has the other libraries")
    parser.add_argument("--rows", help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    if args.rows:
        print(MARK + json.dumps(importlib.import_module(f"benchmarks.bench_{args.rows}").run()))
        return 0
    unknown = sorted(set(args.names) - set(known))
    if unknown:
        parser.error(f"no benchmark {unknown[0]!r}; there are {', '.join(known)}")
    rows, failed = [], False
    for name in args.names or known:
        started = time.monotonic()
        print(f"measuring {name} ...", end=" ", file=sys.stderr, flush=True)
        found = rows_of(name, args.peers)
        failed = failed or found is None
        rows += [(name, "failed, see above", "")] if found is None else found
        print(f"{time.monotonic() - started:.0f} s", file=sys.stderr)
    print(table(rows))
    print(f"\n{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}.")
    return int(failed)


def rows_of(name: str, peers: Path) -> list[tuple[str, str, str]] | None:
    """Rows of one benchmark, from a process of its own; ``None`` when it failed."""
    python = str(peers.absolute()) if name in WITH_PEERS else sys.executable
    if not Path(python).exists():
        return [(name, f"skipped: there is no {peers}; `make bench` makes it", "")]
    command = [python, "-m", "benchmarks.run", "--rows", name]
    done = subprocess.run(command, cwd=HERE.parent, stdout=subprocess.PIPE, text=True, timeout=LIMIT, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith(MARK)]
    if done.returncode or not lines:
        return None
    return [tuple(row) for row in json.loads(lines[-1].removeprefix(MARK))]


def table(rows: list[tuple[str, str, str]]) -> str:
    """Rows as a Markdown table, columns aligned."""
    cells = [("what", "measured", "target"), *rows]
    widths = [max(len(row[column]) for row in cells) for column in range(3)]
    lines = [
        "| " + " | ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) + " |" for row in cells
    ]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
