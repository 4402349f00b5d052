"""MEMO as fast as libtorch does it for one image at a time, without changing what the step is.

    python tuned.py JOB_FOLDER           common.py says what is in the folder, and what to type

Views are made on the device, the tower is tower.py's, weights are put back with one foreach copy, and nothing waits for the device
before the logits are wanted. On a GPU the tower and the views are compiled, and all of a step is one CUDA graph. There is no
convolution left for which channels-last would matter. The step is SGD's own foreach update, without torch.optim's bookkeeping.
"""
import torch

import views as device_views
from common import class_logits, load_clip, serve
from in_place import InPlace
from tower import Tower


class Tuned(InPlace):
    def __init__(self, job):
        super().__init__(job)
        job.set_precision()
        tower = Tower(load_clip(job.model, dtype=torch.float32)).eval().to(job.device)
        self.take(tower)
        self.text = job.text.to(job.device)
        self.tower = job.faster(tower)
        self.make = device_views.maker(job)
        self.adapt = job.captured(self.adapt_eagerly)

    def logits(self, pixels):
        with self.job.autocast():
            features = self.tower(pixels)
        return class_logits(features.float(), self.text)


if __name__ == "__main__":
    serve(Tuned)
