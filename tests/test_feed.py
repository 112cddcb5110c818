"""What the trainer is fed with: filters that say what they left out, validation, and corpora in blocks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch

from sae_widget.config import TrainConfig
from sae_widget.training import Trainer, TrainingFault, explained_variance, filters, train
from sae_widget.training.blocks import BlockFeed
from sae_widget.training.feed import MemoryFeed, make_feed
from tests.training_runs import finish, generator, untimed

D_IN, WINDOW, BLOCK = 12, 10, 50
CONFIG = TrainConfig(d_sae=20, k=3, steps=60, batch_size=16, max_norm_multiple=0.0)


class Blocks:
    """A corpus in blocks; row r of block b is ``[b, r, noise...]`` so that every row is known again."""

    def __init__(self, n_blocks: int = 12, buffer_tokens: int | None = 4 * BLOCK) -> None:
        self.n_blocks, self.block_tokens, self.buffer_tokens, self.d_in = n_blocks, BLOCK, buffer_tokens, D_IN
        self.n_tokens, self.loaded = n_blocks * BLOCK, list[int]()

    def load(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        self.loaded.append(index)
        values = torch.randn(BLOCK, D_IN, generator=generator(index))
        values[:, 0], values[:, 1] = index, torch.arange(BLOCK)
        return values.half(), torch.arange(BLOCK) % WINDOW

    def whole(self) -> tuple[torch.Tensor, torch.Tensor]:
        parts = [self.load(index) for index in range(self.n_blocks)]
        return torch.cat([values for values, _ in parts]).float(), torch.cat([place for _, place in parts])


def names(x: torch.Tensor) -> list[tuple[int, int]]:
    """Block and row of each row."""
    return [(int(row[0]), int(row[1])) for row in x]


class TestFilters:
    def test_counts_in_words(self) -> None:
        assert str(filters.LeftOut(10.0, 30_000, first=10, outliers=2)) == (
            "12 of 30,000 tokens left out: 10 first positions, 2 with more than 10 times the median norm."
        )
        assert str(filters.LeftOut(2.5, 40, first=1, outliers=1, held_out=8)) == (
            "10 of 40 tokens left out: 1 first position, 1 with more than 2.5 times the median norm, "
            "8 held out for validation."
        )
        assert str(filters.LeftOut(10.0, 30)) == ""
        told = str(filters.LeftOut(10.0, 5000, first=9, so_far=True))
        assert told == "9 of the 5,000 tokens read so far left out: 9 first positions."

    def test_outliers_behind_position_0_are_left_out(self) -> None:
        values = torch.ones(40, 3)
        values[[5, 17]] *= 10.5
        values[[6, 10]] *= 9.5
        values[20] *= 1000.0  # position 0 is not compared
        position = torch.arange(40) % 20
        trainer = Trainer(values, position, TrainConfig(d_sae=4, k=1, batch_size=8))
        assert trainer.left_out == (
            "4 of 40 tokens left out: 2 first positions, 2 with more than 10 times the median norm."
        )
        feed = MemoryFeed(values, position, TrainConfig(d_sae=4, k=1, skip_first=False))
        assert feed.rows.tolist() == [row for row in range(40) if row not in (5, 17)]
        assert MemoryFeed(values, position, replace(CONFIG, skip_first=False)).n_kept == 40

    def test_a_median_of_zero_leaves_nothing_out(self) -> None:
        values = torch.zeros(30, 3)
        values[:10] = 1.0
        assert MemoryFeed(values, torch.ones(30, dtype=torch.long), TrainConfig()).n_kept == 30

    def test_nothing_left_says_why(self) -> None:
        values = torch.ones(4, 3)
        values[3] *= 100.0
        with pytest.raises(
            ValueError, match=r"^not enough activations: 1, need .* 3 of 4 tokens left out: 2 first pos"
        ):
            Trainer(values, torch.tensor([0, 1, 0, 1]), TrainConfig(max_norm_multiple=1.0))

    def test_windows_begin_at_position_0(self) -> None:
        assert filters.window_numbers(torch.tensor([3, 4, 0, 1, 0, 0, 1])).tolist() == [0, 0, 1, 1, 2, 3, 3]
        assert filters.window_numbers(torch.tensor([1, 1, 1])).tolist() == [0, 1, 2]

    def test_whole_windows_are_held_out_by_the_seed(self) -> None:
        position = torch.arange(200) % 10
        held = filters.held_out(position, 0.15, seed=3).view(20, 10)
        assert int(held.all(1).sum()) == int(held.any(1).sum()) == 3
        assert torch.equal(held.view(-1), filters.held_out(position, 0.15, seed=3))
        assert not torch.equal(held.view(-1), filters.held_out(position, 0.15, seed=4))
        with pytest.raises(ValueError, match=r"validation_share 0\.1 needs at least 2 texts or windows, there is 1"):
            filters.held_out(torch.arange(200), 0.1, seed=3)


class TestValidation:
    def test_held_out_windows_are_not_trained_on_and_measured(self) -> None:
        values, position = Blocks().whole()
        config = replace(CONFIG, validation_share=0.25, steps=40)
        feed = MemoryFeed(values, position, config)
        seen = {name for _ in range(100) for name in names(feed.next())}
        held = names(feed.validation(10_000))
        assert len(held) == 15 * (WINDOW - 1) and not seen & set(held)
        assert len(seen) == 45 * (WINDOW - 1)
        trainer = Trainer(values, position, config)
        assert trainer.left_out == "195 of 600 tokens left out: 60 first positions, 135 held out for validation."
        records, x = finish(trainer), feed.validation(10_000)
        sae, found = trainer.sae(), trainer.validation()
        wanted = explained_variance(x, sae(x))
        assert found is not None and found.n_tokens == 135
        assert found.explained_variance == pytest.approx(wanted, abs=1e-4)
        assert found.l0 == pytest.approx(float((sae.encode(x) > 0).sum()) / 135)
        assert records[-1].validation_explained_variance == pytest.approx(wanted, abs=1e-4)
        assert math.isfinite(records[0].validation_explained_variance)

    def test_without_a_share_there_is_none(self) -> None:
        trainer = Trainer(*Blocks().whole(), CONFIG)
        assert trainer.validation() is None
        assert math.isnan(next(trainer.run()).validation_explained_variance)

    def test_it_goes_on_bit_for_bit(self) -> None:
        values, position = Blocks().whole()
        config = replace(CONFIG, validation_share=0.2)
        check_resume(lambda: Trainer(values, position, config))


def check_resume(make: Any, split: int = 37) -> None:
    """A run that is stopped and gone on with in another trainer is the run that was not stopped."""
    expected = finish(whole := make())
    first = make()
    records = [record for _, record in zip(range(split), first.run(), strict=False)]
    state, second = first.state_dict(), make()
    second.load_state_dict(state)
    records += finish(second)
    assert untimed(records) == untimed(expected)
    a, b = whole.state_dict(), second.state_dict()
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


class TestBlocks:
    def test_each_row_of_an_epoch_comes_once_and_only_some_blocks_are_held(self) -> None:
        source = Blocks()
        feed = BlockFeed(source, replace(CONFIG, batch_size=15))  # 180 rows are kept of a buffer of 200
        assert (feed.n_places, feed.n_kept, feed.full) == (3, 540, False)
        assert str(feed.left_out()) == "20 of the 200 tokens read so far left out: 20 first positions."
        epochs = []
        for _ in range(3):
            batches = [(feed.next().clone(), feed.places()) for _ in range(36)]  # the rows are one buffer
            rows = [name for x, _ in batches for name in names(x)]
            assert len(set(rows)) == 540
            for number in range(3):  # twelve batches are of four blocks
                assert len({block for block, _ in rows[180 * number : 180 * number + 180]}) == 4
            assert all(x.dtype == torch.float32 and bool((x[:, 1] % WINDOW == p).all()) for x, p in batches)
            epochs.append(rows)
        assert epochs[0] != epochs[1] != epochs[2]
        assert sorted(source.loaded) == sorted([*range(12)] * 3)  # each block once an epoch
        assert str(feed.left_out()) == "60 of 600 tokens left out: 60 first positions."

    def test_a_corpus_that_fits_is_loaded_whole(self) -> None:
        source = Blocks(buffer_tokens=None)
        assert isinstance(make_feed(source, None, CONFIG), MemoryFeed)
        values, position = source.whole()
        assert untimed(list(train(source, config=CONFIG))) == untimed(list(train(values, position, CONFIG)))

    def test_it_goes_on_bit_for_bit(self) -> None:
        check_resume(lambda: Trainer(Blocks(), config=replace(CONFIG, validation_share=0.2, max_norm_multiple=3.0)))

    def test_state_of_another_buffer_is_refused(self) -> None:
        trainer, other = (Trainer(Blocks(buffer_tokens=n), config=CONFIG) for n in (100, 200))
        with pytest.raises(ValueError, match=r"held 200 tokens at a time.*buffer_tokens=200\. The run stays"):
            trainer.load_state_dict(other.state_dict())

    def test_the_state_is_small(self) -> None:
        state = Trainer(Blocks(n_blocks=200), config=CONFIG).state_dict()
        assert {name: len(state[name]) for name in ("feed", "left_out")} == {"feed": 4, "left_out": 200}
        assert "order" not in state

    def test_scale_and_cutoff_come_from_the_first_buffer(self) -> None:
        feed = BlockFeed(Blocks(), replace(CONFIG, max_norm_multiple=1.5))
        first = [Blocks().load(block) for block in feed._blocks()]
        values, position = torch.cat([v for v, _ in first]).float(), torch.cat([p for _, p in first])
        norms = values.norm(dim=1)
        kept = (position != 0) & (norms <= 1.5 * norms[position != 0].median())
        assert 0 < feed.left_out().outliers == int((position != 0).sum() - kept.sum())
        assert feed.scale() == pytest.approx(math.sqrt(D_IN) / float(norms[kept].mean()), rel=1e-5)
        assert set(names(feed.sample(1000, 0))) == set(names(values[kept]))
        assert len(feed.evaluation(0)) == 200  # position 0 and outliers are measured on

    def test_held_out_windows_stay_held_out_in_every_epoch(self) -> None:
        feed = BlockFeed(Blocks(), replace(CONFIG, validation_share=0.3))
        held = set(names(feed.validation(10_000)))
        seen = {name for _ in range(300) for name in names(feed.next())}
        assert held and not held & seen
        left = feed.left_out()
        assert len(seen) == 540 - left.held_out and 0.15 < left.held_out / 540 < 0.45

    @pytest.mark.parametrize("size", [0, 181])
    def test_a_batch_larger_than_what_is_held_is_refused(self, size: int) -> None:
        with pytest.raises(ValueError, match=r"does not fit: 180 tokens of this corpus are held .* at most 180"):
            Trainer(Blocks(), config=replace(CONFIG, batch_size=size))
        trainer = Trainer(Blocks(), config=CONFIG)
        with pytest.raises(ValueError, match="does not fit"):
            trainer.reconfigure(replace(CONFIG, batch_size=size))
        trainer.reconfigure(replace(CONFIG, batch_size=90))
        assert next(trainer.run()).tokens == 90

    def test_a_fault_gives_the_same_batch_again(self) -> None:
        trainer, good = (Trainer(Blocks(), config=CONFIG) for _ in range(2))
        following = trainer._engine.feed.next
        trainer._engine.feed.next = lambda count: following(count) * math.nan
        with pytest.raises(TrainingFault):
            next(trainer.run())
        trainer._engine.feed.next = following
        assert untimed(finish(trainer)) == untimed(finish(good))

    def test_what_cannot_be_trained_on_is_refused(self) -> None:
        class Broken(Blocks):
            def load(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
                values, position = super().load(index)
                values[7, 3] = math.inf
                return values, position

        with pytest.raises(ValueError, match="not finite: the first NaN or infinite value is in token 7"):
            Trainer(Broken(), config=CONFIG)
        with pytest.raises(TypeError, match="a corpus in blocks has its own position"):
            Trainer(Blocks(), torch.ones(3), CONFIG)
        with pytest.raises(TypeError, match="config must be a TrainConfig, got NoneType"):
            Trainer(Blocks())

    def test_a_buffer_that_does_not_fit_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("sae_widget.memory.free_memory", lambda: 6 * D_IN * 150)
        with pytest.raises(ValueError, match=r"^200 tokens .* do not fit .* enough for 150\. .* smaller buffer_tokens"):
            Trainer(Blocks(), config=CONFIG)
