"""The model that train.py trains: a small BitNet b1.58, quantization-aware, or the same in full precision.

Float weights are kept for the optimizer; the forward pass sees ternary weights (absmean, one scale per matrix) and int8
activations (absmax, one scale per token). Gradients pass through both roundings unchanged. With `dense` nothing is
rounded.
Source: Ma et al. 2024, arXiv:2402.17764.
"""
import argparse

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NORM_EPS = 1e-5
SCALE_FLOOR = 1e-5
ROPE_THETA = 10000.0
INIT_STD = 0.02


def straight_through(x: Tensor, rounded: Tensor) -> Tensor:
    """`rounded` in the forward pass, the gradient of `x` in the backward pass."""
    return x + (rounded - x).detach()


def ternary_codes(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Codes in {-1, 0, 1} and the scale that multiplies them."""
    scale = weight.abs().mean().clamp(min=SCALE_FLOOR)
    return (weight / scale).round().clamp(-1, 1), scale


def ternary_weight(weight: Tensor) -> Tensor:
    codes, scale = ternary_codes(weight)
    return straight_through(weight, codes * scale)


def int8_activations(x: Tensor) -> Tensor:
    inv_scale = 127.0 / x.abs().amax(-1, keepdim=True).clamp(min=SCALE_FLOOR)
    return straight_through(x, (x * inv_scale).round().clamp(-128, 127) / inv_scale)


class Norm(nn.Module):
    """RMSNorm, in float32 also under autocast."""

    def __init__(self, size: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x.float(), (x.shape[-1],), self.weight, NORM_EPS)


class Linear(nn.Module):
    def __init__(self, n: int, k: int, dense: bool):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(n, k) * INIT_STD)
        self.dense = dense

    def forward(self, x: Tensor) -> Tensor:
        if self.dense:
            return F.linear(x, self.weight)
        return F.linear(int8_activations(x), ternary_weight(self.weight))


class Rope(nn.Module):
    """Rotary position embedding on the two halves of a head."""

    def __init__(self, head_dim: int, positions: int):
        super().__init__()
        frequency = 1.0 / ROPE_THETA ** (torch.arange(0, head_dim, 2).float() / head_dim)
        angle = torch.outer(torch.arange(positions).float(), frequency)
        angle = torch.cat([angle, angle], -1)
        self.register_buffer("cos", angle.cos(), persistent=False)
        self.register_buffer("sin", angle.sin(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        positions = x.shape[-2]
        first, second = x.chunk(2, -1)
        return x * self.cos[:positions] + torch.cat([-second, first], -1) * self.sin[:positions]


class Attention(nn.Module):
    def __init__(self, args: argparse.Namespace, rope: Rope):
        super().__init__()
        self.head_dim = args.hidden // args.heads
        kv_size = args.kv_heads * self.head_dim
        self.q_proj = Linear(args.hidden, args.hidden, args.dense)
        self.k_proj = Linear(kv_size, args.hidden, args.dense)
        self.v_proj = Linear(kv_size, args.hidden, args.dense)
        self.o_proj = Linear(args.hidden, args.hidden, args.dense)
        self.attn_sub_norm = Norm(args.hidden)
        self.rope = rope

    def forward(self, x: Tensor) -> Tensor:
        def heads(projected: Tensor) -> Tensor:
            return projected.unflatten(-1, (-1, self.head_dim)).transpose(1, 2)

        q, k, v = heads(self.q_proj(x)), heads(self.k_proj(x)), heads(self.v_proj(x))
        # The rotation is in float32; the three operands of attention must agree.
        q, k = self.rope(q).to(v.dtype), self.rope(k).to(v.dtype)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return self.o_proj(self.attn_sub_norm(mixed.transpose(1, 2).flatten(2)))


class Mlp(nn.Module):
    def __init__(self, args: argparse.Namespace):
        super().__init__()
        self.gate_proj = Linear(args.intermediate, args.hidden, args.dense)
        self.up_proj = Linear(args.intermediate, args.hidden, args.dense)
        self.down_proj = Linear(args.hidden, args.intermediate, args.dense)
        self.ffn_sub_norm = Norm(args.intermediate)

    def forward(self, x: Tensor) -> Tensor:
        return self.down_proj(self.ffn_sub_norm(F.relu(self.gate_proj(x)).square() * self.up_proj(x)))


class Layer(nn.Module):
    def __init__(self, args: argparse.Namespace, rope: Rope):
        super().__init__()
        self.input_layernorm = Norm(args.hidden)
        self.self_attn = Attention(args, rope)
        self.post_attention_layernorm = Norm(args.hidden)
        self.mlp = Mlp(args)
        self.dropout = nn.Dropout(args.dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.self_attn(self.input_layernorm(x)))
        return x + self.dropout(self.mlp(self.post_attention_layernorm(x)))


class LanguageModel(nn.Module):
    """Token ids [m, context] to logits [m, context, vocab]. Parameters are named as in the published checkpoints."""

    def __init__(self, args: argparse.Namespace):
        super().__init__()
        self.embed_tokens = nn.Embedding(args.vocab, args.hidden)
        nn.init.normal_(self.embed_tokens.weight, std=INIT_STD)
        rope = Rope(args.hidden // args.heads, args.context)
        self.layers = nn.ModuleList(Layer(args, rope) for _ in range(args.layers))
        self.norm = Norm(args.hidden)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed_tokens(ids)
        for layer in self.layers:
            x = layer(x)
        return F.linear(self.norm(x), self.embed_tokens.weight)
