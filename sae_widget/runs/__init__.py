"""Folders of runs: what an explorer showed beside an SAE, and what a training writes while another process looks."""

from sae_widget.runs.info import RUN, RunInfo, read_run
from sae_widget.runs.records import RECORDS, RecordReader, RecordWriter
from sae_widget.runs.saved import (
    EXPLORER,
    FORM,
    HISTORY,
    MAX_BYTES,
    SavedExplorer,
    describe,
    describe_shown,
    read_explorer,
    write_explorer,
    write_json,
)
from sae_widget.runs.watch import News, Watch
from sae_widget.runs.writer import CHECKPOINT, RunWriter, has_checkpoint

__all__ = [
    "CHECKPOINT",
    "EXPLORER",
    "FORM",
    "HISTORY",
    "MAX_BYTES",
    "RECORDS",
    "RUN",
    "News",
    "RecordReader",
    "RecordWriter",
    "RunInfo",
    "RunWriter",
    "SavedExplorer",
    "Watch",
    "describe",
    "describe_shown",
    "has_checkpoint",
    "read_explorer",
    "read_run",
    "write_explorer",
    "write_json",
]
