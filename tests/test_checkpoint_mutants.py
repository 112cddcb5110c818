"""T3 and F53 to F56: damaged and hostile files load as something that runs, or give one sentence."""

from __future__ import annotations

import json
import random
import shutil
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from sae_widget.checkpoint import (
    SaeFileError,
    load_sae,
    load_stats,
    load_training_state,
    save_sae,
    save_training_state,
)
from sae_widget.sae import REGISTRY
from tests.sae_folders import CFG, WEIGHTS, an_sae, foreign, some_x
from tests.test_checkpoint_others import OLD, TRAINER, a_coder, linear
from tests.test_sae import random_sae

STATS = "stats.safetensors"
VALUES: list[Any] = [
    None, True, -1, 0, 1, 7, 10, 2**31, 2**63, 2**70, -0.5, 0.0, 1e-320, 1e308, float("nan"), float("inf"),
    "", "x" * 300, "../../etc/passwd", "C:\\CON", "nul\0l", "standard", "topk", "jumprelu", "gated", "none", "F32",
    "F64", "BOOL", "layer_norm", [], [0], [6, 10], [10, 6], [2**40, 2**40], {}, {"k": 1}, {"sae_widget": {}},
    [[[[]]]] * 40,
]  # fmt: skip


def changed_json(told: Any, chance: random.Random) -> Any:
    """One value of a JSON text somewhere replaced, left out, or added."""
    if isinstance(told, dict) and told and chance.random() < 0.85:
        key = chance.choice(sorted(told))
        match chance.randrange(5):
            case 0:
                return {name: value for name, value in told.items() if name != key}
            case 1:
                return told | {
                    chance.choice(["k", "scale", "architecture", "x" * 90, "metadata"]): chance.choice(VALUES)
                }
            case _:
                return told | {key: changed_json(told[key], chance)}
    if isinstance(told, list) and told and chance.random() < 0.7:
        at = chance.randrange(len(told))
        return [*told[:at], changed_json(told[at], chance), *told[at + 1 :]]
    return chance.choice(VALUES)


def changed_bytes(content: bytes, chance: random.Random) -> bytes:
    """Cut off, longer, spliced, or some bytes replaced."""
    made = bytearray(content)
    match chance.randrange(4):
        case 0:
            return bytes(made[: chance.randrange(len(made))])
        case 1:
            return bytes(made) + chance.randbytes(chance.randrange(1, 40))
        case 2:
            at = chance.randrange(len(made))
            made[at : at + chance.randrange(1, 9)] = chance.randbytes(chance.randrange(9))
        case _:
            for _ in range(chance.randrange(1, 6)):
                made[chance.randrange(len(made))] = chance.randrange(256)
    return bytes(made)


def mutant(name: str, content: bytes, chance: random.Random) -> bytes:
    """A file changed in its bytes, or in what its JSON or its header says."""
    if chance.random() < 0.5:
        return changed_bytes(content, chance)
    if name.endswith(".json"):
        return json.dumps(changed_json(json.loads(content), chance)).encode()
    if name.endswith(".pt"):
        return changed_bytes(content, chance)
    length = int.from_bytes(content[:8], "little")
    header = json.dumps(changed_json(json.loads(content[8 : 8 + length]), chance)).encode()
    return len(header).to_bytes(8, "little") + header + content[8 + length :]


def folders(root: Path) -> list[Path]:
    """One folder of every kind that can be read."""
    stats = {"frequency": torch.rand(10, generator=torch.Generator().manual_seed(1))}
    for name in REGISTRY:
        save_sae(random_sae(name, scale=0.37, metadata={"layer": 3}), root / name, stats)
    foreign(root / "old", OLD | {"activation_fn_str": "topk", "activation_fn_kwargs": {"k": 3}})
    a_coder(root / "layers.3")
    (root / "dictionary").mkdir()
    torch.save(linear(an_sae(), bias=an_sae().b_dec), root / "dictionary" / "ae.pt")
    told = {"trainer": TRAINER | {"dict_class": "AutoEncoder"}}
    (root / "dictionary" / "config.json").write_text(json.dumps(told))
    save_training_state(root / "training", {"a": torch.ones(3, 4), "step": torch.tensor(3)}, {"loss": [1.0, 2.0]})
    return sorted(path for path in root.iterdir())


