"""``sae_widget.training.mesh``: several processes train as one would; here each is a thread of the test."""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch._dynamo  # torch.optim imports it at its first use, and that changes warning filters

from sae_widget.config import ARCHITECTURES
from sae_widget.metrics import share_of_error
from sae_widget.training import Trainer, TrainStep
from sae_widget.training import mesh as mesh_module
from sae_widget.training.mesh import ALONE, Alone, MeshFault, joint_share, launched
from tests.training_runs import RECIPES, finish, generator, same_state, small_data, untimed

WHOLE = {"topk": {"batch_size": 15}, "standard": {}, "all rows": {}}


class Table:
    """Where the threads meet: each lays its tensor down, and all see what lies there."""

    def __init__(self, size: int) -> None:
        self.laid: list[Any] = [None] * size
        self.barrier = threading.Barrier(size, timeout=30)

    def exchange(self, rank: int, tensor: torch.Tensor) -> torch.Tensor:
        self.laid[rank] = tensor.clone()
        self.barrier.wait()
        together = torch.stack(self.laid)
        self.barrier.wait()
        return together


class Seat(mesh_module.Group):
    """One process of a group, without its processes; ``dies`` is the exchange at which the others are gone."""

    def __init__(self, table: Table, rank: int, dies: int = 10**9) -> None:
        self.table, self.rank, self.size, self.left = table, rank, len(table.laid), dies

    def gather(self, tensor: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if self.left < 0:
            raise MeshFault
        return self.table.exchange(self.rank, tensor)

    def sum_(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.copy_(self.gather(tensor).sum(0))

    def mean_(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.copy_(self.gather(tensor).mean(0))


def together(size: int, work: Callable[[Alone], Any], dies: int = 10**9) -> list[Any]:
    """What each of so many seats makes of the work."""
    table, found = Table(size), [None] * size

    def sit(rank: int) -> None:
        found[rank] = work(Seat(table, rank, dies))

    threads = [threading.Thread(target=sit, args=(rank,)) for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def numbers(records: list[TrainStep]) -> torch.Tensor:
    kept = [(r.loss, r.reconstruction, r.sparsity, r.l0, r.explained_variance, r.dead, r.tokens) for r in records]
    return torch.tensor(kept, dtype=torch.float64)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("recipe", sorted(WHOLE))
def test_several_processes_do_what_one_does(recipe: str, size: int) -> None:
    values, position = small_data()
    config = RECIPES[recipe].changed(steps=60, **WHOLE[recipe])
    alone = Trainer(values, position, config)
    expected = finish(alone)

    def work(mesh: Alone) -> tuple[list[TrainStep], Trainer]:
        trainer = Trainer(values, position, config, mesh=mesh)
        return finish(trainer), trainer

    found = together(size, work)
    for records, trainer in found:
        assert torch.allclose(numbers(records), numbers(expected), atol=1e-4, rtol=0)
        assert torch.allclose(trainer.sae().W_enc, alone.sae().W_enc, atol=1e-4)
        assert same_state(trainer, found[0][1])  # not nearly: bit for bit


@pytest.mark.parametrize("kind", sorted(ARCHITECTURES))
def test_every_architecture_trains_in_two_processes_as_in_one(kind: str) -> None:
    values, position = small_data()
    config = RECIPES["topk"].changed(architecture=kind, steps=60, batch_size=15, matryoshka_levels=2, target_l0=3.0)
    alone = Trainer(values, position, config)
    expected = finish(alone)

    def work(mesh: Alone) -> tuple[list[TrainStep], Trainer]:
        trainer = Trainer(values, position, config, mesh=mesh)
        return finish(trainer), trainer

    (records, first), (_, second) = together(2, work)
    assert torch.allclose(numbers(records), numbers(expected), atol=1e-4, rtol=0)
    assert torch.allclose(first.sae().W_dec, alone.sae().W_dec, atol=1e-4)
    assert same_state(first, second)


def test_position_0_of_a_full_batch_is_measured_as_one_process_does() -> None:
    values, position = small_data()
    config = RECIPES["all rows"].changed(steps=3, skip_first=False)
    expected = finish(Trainer(values, position, config))
    found = together(2, lambda mesh: finish(Trainer(values, position, config, mesh=mesh)))
    for record, wanted in zip(found[1], expected, strict=True):
        assert record.explained_variance_with_first == pytest.approx(wanted.explained_variance_with_first, abs=1e-6)
        assert record.explained_variance == pytest.approx(wanted.explained_variance, abs=1e-6)


@pytest.mark.parametrize("exchange", [0, 1, 2, 3, 5, 8, 77])
def test_a_step_in_which_a_process_died_is_not_applied(exchange: int) -> None:
    values, position = small_data()
    config = RECIPES["topk"].changed(steps=40)

    def until_it_dies(mesh: Seat) -> tuple[list[TrainStep], dict[str, torch.Tensor]]:
        trainer, records = Trainer(values, position, config, mesh=mesh), []
        mesh.left = exchange  # counted from the first step
        with pytest.raises(MeshFault, match="A process of this run has died"):
            records += trainer.run()
        return [], trainer.state_dict()

    def whole(mesh: Seat) -> Trainer:
        trainer = Trainer(values, position, config, mesh=mesh)
        finish(trainer)
        return trainer

    (_, left), (_, other) = together(2, until_it_dies)
    assert all(torch.equal(left[name], other[name]) for name in left if name != "with_first")

    def go_on(mesh: Seat) -> Trainer:
        trainer = Trainer(values, position, config, mesh=mesh)
        trainer.load_state_dict(left)
        finish(trainer)
        return trainer

    assert same_state(together(2, go_on)[0], together(2, whole)[0])


def test_the_start_is_that_of_the_first_process() -> None:
    values, position = small_data()
    config = RECIPES["topk"].changed(steps=1)

    def work(mesh: Seat) -> torch.Tensor:  # as on a machine whose random numbers are others
        return Trainer(values + mesh.rank, position, config, mesh=mesh).sae().W_dec

    first, second = together(2, work)
    assert torch.equal(first, second)


def test_the_share_of_two_parts_is_that_of_the_whole() -> None:
    x, error = torch.randn(31, 7, generator=generator(1)) + 100, torch.randn(31, 7, generator=generator(2))
    found = together(3, lambda mesh: joint_share(mesh, mesh.part(x), mesh.part(error)))
    assert found == pytest.approx([share_of_error(x.double(), error)] * 3, abs=1e-9)
    one, two = together(2, lambda mesh: joint_share(mesh, mesh.part(x[:1]), mesh.part(error[:1])))
    assert math.isnan(one) and math.isnan(two)


def test_every_row_belongs_to_one_process() -> None:
    rows = torch.arange(11)
    parts = [Seat(Table(3), rank).part(rows) for rank in range(3)]
    assert [len(part) for part in parts] == [Seat(Table(3), rank).count(11) for rank in range(3)] == [4, 4, 3]
    assert torch.cat(parts).sort().values.tolist() == rows.tolist()
    with pytest.raises(ValueError, match="batch_size must be at least 3 for so many processes, got 2"):
        Seat(Table(3), 0).count(2)


def test_a_batch_with_fewer_tokens_than_processes_changes_nothing() -> None:
    values, position = small_data()
    trainer = Trainer(values, position, RECIPES["topk"], mesh=Seat(Table(1), 0))
    trainer._engine.mesh.size = 3
    with pytest.raises(ValueError, match="batch_size must be at least 3"):
        trainer.reconfigure(trainer.config.changed(batch_size=2))
    assert trainer.batch_size == trainer.config.batch_size == 16


def test_one_wish_is_everybody_s() -> None:
    assert together(3, lambda mesh: mesh.any(mesh.rank == 1)) == [True] * 3
    assert together(3, lambda mesh: mesh.any(False)) == [False] * 3


def test_alone_is_a_group_of_one() -> None:
    tensor = torch.tensor([1.0, 2.0, 5.0])
    for same in (ALONE.sum_, ALONE.mean_, ALONE.same_, ALONE.part):
        assert same(tensor) is tensor
    assert ALONE.gather(tensor).tolist() == [[1.0, 2.0, 5.0]]
    assert (ALONE.rank, ALONE.size, ALONE.count(9), ALONE.any(True), ALONE.any(False)) == (0, 1, 9, True, False)
    ALONE.close()
    values, position = small_data()
    config = RECIPES["topk"].changed(steps=5)
    assert untimed(finish(Trainer(values, position, config, mesh=ALONE))) == untimed(
        finish(Trainer(values, position, config))
    )


@pytest.mark.parametrize(
    ("environment", "size"),
    [({}, 1), ({"WORLD_SIZE": "1", "RANK": "0"}, 1), ({"WORLD_SIZE": "2", "RANK": "1"}, 2), ({"WORLD_SIZE": "2"}, 1)],
)
def test_a_launcher_is_known_by_its_environment(monkeypatch, environment: dict[str, str], size: int) -> None:
    for name in ("WORLD_SIZE", "RANK"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert launched() == size


def test_without_accelerate_it_says_what_to_install(monkeypatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "accelerate", None)
    with pytest.raises(ImportError, match=r"pip install 'sae-widget\[distributed\]'"):
        mesh_module.Group()
