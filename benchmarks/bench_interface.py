"""Training with the explorer on a page against the same training without any interface, in one kernel."""

from __future__ import annotations

from statistics import median

from tests.browser.lab import Lab

TARGET = 0.95
ROUNDS = 3
SETUP = """
import time
from sae_widget import SuperpositionExplorer, Trainer, TrainConfig
explorer = SuperpositionExplorer(model="bundled", d_sae=2048, k=32, steps=400, batch_size=1024, corpus_tokens=20_000)
explorer
"""
# The first training reads the corpus; afterwards both sides train on the same tokens.
WARM = """
explorer.set(steps=20); explorer.train(blocking=True); explorer.set(steps=100)
import threading
from sae_widget.runner.threads import leave_one_core
def headless():
    leave_one_core()  # the explorer's worker does so: both sides have the same threads
    corpus = explorer._runner.desk.corpus
    trainer = Trainer(corpus.values, corpus.position, explorer.settings)
    began, steps = time.perf_counter(), 0
    for _ in trainer.run():
        steps += 1
    seconds.append(time.perf_counter() - began)
"""
HEADLESS = """
seconds = []
thread = threading.Thread(target=headless); thread.start(); thread.join()
print(seconds[0])
"""
ATTACHED = """
explorer.train()
while explorer._runner.desk.trainer is None or explorer.state.status.phase != "training": time.sleep(0.001)
trainer = explorer._runner.desk.trainer
while trainer.step < 1: time.sleep(0.001)
first, began = trainer.step, time.perf_counter()
while trainer.step < trainer.config.steps: time.sleep(0.002)
took = (time.perf_counter() - began) * trainer.config.steps / (trainer.config.steps - first)
explorer.wait()
print(took)
"""


def run() -> list[tuple[str, str, str]]:
    """Rows of the table: what, measured, target."""
    lab = Lab()
    try:
        notebook = lab.open([SETUP])
        notebook.run_cell(0)
        notebook.scroll_into_view(notebook.pane("chart", 0))
        notebook.run_code(WARM)
        ratios = []
        for _ in range(ROUNDS):
            alone = float(notebook.run_code(HEADLESS))
            ratios.append(alone / float(notebook.run_code(ATTACHED)))
        what = "training, 2,048 features, with the explorer on the page / headless, same kernel"
        return [(what, f"{median(ratios):.2f} of the throughput", f"{TARGET:g}")]
    finally:
        lab.close()


if __name__ == "__main__":
    for row in run():
        print(" | ".join(row))
