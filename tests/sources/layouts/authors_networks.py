"""Small networks with the names and the arithmetic of their authors' repositories.

Written for these tests, with torch's own layers only, so that nothing here can share a mistake with
timm or with the translation.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
from torch import nn
from torch.nn import functional


class QuickGELU(nn.Module):
    """The activation of OpenAI's CLIP."""

    def forward(self, x):
        """Multiply by the sigmoid of 1.702 times itself."""
        return x * torch.sigmoid(1.702 * x)


class ClipBlock(nn.Module):
    """Block of CLIP's transformer, on ``(N, B, C)``."""

    def __init__(self, width, heads, act):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        layers = [("c_fc", nn.Linear(width, 2 * width)), ("gelu", act())]
        layers.append(("c_proj", nn.Linear(2 * width, width)))
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x):
        """Attend, then apply the layers."""
        y = self.ln_1(x)
        x = x + self.attn(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class ClipTransformer(nn.Module):
    """Blocks of CLIP's transformer."""

    def __init__(self, width, heads, depth, act):
        super().__init__()
        self.resblocks = nn.Sequential(*(ClipBlock(width, heads, act) for _ in range(depth)))


class ClipVision(nn.Module):
    """Vision transformer of CLIP; returns the class token before the projection."""

    def __init__(self, size=32, patch=8, width=32, heads=2, depth=2, out=16, act=QuickGELU):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros((size // patch) ** 2 + 1, width))
        self.proj = nn.Parameter(torch.zeros(width, out))
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = ClipTransformer(width, heads, depth, act)
        self.ln_post = nn.LayerNorm(width)

    def forward(self, x):
        """Features ``(B, width)``."""
        x = self.conv1(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.class_embedding.expand(len(x), 1, -1), x], dim=1)
        x = self.ln_pre(x + self.positional_embedding)
        x = self.transformer.resblocks(x.transpose(0, 1)).transpose(0, 1)
        return self.ln_post(x[:, 0])


class Clip(nn.Module):
    """Both towers of CLIP, with the names of all that a file holds."""

    def __init__(self, visual, width=32):
        super().__init__()
        self.visual = visual
        self.transformer = ClipTransformer(width, 2, 2, QuickGELU)
        self.token_embedding = nn.Embedding(8, width)
        self.positional_embedding = nn.Parameter(torch.zeros(5, width))
        self.ln_final = nn.LayerNorm(width)
        self.text_projection = nn.Parameter(torch.zeros(width, 16))
        self.logit_scale = nn.Parameter(torch.ones([]))


class ClipBottleneck(nn.Module):
    """Bottleneck of CLIP's ResNet, which averages in place of strides."""

    def __init__(self, inputs, planes, stride):
        super().__init__()
        outputs = 4 * planes
        self.conv1 = nn.Conv2d(inputs, planes, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.avgpool = nn.AvgPool2d(stride) if stride > 1 else nn.Identity()
        self.conv3 = nn.Conv2d(planes, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            layers = [("-1", nn.AvgPool2d(stride))]
            layers.append(("0", nn.Conv2d(inputs, outputs, 1, bias=False)))
            self.downsample = nn.Sequential(OrderedDict([*layers, ("1", nn.BatchNorm2d(outputs))]))

    def forward(self, x):
        """Residual of three convolutions."""
        y = functional.relu(self.bn1(self.conv1(x)))
        y = functional.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(self.avgpool(y)))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)))


class ClipAttentionPool(nn.Module):
    """Attention of the mean to all positions; returns it before the projection."""

    def __init__(self, side, width, heads, out):
        super().__init__()
        self.positional_embedding = nn.Parameter(torch.zeros(side**2 + 1, width))
        self.k_proj = nn.Linear(width, width)
        self.q_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.c_proj = nn.Linear(width, out)
        self.heads = heads

    def forward(self, x):
        """Features ``(B, width)``."""
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([x.mean(1, keepdim=True), x], dim=1) + self.positional_embedding
        q, k, v = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in (self.q_proj(x[:, :1]), self.k_proj(x), self.v_proj(x))
        )
        return functional.scaled_dot_product_attention(q, k, v).flatten(1)


