"""A Hopper product of CuTe DSL on vcuda: a warp that loads by TMA, a warpgroup that multiplies, several tiles a CTA."""

import ctypes
import glob
import os
import re
import tempfile

# Read when the package is imported: which device it compiles for, as there is none to ask, and where the PTX is left.
os.environ |= {"CUTE_DSL_ARCH": "sm_90a", "CUTE_DSL_KEEP": "ptx", "CUTE_DSL_DUMP_DIR": tempfile.mkdtemp()}

import cutlass
import cutlass.cute as cute
import cutlass.pipeline as pipeline
import cutlass.utils.hopper_helpers as hopper
import numpy as np
from cutlass.cute.nvgpu import OperandMajorMode, cpasync, warpgroup
from cutlass.memory import SmemAllocator
from cutlass.tensor_utils import LayoutEnum

from driver import Device

M, N, K = 256, 384, 320
TILE = (64, 128, 64)
STAGES, CTAS = 3, 4
CONSUMERS, PRODUCER_WARP, THREADS = 128, 4, 160
FLOAT16_MAP, SWIZZLE_128B = 6, 3


@cute.kernel
def kernel(tma_a, mA, tma_b, mB, mC, tiled_mma, layout_a: cute.ComposedLayout, layout_b: cute.ComposedLayout):
    thread, _, _ = cute.arch.thread_idx()
    cta, _, _ = cute.arch.block_idx()
    warp = cute.arch.make_warp_uniform(cute.arch.warp_idx())

    shared = SmemAllocator()
    barriers = shared.allocate_array(cutlass.Int64, 2 * STAGES)
    sA = shared.allocate_tensor(cutlass.Float16, layout_a.outer, 1024, layout_a.inner)
    sB = shared.allocate_tensor(cutlass.Float16, layout_b.outer, 1024, layout_b.inner)
    ring = pipeline.PipelineTmaAsync.create(
        barrier_storage=barriers,
        num_stages=STAGES,
        producer_group=pipeline.CooperativeGroup(pipeline.Agent.Thread),
        consumer_group=pipeline.CooperativeGroup(pipeline.Agent.Thread, CONSUMERS // 32),
        tx_count=(TILE[0] + TILE[1]) * TILE[2] * 2,
        cta_layout_vmnk=cute.make_layout((1, 1, 1, 1)),
    )

    gA = cute.local_tile(mA, (TILE[0], TILE[2]), (None, None))
    gB = cute.local_tile(mB, (TILE[1], TILE[2]), (None, None))
    gC = cute.local_tile(mC, (TILE[0], TILE[1]), (None, None))
    one = cute.make_layout(1)
    tAsA, tAgA = cpasync.tma_partition(tma_a, 0, one, cute.group_modes(sA, 0, 2), cute.group_modes(gA, 0, 2))
    tBsB, tBgB = cpasync.tma_partition(tma_b, 0, one, cute.group_modes(sB, 0, 2), cute.group_modes(gB, 0, 2))

    if warp == PRODUCER_WARP:
        state = pipeline.make_pipeline_state(pipeline.PipelineUserType.Producer, STAGES)
        for tile in cutlass.range(cta, M // TILE[0] * (N // TILE[1]), CTAS, unroll=1):
            m, n = tile // (N // TILE[1]), tile % (N // TILE[1])
            for k in cutlass.range(K // TILE[2], unroll=1):
                ring.producer_acquire(state)
                full = ring.producer_get_barrier(state)
                cute.copy(tma_a, tAgA[(None, m, k)], tAsA[(None, state.index)], tma_bar_ptr=full)
                cute.copy(tma_b, tBgB[(None, n, k)], tBsB[(None, state.index)], tma_bar_ptr=full)
                ring.producer_commit(state)
                state.advance()
        ring.producer_tail(state)

    if warp < PRODUCER_WARP:
        mma = tiled_mma.get_slice(thread)
        tCrA, tCrB = tiled_mma.make_fragment_A(mma.partition_A(sA)), tiled_mma.make_fragment_B(mma.partition_B(sB))
        tCgC = mma.partition_C(gC)
        sums = cute.make_rmem_tensor(tCgC[(None, None, None, 0, 0)].shape, cutlass.Float32)
        state = pipeline.make_pipeline_state(pipeline.PipelineUserType.Consumer, STAGES)
        for tile in cutlass.range(cta, M // TILE[0] * (N // TILE[1]), CTAS, unroll=1):
            m, n = tile // (N // TILE[1]), tile % (N // TILE[1])
            tiled_mma.set(warpgroup.Field.ACCUMULATE, False)
            for k in cutlass.range(K // TILE[2], unroll=1):
                ring.consumer_wait(state)
                warpgroup.fence()
                for block in cutlass.range_constexpr(cute.size(tCrA, mode=[2])):
                    at = (None, None, block, state.index)
                    cute.gemm(tiled_mma, sums, tCrA[at], tCrB[at], sums)
                    tiled_mma.set(warpgroup.Field.ACCUMULATE, True)
                warpgroup.commit_group()
                warpgroup.wait_group(0)
                ring.consumer_release(state)
                state.advance()
            cute.autovec_copy(sums, tCgC[(None, None, None, m, n)])


@cute.jit
def product(a: cute.Tensor, b: cute.Tensor, c: cute.Tensor):
    """C = A Bᵀ, all row by row."""
    rows = LayoutEnum.ROW_MAJOR
    major = OperandMajorMode.K
    tiled_mma = hopper.make_trivial_tiled_mma(
        cutlass.Float16, cutlass.Float16, major, major, cutlass.Float32, (1, 1, 1), (64, TILE[1])
    )
    layout_a = hopper.make_smem_layout_a(rows, TILE, cutlass.Float16, STAGES)
    layout_b = hopper.make_smem_layout_b(rows, TILE, cutlass.Float16, STAGES)
    load, one_stage = cpasync.CopyBulkTensorTileG2SOp(), (None, None, 0)
    tma_a, mA = cpasync.make_tiled_tma_atom(load, a, cute.slice_(layout_a, one_stage), (TILE[0], TILE[2]))
    tma_b, mB = cpasync.make_tiled_tma_atom(load, b, cute.slice_(layout_b, one_stage), (TILE[1], TILE[2]))
    kernel(tma_a, mA, tma_b, mB, c, tiled_mma, layout_a, layout_b).launch(grid=(CTAS, 1, 1), block=(THREADS, 1, 1))


def compiled():
    fake = cute.runtime.make_fake_compact_tensor
    rows = {"stride_order": (1, 0), "assumed_align": 16}
    a, b = (fake(cutlass.Float16, shape, **rows) for shape in ((M, K), (N, K)))
    cute.compile(product, a, b, fake(cutlass.Float32, (M, N), **rows))
    (path,) = glob.glob(os.environ["CUTE_DSL_DUMP_DIR"] + "/*.ptx")
    with open(path) as file:
        return file.read().rstrip("\0")


def main():
    ptx = compiled()
    device, random = Device(), np.random.default_rng(1)
    a, b = (random.standard_normal(shape).astype(np.float16) for shape in ((M, K), (N, K)))
    addresses = [device.put(array) for array in (a, b, np.full((M, N), np.nan, np.float32))]
    maps = [
        device.tensor_map(address, FLOAT16_MAP, [K, rows], [2 * K], [TILE[2], box_rows], SWIZZLE_128B)
        for address, rows, box_rows in zip(addresses, (M, N), TILE)
    ]
    # The last parameter is the product's own "accumulate", which the kernel sets before it is used.
    arguments = [*maps, addresses[2], ctypes.c_bool(False)]
    name = re.search(r"\.entry (\w+)", ptx)[1]
    shared_bytes = 2048 + STAGES * (TILE[0] + TILE[1]) * TILE[2] * 2
    device.launch(device.module(ptx), name, [CTAS], THREADS, arguments, shared_bytes)
    device.assert_product(a, b.T, addresses[2])
    device.close()


main()
