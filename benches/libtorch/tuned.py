"""MEMO as fast as libtorch does it for one image at a time, without changing what the step is.

    python tuned.py JOB_FOLDER           common.py says what is in the folder, and what to type

Views are made on the device, the tower is tower.py's, weights are put back with one foreach copy, and nothing waits for the device
before the logits are wanted. On a GPU the tower and the views are compiled, and all of a step is one CUDA graph. There is no
convolution left for which channels-last would matter. The step is SGD's own foreach update, without torch.optim's bookkeeping.
"""
import torch

import views as device_views
from common import Variant, class_logits, load_clip, marginal_entropy, serve, share_moved
from tower import Tower


class Tuned(Variant):
    def __init__(self, job):
        super().__init__(job)
        job.set_precision()
        tower = Tower(load_clip(job.model, dtype=torch.float32)).eval().to(job.device)
        self.weights = list(tower.parameters())
        self.loaded = [w.detach().clone() for w in self.weights]
        self.parameters = sum(w.numel() for w in self.weights)
        self.text = job.text.to(job.device)
        self.tower = job.faster(tower)
        self.make = device_views.maker(job)
        self.adapt = job.captured(self.adapt_eagerly)

    def logits(self, pixels):
        with self.job.autocast():
            features = self.tower(pixels)
        return class_logits(features.float(), self.text)

    def step(self, views):
        """The weights adapted to the views, and the entropy before."""
        entropies = []
        for pixels in views.split(self.job.views):
            entropies.append(marginal_entropy(self.logits(pixels)))
            gradients = torch.autograd.grad(entropies[-1], self.weights)
            with torch.no_grad():
                torch._foreach_add_(self.weights, gradients, alpha=-self.job.lr)
        return entropies[0].detach()[None]

    @torch.no_grad()
    def restore(self):
        torch._foreach_copy_(self.weights, self.loaded)

    def adapt_eagerly(self, originals, views):
        with torch.no_grad():
            zero_shot = self.logits(originals)
        entropy = self.step(views[0])
        with torch.no_grad():
            memo = self.logits(originals)
        self.restore()
        return zero_shot, memo, entropy

    def moved(self):
        self.step(self.job.given_views[0].to(self.job.device))
        moved = share_moved(self.loaded, self.weights)
        self.restore()
        return moved


if __name__ == "__main__":
    serve(Tuned)
