"""The runner: inputs of the state become its results, in one worker thread."""

from sae_widget.runner.work import Runner

__all__ = ["Runner"]
