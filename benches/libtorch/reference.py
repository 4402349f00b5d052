"""MEMO in float64: the truth that the other variants' `check` is held against. Slow; it runs nothing.

    python reference.py JOB_FOLDER       common.py says what is in the folder, and what to type

The tower is Hugging Face's, with scaled_dot_product_attention: the eager attention's softmax is in float32 whatever the model is.
"""
import torch

from common import Vision, class_logits, load_clip, serve
from in_place import InPlace


class Reference(InPlace):
    def __init__(self, job):
        super().__init__(job)
        self.model = Vision(load_clip(job.model, dtype=torch.float64, attn_implementation="sdpa")).eval().to(job.device)
        self.take(self.model)
        # float32 features are of unit length to 7 digits; the others' are normalised no further either.
        self.text = job.text.double().to(job.device)

    def dtype(self):
        return "float64"

    def logits(self, pixels):
        return class_logits(self.model(pixels.double()), self.text)

    def make(self, pictures):
        raise ValueError("the reference is not timed")


if __name__ == "__main__":
    serve(Reference)