def load(folder: Path) -> None:
    """Everything that can be read of a folder; what loads also runs."""
    if folder.name == "training":
        tensors, _ = load_training_state(folder)
        assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
        return
    sae = load_sae(folder)
    assert torch.isfinite(sae.W_enc).all() and sae.d_in <= 60
    sae(torch.zeros(2, sae.d_in))
    load_stats(folder)


def fuzz(root: Path, times: int, seed: int) -> tuple[int, float]:
    """How many mutants gave a sentence, and the longest seconds of the processor that one took."""
    chance, refused, longest = random.Random(seed), 0, 0.0
    kinds = folders(root)
    for _ in range(times):
        folder = chance.choice(kinds)
        path = chance.choice(sorted(p for p in folder.iterdir() if p.name[0] != "."))
        whole = path.read_bytes()
        path.write_bytes(mutant(path.name, whole, chance))
        started = time.process_time()
        try:
            load(folder)
        except SaeFileError as error:
            refused += 1
            words = str(error)
            assert len(words) < 700 and words.isprintable() and "loaded" in words
        longest = max(longest, time.process_time() - started)
        path.write_bytes(whole)
    for folder in kinds:
        load(folder)
    return refused, longest


@pytest.mark.parametrize("times", [5000, pytest.param(100_000, marks=[pytest.mark.soak, pytest.mark.timeout(3600)])])
def test_mutants_load_or_give_a_sentence(tmp_path: Path, times: int) -> None:
    refused, longest = fuzz(tmp_path, times, seed=5)
    print(f"{refused} of {times} refused, the slowest took {longest * 1000:.0f} ms")
    assert times * 0.5 < refused < times * 0.95


def a_header(entries: Any, body: bytes = b"") -> bytes:
    header = json.dumps(entries).encode()
    return len(header).to_bytes(8, "little") + header + body


def entry(*shape: int, dtype: str = "F32", begin: int = 0, end: int | None = None) -> dict[str, Any]:
    size = 4
    for n in shape:
        size *= n
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, begin + size if end is None else end]}


LARGE: dict[str, Callable[[], bytes]] = {
    "300,000 tensors": lambda: a_header({f"t{i}": entry(1, begin=4 * i) for i in range(300_000)}, bytes(1_200_000)),
    "50 MB of metadata": lambda: a_header({"__metadata__": {"x": "y" * 50_000_000}}),
    "65 tensors": lambda: a_header({f"t{i}": entry(1, begin=4 * i) for i in range(65)}, bytes(260)),
}


@pytest.mark.parametrize("kind", LARGE)
def test_large_files_are_refused_from_their_header(tmp_path: Path, kind: str) -> None:
    """F55: less than 5 MB is read."""
    (foreign(tmp_path / "sae") / WEIGHTS).write_bytes(LARGE[kind]())
    tracemalloc.start()
    try:
        with pytest.raises(SaeFileError, match=r"its header has [\d,]+ bytes, at most|it has 65 tensors, at most 64"):
            load_sae(tmp_path / "sae")
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


WRONG_HEADERS = {
    "sizes of the sky": {"W_enc": entry(2**40, 2**40)},
    "a negative size": {"W_enc": {"dtype": "F32", "shape": [-6, 10], "data_offsets": [0, 240]}},
    "no end": {"W_enc": {"dtype": "F32", "shape": [6, 10], "data_offsets": [0]}},
    "overlap": {"W_enc": entry(6, 10), "W_dec": entry(10, 6), "b_enc": entry(10), "b_dec": entry(6)},
    "a shape of nothing": {"W_enc": {"dtype": "F32", "data_offsets": [0, 240]}},
    "a pickle's name": {"W_enc": {"dtype": "PICKLE", "shape": [6, 10], "data_offsets": [0, 240]}},
    "a name of two lines": {"W_\n\x1b[31menc": entry(6, 10)},
    "no tensors": {},
}


