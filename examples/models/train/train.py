#!/usr/bin/env python3
"""Train the example model (model.py), a small BitNet b1.58, or its full-precision twin.

    train.py --corpus DIR --out DIR [--dense] [--device cuda] [--steps N] ...

Writes `model.safetensors` (packed ternary, or bf16 with `--dense`), `config.json`, `generation_config.json`,
`tokenizer.json`, `tokenizer_config.json` and `training.json`: the checkpoint with the best held-out value seen.
Every choice is a function of the arguments and the step, never of the clock.
"""
import argparse
import json
import math
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn

from corpus import PAGE_SEPARATOR
from model import NORM_EPS, ROPE_THETA, LanguageModel, Linear, ternary_codes

END_OF_TEXT = "<|end_of_text|>"  # id 0; begins every page
MAX_POSITIONS = 1024
CODES_PER_BYTE = 4
MAX_GRADIENT_NORM = 1.0
ADAM_BETAS = (0.9, 0.95)
# Held-out windows read by the check during training; the last check reads all of them.
CHECK_WINDOWS = 128
CHECK_BATCH = 16


# ---- arguments

def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--corpus", type=Path, required=True, help="folder with train.txt and heldout.txt, from corpus.py")
    add("--out", type=Path, required=True)
    add("--dense", action="store_true", help="the full-precision twin")
    add("--tokenizer", type=Path, help="use this tokenizer.json instead of training one on the corpus")
    add("--hidden", type=int, default=256)
    add("--layers", type=int, default=6)
    add("--heads", type=int, default=8)
    add("--kv-heads", type=int, default=4)
    add("--intermediate", type=int, default=768)
    add("--vocab", type=int, default=4096)
    add("--steps", type=int, default=3805)
    add("--context", type=int, default=256, help="tokens per window")
    add("--batch", type=int, default=16, help="windows per step")
    add("--lr", type=float, default=3e-3, help="highest learning rate")
    add("--warmup", type=int, default=200, help="steps of linear warmup; a cosine to zero follows")
    add("--weight-decay", type=float, default=0.05)
    add("--decay-until", type=float, default=0.6, help="share of the steps with weight decay; none after")
    add("--dropout", type=float, default=0.0, help="on each sublayer's output")
    add("--check-every", type=int, default=250, help="steps between held-out checks")
    add("--seed", type=int, default=1)
    add("--device", default="cpu", help="cpu or cuda")
    add("--threads", type=int, default=2)
    add("--compile", action="store_true", help="torch.compile the model")
    args = parser.parse_args()
    if args.context > MAX_POSITIONS:
        parser.error(f"--context is at most {MAX_POSITIONS}")
    return args


# ---- data

