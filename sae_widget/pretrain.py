"""Train the bundled language model: a small GPT-2 with its own byte-level BPE, on public-domain books.

Run as ``python -m sae_widget.pretrain --corpus DIR --out DIR``. The run is seeded and can be stopped at
any time: the same command goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sae_widget.muon import Muon
from sae_widget.ngram import KneserNeyTrigram

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import torch

HELD_OUT = ("peter-pan", "a-christmas-carol")
END_OF_TEXT = "<|endoftext|>"


@dataclass(frozen=True)
class PretrainConfig:
    """What decides the trained model; stored with every checkpoint.

    The schedule is warm-up, constant, linear decay, so that a stopped run can go on with more ``tokens``.
    """

    n_layer: int = 6
    n_embd: int = 192
    n_head: int = 6
    n_positions: int = 256
    vocab_size: int = 4096
    batch_size: int = 16  # windows of n_positions tokens for one optimizer step
    tokens: int = 16_000_000  # tokens read in the whole run
    muon_lr: float = 4e-3  # Muon (Jordan 2024) for the matrices, in AdamW's scale
    adam_lr: float = 3e-3  # AdamW for embeddings, biases and norms
    weight_decay: float = 0.05
    dropout: float = 0.0
    warmup_steps: int = 100
    decay_share: float = 0.4  # share of the run in which the learning rate falls to zero
    seed: int = 0
    precision: str = "float32"  # of the matrix products; "bfloat16" needs a processor that multiplies in it


def read_corpus(folder: Path, held_out: tuple[str, ...] = HELD_OUT) -> tuple[list[str], list[str]]:
    """The training texts (books and Python's own documentation) and the held-out texts.

    Args:
        folder: a directory of UTF-8 ``*.txt`` files.
        held_out: file names without ``.txt`` that are kept for validation.
    """
    from pydoc_data.topics import topics

    paths = sorted(folder.glob("*.txt"))
    if not paths:
        raise ValueError(f"no .txt files in {folder}")
    train = [p.read_text(encoding="utf-8") for p in paths if p.stem not in held_out]
    valid = [p.read_text(encoding="utf-8") for p in paths if p.stem in held_out]
    if not valid:
        raise ValueError(f"none of the held-out texts {', '.join(held_out)} is in {folder}")
    return [*train, "\n".join(topics[name] for name in sorted(topics))], valid


def train_tokenizer(texts: list[str], vocab_size: int, out: Path) -> None:
    """Train a byte-level BPE (Sennrich et al. 2016, over bytes) and save it in the hub's layout."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import GPT2TokenizerFast

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[END_OF_TEXT],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    out.mkdir(parents=True, exist_ok=True)
    fast = GPT2TokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, unk_token=END_OF_TEXT
    )
    fast.save_pretrained(out)


def encode_texts(out: Path, texts: list[str]) -> np.ndarray:
    """Token ids of all texts, each opened by the end-of-text token. ``[n_tokens]`` int32."""
    import numpy as np
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
    end = tokenizer.token_to_id(END_OF_TEXT)
    parts = [np.array([end, *encoding.ids], dtype=np.int32) for encoding in tokenizer.encode_batch(texts)]
    return np.concatenate(parts)


def batches(ids: np.ndarray, config: PretrainConfig, end_id: int, first_step: int = 0) -> Iterator[torch.Tensor]:
    """Windows of the text in an order fixed by the seed, for ever. ``[batch_size, n_positions]`` each.

    Each epoch cuts the text at another offset; every second window opens with the end-of-text token,
    so that the model learns both to start cold and to start from it.
    """
    import numpy as np
    import torch

    step = 0
    for epoch in range(10**9):
        rng = np.random.default_rng((config.seed, epoch))
        starts = np.arange(rng.integers(config.n_positions), len(ids) - config.n_positions, config.n_positions)
        rng.shuffle(starts)
        for at in range(0, len(starts) - config.batch_size + 1, config.batch_size):
            if step >= first_step:
                window = np.stack([ids[s : s + config.n_positions] for s in starts[at : at + config.batch_size]])
                window[::2, 0] = end_id
                yield torch.from_numpy(window.astype(np.int64))
            step += 1


