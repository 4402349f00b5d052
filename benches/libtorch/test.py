"""Checks the variants without memo: a tiny random CLIP, made here; every variant's outcomes against reference.py's.

    python test.py [VARIANT ...]         without names: all of them; one to two minutes on two cores

Each variant is started as `memo bench` starts it and spoken to as there. Also: errors are one line, and views.py's pixels
are Pillow's to within 8-bit rounding.
"""
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import save_file
from torchvision import transforms as T
from torchvision.transforms import functional as F
from transformers import CLIPConfig, CLIPModel

import views
from common import Job
from implicit import Implicit
from notebook import Notebook
from reference import Reference
from tuned import Tuned
from vmap import Vmap

HERE = Path(__file__).parent
I, N, K, D, H = 3, 4, 5, 24, 32
VARIANTS = ["notebook", "tuned", "vmap", "implicit"]
LINES = ['{"check": true}', '{"warm_up": true}', '{"run": 4}', '{"stages": 3}']
# What torch.func does at once is one.
UNTOLD = {"vmap": {"forward", "backward", "step"}}


def make_job(folder, dtype=torch.float32, **changes):
    """A tower with steps that show: 3 blocks, attention that is not uniform, norms that are not the identity."""
    torch.manual_seed(0)
    tower = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4)
    clip = CLIPModel(CLIPConfig(
        projection_dim=D, text_config=dict(tower, vocab_size=99, bos_token_id=1, eos_token_id=2), vision_config=dict(tower, image_size=H, patch_size=8)))
    with torch.no_grad():
        for parameter in clip.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    clip.to(dtype).save_pretrained(folder)
    pixels = torch.randn(I, N + 1, 3, H, H)
    pictures = [torch.randint(0, 256, (40, 36 + 8 * (i == 2), 3), dtype=torch.uint8) for i in range(I)]
    save_file(
        {"text": torch.nn.functional.normalize(torch.randn(K, D), dim=1), "originals": pixels[:, 0].contiguous(),
         "views": pixels[:, 1:].contiguous()} | {f"image.{i}": picture for i, picture in enumerate(pictures)},
        folder / "tensors.safetensors")
    job = {"model": str(folder), "device": "cpu", "threads": 2, "views": N, "lr": 1e-3, "steps": 1, "batch": 2,
           "precision": "float32", "seed": 0, "logit_scale": 100.0}
    (folder / "job.json").write_text(json.dumps(job | changes))


def talk(variant, *lines, **changes):
    """The answers to `lines` after `ready`, and the exit code."""
    with tempfile.TemporaryDirectory() as folder:
        make_job(Path(folder), **changes)
        command = [sys.executable, HERE / f"{variant}.py", folder]
        done = subprocess.run(command, input="\n".join(lines), capture_output=True, text=True, timeout=100)
    return [json.loads(line) for line in done.stdout.splitlines()], done.returncode


def tensors(check):
    return [torch.tensor(check[name], dtype=torch.float64) for name in ("zero_shot", "memo", "entropy")]


def compare(test, check, truth, logit, effect):
    (zero_shot, memo, entropy), (zero_shot_, memo_, entropy_) = tensors(check), tensors(truth)
    for got, want, size in ((zero_shot, zero_shot_, (I, K)), (memo, memo_, (I, K)), (entropy, entropy_, (I,))):
        test.assertEqual(got.shape, size)
        test.assertLess((got - want).abs().max(), logit)
    off, moved = (memo - zero_shot) - (memo_ - zero_shot_), memo_ - zero_shot_
    test.assertGreater(moved.abs().max(), 0.1)
    test.assertLess(off.norm() / moved.norm(), effect)


class Processes(unittest.TestCase):
    def answers(self, variant, *lines, **changes):
        (ready, *answers), code = talk(variant, *lines, **changes)
        self.assertEqual((code, len(answers)), (0, len(lines)))
        return ready["ready"], answers

    def test_each_variant_is_the_reference(self):
        _, (truth,) = self.answers("reference", LINES[0])
        for variant in sys.argv[1:] or VARIANTS:
            with self.subTest(variant):
                ready, (check, warm, run, told) = self.answers(variant, *LINES)
                self.assertEqual((ready["dtype"], ready["threads"]), ("float32", 2))
                self.assertEqual(ready["parameters"], 33248)
                compare(self, check, truth, 1e-3, 1e-2)
                self.assertTrue(variant == "implicit" or check["moved"] > 0.95)
                self.assertGreater(warm["warm_up_s"], 0)
                self.assertEqual(len(run["seconds"]), 4)
                self.assertGreater(min(run["seconds"]), 0)
                self.assertGreater(run["peak_bytes"], 1e7)
                self.assertEqual(list(told["stages"]), ["views", "forward", "backward", "step", "predict"])
                untold = {name for name, seconds in told["stages"].items() if seconds is None}
                self.assertEqual(untold, UNTOLD.get(variant, set()))
                self.assertGreater(min(seconds for seconds in told["stages"].values() if seconds is not None), 0)

    def test_each_error_is_one_line(self):
        for says, variant, line, changes in (
            ('{"run": 1}: the reference is not timed', "reference", '{"run": 1}', {}),
            ("start: precision tf32: only a GPU has it", "vmap", LINES[0], {"precision": "tf32"}),
        ):
            answers, code = talk(variant, line, **changes)
            self.assertEqual((code, answers[-1]), (1, {"error": says}))


