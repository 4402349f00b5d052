"""Triton's products on vcuda: pointers, host and device descriptors, persistent or not. usage: triton_kernels.py sm_80|sm_90"""

import ctypes
import sys
import warnings

import numpy as np

warnings.simplefilter("ignore")
import triton
import triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from driver import Device

BM, BN, BK = 64, 64, 64
FLOAT16_MAP, FLOAT32_MAP = 6, 7


@triton.jit
def by_pointers(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    rm = tl.program_id(0) * BM + tl.arange(0, BM)
    rn = tl.program_id(1) * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    sums = tl.zeros((BM, BN), tl.float32)
    for k in range(0, K, BK):
        x = tl.load(a + rm[:, None] * K + (k + rk)[None, :], mask=(rm < M)[:, None] & (k + rk < K)[None, :], other=0.0)
        y = tl.load(b + (k + rk)[:, None] * N + rn[None, :], mask=(k + rk < K)[:, None] & (rn < N)[None, :], other=0.0)
        sums = tl.dot(x, y, sums)
    tl.store(c + rm[:, None] * N + rn[None, :], sums, mask=(rm < M)[:, None] & (rn < N)[None, :])


@triton.jit
def by_host_descriptors(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    for tile in range(tl.program_id(0), tl.cdiv(M, BM) * tl.cdiv(N, BN), tl.num_programs(0)):
        m, n = tile // tl.cdiv(N, BN) * BM, tile % tl.cdiv(N, BN) * BN
        sums = tl.zeros((BM, BN), tl.float32)
        for k in range(0, K, BK):
            sums = tl.dot(a.load([m, k]), b.load([k, n]), sums)
        c.store([m, n], sums)


@triton.jit
def by_device_descriptors(a, b, c, M, N, K, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr):
    a = tl.make_tensor_descriptor(a, [M, K], [K, 1], [BM, BK])
    b = tl.make_tensor_descriptor(b, [K, N], [N, 1], [BK, BN])
    c = tl.make_tensor_descriptor(c, [M, N], [N, 1], [BM, BN])
    for tile in range(tl.program_id(0), tl.cdiv(M, BM) * tl.cdiv(N, BN), tl.num_programs(0)):
        m, n = tile // tl.cdiv(N, BN) * BM, tile % tl.cdiv(N, BN) * BN
        sums = tl.zeros((BM, BN), tl.float32)
        for k in range(0, K, BK):
            sums = tl.dot(a.load([m, k]), b.load([k, n]), sums)
        c.store([m, n], sums)


def compiled(kernel, arch, types):
    signature = dict(zip("abcMNK", [*types, "i32", "i32", "i32"])) | {name: "constexpr" for name in ("BM", "BN", "BK")}
    # As the JIT sees arguments that are multiples of 16; the pointers' kernel is made for ragged sizes as well.
    divisible = {(i,): [["tt.divisibility", 16]] for i in range(6 if kernel is not by_pointers else 3)}
    divisible = {at: what for at, what in divisible.items() if not types[at[0] % 3].startswith("tensordesc") or at[0] > 2}
    source = ASTSource(kernel, signature, {"BM": BM, "BN": BN, "BK": BK}, divisible)
    options = {"num_warps": 4, "num_stages": 3}
    return triton.compile(source, target=GPUTarget("cuda", arch, 32), options=options)


def check(device, kernel, arch, types, M, N, K):
    random = np.random.default_rng(M + N + K)
    a, b = (random.standard_normal(shape).astype(np.float16) for shape in ((M, K), (K, N)))
    arrays = [a, b, np.full((M, N), np.nan, np.float32)]
    made = compiled(kernel, arch, types)
    addresses = [device.put(array) for array in arrays]
    arguments, descriptors = [], iter(made.metadata.tensordesc_meta or [])
    for address, array, type in zip(addresses, arrays, types):
        if not type.startswith("tensordesc"):
            arguments.append(address)
            continue
        meta, size = next(descriptors), array.itemsize
        rows, columns = array.shape
        box = meta["block_size"][::-1]
        element = FLOAT32_MAP if size == 4 else FLOAT16_MAP
        arguments.append(device.tensor_map(address, element, [columns, rows], [columns * size], box, meta["swizzle"]))
        arguments += [ctypes.c_int32(rows), ctypes.c_int32(columns), ctypes.c_int64(columns), ctypes.c_int64(1)]
    arguments += [ctypes.c_int32(n) for n in (M, N, K)]
    tiles = [-(-M // BM), -(-N // BN)]
    grid = tiles if kernel is by_pointers else [3]
    scratch = made.metadata.global_scratch_size
    arguments += [device.buffer(scratch * grid[0]) if scratch else ctypes.c_uint64(), ctypes.c_uint64()]
    module = device.module(made.asm["ptx"])
    threads = 32 * made.metadata.num_warps
    device.launch(module, made.metadata.name, grid, threads, arguments, made.metadata.shared)
    device.assert_product(a, b, addresses[2])
    device.close()


def main(arch):
    device = Device()
    pointers = ["*fp16", "*fp16", "*fp32"]
    check(device, by_pointers, arch, pointers, 128, 128, 256)
    check(device, by_pointers, arch, pointers, 100, 72, 88)
    if arch >= 90:
        check(device, by_device_descriptors, arch, pointers, 192, 128, 256)
        host = [f"tensordesc<fp16[{BM}, {BK}]>", f"tensordesc<fp16[{BK}, {BN}]>", f"tensordesc<fp32[{BM}, {BN}]>"]
        check(device, by_host_descriptors, arch, host, 192, 128, 256)


main(int(sys.argv[1].removeprefix("sm_")))
