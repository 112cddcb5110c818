"""The curves of a run, in bounded memory however long it is."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sae_widget.training.base import TrainStep

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sae_widget.config import TrainConfig

NAMES = tuple(f.name for f in fields(TrainStep))
CAPACITY = 65_536  # records; more are thinned to the ends and the extremes of each stretch


class History:
    """Records of a run, oldest first.

    Up to ``capacity`` records are kept whole. When they are full, each stretch of records gives way to
    those in which a loss was lowest or highest, so that spikes and gaps stay; first and last always stay.

    Args:
        capacity: records that are kept.
        config: the settings of the run, if they are known; whoever changes them while it trains, changes them here.
    """

    def __init__(self, capacity: int = CAPACITY, *, config: TrainConfig | None = None) -> None:
        if capacity < 64:
            raise ValueError(f"capacity must be at least 64, got {capacity}")
        self._rows = np.empty((capacity, len(NAMES)))  # [capacity, n_fields]
        self.config = config
        self._kept = 0
        self._count = 0
        self.thinned = 0  # how often old records gave way

    def append(self, record: TrainStep) -> None:
        """Add the newest record."""
        self._add([getattr(record, name) for name in NAMES])

    def extend(self, rows: np.ndarray) -> None:
        """Add records of another history's ``rows``, ``[n, n_fields]``, oldest first."""
        for row in rows:
            self._add(row)

    @property
    def rows(self) -> np.ndarray:
        """The kept records, oldest first, fields in the order of ``NAMES``; only to look at. ``[n, n_fields]``."""
        rows = self._rows[: self._kept]
        rows.flags.writeable = False
        return rows

    def _add(self, row: np.ndarray | list[float]) -> None:
        if self._kept == len(self._rows):
            keep = _extremes(self._rows[:, NAMES.index("loss")], len(self._rows) // 2)
            self._rows[: len(keep)] = self._rows[keep]
            self._kept = len(keep)
            self.thinned += 1
        self._rows[self._kept] = row
        self._kept += 1
        self._count += 1

    def __len__(self) -> int:
        """How many records were appended."""
        return self._count

    def __iter__(self) -> Iterator[TrainStep]:
        """The kept records, oldest first."""
        return iter(self.to_list())

    @property
    def last(self) -> TrainStep | None:
        """The newest record with a finite loss, or the newest of all; None before the first."""
        good = np.isfinite(self._rows[: self._kept, NAMES.index("loss")]).nonzero()[0]
        return _record(self._rows[good[-1] if len(good) else self._kept - 1]) if self._kept else None

    def gap(self, step: int) -> None:
        """Note a step that was rolled back: a curve has a gap there, and its other numbers stay as they were."""
        if (last := self.last) is not None:
            self.append(replace(last, step=step, loss=math.nan, reconstruction=math.nan, sparsity=math.nan))

    def to_list(self) -> list[TrainStep]:
        """The kept records, oldest first."""
        return [_record(row) for row in self._rows[: self._kept]]

    def series(self, names: list[str] | tuple[str, ...], max_points: int = 1000) -> dict[str, np.ndarray]:
        """Columns for drawing, thinned so that every spike stays.

        Args:
            names: fields of ``TrainStep``.
            max_points: most points of each column, at least 4; the lowest and the highest value of each
                stretch are among them, for every name but ``step``, and first and last step always.

        Returns:
            ``{name: [n_points] float64}``, all of one length; values that are not finite are ``nan``.

        Raises:
            ValueError: an unknown name or too few points.
        """
        unknown = [name for name in names if name not in NAMES]
        if unknown:
            raise ValueError(f"unknown series {unknown[0]!r}; known: {', '.join(NAMES)}")
        if max_points < 4:
            raise ValueError(f"max_points must be at least 4, got {max_points}")
        rows = self._rows[: self._kept]
        if len(rows) > max_points:
            drawn = [name for name in names if name != "step"] or ["step"]
            budget = max(4, max_points // len(drawn))
            kept = [_extremes(rows[:, NAMES.index(name)], budget) for name in drawn]
            rows = rows[np.unique(np.concatenate(kept))]
        columns = {name: rows[:, NAMES.index(name)].copy() for name in names}
        for column in columns.values():
            column[~np.isfinite(column)] = np.nan
        return columns


def _extremes(column: np.ndarray, budget: int) -> np.ndarray:
    """Rows of the lowest and the highest value of each of ``(budget - 2) / 2`` stretches, and both ends.

    A stretch with a value that is not finite keeps one such row, in place of its lowest, so that a gap is seen.
    """
    n = len(column)
    stretches = max(1, (budget - 2) // 2)
    edges = np.linspace(0, n, stretches + 1).astype(np.int64)
    keep = {0, n - 1}
    for begin, end in pairwise(edges):
        part = column[begin:end]
        if len(part) == 0:
            continue
        finite = np.isfinite(part)
        keep.add(int(begin + np.argmax(np.where(finite, part, -np.inf))))
        low = np.argmin(np.where(finite, part, np.inf)) if finite.all() else np.argmin(finite)
        keep.add(int(begin + low))
    return np.array(sorted(keep))


def _record(row: np.ndarray) -> TrainStep:
    # One and the same nan, so that records with it are equal to themselves.
    values = {name: math.nan if math.isnan(value) else float(value) for name, value in zip(NAMES, row, strict=True)}
    whole = {name: int(values[name]) for name in ("step", "dead", "tokens")}
    return TrainStep(**(values | whole))  # type: ignore[arg-type]
