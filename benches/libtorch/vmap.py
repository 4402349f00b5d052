"""MEMO on several images at once, each with its own adapted weights, by torch.func's per-sample gradients.

    python vmap.py JOB_FOLDER            common.py says what is in the folder, and what to type

The forward pass over all views shares the loaded weights; gradients and adapted weights are one set an image, which is what it
pays for: two copies of the tower in float32 for each image at once (0.7 GB at ViT-B/32). Nothing is put back.
"""
import torch
from torch.func import functional_call, grad_and_value, vmap

import views as device_views
from common import Variant, class_logits, load_clip, marginal_entropy, serve, share_moved
from tower import Tower


class Vmap(Variant):
    def __init__(self, job):
        super().__init__(job)
        job.set_precision()
        self.at_once = job.batch
        self.tower = Tower(load_clip(job.model, dtype=torch.float32)).eval().to(job.device).requires_grad_(False)
        self.weights = dict(self.tower.named_parameters())
        self.parameters = sum(w.numel() for w in self.weights.values())
        self.text = job.text.to(job.device)
        self.make = device_views.maker(job)
        self.adapt = job.captured(job.faster(self.adapt_eagerly))

    def logits(self, weights, pixels):  # (B, 3, H, H)
        with self.job.autocast():
            features = functional_call(self.tower, weights, (pixels,))
        return class_logits(features.float(), self.text)

    def entropy(self, weights, views):  # (N, 3, H, H)
        return marginal_entropy(self.logits(weights, views))

    def step(self, views):
        """Weights, one set an image, and entropies (S,)."""
        weights, entropies, per_image = self.weights, [], None
        for pixels in views.split(self.job.views, 1):
            gradients, entropy = vmap(grad_and_value(self.entropy), in_dims=(per_image, 0))(weights, pixels)
            weights = {name: w - self.job.lr * gradients[name] for name, w in weights.items()}
            entropies.append(entropy)
            per_image = 0
        return weights, entropies[0]

    def adapt_eagerly(self, originals, views):
        with self.stage("predict"):
            zero_shot = self.logits(self.weights, originals)
        weights, entropy = self.step(views)  # of which forward, backward and step are one to torch.func
        with self.stage("predict"):
            memo = vmap(self.logits)(weights, originals[:, None])[:, 0]
        return zero_shot, memo, entropy

    def moved(self):
        weights, _ = self.step(self.job.given_views[:1].to(self.job.device))
        return share_moved(list(self.weights.values()), [w[0] for w in weights.values()])


if __name__ == "__main__":
    serve(Vmap)