class ClipResNet(nn.Module):
    """ResNet of CLIP with one block in each stage."""

    def __init__(self, size=64, width=8, heads=4):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width // 2, 3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width // 2)
        self.conv2 = nn.Conv2d(width // 2, width // 2, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width // 2)
        self.conv3 = nn.Conv2d(width // 2, width, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(width)
        self.avgpool = nn.AvgPool2d(2)
        inputs = width
        for stage in range(4):
            block = ClipBottleneck(inputs, width * 2**stage, 2 if stage else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(block))
            inputs = 4 * width * 2**stage
        self.attnpool = ClipAttentionPool(size // 32, inputs, heads, 16)

    def forward(self, x):
        """Features ``(B, 32 width)``."""
        for conv, bn in ((self.conv1, self.bn1), (self.conv2, self.bn2), (self.conv3, self.bn3)):
            x = functional.relu(bn(conv(x)))
        x = self.avgpool(x)
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
        return self.attnpool(x)


class LayerScale(nn.Module):
    """A factor for each channel."""

    def __init__(self, width):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width))

    def forward(self, x):
        """Multiply."""
        return x * self.gamma


class Attention(nn.Module):
    """Attention with one layer for queries, keys and values."""

    def __init__(self, width, heads):
        super().__init__()
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)
        self.heads = heads

    def forward(self, x):
        """Attend among the tokens of ``(B, N, C)``."""
        q, k, v = (
            each.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for each in self.qkv(x).chunk(3, -1)
        )
        y = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(y.transpose(1, 2).flatten(2))


class Layers(nn.Module):
    """Two linear layers with GELU between them."""

    def __init__(self, width):
        super().__init__()
        self.fc1 = nn.Linear(width, 2 * width)
        self.fc2 = nn.Linear(2 * width, width)

    def forward(self, x):
        """Apply them."""
        return self.fc2(functional.gelu(self.fc1(x)))


class GatedLayers(nn.Module):
    """Linear layers of which one is the gate of the other."""

    def __init__(self, width):
        super().__init__()
        self.w12 = nn.Linear(width, 2 * width)
        self.w3 = nn.Linear(width, width)

    def forward(self, x):
        """Apply them."""
        gate, value = self.w12(x).chunk(2, -1)
        return self.w3(functional.silu(gate) * value)


class Block(nn.Module):
    """Block of DINO's, MAE's and DINOv2's vision transformers."""

    def __init__(self, width, heads, scaled, gated):
        super().__init__()
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = Attention(width, heads)
        self.ls1 = LayerScale(width) if scaled else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = GatedLayers(width) if gated else Layers(width)
        self.ls2 = LayerScale(width) if scaled else nn.Identity()

    def forward(self, x):
        """Attend, then apply the layers."""
        x = x + self.ls1(self.attn(self.norm1(x)))
        return x + self.ls2(self.mlp(self.norm2(x)))


class PatchEmbed(nn.Module):
    """Convolution of patches."""

    def __init__(self, patch, width):
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, patch)

    def forward(self, x):
        """Tokens ``(B, N, C)``."""
        return self.proj(x).flatten(2).transpose(1, 2)


class VisionTransformer(nn.Module):
    """Vision transformer of DINO, MAE and, with options, DINOv2; returns the class token."""

    def __init__(self, registers=0, dinov2=False, gated=False, chunks=0, size=32, width=32):
        super().__init__()
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, (size // 8) ** 2 + 1, width))
        self.patch_embed = PatchEmbed(8, width)
        if dinov2:
            self.mask_token = nn.Parameter(torch.zeros(1, width))
        if registers:
            self.register_tokens = nn.Parameter(torch.zeros(1, registers, width))
        blocks = [Block(width, 2, dinov2, gated) for _ in range(4)]
        if chunks:  # the places of the blocks before a chunk are taken by nothing
            half = len(blocks) // chunks
            blocks = [
                nn.ModuleList(
                    [nn.Identity()] * (half * n) + blocks[half * n : half * (n + 1)]
                )
                for n in range(chunks)
            ]  # fmt: skip
        self.blocks = nn.ModuleList(blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)

    def forward(self, x):
        """Features ``(B, width)``."""
        x = torch.cat([self.cls_token.expand(len(x), 1, -1), self.patch_embed(x)], dim=1)
        x = x + self.pos_embed
        if hasattr(self, "register_tokens"):
            registers = self.register_tokens.expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)
        for block in self.blocks:
            for part in block if isinstance(block, nn.ModuleList) else [block]:
                x = part(x)
        return self.norm(x)[:, 0]
