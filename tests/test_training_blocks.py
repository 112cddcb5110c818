"""A corpus in blocks: of odd and of no size, blocks that differ, and what is wrong with one."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.training.blocks import BUFFER_BYTES, BlockFeed, buffer_rows, is_source

D_IN = 3
CONFIG = TrainConfig(d_sae=5, k=2, batch_size=4, max_norm_multiple=0.0, skip_first=False)


class Blocks:
    """Blocks of these sizes; each row is ``[block, row, 1]``, and each block is one window."""

    d_in = D_IN

    def __init__(self, *sizes: int, block_tokens: int = 0, buffer_tokens: int | None = None) -> None:
        self.sizes, self.n_blocks, self.n_tokens = sizes, len(sizes), sum(sizes)
        self.block_tokens, self.buffer_tokens = block_tokens or max(sizes, default=1), buffer_tokens

    def load(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        n = self.sizes[index]
        values = torch.ones(n, D_IN)
        values[:, 0], values[:, 1] = index, torch.arange(n)
        return values, torch.arange(n)

    def whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [self.load(index) for index in range(self.n_blocks)]
        return torch.cat([values for values, _ in parts]), torch.cat([place for _, place in parts])


def epoch_of(feed: BlockFeed) -> list[tuple[int, int]]:
    """Block and row of each row that is given in the epoch that begins now."""
    number, rows = feed.epoch, []
    while True:
        batch = feed.next().clone()
        if feed.epoch != number:
            feed.undo()
            return rows
        rows += [(int(block), int(row)) for block, row, _ in batch]


@pytest.mark.parametrize("buffer", [1, 9, 14, 20, 1000])
@pytest.mark.parametrize("sizes", [(9,), (9, 9, 9), (5, 9, 1, 7, 8), (0, 9, 9)])
def test_an_epoch_has_each_row_once_at_most(sizes: tuple[int, ...], buffer: int) -> None:
    feed = BlockFeed(Blocks(*sizes, buffer_tokens=buffer), CONFIG.changed(batch_size=1))
    every = {(block, row) for block, n in enumerate(sizes) for row in range(n)}
    orders = []
    for _ in range(3):
        rows = epoch_of(feed)
        assert Counter(rows) == Counter(dict.fromkeys(every, 1))  # one row a batch: nothing is left over
        orders.append(tuple(rows))
    assert len(set(orders)) == 3


def test_what_fills_no_batch_is_passed_over() -> None:
    feed = BlockFeed(Blocks(9, 9, 9, buffer_tokens=9), CONFIG)
    rows = epoch_of(feed)
    assert len(rows) == 24 and max(Counter(rows).values()) == 1
    assert set(Counter(block for block, _ in rows).values()) == {8}


def test_some_batches_at_once_are_those_one_by_one() -> None:
    one, some = (BlockFeed(Blocks(9, 9, 9, 9, buffer_tokens=18), CONFIG) for _ in range(2))
    assert some.left() == 4
    together = some.next(3).clone()
    assert torch.equal(together, torch.cat([one.next().clone() for _ in range(3)])) and some.left() == one.left() == 1
    some.undo(2)
    assert torch.equal(some.next(2), together[4:])


def test_rows_beyond_what_a_block_may_have_are_passed_over() -> None:
    feed = BlockFeed(Blocks(6, 50, block_tokens=6, buffer_tokens=12), CONFIG.changed(batch_size=1))
    assert set(Counter(block for block, _ in epoch_of(feed)).items()) <= {(0, 6), (1, 6), (1, 12)}
    assert int(feed.counts[:, 0].sum()) in (12, 18)


@pytest.mark.parametrize(("sizes", "left"), [((), 0), ((0, 0), 0), ((1,), 1)])
def test_nothing_to_train_on_is_said(sizes: tuple[int, ...], left: int) -> None:
    with pytest.raises(ValueError, match=f"not enough activations: {left} of the first {left} tokens are left"):
        BlockFeed(Blocks(*sizes, block_tokens=4), CONFIG)


def test_a_block_of_another_width_is_named() -> None:
    class Wide(Blocks):
        def load(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            values, position = super().load(index)
            return (values if index != 1 else values[:, :2]), position

    with pytest.raises(ValueError, match=r"block 1 must be \[n, 3\], got shape \[9, 2\]"):
        BlockFeed(Wide(9, 9, 9), CONFIG)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_number_that_is_not_finite_is_refused_with_its_token(bad: float) -> None:
    class Bad(Blocks):
        def load(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            values, position = super().load(index)
            values[4, 2] = bad if index == 2 else 1.0
            return values, position

    with pytest.raises(ValueError, match="the first NaN or infinite value is in token 4"):
        BlockFeed(Bad(9, 9, 9), CONFIG)


def test_large_numbers_whose_sum_is_infinite_are_taken() -> None:
    class Large(Blocks):
        def load(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
            values, position = super().load(index)
            return values * 3e37, position

    assert bool(torch.isfinite(BlockFeed(Large(9, 9, 9), CONFIG).next()).all())


@pytest.mark.parametrize(
    ("size", "words"),
    [(10, "batch_size 10 does not fit: 9 tokens"), (0, r"batch_size 0 \(all tokens\) does not fit: 9 tokens")],
)
def test_a_batch_that_is_not_held_is_refused_and_the_size_stays(size: int, words: str) -> None:
    feed = BlockFeed(Blocks(9, 9, buffer_tokens=9), CONFIG)
    with pytest.raises(ValueError, match=f"{words}.*choose a batch size of at most 9, or a larger buffer_tokens"):
        feed.resize(size)
    assert feed.batch_size == 4 and len(feed.next()) == 4
    feed.resize(9)
    assert sorted(int(row) for row in feed.next()[:, 1]) == list(range(9))


def test_it_goes_on_from_a_state_and_refuses_one_of_another_buffer() -> None:
    source = Blocks(9, 7, 8, 9, buffer_tokens=18)
    feed, later = BlockFeed(source, CONFIG), BlockFeed(source, CONFIG)
    for _ in range(17):
        feed.next()
    state = feed.state()
    later.load_state(state)
    assert all(torch.equal(feed.next().clone(), later.next()) for _ in range(20))
    assert (feed.epoch, feed.place, feed.cursor) == (later.epoch, later.place, later.cursor) and feed.epoch > 1
    other = BlockFeed(Blocks(9, 7, 8, 9, buffer_tokens=27), CONFIG)
    with pytest.raises(ValueError, match="held 18 tokens at a time, this one holds 27: open the corpus with buffer_"):
        other.load_state(state)
    assert (other.epoch, other.place, other.cursor) == (0, 0, 0)


@pytest.mark.parametrize(
    ("given", "wanted"), [(Blocks(3), True), (torch.ones(4, 3), False), (None, False), ([1.0], False)]
)
def test_what_a_source_is(given: Any, wanted: bool) -> None:
    assert is_source(given) is wanted


def test_how_many_rows_are_held() -> None:
    assert buffer_rows(Blocks(3, buffer_tokens=77)) == 77
    assert buffer_rows(Blocks(3)) == BUFFER_BYTES // 12
    wide = Blocks(3)
    wide.d_in = 10**9
    assert buffer_rows(wide) == 1


def test_the_held_out_windows_are_in_no_batch() -> None:
    config = CONFIG.changed(validation_share=0.4, batch_size=1)
    feed = BlockFeed(Blocks(*[3] * 40, buffer_tokens=60), config)
    trained = {block for block, _ in epoch_of(feed)}
    held = {int(block) for block in feed.validation(1000)[:, 0]}
    assert held and trained and not held & trained and len(feed.validation(5)) == 5
    assert set(feed.validation(1000)[:, 1].tolist()) == {1.0, 2.0}  # never position 0
