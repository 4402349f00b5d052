"""What the variants of MEMO in libtorch share: the job, the checkpoint, the loss and the talk with `memo bench`. Not a program.

A variant is started with a folder, `python VARIANT.py JOB_FOLDER`, in which are
    job.json             model, device, threads, views, lr, steps, batch, precision (float32 | tf32 | bf16), seed, logit_scale;
                         and, for who measures by hand, compile and graph (true | false): torch.compile and CUDA graphs
    tensors.safetensors  text (K, D) of unit length; originals (I, 3, H, H) and views (I, steps * N, 3, H, H), normalised;
                         image.0 ... (h, w, 3) uint8: the pictures
It writes a JSON object a line: {"ready": ...} by itself, and then an answer to each line that it reads:
    {"check": true}      outcomes for all images on the given views: zero_shot, memo (I, K), entropy (I,), and moved: the share
                         of the vision tower's parameters whose stored value is another after the first image's step
                         (null where none is stored)
    {"warm_up": true}    warm_up_s: it has compiled, captured and run what it needs to
    {"run": k}           seconds of each of the next k images, from the picture to logits on the host, with views of its own
                         making; and peak_bytes of the device's memory, or of the process on the CPU
    {"stages": k}        stages: seconds an image of views, forward, backward, step and predict over the next k images, with the device
                         waited for after each and no CUDA graph; null where a variant cannot tell them apart
An error is {"error": "what: why"} and exit code 1. All else that anything prints goes to stderr.
"""
import json
import math
import os
import sys
import time
import traceback
from contextlib import contextmanager, nullcontext
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file
from torch import nn
from torch.nn.functional import normalize
from transformers import CLIPConfig, CLIPModel

STAGES = ("views", "forward", "backward", "step", "predict")
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Job:
    def __init__(self, folder):
        self.__dict__.update(json.loads((Path(folder) / "job.json").read_text()))
        tensors = load_file(Path(folder) / "tensors.safetensors")
        self.text, self.originals, self.given_views = (tensors[name] for name in ("text", "originals", "views"))
        self.pictures = [tensors[f"image.{i}"] for i in range(len(self.originals))]
        self.text *= self.logit_scale
        self.size = self.originals.shape[-1]  # H
        self.drawn = self.steps * self.views  # views an image
        if self.given_views.shape[1] != self.drawn:
            raise ValueError(f"views: {self.given_views.shape[1]} an image, not {self.steps} steps of {self.views}")
        self.on_gpu = self.device.startswith("cuda")
        if self.on_gpu:
            torch.cuda.set_device(self.device)
        torch.set_num_threads(self.threads)
        torch.manual_seed(self.seed)

    def set_precision(self):
        """Of float32 products. cuDNN's convolutions are in tf32 unless they are told otherwise."""
        if self.precision not in ("float32", "tf32", "bf16"):
            raise ValueError(f"precision {self.precision}: not one of float32, tf32, bf16")
        if self.precision == "tf32" and not self.on_gpu:
            raise ValueError("precision tf32: only a GPU has it")
        torch.set_float32_matmul_precision("high" if self.precision == "tf32" else "highest")
        torch.backends.cudnn.allow_tf32 = self.precision == "tf32"

    def faster(self, function):
        """`function` compiled, if the job says so, or else on a GPU."""
        return torch.compile(function) if getattr(self, "compile", self.on_gpu) else function

    def captured(self, function):
        return Captured(function) if self.on_gpu and getattr(self, "graph", True) else function

    def autocast(self):
        # The cache would keep the weights of before the step.
        return torch.autocast(self.device.split(":")[0], torch.bfloat16, enabled=self.precision == "bf16", cache_enabled=False)

    def dtype(self):
        products = {"bf16": ", products bfloat16", "tf32": ", products tf32"}
        return "float32" + products.get(self.precision, "")


def load_clip(path, **options):
    """A folder, or a file beside its config.json."""
    path = Path(path)
    if not path.is_dir():
        options |= {"config": CLIPConfig.from_pretrained(path.parent), "state_dict": load_file(path)}
        path = None
    clip, info = CLIPModel.from_pretrained(path, output_loading_info=True, **options)
    if missing := sorted(name for name in info["missing_keys"] if name.startswith("vis")):
        raise ValueError(f"model: no {missing[0]}")
    return clip


class Vision(nn.Module):
    """The vision tower of a CLIPModel with its projection: all that takes part in the step."""

    def __init__(self, clip):
        super().__init__()
        self.vision_model, self.visual_projection = clip.vision_model, clip.visual_projection

    def forward(self, pixels):  # (B, 3, H, H) -> (B, D)
        return self.visual_projection(self.vision_model(pixel_values=pixels).pooler_output)


def class_logits(features, text):  # (..., D), (K, D) times the logit scale -> (..., K)
    return normalize(features, dim=-1) @ text.T


def marginal_entropy(logits):  # (..., N, K) -> (...)
    """Entropy of the average prediction, as MEMO's authors have it."""
    average = logits.log_softmax(-1).logsumexp(-2) - math.log(logits.shape[-2])
    average = average.clamp(min=torch.finfo(average.dtype).min)
    return -(average.exp() * average).sum(-1)


def share_moved(before, after):
    return sum((a != b).sum().item() for a, b in zip(before, after)) / sum(b.numel() for b in before)


