"""The products of `memo bench --shapes --json FILE` by cuBLAS, through torch, on the same GPU: `cublas.py FILE`.

Each in float16 with float32 sums, as torch multiplies two matrices; what memo fuses behind a product (bias, activation, addend) is not
in cuBLAS's times. The median of as many runs as take a fifth of a second, each between two events.
"""

import json
import statistics
import sys

try:
    import torch
except ImportError:
    print("skipped: no torch here")
    sys.exit(77)
if not torch.cuda.is_available():
    print("skipped: torch sees no GPU")
    sys.exit(77)
torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False


def median_us(shape: dict) -> float:
    m, n, k, batch = (shape[key] for key in ("m", "n", "k", "batch"))
    lead = [batch] if batch > 1 else []
    a_shape, b_shape = ([k, m] if shape["layout"] == "tn" else [m, k]), ([n, k] if shape["layout"] == "nt" else [k, n])
    a = torch.rand(lead + a_shape, device="cuda").sub(0.5).half()
    b = torch.rand(lead + b_shape, device="cuda").sub(0.5).half()
    a = a.mT if shape["layout"] == "tn" else a
    b = b.mT if shape["layout"] == "nt" else b
    out = torch.empty(lead + [m, n], device="cuda", dtype=torch.half)
    torch.matmul(a, b, out=out)
    torch.cuda.synchronize()
    times, spent = [], 0.0
    while len(times) < 5 or spent < 2e5:
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        torch.matmul(a, b, out=out)
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
        spent += times[-1]
    return statistics.median(times)


ratios = []
print(f"{'product':<20}{'layout':>7}{'batch':>6}{'m':>8}{'n':>6}{'k':>6}{'memo us':>10}{'cuBLAS us':>11}  memo's speed")
for shape in json.load(open(sys.argv[1]))["shapes"]:
    theirs = median_us(shape)
    ratios.append(theirs / shape["median_us"])
    sizes = "".join(f"{shape[key]:>{width}}" for key, width in (("batch", 6), ("m", 8), ("n", 6), ("k", 6)))
    print(f"{shape['name']:<20}{shape['layout']:>7}{sizes}{shape['median_us']:>10.1f}{theirs:>11.1f}  {ratios[-1]:.2f}")
print(f"equal sizes, memo's speed of cuBLAS's: {statistics.geometric_mean(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})")
