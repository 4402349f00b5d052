"""MEMO as the notebook does it: views by torchvision on PIL images, one image at a time, a deep copy of the model for each.

    python notebook.py JOB_FOLDER        common.py says what is in the folder, and what to type

Everything is as plain as there. That includes `from_pretrained` without a dtype: transformers 5 keeps a float16 checkpoint in
float16, where a step of 1e-5 moves hardly a weight; transformers 4 makes it float32. `ready` says what it was. One thing is
better than there: only the vision tower is copied, not the text tower with it.
"""
import copy

import torch
from PIL import Image
from torchvision import transforms as T

from common import MEAN, STD, Variant, Vision, class_logits, load_clip, marginal_entropy, serve, share_moved


class Notebook(Variant):
    def __init__(self, job):
        super().__init__(job)
        if job.precision != "float32":
            raise ValueError(f"precision {job.precision}: the notebook takes what from_pretrained gives")
        self.model = Vision(load_clip(job.model)).eval().to(job.device)
        self.parameters = sum(p.numel() for p in self.model.parameters())
        weight = self.model.visual_projection.weight
        self.text = job.text.to(job.device, weight.dtype)
        self.preprocess = T.Compose([
            T.Resize(job.size, T.InterpolationMode.BICUBIC),
            T.CenterCrop(job.size),
            T.ToTensor(),
            T.Normalize(MEAN, STD),
        ])
        self.augment = T.Compose([
            T.RandomHorizontalFlip(),
            T.RandomVerticalFlip(),
            T.RandomRotation(30),
            T.ColorJitter(brightness=0.2, contrast=0.2, saturation=0.2, hue=0.2),
            T.RandomResizedCrop(job.size),
            self.preprocess,
        ])

    def dtype(self):
        return str(self.text.dtype).removeprefix("torch.")

    def make(self, pictures):
        image = Image.fromarray(pictures[0].numpy())
        views = torch.stack([self.augment(image) for _ in range(self.job.drawn)])
        return self.preprocess(image)[None].to(self.job.device), views[None].to(self.job.device)

    def step(self, views):
        """An adapted copy, and the entropy before its first step."""
        with self.stage("step"):
            model, entropies = copy.deepcopy(self.model), []
            optimizer = torch.optim.SGD(model.parameters(), lr=self.job.lr)
        for pixels in views[0].split(self.job.views):
            with self.stage("forward"):
                entropies.append(marginal_entropy(class_logits(model(pixels), self.text)))
            with self.stage("backward"):
                optimizer.zero_grad()
                entropies[-1].backward()
            with self.stage("step"):
                optimizer.step()
        return model, entropies[0].detach()[None]

    @torch.no_grad()
    def predict(self, model, originals):
        with self.stage("predict"):
            return class_logits(model(originals), self.text)

    def adapt(self, originals, views):
        zero_shot = self.predict(self.model, originals)
        model, entropy = self.step(views)
        return zero_shot, self.predict(model, originals), entropy

    def moved(self):
        model, _ = self.step(self.job.given_views[:1].to(self.job.device))
        return share_moved(list(self.model.parameters()), list(model.parameters()))


if __name__ == "__main__":
    serve(Notebook)