class Captured:
    """A function of tensors on the GPU as a CUDA graph for each of their shapes; its results are written over by the next call."""

    def __init__(self, function):
        self.function, self.graphs = function, {}

    def __call__(self, *tensors):
        shapes = tuple(t.shape for t in tensors)
        if shapes not in self.graphs:
            self.graphs[shapes] = self.capture([t.clone() for t in tensors])
        graph, inputs, outputs = self.graphs[shapes]
        for inp, t in zip(inputs, tensors):
            inp.copy_(t)
        graph.replay()
        return outputs

    def capture(self, inputs):
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):  # lets libraries and compilers allocate what they need
                self.function(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            outputs = self.function(*inputs)
        return graph, inputs, outputs


class Clock:
    """Seconds by stage."""

    def __init__(self, job):
        self.job, self.seconds = job, {}

    def now(self):
        if self.job.on_gpu:
            torch.cuda.synchronize(self.job.device)
        return time.perf_counter()

    @contextmanager
    def stage(self, name):
        start = self.now()
        yield
        self.seconds[name] = self.seconds.get(name, 0) + self.now() - start


class Variant:
    """A way to do the job. `make` and `adapt` are what is timed."""

    at_once = 1  # images
    parameters = 0

    def __init__(self, job):
        self.job, self.turn, self.clock = job, 0, None

    def make(self, pictures):
        """Originals (S, 3, H, H) and views (S, steps * N, 3, H, H) of S pictures (h, w, 3)."""
        raise NotImplementedError

    def adapt(self, originals, views):
        """Zero-shot logits (S, K), logits after the step (S, K), entropy before it (S,)."""
        raise NotImplementedError

    def adapt_eagerly(self, originals, views):
        """`adapt`, launched one by one."""
        return self.adapt(originals, views)

    def stage(self, name):
        """Around the lines of a stage; nothing, unless stages are timed."""
        return self.clock.stage(name) if self.clock else nullcontext()

    def moved(self):
        raise NotImplementedError

    def dtype(self):
        return self.job.dtype()

    def check(self):
        job, outcomes = self.job, []
        for pair in zip(job.originals.split(self.at_once), job.given_views.split(self.at_once)):
            outcomes.append([t.double().cpu() for t in self.adapt(*(t.to(job.device) for t in pair))])
        zero_shot, memo, entropy = (torch.cat(parts).tolist() for parts in zip(*outcomes))
        return {"zero_shot": zero_shot, "memo": memo, "entropy": entropy, "moved": self.moved()}

    def next_pictures(self, count, slots):
        """The next `count` pictures, and those after them up to `slots`."""
        pictures = [self.job.pictures[(self.turn + i) % len(self.job.pictures)] for i in range(slots)]
        self.turn += count
        return pictures

    def next_images(self, count):
        """Seconds that `count` images took together. A graph is of one size: there a short batch is filled up."""
        pictures = self.next_pictures(count, self.at_once if self.job.on_gpu else count)
        start = time.perf_counter()
        for outcome in self.adapt(*self.make(pictures)):
            outcome.cpu()  # waits for a GPU
        return time.perf_counter() - start

    def warm_up(self):
        """Two batches; on a GPU all images, since each size is compiled and captured by itself."""
        start, turn = time.perf_counter(), self.turn
        for _ in range(0, max(2 * self.at_once, len(self.job.pictures) if self.job.on_gpu else 0), self.at_once):
            self.next_images(self.at_once)
        self.turn = turn
        return {"warm_up_s": time.perf_counter() - start}

    def run(self, count):
        seconds = []
        reset_peak(self.job)
        while len(seconds) < count:
            s = min(self.at_once, count - len(seconds))
            seconds += [self.next_images(s) / s] * s
        return {"seconds": seconds, "peak_bytes": peak_bytes(self.job)}


    def stages(self, count):
        """On a GPU what comes first is not counted: graphs have kept what is launched one by one from being tried."""
        turn = self.turn
        for _ in range(2 if self.job.on_gpu else 1):
            self.turn, self.clock, done = turn, Clock(self.job), 0
            while done < count:
                s = min(self.at_once, count - done)
                pictures = self.next_pictures(s, s)
                with self.stage("views"):
                    made = self.make(pictures)
                self.adapt_eagerly(*made)
                done += s
        seconds, self.clock = self.clock.seconds, None
        return {"stages": {name: seconds[name] / count if name in seconds else None for name in STAGES}}


def reset_peak(job):
    if job.on_gpu:
        torch.cuda.reset_peak_memory_stats(job.device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(job):
    """What the allocator took from the GPU; or VmHWM, since ru_maxrss has the peak of who started this process in it."""
    if job.on_gpu:
        return torch.cuda.max_memory_reserved(job.device)
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split("VmHWM:")[1].split()[0])


def device_name(job):
    if job.on_gpu:
        return torch.cuda.get_device_name(job.device)
    return next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))


def serve(make_variant):
    """Answers until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print

    def answer(value):
        print(json.dumps(value, allow_nan=False), file=answers, flush=True)

    what = "start"
    try:
        if len(sys.argv) != 2:
            raise ValueError(f"usage: {sys.argv[0]} JOB_FOLDER")
        job = Job(sys.argv[1])
        variant = make_variant(job)
        answer({"ready": {
            "torch": torch.__version__, "transformers": transformers.__version__, "device": device_name(job),
            "dtype": variant.dtype(), "threads": torch.get_num_threads(), "parameters": variant.parameters}})
        for what in map(str.strip, sys.stdin):
            match json.loads(what):
                case {"check": True}: answer(variant.check())
                case {"warm_up": True}: answer(variant.warm_up())
                case {"run": int(count)} if count > 0: answer(variant.run(count))
                case {"stages": int(count)} if count > 0: answer(variant.stages(count))
                case _: raise ValueError("no such request")
    except Exception as error:
        traceback.print_exc()
        why = " ".join(str(error).split()) or type(error).__name__
        answer({"error": f"{what}: {why}"})
        sys.exit(1)