@pytest.mark.parametrize("kind", WRONG_HEADERS)
def test_headers_that_lie(tmp_path: Path, kind: str) -> None:
    (foreign(tmp_path / "sae") / WEIGHTS).write_bytes(a_header(WRONG_HEADERS[kind], bytes(240)))
    with pytest.raises(SaeFileError, match=f"{WEIGHTS}: .*Nothing was loaded, and what you have is unchanged") as told:
        load_sae(tmp_path / "sae")
    assert str(told.value).isprintable()


@pytest.mark.parametrize("d_sae", [10_000_000, 2**62, 10**30])
def test_absurd_widths_take_no_memory(tmp_path: Path, d_sae: int) -> None:
    foreign(tmp_path / "sae", {"d_sae": d_sae, "d_in": 1_000_000})
    with pytest.raises(SaeFileError, match=r"Nothing was loaded"):
        load_sae(tmp_path / "sae")


def test_a_pickle_in_the_place_of_weights(tmp_path: Path) -> None:
    folder = foreign(tmp_path / "sae")
    torch.save({"W_enc": torch.ones(6, 10)}, folder / WEIGHTS)
    with pytest.raises(SaeFileError, match="it is not a whole safetensors file"):
        load_sae(folder)


@pytest.mark.parametrize("hostile", ["../../../etc/passwd", "/etc/passwd", "C:\\CON", "x" * 5000, "a\0b"])
def test_names_in_a_file_lead_nowhere(tmp_path: Path, hostile: str) -> None:
    """Every text of ``cfg.json`` is words: no file but the two of the folder is opened, none is written."""
    changes = {
        "dtype": hostile,
        "device": hostile,
        "model_name": hostile,
        "sae_weights": hostile,
        "hook_point": hostile,
    }
    metadata = {
        "sae_lens_version": "6.0.0",
        "model_name": hostile,
        "hook_name": hostile,
        "sae_widget": {"made_by": hostile},
    }
    folder = foreign(tmp_path / "sae", changes | {"metadata": metadata})
    before = sorted(path.name for path in tmp_path.rglob("*"))
    assert torch.equal(load_sae(folder)(some_x()), an_sae()(some_x()))
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_extra_keys_and_tensors_of_other_programs(tmp_path: Path) -> None:
    """F56: unknown settings are ignored, unknown tensors are not."""
    folder = foreign(tmp_path / "sae", {"from_the_future": {"a": [1]}, "seqpos_slice": [None], "lr": "1e-4"})
    assert torch.equal(load_sae(folder)(some_x()), an_sae()(some_x()))
    with pytest.raises(SaeFileError, match="a tensor 'W_skip' that this kind of SAE does not have"):
        load_sae(foreign(tmp_path / "sae", None, W_skip=torch.zeros(6, 6)))


def test_files_of_the_first_version_still_load(tmp_path: Path) -> None:
    """F56: what 0.1.0 wrote, number by number."""
    own = {"format_version": 1, "made_by": "0.1.0", "scale": 0.5, "metadata": {"layer": 3, "ev": None}}
    config = {
        "architecture": "topk", "d_in": 6, "d_sae": 10, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none", "k": 4,
        "rescale_acts_by_decoder_norm": False, "metadata": {"sae_lens_version": "6.0.0", "sae_widget": own},
    }  # fmt: skip
    plain = an_sae()
    (tmp_path / CFG).write_text(json.dumps(config))
    weights = {"W_enc": plain.W_enc * 0.5, "W_dec": plain.W_dec / 0.5, "b_enc": plain.b_enc, "b_dec": plain.b_dec / 0.5}
    save_file(weights, tmp_path / WEIGHTS)
    sae = load_sae(tmp_path)
    assert (sae.architecture, sae.scale, sae.metadata) == ("topk", 0.5, {"layer": 3, "ev": None})
    for name in ("W_enc", "W_dec", "b_enc", "b_dec"):
        assert torch.allclose(getattr(sae, name), getattr(plain, name), atol=1e-6)


def test_the_bundled_saes_load(tmp_path: Path) -> None:
    """Golden files: those that ship with the package."""
    from sae_widget import bundled

    root = Path(bundled.__file__).parent / "bundled"
    found = [path.parent for path in root.rglob(CFG)]
    assert found
    for folder in found:
        shutil.copytree(folder, tmp_path / folder.name)
        assert torch.isfinite(load_sae(tmp_path / folder.name).W_dec).all()