def learning_rate_scale(step: int, steps: int, config: PretrainConfig) -> float:
    """Share of the full learning rate at ``step`` of ``steps``: warm-up, constant, linear decay to zero."""
    decay = max(1, round(steps * config.decay_share))
    return max(0.0, min(1.0, (step + 1) / config.warmup_steps, (steps - step) / decay))


def new_model(config: PretrainConfig, end_id: int) -> Any:
    """A GPT-2 of the configured size with GPT-2's own initialisation."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(config.seed)
    return GPT2LMHeadModel(
        GPT2Config(
            vocab_size=config.vocab_size,
            n_positions=config.n_positions,
            n_embd=config.n_embd,
            n_layer=config.n_layer,
            n_head=config.n_head,
            activation_function="gelu_pytorch_tanh",
            resid_pdrop=config.dropout,
            embd_pdrop=config.dropout,
            attn_pdrop=0.0,
            bos_token_id=end_id,
            eos_token_id=end_id,
        )
    )


def held_out_loss(model: Any, ids: np.ndarray, context: int) -> float:
    """Mean next-token loss in nats over ``ids[2:]``, each token read with at least half a context before it."""
    import torch

    model.eval()
    half, total, count = context // 2, 0.0, 0
    tokens = torch.from_numpy(ids.astype("int64"))
    with torch.no_grad():
        for start in range(0, len(tokens) - 2, half):
            window = tokens[start : start + context + 1]
            skip = 1 if start == 0 else half  # the n-gram, too, is asked from the third token on
            if len(window) <= skip + 1:
                break
            logits = model(window[None, :-1]).logits[0, skip:]
            total += float(torch.nn.functional.cross_entropy(logits, window[skip + 1 :], reduction="sum"))
            count += len(window) - skip - 1
    model.train()
    return total / count


class PretrainRun:
    """One resumable training run in one directory."""

    def __init__(self, config: PretrainConfig, out: Path, corpus: Path) -> None:
        import torch

        self.config, self.out = config, out
        texts, valid = read_corpus(corpus)
        if not (out / "tokenizer.json").exists():
            train_tokenizer(texts, config.vocab_size, out)
        self.train_ids, self.valid_ids = encode_texts(out, texts), encode_texts(out, valid)
        self.end_id = int(self.train_ids[0])
        self.model = new_model(config, self.end_id)
        blocks = self.model.transformer.h.named_parameters()
        matrices = [(p, 3 if "c_attn" in n else 1) for n, p in blocks if p.ndim == 2]
        names = {id(p) for p, _ in matrices}
        rest = [p for p in self.model.parameters() if id(p) not in names]
        self.muon = Muon(matrices, config.muon_lr, config.weight_decay)
        self.adam = torch.optim.AdamW(rest, lr=config.adam_lr, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        self.step = 0
        self.steps = config.tokens // (config.batch_size * config.n_positions)
        if (out / "checkpoint.safetensors").exists():
            self._resume()

    def _resume(self) -> None:
        from safetensors.torch import load_file

        saved = load_file(self.out / "checkpoint.safetensors")
        self.step = int(saved["step"])
        params = dict(self.model.named_parameters())
        import torch

        with torch.no_grad():
            for name, param in params.items():
                param.copy_(saved[f"model.{name}"])
            for i, momentum in enumerate(self.muon.momentum):
                momentum.copy_(saved[f"muon.{i}"])
        state = self.adam.state_dict()
        state["state"] = {
            i: {key: saved[f"adam.{i}.{key}"] for key in ("step", "exp_avg", "exp_avg_sq")}
            for i in range(len(self.adam.param_groups[0]["params"]))
        }
        self.adam.load_state_dict(state)

    def save(self) -> None:
        """Write a checkpoint under a temporary name, then rename it."""
        import torch
        from safetensors.torch import save_file

        tensors = {f"model.{name}": param.detach() for name, param in self.model.named_parameters()}
        tensors |= {f"muon.{i}": momentum for i, momentum in enumerate(self.muon.momentum)}
        for i, state in self.adam.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{key}": value for key, value in state.items()}
        tensors["step"] = torch.tensor(self.step)
        save_file({k: v.contiguous() for k, v in tensors.items()}, self.out / "checkpoint.tmp")
        (self.out / "checkpoint.tmp").replace(self.out / "checkpoint.safetensors")
        (self.out / "pretrain.json").write_text(json.dumps(asdict(self.config), indent=1))

    def run(self, *, until: float = math.inf, save_every: float = 300.0) -> None:
        """Train to the planned number of tokens, or until the clock says ``until``."""
        from tqdm import tqdm

        config, started = self.config, time.monotonic()
        saved = started
        bar = tqdm(total=self.steps, initial=self.step, unit="step", mininterval=10)
        for window in batches(self.train_ids, config, self.end_id, self.step):
            if self.step >= self.steps or time.monotonic() > until:
                break
            scale = learning_rate_scale(self.step, self.steps, config)
            self.muon.scale = scale
            for group in self.adam.param_groups:
                group["lr"] = config.adam_lr * scale
            loss = self._step(window)
            self.step += 1
            bar.update()
            if self.step % 10 == 0:
                bar.set_postfix(loss=f"{loss:.3f}", lr=f"{scale:.2f}", refresh=False)
            if self.step % 250 == 0:
                valid = held_out_loss(self.model, self.valid_ids[:20_000], config.n_positions)
                words = f"held out {valid:.3f} (perplexity {math.exp(valid):.1f})"
                tqdm.write(f"step {self.step}: train {loss:.3f}, {words}")
            if time.monotonic() - saved > save_every:
                self.save()
                saved = time.monotonic()
        bar.close()
        self.save()

    def _step(self, window: torch.Tensor) -> float:
        import torch

        self.model.zero_grad(set_to_none=True)
        total = 0.0
        for micro in window.split(8):
            with torch.autocast("cpu", torch.bfloat16, enabled=self.config.precision == "bfloat16"):
                logits = self.model(micro).logits[:, :-1]
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1).float(), micro[:, 1:].flatten())
            (loss * len(micro) / len(window)).backward()
            total += float(loss.detach()) * len(micro) / len(window)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.muon.step()
        self.adam.step()
        return total

    def export(self, folder: Path) -> dict[str, float]:
        """Write the fp16 model and tokenizer in the hub's layout; return what the model card reports."""
        from transformers import PreTrainedTokenizerFast

        loss = held_out_loss(self.model.half().float(), self.valid_ids, self.config.n_positions)
        baseline = KneserNeyTrigram.fit(self.train_ids, self.config.vocab_size).perplexity(self.valid_ids)
        self.model.half().save_pretrained(folder)
        self.model.float()
        PreTrainedTokenizerFast.from_pretrained(self.out).save_pretrained(folder)
        report = {
            "parameters": sum(p.numel() for p in self.model.parameters()),
            "train_tokens": len(self.train_ids),
            "tokens_read": self.step * self.config.batch_size * self.config.n_positions,
            "held_out_tokens": len(self.valid_ids),
            "held_out_loss": loss,
            "held_out_perplexity": math.exp(loss),
            "trigram_perplexity": baseline,
            "ratio": math.exp(loss) / baseline,
        }
        (folder / "pretrain_report.json").write_text(json.dumps(report | {"config": asdict(self.config)}, indent=1))
        return report


