"""``sae_widget.cli``: sae_widget.cli.base, .lab, .train and .info, and ``sae_widget.__main__``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sae_widget import __version__
from sae_widget.cli import info as sae_widget_info
from sae_widget.cli import lab, main, train
from sae_widget.cli.base import INTERRUPTED, Refused, StopFlag

TEXT = "It was the best of times, it was the worst of times, it was the age of wisdom. " * 3
SMALL = ["--layer", "1", "--d-sae", "24", "--k", "4", "--batch-size", "32", "--text", TEXT]


def run_train(model: Path, out: Path, *more: str) -> int:
    return main(["train", "--model", str(model), "--out", str(out), *SMALL, *more])


def test_module_prints_version() -> None:
    command = [sys.executable, "-m", "sae_widget", "--version"]  # sae_widget.__main__
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"sae-widget {__version__}"


def test_train_writes_what_the_engine_would(tiny_gpt2_dir: Path, tmp_path: Path, capsys) -> None:
    from sae_widget.checkpoint import load_sae, load_stats

    out = tmp_path / "run"
    assert run_train(tiny_gpt2_dir, out, "--steps", "30", "--seed", "5") == 0
    sae = load_sae(out)
    assert (sae.d_in, sae.d_sae, sae.k) == (32, 24, 4)
    assert sae.metadata["layer"] == 1
    assert sae.metadata["hook_name"] == "resid_pre"
    assert load_stats(out) is not None
    history = json.loads((out / "history.json").read_text())
    assert [step["step"] for step in history["steps"]] == list(range(1, 31))
    assert history["settings"]["seed"] == 5
    said = capsys.readouterr()
    assert "24 features" in said.out
    assert "after block 1" in said.err

    same = tmp_path / "same"
    assert run_train(tiny_gpt2_dir, same, "--steps", "30", "--seed", "5") == 0
    assert bool((load_sae(same).W_dec == sae.W_dec).all())


def test_every_setting_is_an_option(tiny_gpt2_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    options = ["--architecture", "standard", "--l1-coefficient", "0.5", "--no-normalize", "--steps", "3"]
    assert run_train(tiny_gpt2_dir, out, *options) == 0
    settings = json.loads((out / "history.json").read_text())["settings"]
    assert settings["architecture"] == "standard"
    assert settings["l1_coefficient"] == 0.5
    assert settings["normalize"] is False
    assert settings["center"] is True


def test_original_tutorial_is_a_start(tiny_gpt2_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    arguments = [
        "--model",
        str(tiny_gpt2_dir),
        "--out",
        str(out),
        "--text",
        TEXT,
        "--hook-name",
        "final_norm",
    ]
    assert main(["train", *arguments, "--original-tutorial", "--steps", "4", "--layer", "2"]) == 0
    settings = json.loads((out / "history.json").read_text())["settings"]
    assert (settings["d_sae"], settings["batch_size"], settings["steps"]) == (16, 0, 4)


def test_the_explorer_opens_what_was_trained(tiny_gpt2_dir: Path, tmp_path: Path, sae_widget_home) -> None:
    import torch

    from sae_widget import SuperpositionExplorer, load_sae

    out = tmp_path / "run"
    tutorial = ["--original-tutorial", "--steps", "4", "--layer", "2", "--no-prepend-bos", "--hook-name", "final_norm"]
    arguments = ["--model", str(tiny_gpt2_dir), "--out", str(out), "--text", "It was", "--text", "the best."]
    assert main(["train", *arguments, *tutorial]) == 0
    sae = load_sae(out)
    assert sae.metadata["skip_first"] is False
    explorer = SuperpositionExplorer.load(out)
    try:
        assert explorer.wait(60)
        assert torch.equal(explorer.sae.W_enc, sae.W_enc)
        state = explorer.state
        assert (state.layer, state.hook_name, state.prepend_bos) == (2, "final_norm", False)
        assert (state.text, state.corpus) == ("It was\nthe best.", "text")
        assert (state.settings.d_sae, state.settings.skip_first) == (16, False)
        assert explorer.features.prompt.counted.all()  # position 0 too
    finally:
        explorer.close()


def test_a_corpus_is_found_again_from_another_folder(tiny_gpt2_dir: Path, tmp_path: Path, monkeypatch) -> None:
    from sae_widget.runs import read_explorer

    (tmp_path / "book.txt").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    arguments = ["--model", str(tiny_gpt2_dir), "--corpus", "book.txt", "--steps", "2", "--tokens", "60", "--k", "2"]
    assert main(["train", "--out", "run", "--layer", "1", "--d-sae", "8", *arguments]) == 0
    saved = read_explorer(tmp_path / "run")
    assert (saved.corpus, saved.corpus_tokens) == (str(tmp_path / "book.txt"), 60)


@pytest.mark.parametrize("out", ["file/run", "file"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_training(
    tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch, out: str
) -> None:
    (tmp_path / "file").write_text("x")
    monkeypatch.setattr(train, "load", lambda _name: pytest.fail("a model was loaded"))
    assert run_train(tiny_gpt2_dir, tmp_path / out, "--steps", "2") == 1
    error = capsys.readouterr().err
    assert "cannot be written: " in error and "Nothing was trained; choose another --out." in error
    assert len(error.splitlines()) == 1


def test_a_save_that_fails_is_a_sentence(tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    from sae_widget.checkpoint import folder

    def full(*_args: object, **_keys: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(folder, "replace_files", full)
    assert run_train(tiny_gpt2_dir, tmp_path / "run", "--steps", "2") == 1
    error = capsys.readouterr().err
    assert "sae-widget: The SAE could not be saved in" in error and "Traceback" not in error


def test_an_sae_is_not_written_over_unasked(tiny_gpt2_dir: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "run"
    assert run_train(tiny_gpt2_dir, out, "--steps", "2") == 0
    before = (out / "sae_weights.safetensors").read_bytes()
    assert run_train(tiny_gpt2_dir, out, "--steps", "9") == 1
    assert "--overwrite" in capsys.readouterr().err
    assert (out / "sae_weights.safetensors").read_bytes() == before
    assert run_train(tiny_gpt2_dir, out, "--steps", "9", "--overwrite") == 0
    assert (out / "sae_weights.safetensors").read_bytes() != before


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--layer", "7"], "layer must be between 0 and 2, got 7"),
        (["--k", "25"], "k must be between 1 and d_sae"),
        (["--learning-rate", "inf"], "learning_rate must be between"),
        (["--tokens", "0"], "tokens must be at least 1"),
    ],
)
def test_bad_settings_are_a_sentence(tiny_gpt2_dir: Path, tmp_path: Path, capsys, options, said) -> None:
    assert run_train(tiny_gpt2_dir, tmp_path / "run", *options) == 1
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
    assert not (tmp_path / "run").exists()


def test_missing_model_and_corpus_are_a_sentence(tiny_gpt2_dir: Path, tmp_path: Path, capsys) -> None:
    out = ["--out", str(tmp_path / "run")]
    assert main(["train", *out, "--model", str(tmp_path / "nothing")]) == 1
    assert main(["train", *out, "--model", str(tiny_gpt2_dir), "--corpus", str(tmp_path / "no.txt")]) == 1
    error = capsys.readouterr().err
    assert error.count("sae-widget: ") == 2
    assert "there is no corpus" in error


def test_stop_keeps_what_was_trained(tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    """A real SIGINT between two steps: the step is applied whole, saved, and the handler is back after."""
    from sae_widget.checkpoint import load_sae
    from sae_widget.training import History

    append = History.append

    def interrupt_at_seven(self: History, record) -> None:
        append(self, record)
        if record.step == 7:
            os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(History, "append", interrupt_at_seven)
    handler = signal.getsignal(signal.SIGINT)
    out, whole = tmp_path / "run", tmp_path / "whole"
    # With neither warm-up nor decay the first seven steps do not depend on how many were planned.
    recipe = [
        "--architecture",
        "standard",
        "--lr-warmup",
        "0",
        "--l1-warmup",
        "0",
        "--lr-schedule",
        "constant",
    ]
    assert run_train(tiny_gpt2_dir, out, "--steps", "100000", *recipe) == INTERRUPTED
    assert signal.getsignal(signal.SIGINT) is handler
    assert "Stopped at step 7 of 100,000" in capsys.readouterr().err
    monkeypatch.undo()
    assert run_train(tiny_gpt2_dir, whole, "--steps", "7", *recipe) == 0
    assert bool((load_sae(out).W_enc == load_sae(whole).W_enc).all())


def test_without_accelerate_several_processes_say_what_to_install(
    tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    monkeypatch.setenv("TORCH_CPP_LOG_LEVEL", "ERROR")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank, told in (("0", 1), ("1", 0)):  # one of them says it
        monkeypatch.setenv("RANK", rank)
        assert run_train(tiny_gpt2_dir, tmp_path / "run") == 1
        error = capsys.readouterr().err
        assert error.count("pip install 'sae-widget[distributed]'") == len(error.splitlines()) == told
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert run_train(tiny_gpt2_dir, tmp_path / "run", "--steps", "2") == 0


def test_a_launcher_that_started_one_process_is_told(tiny_gpt2_dir: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert run_train(tiny_gpt2_dir, tmp_path / "run", "--steps", "2") == 0
    assert "accelerate launch has started one process; torchrun starts several on a CPU" in capsys.readouterr().err


def test_second_stop_ends_at_once() -> None:
    with StopFlag() as flag:
        signal.raise_signal(signal.SIGINT)
        assert flag.stopped
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with StopFlag(patient=True) as flag:  # a launcher repeats what Ctrl-C has sent already
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert flag.stopped


def test_lab_command(tmp_path: Path) -> None:
    notebook = tmp_path / "x.ipynb"
    notebook.write_text("{}")
    command = lab.lab_command(notebook, 8899, browser=False)
    assert command[:3] == [sys.executable, "-m", "jupyterlab"]
    assert "--ServerApp.port=8899" in command
    assert f"--ServerApp.root_dir={tmp_path.resolve()}" in command
    assert "--LabApp.default_url=/lab/tree/x.ipynb" in command
    assert "--no-browser" in command
    assert "--no-browser" not in lab.lab_command(tmp_path, 8899, browser=True)
    assert ("--allow-root" in command) == (os.name == "posix" and os.geteuid() == 0)


def test_lab_refuses_in_words(tmp_path: Path, capsys, monkeypatch) -> None:
    assert main(["lab", str(tmp_path / "none.ipynb")]) == 1
    assert "there is no notebook or folder" in capsys.readouterr().err
    assert main(["lab", str(tmp_path), "--port", "70000"]) == 1
    assert "port must be between 1 and 65,535" in capsys.readouterr().err
    monkeypatch.setattr(lab.importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(Refused, match="pip install"):
        lab.run(None)


def test_quickstart_is_the_checkout_s_or_a_small_one(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lab, "__file__", str(tmp_path / "site" / "sae_widget" / "cli" / "lab.py"))
    starter = lab.quickstart()
    import nbformat

    cells = nbformat.validate(nbformat.read(starter, as_version=4)) or nbformat.read(starter, 4).cells
    assert any("SuperpositionExplorer()" in cell.source for cell in cells)
    assert "Wrote" in capsys.readouterr().out
    (tmp_path / "notebooks").mkdir()
    (tmp_path / "notebooks" / "00_quickstart.ipynb").write_text("{}")
    assert lab.quickstart() == Path("notebooks/00_quickstart.ipynb")


def test_info_names_versions_and_problems(capsys, monkeypatch) -> None:
    monkeypatch.setattr(sae_widget_info, "diagnose", list)
    assert main(["info"]) == 0
    said = capsys.readouterr().out
    assert __version__ in said
    assert "bqplot" in said
    assert "free memory" in said
    monkeypatch.setattr(sae_widget_info, "diagnose", lambda: ["The bundled model is missing."])
    assert main(["info"]) == 1
    assert "problem        The bundled model is missing." in capsys.readouterr().out


def test_diagnose_finds_a_missing_front_end(tmp_path: Path, monkeypatch) -> None:
    import jupyter_core.paths

    monkeypatch.setattr(jupyter_core.paths, "jupyter_path", lambda *_: [str(tmp_path)])
    found = [line for line in sae_widget_info.diagnose() if "front end" in line]
    assert len(found) == 3
    (tmp_path / "bqplot").mkdir()
    assert len([line for line in sae_widget_info.diagnose() if "front end" in line]) == 2
