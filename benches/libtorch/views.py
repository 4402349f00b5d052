"""The notebook's views in batched tensor operations on any device; for tuned.py, vmap.py and implicit.py. Not a program.

The same draws and transforms as notebook.py's, in the same order: flips, rotation (nearest, zeros outside), colour jitter in a
random order, random resized crop (bilinear, antialiased), each view with draws of its own. Colours are not rounded to 8 bits
between them. No operation waits for the device or depends on what was drawn, so that all of it can be compiled and captured.
"""
import math

import torch

from common import MEAN, STD

ROTATION, JITTER, HUE, SCALE, RATIO, TRIES = 30.0, 0.2, 0.2, (0.08, 1.0), (3 / 4, 4 / 3), 10


def uniform(shape, low, high, device):
    return low + (high - low) * torch.rand(shape, device=device)


def flip_and_rotate(x):  # (B, 3, h, w)
    b, _, h, w = x.shape
    angle = uniform((b, 1, 1), -ROTATION, ROTATION, x.device).deg2rad()
    across, down = (torch.rand((b, 1, 1), device=x.device) < 0.5 for _ in range(2))
    dx = torch.arange(w, device=x.device) + 0.5 - w / 2
    dy = (torch.arange(h, device=x.device) + 0.5 - h / 2)[:, None]
    from_x = (angle.cos() * dx + angle.sin() * dy + w / 2).floor().long()  # (B, h, w)
    from_y = (angle.cos() * dy - angle.sin() * dx + h / 2).floor().long()
    inside = (from_x >= 0) & (from_x < w) & (from_y >= 0) & (from_y < h)
    from_x = torch.where(across, w - 1 - from_x, from_x).clamp(0, w - 1)
    from_y = torch.where(down, h - 1 - from_y, from_y).clamp(0, h - 1)
    index = (from_y * w + from_x).flatten(1)[:, None].expand(-1, 3, -1)
    return x.flatten(2).gather(2, index).view(x.shape) * inside[:, None]


def shift_hue(x, turns):  # (B, 3, h, w), (B, 1, 1)
    r, g, b = x.unbind(1)
    value = x.amax(1)
    chroma = value - x.amin(1)
    unit = torch.where(chroma > 0, chroma, 1)
    hue = torch.where(value == r, (g - b) / unit, torch.where(value == g, (b - r) / unit + 2, (r - g) / unit + 4))
    k = [(hue + 6 * turns + corner) % 6 for corner in (5, 3, 1)]
    return torch.stack([value - chroma * torch.minimum(at, 4 - at).clamp(0, 1) for at in k], 1)


def jitter(x):  # (B, 3, h, w)
    """Brightness, contrast and saturation are blends with black, the mean grey and the grey image: one blend in four turns."""
    b, device = len(x), x.device
    order = torch.rand((b, 4), device=device).argsort(1)
    factors = uniform((b, 4), 1 - JITTER, 1 + JITTER, device)
    turns = uniform((b, 1, 1), -HUE, HUE, device)
    for turn in range(4):
        step = order[:, turn, None]
        factor, step = factors.gather(1, step)[..., None, None], step[..., None, None]
        grey = 0.299 * x[:, 0:1] + 0.587 * x[:, 1:2] + 0.114 * x[:, 2:3]
        other = torch.where(step == 2, grey, torch.where(step == 1, grey.mean((2, 3), keepdim=True), 0))
        x = torch.where(step == 3, shift_hue(x, turns), (other + factor * (x - other)).clamp(0, 1))
    return x


def draw_crops(b, h, w, device):
    """Top, left, height, width (B,): the first try that fits, or the largest central crop of a ratio in range."""
    area = h * w * uniform((b, TRIES), *SCALE, device)
    ratio = uniform((b, TRIES), math.log(RATIO[0]), math.log(RATIO[1]), device).exp()
    widths, heights = (area * ratio).sqrt().round(), (area / ratio).sqrt().round()
    fits = (widths > 0) & (widths <= w) & (heights > 0) & (heights <= h)
    first, any_fits = fits.int().argmax(1, keepdim=True), fits.any(1)
    central_h, central_w = min(h, max(1, round(w / RATIO[0]))), min(w, max(1, round(h * RATIO[1])))
    height = torch.where(any_fits, heights.gather(1, first)[:, 0], central_h)
    width = torch.where(any_fits, widths.gather(1, first)[:, 0], central_w)
    top = torch.where(any_fits, (torch.rand(b, device=device) * (h - height + 1)).floor(), (h - central_h) // 2)
    left = torch.where(any_fits, (torch.rand(b, device=device) * (w - width + 1)).floor(), (w - central_w) // 2)
    return top, left, height, width


def triangle(x):
    return (1 - x.abs()).clamp(min=0)


def cubic(x):  # Pillow's, a = -0.5
    x = x.abs()
    inner, outer = (1.5 * x - 2.5) * x * x + 1, ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, inner, torch.where(x < 2, outer, 0))


def weights(inp, out, start, length, kernel, low=None, high=None):
    """Of `inp` pixels for each of `out` that cover [start, start + length), all (B,): (B, 1, out, inp). As Pillow's resize."""
    start, length = start[:, None, None], length[:, None, None]
    pixel = torch.arange(inp, device=start.device) + 0.5
    centre = start + (torch.arange(out, device=start.device) + 0.5)[:, None] * length / out
    weight = kernel((pixel - centre) / (length / out).clamp(min=1))
    if low is not None:  # what is outside of a crop is gone
        weight = weight * ((pixel > low[:, None, None]) & (pixel < high[:, None, None]))
    return (weight / weight.sum(-1, keepdim=True))[:, None]


def normalised(x):
    return torch.stack([(channel - m) / s for channel, m, s in zip(x.unbind(1), MEAN, STD)], 1)


def make_views(images, n, size):  # (S, 3, h, w) in 0..1 -> (S, n, 3, size, size)
    s, _, h, w = images.shape
    x = jitter(flip_and_rotate(images.repeat_interleave(n, 0)))
    top, left, height, width = draw_crops(s * n, h, w, x.device)
    down = weights(h, size, top, height, triangle, top, top + height)
    across = weights(w, size, left, width, triangle, left, left + width)
    return normalised(down @ x @ across.mT).view(s, n, 3, size, size)


def make_originals(images, size):  # (S, 3, h, w) in 0..1 -> (S, 3, size, size)
    """CLIP's preprocess: the short side to `size` and the centre, bicubic."""
    h, w = images.shape[-2:]

    def matrix(side):
        long = int(size * side / min(h, w))
        start = torch.full((1,), round((long - size) / 2) * side / long, device=images.device)
        return weights(side, size, start, torch.full_like(start, size * side / long), cubic)

    across = (images @ matrix(w).mT).clamp(0, 1)  # bicubic weights overshoot; Pillow clamps after each pass
    return normalised((matrix(h) @ across).clamp(0, 1))


def make(images, n, size):  # (S, h, w, 3) uint8
    images = images.permute(0, 3, 1, 2).float() / 255
    return make_originals(images, size), make_views(images, n, size)


def maker(job):
    """A function of pictures (h, w, 3) that makes their originals and views on the job's device."""
    make_alike = job.captured(job.faster(lambda images: make(images, job.drawn, job.size)))

    def make_any(pictures):
        if len({picture.shape for picture in pictures}) == 1:
            return make_alike(torch.stack(pictures).to(job.device))
        made = [[t.clone() for t in make_alike(picture[None].to(job.device))] for picture in pictures]
        return tuple(torch.cat(parts) for parts in zip(*made))

    return make_any