def main(argv: list[str] | None = None) -> int:
    """Command line of ``python -m sae_widget.pretrain``."""
    parser = argparse.ArgumentParser(prog="sae_widget.pretrain", description=__doc__)
    parser.add_argument("--corpus", type=Path, required=True, help="directory of UTF-8 .txt files")
    parser.add_argument("--out", type=Path, required=True, help="directory of the run: tokenizer and checkpoints")
    parser.add_argument("--export", type=Path, help="write the finished fp16 model here")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop (resumably) after this long")
    defaults = PretrainConfig()
    for field in ("n_layer", "n_embd", "n_head", "n_positions", "vocab_size", "batch_size", "tokens", "seed"):
        parser.add_argument(f"--{field.replace('_', '-')}", type=int, default=getattr(defaults, field))
    for field in ("muon_lr", "adam_lr", "weight_decay", "dropout", "decay_share"):
        parser.add_argument(f"--{field.replace('_', '-')}", type=float, default=getattr(defaults, field))
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default=defaults.precision)
    args = vars(parser.parse_args(argv))
    corpus, out, export, minutes = (args.pop(k) for k in ("corpus", "out", "export", "minutes"))
    run = PretrainRun(PretrainConfig(**args), out, corpus)
    run.run(until=time.monotonic() + 60 * minutes)
    if export is not None:
        sys.stdout.write(json.dumps(run.export(export), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