class Here(unittest.TestCase):
    """What needs no process of its own."""

    def variant(self, kind, **changes):
        with tempfile.TemporaryDirectory() as folder:
            make_job(Path(folder), **changes)
            return kind(Job(folder))

    def test_the_reference_takes_the_step(self):
        """H(W - r g) = H - r |g|^2, in the limit."""
        reference = self.variant(Reference, lr=1e-8)
        views = reference.job.given_views[0]
        before = reference.step(views)
        squared = sum(((a - b) / 1e-8).square().sum() for a, b in zip(reference.loaded, reference.weights))
        after = reference.step(views)
        self.assertLess(abs((before - after) / (1e-8 * squared) - 1), 1e-3)

    def test_several_steps(self):
        truth = self.variant(Reference, steps=2, views=N // 2).check()
        for kind in (Notebook, Tuned, Vmap):
            compare(self, self.variant(kind, steps=2, views=N // 2).check(), truth, 1e-3, 1e-2)

    def test_bf16_goes_the_same_way(self):
        truth = self.variant(Reference).check()
        variant = self.variant(Implicit, precision="bf16")
        self.assertEqual(variant.dtype(), "float32, products bfloat16")
        compare(self, variant.check(), truth, 4, 0.8)  # float16 would be within 0.04

    def test_a_float16_checkpoint(self):
        """It is float32 to all but the notebook, which takes what transformers gives."""
        self.assertGreater(self.variant(Tuned, dtype=torch.float16).moved(), 0.9)
        self.assertEqual(self.variant(Notebook, dtype=torch.float16).dtype(), "float16")

    def test_impossible_jobs(self):
        for says, kind, changes in (
            ("steps 2: ", Implicit, {"steps": 2, "views": 2}),
            ("precision bf16: ", Notebook, {"precision": "bf16"}),
            ("precision fp8: ", Tuned, {"precision": "fp8"}),
            ("views: 4 an image, not 1 steps of 7", Tuned, {"views": 7}),
        ):
            with self.assertRaisesRegex(ValueError, says):
                self.variant(kind, **changes)


class Views(unittest.TestCase):
    def close(self, ours, pillow):  # (3, h, w) in 0..1; Pillow rounds after each pass
        self.assertLess((ours - F.to_tensor(pillow)).abs().max() * 255, 1.5)

    def picture(self, h, w):
        rough = torch.randint(0, 256, (3, h // 4, w // 4), dtype=torch.uint8)
        image = F.to_pil_image(rough).resize((w, h), Image.BICUBIC)
        return image, F.to_tensor(image)

    def test_originals(self):
        for h, w in ((32, 32), (90, 61), (300, 260)):
            image, x = self.picture(h, w)
            pillow = T.Compose([T.Resize(64, T.InterpolationMode.BICUBIC), T.CenterCrop(64)])(image)
            mean, std = (torch.tensor(c)[:, None, None] for c in (views.MEAN, views.STD))
            self.close(views.make_originals(x[None], 64)[0] * std + mean, pillow)

    def test_crops(self):
        for h, w, crop in ((32, 32, (3, 5, 20, 11)), (300, 260, (10, 20, 250, 201))):
            image, x = self.picture(h, w)
            top, left, height, width = (torch.tensor([float(v)]) for v in crop)
            down = views.weights(h, 64, top, height, views.triangle, top, top + height)
            across = views.weights(w, 64, left, width, views.triangle, left, left + width)
            self.close((down @ x @ across.mT)[0], F.resized_crop(image, *crop, [64, 64]))

    def test_hue(self):
        image, x = self.picture(40, 40)
        off = (views.shift_hue(x[None], torch.full((1, 1, 1), 0.1))[0] - F.to_tensor(F.adjust_hue(image, 0.1))).abs()
        self.assertLess(off.mean() * 255, 3)  # Pillow has 256 hues
        self.assertLess((views.shift_hue(x[None], torch.zeros(1, 1, 1))[0] - x).abs().max(), 1e-5)

    def test_the_distribution_is_torchvisions(self):
        """Mean and spread of each channel over views of a picture with one bright corner."""
        picture = torch.full((24, 32, 3), 40, dtype=torch.uint8)
        picture[:12, :16] = torch.tensor([250, 160, 90], dtype=torch.uint8)
        image, n = Image.fromarray(picture.numpy()), 2000
        augment = T.Compose([
            T.RandomHorizontalFlip(), T.RandomVerticalFlip(), T.RandomRotation(30), T.ColorJitter(0.2, 0.2, 0.2, 0.2),
            T.RandomResizedCrop(16), T.ToTensor(), T.Normalize(views.MEAN, views.STD)])
        torch.manual_seed(0)
        theirs = torch.stack([augment(image) for _ in range(n)])
        ours = views.make(picture[None], n, 16)[1][0]
        for statistic in (lambda x: x.mean((2, 3)).mean(0), lambda x: x.mean((2, 3)).std(0), lambda x: x.std((2, 3)).mean(0)):
            self.assertLess((statistic(ours) - statistic(theirs)).abs().max(), 0.06)
        self.assertLess((ours.mean(0) - theirs.mean(0)).abs().max(), 0.15)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
