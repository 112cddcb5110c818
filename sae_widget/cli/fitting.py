"""The training of ``sae-widget train``: its records, checkpoints and ends."""

from __future__ import annotations

import math
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from sae_widget.cli.base import INTERRUPTED, Refused, StopFlag

if TYPE_CHECKING:
    from pathlib import Path

    from sae_widget.cli.reading import Data
    from sae_widget.runs import RunInfo, RunWriter, SavedExplorer
    from sae_widget.training import TrainStep
    from sae_widget.training.mesh import Alone

SAMPLE = 4_096
"""Tokens on which statistics are taken for those who look on."""
PATIENCE = 20.0
"""Seconds in which a fellow process waits for the first one to save the run."""


class Fit:
    """One training, from its first step or from a checkpoint, in a folder that others can look at.

    Of several processes the first one writes; when that is dead, another one does.

    Args:
        data: the activations, the same in every process.
        info: what is trained.
        shown: what an explorer opens with.
        out: the folder.
        flag: says when to stop.
        mesh: the processes.
        seconds: between two checkpoints.
    """

    def __init__(
        self,
        data: Data,
        info: RunInfo,
        shown: SavedExplorer,
        out: Path,
        flag: StopFlag,
        mesh: Alone,
        seconds: float,
    ) -> None:
        from sae_widget.training import History, Trainer

        self.data, self.info, self.shown, self.out, self.flag, self.mesh = data, info, shown, out, flag, mesh
        self.seconds, self.config, self.known_by = seconds, info.config, data.known_by()
        site: dict[str, Any] = {"model_name": shown.model, "layer": shown.layer, "hook_name": shown.hook_name}
        site |= {"prepend_bos": shown.prepend_bos, "training_tokens": data.n_tokens}
        site |= {"skip_first": self.config.skip_first}
        values, position = data.for_trainer
        self.trainer = Trainer(values, position, self.config, metadata=site, mesh=mesh)
        self.history = History()
        self.first = 0  # the step from which it goes on
        self.writer: RunWriter | None = None

    def go_on(self) -> None:
        """Take over the checkpoint that lies in the folder.

        Raises:
            SaeFileError: it is damaged.
            Refused: it is of other texts.
            ValueError: it is of another SAE.
        """
        from sae_widget.checkpoint import load_training_state
        from sae_widget.runs import CHECKPOINT, RECORDS, RecordReader
        from sae_widget.training.history import NAMES

        state, info = load_training_state(self.out / CHECKPOINT)
        known = info.get("data", {})
        if known.get("texts") != self.known_by["texts"]:
            raise Refused(f"The texts are not those that the run in {self.out} read. Nothing was changed.")
        if known.get("values") != self.known_by["values"] and self.mesh.rank == 0:
            print(
                "The activations differ in their last digits from those of before (another machine or version): "
                "the run goes on closely, not bit for bit.",
                file=sys.stderr,
            )
        self.trainer.load_state_dict(state)
        self.first = self.trainer.step
        rows, _ = RecordReader(self.out / RECORDS).read()
        self.history.extend(rows[rows[:, NAMES.index("step")] <= self.first])

    def run(self) -> None:
        """Train to the end, a fault or the flag, and save what was trained."""
        from sae_widget.training.mesh import MeshFault

        try:
            fault = self._fit()
        except MeshFault as gone:
            self._rescue(gone)
        except BaseException as error:
            if self.writer is not None:
                said = str(error) or type(error).__name__
                self.writer.end("failed", f"The training ended at step {self.trainer.step:,}: {said}"[:2_000])
            raise
        self._end(fault)

    def _fit(self) -> str:
        """Train; returns a fault's sentence, or nothing."""
        from tqdm import tqdm

        from sae_widget.training import TrainingFault

        total, first, hidden = self.config.steps, self.first, self.mesh.rank > 0
        with tqdm(desc="Training", total=total, initial=first, unit=" steps", leave=False, disable=hidden) as bar:
            try:
                for record in self.trainer.run():
                    self.history.append(record)
                    if not hidden:
                        self._note(record)
                        bar.set_postfix(loss=f"{record.loss:.4g}", l0=f"{record.l0:.1f}", refresh=False)
                        bar.update()
                    if self.mesh.any(self.flag.stopped):
                        break
            except TrainingFault as fault:
                return str(fault)
        return ""

    def _note(self, record: TrainStep) -> None:
        """Write the record, and whatever else it is time for."""
        writer = self._begun()
        before = writer.trouble
        writer.note(record)
        if record.step < self.config.steps:
            if writer.state_is_due:
                self._save_state(writer)
            if writer.sae_is_due:
                self._save_sae(writer)
        if writer.trouble and not before:
            print(f"\n{writer.trouble} The training goes on.", file=sys.stderr)

    def _begun(self) -> RunWriter:
        """The folder's writer, from the first thing on that is written."""
        from sae_widget.runs import RunWriter, write_explorer

        if self.writer is None:
            info = self.info.model_copy(update={"step": self.trainer.step})
            self.writer = RunWriter(self.out, info, self.history, seconds=self.seconds)
            write_explorer(self.out, self.shown)
        return self.writer

    def _save_state(self, writer: RunWriter) -> bool:
        info = {"step": self.trainer.step, "settings": asdict(self.config), "data": self.known_by}
        return writer.save_state(self.trainer.state_dict(), info)

    def _save_sae(self, writer: RunWriter) -> None:
        from sae_widget.features import feature_stats

        sae = self.trainer.sae()
        stats = feature_stats(sae, *self.data.sample(SAMPLE), skip_first=self.config.skip_first)
        writer.save_sae(sae, self.trainer.step, stats.tensors())

    def _rescue(self, gone: Exception) -> None:
        """Save the run in which another process died; the first process does, or one that takes its place."""
        from sae_widget.runs.writer import take_over

        step = self.trainer.step
        if step == self.first:
            raise Refused(f"{gone} No step had been done; nothing was written.", told=True)
        writer = self.writer
        if writer is None and self.mesh.rank:
            writer = take_over(self.out, self.history, step, PATIENCE)
        if writer is None:
            raise Refused(str(gone), told=False)
        saved = self._save_state(writer)
        writer.save_sae(self.trainer.sae(), step)
        what = "a checkpoint were saved: go on with --resume." if saved else f"no checkpoint: {writer.trouble}"
        sentence = f"{gone} They stood at step {step:,} of {self.config.steps:,}; that SAE and {what}"
        writer.end("failed", sentence)
        raise Refused(sentence, told=True)

    def _end(self, fault: str) -> None:
        from sae_widget.checkpoint.base import printable

        step, steps = self.trainer.step, self.config.steps
        status = 1 if fault else INTERRUPTED
        if step == self.first < steps:
            raise Refused(fault or "Stopped before the first step; nothing was written.", status)
        writer = None if self.mesh.rank else self._begun()  # where nothing was left to do, it is not there yet
        state = "failed" if fault else "stopped" if step < steps else "finished"
        sentence = f"Stopped at step {step:,} of {steps:,}; that SAE was saved."
        sentence = f"{fault} The SAE of step {step:,} was saved." if fault else sentence
        if writer is not None:
            sentence += " Go on with --resume." if state != "finished" and self._save_state(writer) else ""
            words = self._save(writer)
            writer.end(state, words if state == "finished" else sentence, step)
            print(printable(words))  # a folder's name may be no UTF-8
            if self.trainer.left_out:
                print(self.trainer.left_out, file=sys.stderr)
        if state != "finished":
            raise Refused(sentence, status)

    def _save(self, writer: RunWriter) -> str:
        """Write the SAE, its statistics and its history; returns a summary."""
        from sae_widget.checkpoint import SaeFileError, save_sae
        from sae_widget.features import feature_stats
        from sae_widget.runs import HISTORY, write_json

        sae, data, config = self.trainer.sae(), self.data, self.config
        stats = feature_stats(sae, *data.sample(data.most_measured), skip_first=config.skip_first)
        records = [{k: _number(v) for k, v in asdict(step).items()} for step in self.history.to_list()]
        try:
            save_sae(sae, self.out, stats.tensors())
            write_json(self.out / HISTORY, {"settings": asdict(config), "steps": records})
        except SaeFileError as fault:
            writer.end("failed", str(fault))
            raise
        held_out = self.trainer.validation()
        more = "" if held_out is None else f", {held_out.explained_variance:.3f} on held-out tokens"
        return (
            f"Saved {self.out}: {sae.d_sae:,} features on {data.n_tokens:,} tokens, "
            f"explained variance {stats.explained_variance:.3f} ({stats.explained_variance_with_first:.3f} with "
            f"position 0{more}), L0 {stats.l0:.1f}, dead {int(stats.dead.sum()):,}"
        )


def _number(value: float) -> float | None:
    """JSON has no ``nan``."""
    return value if math.isfinite(value) else None
