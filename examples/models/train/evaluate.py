#!/usr/bin/env python3
"""Held-out bits per byte and samples of a written checkpoint, through Hugging Face transformers.

    evaluate.py MODEL_DIR --corpus DIR [--context N ...] [--prompt TEXT ...]

It shares no model code with training, so it also checks that the checkpoint means what training meant.
Arithmetic is float32; a ternary model keeps its ternary weights and int8 activations.
"""
import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, PreTrainedModel

from train import CHECK_BATCH, token_ids, windows


def load_float32(model_dir: Path) -> PreTrainedModel:
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    # An offline `autobitlinear` checkpoint otherwise keeps some tensors in their stored bf16.
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            tensor.data = tensor.data.float()
    return model


@torch.inference_mode()
def nats_per_token(model: PreTrainedModel, ids: torch.Tensor, context: int) -> float:
    """Mean over all windows of `context` tokens that do not overlap."""
    starts = torch.arange(0, len(ids) - context, context)
    total = 0.0
    for chunk in starts.split(CHECK_BATCH):
        inputs, targets = windows(ids, chunk, context)
        total += F.cross_entropy(model(inputs).logits.flatten(0, 1), targets.flatten()).item() * len(chunk)
    return total / len(starts)


@torch.inference_mode()
def sample(model: PreTrainedModel, tokenizer: Tokenizer, prompt: str, n_tokens: int, temperature: float) -> str:
    """`prompt` continued, greedily at temperature 0; seed 0."""
    torch.manual_seed(0)
    ids = torch.tensor([[0, *tokenizer.encode(prompt).ids]])
    choice = {"do_sample": False}
    if temperature > 0:
        choice = {"do_sample": True, "temperature": temperature, "top_k": 0, "top_p": 1.0}
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=n_tokens, pad_token_id=0, **choice)
    return tokenizer.decode(out[0].tolist())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--context", type=int, nargs="+", default=[256])
    parser.add_argument("--prompt", nargs="+", default=["The `Vec` type"])
    parser.add_argument("--tokens", type=int, default=100, help="length of a sample")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    tokenizer = Tokenizer.from_file(str(args.model / "tokenizer.json"))
    text = (args.corpus / "heldout.txt").read_text()
    ids = token_ids(tokenizer, text)
    model = load_float32(args.model)
    for context in args.context:
        nats = nats_per_token(model, ids, context)
        bits_per_byte = nats / math.log(2) * len(ids) / len(text)
        print(f"context {context}: {bits_per_byte:.4f} bits per byte, perplexity {math.exp(nats):.2f} per token")
    for prompt in args.prompt:
        for temperature in (0.0, 0.7):
            print(f"--- temperature {temperature}")
            print(sample(model, tokenizer, prompt, args.tokens, temperature))


if __name__ == "__main__":
    main()
