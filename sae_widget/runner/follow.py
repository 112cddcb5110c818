"""A training of another process, followed in its folder: its losses, its newest SAE, and its end."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_widget.autosave import load_run
from sae_widget.checkpoint import SaeFileError
from sae_widget.runner.job import TrainingLoop
from sae_widget.runner.loop import ended
from sae_widget.runs import Watch
from sae_widget.training import History

if TYPE_CHECKING:
    from collections.abc import Generator

    from sae_widget.runs import News, RunInfo
    from sae_widget.state import ExplorerState

POLL = 0.25
"""Seconds between two looks at the folder."""


class FollowingLoop(TrainingLoop):
    """The part of the runner that follows."""

    def __init__(self, state: ExplorerState, *, polled: bool = False) -> None:
        self._path = Path()
        self._followed: Path | None = None
        super().__init__(state, polled=polled)

    def follow(self, path: Path) -> None:
        """Ask for a run to be followed, from its folder."""
        self._path = path
        self.command("follow")

    @property
    def trains(self) -> bool:
        """Whether a training of this process is on, also one that pauses."""
        return self._job is not None and self._followed is None

    @property
    def follows(self) -> bool:
        """Whether a run of another process is followed."""
        return self._followed is not None

    def _do_follow(self) -> None:
        self._stop_following()
        if self._training_is_on("SAE that is shown"):
            return
        self._fault("", "controls", "chart")
        self._followed = self._path
        self._job = self._following(self._path)

    def _following(self, path: Path) -> Generator[None, None, None]:
        """Look at the folder until the run has ended, and show what it has."""
        watch, step = Watch(path), 0
        try:
            while True:
                news = watch.look()
                self._take_records(news)
                if news.info.sae_step != step:
                    step = self._open_sae(path, f", step {news.info.sae_step:,}") or news.info.sae_step
                if news.dead or news.info.state != "running":
                    break
                self._say_how_far(path, news.info)
                yield
                with self._cond:
                    if not self._poked:
                        self._cond.wait(POLL)
            self._say_the_end(path, news, step)
        except (SaeFileError, ValueError) as fault:
            self._say("failed", f"{path.name} is no longer followed: {ended(fault)}", trouble=True)
        finally:
            self._followed = None

    def _take_records(self, news: News) -> None:
        if news.fresh or self._history is None or self.state.history is not self._history:
            if news.fresh or self._history is None:
                self._history = History(config=news.info.config)
            self._show_history(self._history, str(self._followed))
        self._history.extend(news.rows)
        self.publisher.post(history_tick=len(self._history))

    def _open_sae(self, path: Path, of: str = "") -> int:
        """Show the SAE that lies in the folder; returns its step, 0 when it does not say one."""
        sae, stats = load_run(path)
        self.desk.open(sae, stats, f"the SAE of {path.name}, {self.desk.site_words}{of}", str(path))
        self._show_features()
        noted: Any = sae.metadata.get("training")  # a file from anywhere may have something else there
        steps = noted.get("steps") if isinstance(noted, dict) else None
        return steps if type(steps) is int and steps > 0 else 0

    def _say_how_far(self, path: Path, info: RunInfo) -> None:
        last = None if self._history is None else self._history.last
        if last is None:
            self._say("training", f"Following {path.name}: it begins", step=0, total=info.total)
            return
        rate = last.tokens_per_second
        left = (info.total - last.step) * (last.tokens / last.step) / rate if rate > 0 else 0.0
        self._say(
            "training",
            f"Following {path.name}, which trains in another process",
            step=last.step,
            total=info.total,
            tokens_per_second=rate,
            seconds_left=left,
        )

    def _say_the_end(self, path: Path, news: News, step: int) -> None:
        info = news.info
        last = info.step if self._history is None or self._history.last is None else self._history.last.step
        if step:
            self._open_sae(path, "" if info.state == "finished" else f", step {step:,}")
        if info.state == "finished":
            shown = self.desk.shown
            words = "" if shown is None else f" Showing {shown.source}: {shown.sae.d_sae:,} features."
            said = f"The run in {path.name} has finished its {info.total:,} steps.{words}"
        elif news.dead:
            kept = f"Its SAE of step {step:,} is shown" if step else "It had saved no SAE yet"
            said = (
                f"The process that trained in {path.name} is gone since step {last:,}, without a word. {kept}; "
                f"sae-widget train --out {path} --resume goes on from its last checkpoint."
            )
        else:
            said = f"The run in {path.name} has ended: {ended(info.sentence or info.state)}"
        self._say("ready", said, step=last, trouble=news.dead or info.state == "failed")

    def _stop_following(self) -> bool:
        """End the following, when something is followed; the run itself trains on."""
        if self._followed is None:
            return False
        name = self._followed.name
        self._end_job()
        self._say("ready", f"{name} is no longer followed; it trains on by itself. What was shown last is kept.")
        return True

    def _other_text_alone(self) -> bool:
        """Whether a run is followed and only the text is another: that can be read meanwhile."""
        desk, state = self.desk, self.state
        here = (desk.layer, desk.hook_name, desk.prepend_bos)
        return self.follows and here == (state.layer, state.hook_name, state.prepend_bos)

    def _end_job(self) -> None:
        super()._end_job()
        self._followed = None

    def _fail(self, fault: Exception) -> None:
        self._followed = None
        super()._fail(fault)