def train_tokenizer(text: str, vocab: int) -> Tokenizer:
    """A byte-level BPE of `vocab` entries."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab, special_tokens=[END_OF_TEXT], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(text.split(PAGE_SEPARATOR), trainer)
    return tokenizer


def token_ids(tokenizer: Tokenizer, text: str) -> Tensor:
    ids: list[int] = []
    for page in text.split(PAGE_SEPARATOR):
        ids.append(tokenizer.token_to_id(END_OF_TEXT))
        ids += tokenizer.encode(page).ids
    return torch.tensor(ids)


def windows(ids: Tensor, starts: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """Inputs and next tokens, each [len(starts), context]."""
    index = starts[:, None] + torch.arange(context + 1)
    rows = ids[index.to(ids.device)]
    return rows[:, :-1], rows[:, 1:]


# ---- loss

def cross_entropy(model: nn.Module, inputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model(inputs).float().flatten(0, 1), targets.flatten())


@torch.no_grad()
def bits_per_byte(model: nn.Module, ids: Tensor, bytes_per_token: float, context: int, limit: int | None) -> float:
    """Mean over windows that do not overlap, float32 outside the quantized layers; evenly spaced if over `limit`."""
    starts = torch.arange(0, len(ids) - context, context)
    if limit is not None and len(starts) > limit:
        starts = starts[torch.linspace(0, len(starts) - 1, limit).long()]
    model.eval()
    total = 0.0
    for chunk in starts.split(CHECK_BATCH):
        total += cross_entropy(model, *windows(ids, chunk, context)).item() * len(chunk)
    model.train()
    return total / len(starts) / math.log(2) / bytes_per_token


# ---- checkpoint

def pack_ternary(codes: Tensor) -> Tensor:
    """Codes [n, k] to u8 [n / 4, k]: byte row r holds rows r, r + n/4, r + n/2, r + 3n/4 from bit 0 up, as code + 1."""
    rows = (codes + 1).to(torch.uint8).chunk(CODES_PER_BYTE)
    return rows[0] | rows[1] << 2 | rows[2] << 4 | rows[3] << 6


def checkpoint_tensors(model: LanguageModel) -> dict[str, Tensor]:
    tensors = {}
    for name, module in model.named_modules():
        weight = getattr(module, "weight", None)
        if not isinstance(weight, Tensor):
            continue
        weight = weight.detach().cpu()
        if isinstance(module, Linear) and not module.dense:
            codes, scale = ternary_codes(weight.float())
            tensors[f"model.{name}.weight"] = pack_ternary(codes).contiguous()
            tensors[f"model.{name}.weight_scale"] = scale.reshape(1).bfloat16()
        else:
            tensors[f"model.{name}.weight"] = weight.bfloat16().contiguous()
    return tensors


def model_config(args: argparse.Namespace) -> dict:
    config = {
        "architectures": ["BitNetForCausalLM"], "model_type": "bitnet",
        "hidden_size": args.hidden, "intermediate_size": args.intermediate, "num_hidden_layers": args.layers,
        "num_attention_heads": args.heads, "num_key_value_heads": args.kv_heads, "vocab_size": args.vocab,
        "hidden_act": "relu2", "rms_norm_eps": NORM_EPS, "rope_theta": ROPE_THETA,
        "max_position_embeddings": MAX_POSITIONS, "tie_word_embeddings": True, "attention_bias": False,
        "bos_token_id": 0, "eos_token_id": 0, "torch_dtype": "bfloat16",
    }
    if not args.dense:
        config["quantization_config"] = {
            "quant_method": "bitnet", "linear_class": "autobitlinear", "quantization_mode": "offline"}
    return config


def write_json(path: Path, value: dict) -> None:
    path.write_text(json.dumps(value, indent=1) + "\n")


def write_checkpoint(model: LanguageModel, args: argparse.Namespace) -> None:
    save_file(checkpoint_tensors(model), args.out / "model.safetensors", metadata={"format": "pt"})


def write_descriptions(tokenizer: Tokenizer, args: argparse.Namespace) -> None:
    tokenizer.save(str(args.out / "tokenizer.json"))
    write_json(args.out / "config.json", model_config(args))
    write_json(args.out / "generation_config.json", {"bos_token_id": 0, "eos_token_id": 0})
    write_json(args.out / "tokenizer_config.json", {
        "tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END_OF_TEXT, "eos_token": END_OF_TEXT,
        "model_max_length": MAX_POSITIONS})


# ---- training

def make_optimizer(model: nn.Module, args: argparse.Namespace) -> torch.optim.Optimizer:
    """Group 0 is the matrices, which decay; group 1 the norms, which never do."""
    groups = [
        {"params": [p for p in model.parameters() if p.ndim == 2], "weight_decay": args.weight_decay},
        {"params": [p for p in model.parameters() if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=args.lr, betas=ADAM_BETAS)


def set_schedule(optimizer: torch.optim.Optimizer, step: int, args: argparse.Namespace) -> None:
    """Warmup, then a cosine to zero. The second stage has no weight decay, as in the published ternary recipe."""
    warmup = min(1.0, (step + 1) / args.warmup)
    progress = max(0, step - args.warmup) / max(1, args.steps - args.warmup)
    for group in optimizer.param_groups:
        group["lr"] = args.lr * warmup * 0.5 * (1 + math.cos(math.pi * progress))
    if step >= args.decay_until * args.steps:
        optimizer.param_groups[0]["weight_decay"] = 0.0


def train(model: LanguageModel, parts: dict[str, Tensor], bytes_per_token: float, args: argparse.Namespace) -> dict:
    """Trains, writes the best checkpoint on the way, and returns what `training.json` records."""
    forward = torch.compile(model) if args.compile else model
    optimizer = make_optimizer(model, args)
    generator = torch.Generator().manual_seed(args.seed)
    log: list[dict] = []
    best = math.inf
    loss_sum = torch.zeros((), device=args.device)
    began = time.monotonic()
    for step in range(args.steps):
        set_schedule(optimizer, step, args)
        starts = torch.randint(0, len(parts["train"]) - args.context, (args.batch,), generator=generator)
        with torch.autocast(args.device, dtype=torch.bfloat16):
            loss = cross_entropy(forward, *windows(parts["train"], starts, args.context))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimizer.step()
        loss_sum += loss.detach()
        done, is_last = step + 1, step + 1 == args.steps
        if done % args.check_every and not is_last:
            continue
        held_out = bits_per_byte(model, parts["heldout"], bytes_per_token, args.context, CHECK_WINDOWS)
        since_check = done - log[-1]["step"] if log else done
        log.append({"step": done, "train_loss": loss_sum.item() / since_check, "heldout_bits_per_byte": held_out})
        loss_sum.zero_()
        if held_out < best:
            best = held_out
            write_checkpoint(model, args)
        speed = done * args.batch * args.context / (time.monotonic() - began)
        print(f"{log[-1]}, {speed:.0f} tokens/s", flush=True)
    full = bits_per_byte(model, parts["heldout"], bytes_per_token, args.context, None)
    print(f"all held-out windows, last step: {full:.4f} bits per byte")
    best_entry = min(log, key=lambda entry: entry["heldout_bits_per_byte"])
    return {"saved_step": best_entry["step"], "heldout_bits_per_byte_last_step": full, "log": log}


def main() -> None:
    args = parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(args.threads)
    args.out.mkdir(parents=True, exist_ok=True)
    text = {name: (args.corpus / f"{name}.txt").read_text() for name in ("train", "heldout")}
    if args.tokenizer is not None:
        tokenizer = Tokenizer.from_file(str(args.tokenizer))
    else:
        tokenizer = train_tokenizer(text["train"], args.vocab)
    parts = {name: token_ids(tokenizer, part).to(args.device) for name, part in text.items()}
    bytes_per_token = len(text["heldout"]) / len(parts["heldout"])
    model = LanguageModel(args).to(args.device)
    n_parameters = sum(p.numel() for p in model.parameters())
    print(f"{n_parameters} parameters; {len(parts['train'])} training and {len(parts['heldout'])} held-out tokens "
          f"of {bytes_per_token:.2f} bytes", flush=True)
    write_descriptions(tokenizer, args)
    result = train(model, parts, bytes_per_token, args)
    recorded = {name: value for name, value in vars(args).items() if name not in ("corpus", "out", "tokenizer")}
    write_json(args.out / "training.json", {
        "args": recorded, "parameters": n_parameters,
        "train_tokens_seen": result["saved_step"] * args.batch * args.context, **result})


if __name__ == "__main__":
    main()
