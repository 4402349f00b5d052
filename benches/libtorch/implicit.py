"""MEMO on several images at once without any adapted weight: memo's own implicit step in libtorch.

    python implicit.py JOB_FOLDER        common.py says what is in the folder, and what to type

After W <- W - r dY'X a linear layer gives x W' - r (x X') dY, where X are the views' inputs to the layer and dY the gradients of its
outputs. Forward hooks keep both for every layer, autograd is asked for nothing but the dY, and the hooks then correct the
prediction; vectors (norms, biases, embeddings) take their step an image each. So the weights are the same for all images, forward
and backward. Images are predicted before and after in one pass, as two halves of a batch.

The precision is that of the views and of the corrections; the prediction itself is in float32, as exact as memo's. There is one step,
and no weight that moves: `moved` is null.
"""
import torch
from torch import nn
from torch.nn.functional import layer_norm

import views as device_views
from common import Variant, class_logits, load_clip, marginal_entropy, serve
from tower import Embed, Tower


class Implicit(Variant):
    def __init__(self, job):
        super().__init__(job)
        if job.steps != 1:
            raise ValueError(f"steps {job.steps}: the implicit step is one")
        job.set_precision()
        self.precision = torch.get_float32_matmul_precision()
        self.at_once = job.batch
        self.tower = Tower(load_clip(job.model, dtype=torch.float32)).eval().to(job.device).requires_grad_(False)
        self.parameters = sum(w.numel() for w in self.tower.parameters())
        self.text = job.text.to(job.device)
        for block in self.tower.blocks:
            block.activation = job.faster(block.activation)
        for layer in self.tower.modules():
            if isinstance(layer, (nn.Linear, nn.LayerNorm, Embed)):
                layer.register_forward_hook(self.hook)
        self.inputs, self.outputs, self.steps = {}, {}, None
        self.make = device_views.maker(job)
        self.adapt = job.captured(self.adapt_eagerly)

    def hook(self, layer, inputs, y):
        return self.keep(layer, inputs[0], y) if self.steps is None else self.correct(layer, inputs[0], y)

    def keep(self, layer, x, y):
        if isinstance(layer, Embed):
            y.requires_grad_()  # where the gradient's way back ends
        self.inputs[layer], self.outputs[layer] = x.detach(), y
        return y

    def gradients(self, views):
        """What each layer's step is made of, and entropies (S,)."""
        s, n = views.shape[:2]
        self.steps = None
        with self.stage("forward"):
            with self.job.autocast():
                features = self.tower(views.flatten(0, 1))
            entropy = marginal_entropy(class_logits(features.float(), self.text).unflatten(0, (s, n)))
        layers = [layer for layer, y in self.outputs.items() if y.requires_grad]
        with self.stage("backward"):
            gradients = torch.autograd.grad(entropy.sum(), [self.outputs[layer] for layer in layers])
        kept = {layer: (self.inputs[layer].unflatten(0, (s, n)), dy.unflatten(0, (s, n))) for layer, dy in zip(layers, gradients)}
        patches = self.inputs[self.tower.patch].unflatten(0, (s, n))
        kept[self.tower.patch] = patches, kept[self.tower.embed][1][:, :, 1:]
        self.inputs, self.outputs = {}, {}
        with self.stage("step"):
            return {layer: self.prepare(layer, *pair) for layer, pair in kept.items()}, entropy.detach()

    def prepare(self, layer, x, dy):  # (S, N, T, K), (S, N, T, C), or without T
        if isinstance(layer, Embed):  # of each position; the class embedding's step is position 0's once more
            dy = dy.sum(1)
            dy[:, 0] *= 2
            return (dy,)
        x, dy = (t.reshape(len(t), -1, t.shape[-1]) for t in (x, dy))  # (S, R, .)
        if isinstance(layer, nn.Linear):
            x = x.to(dy.dtype)  # as autocast had it in the product
            return x, dy, None if layer.bias is None else dy.sum(1, dtype=torch.float32)
        scaled = layer_norm(x.float(), layer.normalized_shape, eps=layer.eps)
        return (scaled * dy).sum(1), dy.sum(1, dtype=torch.float32)  # of the gain, of the bias

    def correct(self, layer, x, y):
        """In the second half of the batch y takes the step."""
        rate, step = -self.job.lr, self.steps[layer]
        s = len(step[0])
        x, rows = x[s:].reshape(s, -1, x.shape[-1]), y[s:].view(s, -1, y.shape[-1])  # (S, T, .)
        if isinstance(layer, Embed):
            rows.add_(step[0], alpha=rate)
        elif isinstance(layer, nn.Linear):
            views, dy, bias = step
            torch.set_float32_matmul_precision(self.precision)
            rows.add_((x.to(views.dtype) @ views.mT) @ dy, alpha=rate)
            torch.set_float32_matmul_precision("highest")
            if bias is not None:
                rows.add_(bias[:, None], alpha=rate)
        else:
            gain, bias = step
            scaled = layer_norm(x, layer.normalized_shape, eps=layer.eps)
            rows.add_(torch.addcmul(bias[:, None], scaled, gain[:, None]), alpha=rate)
        return y

    def adapt_eagerly(self, originals, views):
        self.steps, entropy = self.gradients(views)
        torch.set_float32_matmul_precision("highest")
        with self.stage("predict"), torch.no_grad():
            zero_shot, memo = class_logits(self.tower(originals.repeat(2, 1, 1, 1)), self.text).chunk(2)
        torch.set_float32_matmul_precision(self.precision)
        self.steps = None
        return zero_shot, memo, entropy

    def moved(self):
        return None


if __name__ == "__main__":
    serve(Implicit)
