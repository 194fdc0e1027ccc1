"""torchvision's vision transformers at any size: their position embedding is resampled to the patches of each image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import VisionTransformer

_POSITIONS = "encoder.pos_embedding"


class AnySizeVisionTransformer(VisionTransformer):  # type: ignore[misc]  # torchvision has no types
    """torchvision's, with the same weights under the same names, and the same output at its own size.

    The embedding keeps the shape of its own size, so that weights, optimizer and average have one shape throughout a
    run, and learns through the resampling at every other (Beyer et al. 2023, arXiv:2212.08013, do so).
    """

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        if height % self.patch_size or width % self.patch_size:
            near = max(1, round(width / self.patch_size)) * self.patch_size
            raise ValueError(f"its patches are {self.patch_size} px wide: use {near} px")
        patches = self.conv_proj(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.class_token.expand(len(images), -1, -1), patches], dim=1)
        rows, columns = height // self.patch_size, width // self.patch_size
        encoder = self.encoder
        tokens = tokens + resample_positions(encoder.pos_embedding, rows, columns)
        encoded = encoder.ln(encoder.layers(encoder.dropout(tokens)))
        logits: Tensor = self.heads(encoded[:, 0])
        return logits


def resample_positions(embedding: Tensor, rows: int, columns: int) -> Tensor:
    """A class token's position and those of a square of patches, for other rows and columns of them.

    (1, 1 + side * side, channels) -> (1, 1 + rows * columns, channels)
    """
    side = math.isqrt(embedding.shape[1] - 1)
    if (side, side) == (rows, columns):
        return embedding
    token, square = embedding[:, :1], embedding[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    resampled = F.interpolate(square, (rows, columns), mode="bicubic", antialias=True)
    return torch.cat([token, resampled.flatten(2).transpose(1, 2)], dim=1)


def fit_positions(model: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Resample the position embedding among `tensors`, where there is one, to the size that `model` keeps it at."""
    if isinstance(model, VisionTransformer) and (given := tensors.get(_POSITIONS)) is not None and given.ndim == 3:
        side = math.isqrt(model.encoder.pos_embedding.shape[1] - 1)
        tensors[_POSITIONS] = resample_positions(given, side, side)
