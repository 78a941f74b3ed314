"""The region encoder: turns a box of the image into one token, from a pyramid of CLIP features."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn.functional import interpolate, relu

from vlmlens_adapter_glamm.config import GlammConfig

_GRID_START, _GRID_STOP = -1.0, 1.0


class RegionEncoder(nn.Module):
    """A vector per box, as wide as the language model."""

    def __init__(self, config: GlammConfig) -> None:
        super().__init__()
        self.mlvl_fuse = LevelFusion(config)
        self.roi_align = RegionPooling(config)

    def forward(
        self, levels: Sequence[torch.Tensor], boxes: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        """Region vectors, `[boxes, width]`.

        Args:
            levels: From coarse meaning to fine: the tower's features `[images, channels, side,
                side]`, early blocks first.
            boxes: float32 `[boxes, 4]`: left, top, right, bottom in fractions of the image.
            images: int64 `[boxes]`: the image of each.
        """
        vectors: torch.Tensor = self.roi_align(self.mlvl_fuse(levels), boxes, images)
        return vectors


class LevelFusion(nn.Module):
    """Makes a pyramid of maps of equal size, and mixes neighbouring levels a few times."""

    def __init__(self, config: GlammConfig) -> None:
        super().__init__()
        region, inputs = config.region_config, config.vision_config.hidden_size
        wide = region.embed_dims
        self.input_conv = nn.ModuleList(
            nn.Conv2d(inputs + 2, wide, 1) for _ in range(config.num_region_levels)
        )
        self.fuse_convs = nn.ModuleList(
            FusingConv(wide, region.group_norm_groups) for _ in range(region.num_fuse)
        )

    def forward(self, levels: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Maps `[images, channels, size, size]`, each level half the size of the one before."""
        last = len(levels) - 1
        maps = [
            conv(_with_places(_resized(level, level.shape[-1] * 2 ** (last - i))))
            for i, (conv, level) in enumerate(zip(self.input_conv, levels, strict=True))
        ]
        for conv in self.fuse_convs:
            maps = [conv(_mixed(maps, i)) for i in range(len(maps))]
        return maps


class FusingConv(nn.Module):
    """Convolution, group norm, ReLU."""

    def __init__(self, wide: int, groups: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(wide, wide, 3, padding=1, bias=False)
        self.gn = nn.GroupNorm(groups, wide)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """`[images, channels, size, size]` to the same shape."""
        return relu(self.gn(self.conv(features)))


class RegionPooling(nn.Module):
    """Crops each box from every level and combines it with its corners into one vector."""

    def __init__(self, config: GlammConfig) -> None:
        super().__init__()
        region, levels = config.region_config, config.num_region_levels
        wide, middle, side = region.embed_dims, region.mid_dim, region.roi_output_size
        patch = config.vision_config.patch_size
        self.scale = float(region.roi_scale)
        self.roi_layers = nn.ModuleList(
            RoIAlign(2 ** (levels - 1 - i) / patch, side, region.roi_sampling_ratio)
            for i in range(levels)
        )
        self.pconvs = nn.ModuleList(nn.Conv2d(wide, wide, 3, padding=1) for _ in range(levels))
        self.pos_embedd = nn.Sequential(
            nn.Linear(4, region.pos_mid_dim),
            nn.ReLU(),
            nn.LayerNorm(region.pos_mid_dim),
            nn.Linear(region.pos_mid_dim, middle),
            nn.ReLU(),
            nn.LayerNorm(middle),
        )
        self.flatten_linear = nn.Linear(wide * side**2, middle)
        self.updims = nn.Linear(middle, config.text_config.hidden_size)

    def forward(
        self, maps: Sequence[torch.Tensor], boxes: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        """Region vectors, `[boxes, width]`; arguments as for `RegionEncoder`."""
        summed = torch.stack(
            [
                conv(align(level, boxes * self.scale, images))
                for conv, align, level in zip(self.pconvs, self.roi_layers, maps, strict=True)
            ]
        ).sum(0)
        corners = self.pos_embedd(boxes.to(summed.dtype))
        vectors: torch.Tensor = self.updims(self.flatten_linear(relu(summed).flatten(1)) + corners)
        return vectors


class RoIAlign(nn.Module):
    """Features of a box as a small raster (He et al., Mask R-CNN, arXiv:1703.06870, section 3).

    Each cell is the mean of `ratio x ratio` points in it, read bilinearly. Coordinates are those
    of pixel centres ("aligned"): a box is moved by half a pixel after it is scaled. Points up to
    one pixel outside the map take the value at its edge, points farther out are zero.

    Args:
        scale: Factor from the boxes' pixels to those of the map.
        side: Cells along a side of the result.
        ratio: Points along a side of a cell.
    """

    def __init__(self, scale: float, side: int, ratio: int) -> None:
        super().__init__()
        self.scale, self.side, self.ratio = scale, side, ratio

    def forward(
        self, features: torch.Tensor, boxes: torch.Tensor, images: torch.Tensor
    ) -> torch.Tensor:
        """Cut-outs, `[boxes, channels, side, side]`.

        Args:
            features: `[images, channels, height, width]`.
            boxes: float32 `[boxes, 4]`: left, top, right, bottom.
            images: int64 `[boxes]`: the image of each.
        """
        left, top, right, bottom = (boxes.float() * self.scale - 0.5).unbind(1)
        down = self._weights(top, bottom, features.shape[2]).to(features.dtype)
        across = self._weights(left, right, features.shape[3]).to(features.dtype)
        cut = features.new_empty(len(boxes), features.shape[1], self.side, self.side)
        for image in images.unique().tolist():
            own = images == image
            rows = torch.einsum("bqw,chw->bchq", across[own], features[image])
            cut[own] = torch.einsum("bph,bchq->bcpq", down[own], rows)
        return cut

    def _weights(self, start: torch.Tensor, stop: torch.Tensor, size: int) -> torch.Tensor:
        """float32 `[boxes, side, size]`: how much of each map row (or column) a cell is."""
        steps = torch.arange(self.side * self.ratio, device=start.device) + 0.5
        points = start[:, None] + steps * ((stop - start) / len(steps))[:, None]
        inside = (points >= -1) & (points <= size)
        near = points.clamp(0, size - 1)[..., None] - torch.arange(size, device=start.device)
        weights = relu(1 - near.abs()) * inside[..., None]
        cells: torch.Tensor = weights.unflatten(1, (self.side, self.ratio)).mean(2)
        return cells


def _resized(features: torch.Tensor, size: int) -> torch.Tensor:
    return interpolate(features, size=(size, size), mode="bilinear", align_corners=True)


def _with_places(features: torch.Tensor) -> torch.Tensor:
    """The features with two channels more: x and y from -1 to 1."""
    height, width = features.shape[-2:]
    x, y = (
        torch.linspace(_GRID_START, _GRID_STOP, size, device=features.device).to(features.dtype)
        for size in (width, height)
    )
    places = torch.stack([x.expand(height, width), y[:, None].expand(height, width)])
    return torch.cat([features, places.expand(len(features), -1, -1, -1)], 1)


def _mixed(maps: Sequence[torch.Tensor], level: int) -> torch.Tensor:
    """A level's first half, the next one's last quarter, the one before's third quarter."""
    own = maps[level]
    wide, size = own.shape[1], own.shape[-1]
    cuts = list(pairwise((0, wide // 2, wide // 2 + wide // 4, wide)))
    after, before = maps[min(level + 1, len(maps) - 1)], maps[max(level - 1, 0)]
    parts = ((own, cuts[0]), (after, cuts[2]), (before, cuts[1]))
    return torch.cat([_resized(one[:, a:b], size) for one, (a, b) in parts], 1)
