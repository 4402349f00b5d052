"""CLIP's vision tower as fast as libtorch has it, from a Hugging Face model; for tuned.py, vmap.py and implicit.py. Not a program.

Patches go through one product instead of a convolution, queries, keys and values through one product instead of three, and after
the last block's attention only the class token goes on, since nothing else is read. The parameters are the same, and as many.
"""
import torch
from torch import nn
from torch.nn.functional import scaled_dot_product_attention


def joined(*layers):
    """One linear layer for several of the same input."""
    first = layers[0]
    layer = nn.Linear(first.in_features, sum(l.out_features for l in layers), dtype=first.weight.dtype)
    layer.weight = nn.Parameter(torch.cat([l.weight.detach() for l in layers]))
    layer.bias = nn.Parameter(torch.cat([l.bias.detach() for l in layers]))
    return layer


class Embed(nn.Module):
    def __init__(self, embeddings):
        super().__init__()
        self.token, self.position = embeddings.class_embedding, embeddings.position_embedding.weight

    def forward(self, patches):  # (B, T - 1, C) -> (B, T, C)
        token = self.token.expand(len(patches), 1, -1)
        return torch.cat([token, patches], 1) + self.position


class Block(nn.Module):
    def __init__(self, layer, is_last):
        super().__init__()
        attention, self.is_last = layer.self_attn, is_last
        self.heads = attention.num_heads
        if is_last:
            self.q, self.kv = attention.q_proj, joined(attention.k_proj, attention.v_proj)
        else:
            self.qkv = joined(attention.q_proj, attention.k_proj, attention.v_proj)
        self.out, self.fc1, self.fc2 = attention.out_proj, layer.mlp.fc1, layer.mlp.fc2
        self.norm1, self.norm2, self.activation = layer.layer_norm1, layer.layer_norm2, layer.mlp.activation_fn

    def split(self, x, parts):  # (B, T, parts * C) -> parts of (B, NH, T, HS)
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind()

    def forward(self, x):  # (B, T, C) -> (B, T, C), or (B, 1, C)
        h = self.norm1(x)
        if self.is_last:
            x = x[:, :1]
            qkv = self.split(self.q(h[:, :1]), 1) + self.split(self.kv(h), 2)
        else:
            qkv = self.split(self.qkv(h), 3)
        x = x + self.out(scaled_dot_product_attention(*qkv).transpose(1, 2).flatten(2))
        return x + self.fc2(self.activation(self.fc1(self.norm2(x))))


class Tower(nn.Module):
    def __init__(self, clip):
        super().__init__()
        vision = clip.vision_model
        kernel = vision.embeddings.patch_embedding.weight.detach()  # (C, 3, P, P)
        self.side = kernel.shape[-1]
        self.patch = nn.Linear(kernel[0].numel(), len(kernel), bias=False)
        self.patch.weight = nn.Parameter(kernel.flatten(1).clone())
        self.embed, self.norm_pre, self.norm_post = Embed(vision.embeddings), vision.pre_layrnorm, vision.post_layernorm
        layers = vision.encoder.layers
        self.blocks = nn.ModuleList(Block(layer, layer is layers[-1]) for layer in layers)
        self.project = clip.visual_projection

    def patches(self, pixels):  # (B, 3, H, H) -> (B, T - 1, 3 * P * P)
        p = self.side
        return pixels.unfold(2, p, p).unfold(3, p, p).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)

    def forward(self, pixels):  # (B, 3, H, H) -> (B, D)
        x = self.norm_pre(self.embed(self.patch(self.patches(pixels))))
        for block in self.blocks:
            x = block(x)
        return self.project(self.norm_post(x[:, 0]))
