"""The step taken in the weights themselves, which are put back afterwards: what tuned.py and reference.py share. Not a program."""
import torch

from common import Variant, marginal_entropy, share_moved


class InPlace(Variant):
    """Of whom has `logits` of pixels (B, 3, H, H), on the device."""

    def take(self, model):
        self.weights = list(model.parameters())
        self.loaded = [w.detach().clone() for w in self.weights]
        self.parameters = sum(w.numel() for w in self.weights)

    def logits(self, pixels):
        raise NotImplementedError

    def step(self, views):
        """The weights adapted to the views, and the entropy before."""
        entropies = []
        for pixels in views.split(self.job.views):
            with self.stage("forward"):
                entropies.append(marginal_entropy(self.logits(pixels)))
            with self.stage("backward"):
                gradients = torch.autograd.grad(entropies[-1], self.weights)
            with self.stage("step"), torch.no_grad():
                torch._foreach_add_(self.weights, gradients, alpha=-self.job.lr)
        return entropies[0].detach()[None]

    @torch.no_grad()
    def restore(self):
        with self.stage("step"):
            torch._foreach_copy_(self.weights, self.loaded)

    def adapt(self, originals, views):
        return self.adapt_eagerly(originals, views)

    def adapt_eagerly(self, originals, views):
        with self.stage("predict"), torch.no_grad():
            zero_shot = self.logits(originals)
        entropy = self.step(views[0])
        with self.stage("predict"), torch.no_grad():
            memo = self.logits(originals)
        self.restore()
        return zero_shot, memo, entropy

    def moved(self):
        self.step(self.job.given_views[0].to(self.job.device))
        moved = share_moved(self.loaded, self.weights)
        self.restore()
        return moved
