"""MEMO in float64: the truth that the other variants' `check` is held against. Slow; it runs nothing.

    python reference.py JOB_FOLDER       common.py says what is in the folder, and what to type

The tower is Hugging Face's, with scaled_dot_product_attention: the eager attention's softmax is in float32 whatever the model is.
"""
import torch

from common import Variant, Vision, class_logits, load_clip, marginal_entropy, serve, share_moved


class Reference(Variant):
    def __init__(self, job):
        super().__init__(job)
        self.model = Vision(load_clip(job.model, dtype=torch.float64, attn_implementation="sdpa")).eval().to(job.device)
        self.weights = list(self.model.parameters())
        self.loaded = [w.detach().clone() for w in self.weights]
        self.parameters = sum(w.numel() for w in self.weights)
        # float32 features are of unit length to 7 digits; the others' are normalised no further either.
        self.text = job.text.double().to(job.device)

    def dtype(self):
        return "float64"

    def logits(self, pixels):
        return class_logits(self.model(pixels.double()), self.text)

    def step(self, views):
        entropies = []
        for pixels in views.split(self.job.views):
            entropies.append(marginal_entropy(self.logits(pixels)))
            gradients = torch.autograd.grad(entropies[-1], self.weights)
            with torch.no_grad():
                for weight, gradient in zip(self.weights, gradients):
                    weight -= self.job.lr * gradient
        return entropies[0].detach()[None]

    @torch.no_grad()
    def restore(self):
        for weight, loaded in zip(self.weights, self.loaded):
            weight.copy_(loaded)

    def adapt(self, originals, views):
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

    def make(self, pictures):
        raise ValueError("the reference is not timed")


if __name__ == "__main__":
    serve(Reference)
