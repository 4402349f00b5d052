// Stream-K: all steps of all tiles are one row, of which each CTA multiplies an equal part. Where a tile is cut, its
// CTAs hand the sums on through global memory, in the order of its steps: a flag counts those that are in, and the CTA
// that has the tile's last step writes it.
//
//   HANDOVER 0: a fence and an atomic, 1: a reduction that releases and a load that acquires
//
// bug 1 race: the flag says that the sums are in before the warpgroup has written them
// bug 2 race HANDOVER=0: no fence between the sums and the flag
// bug 3 race HANDOVER=1: the flag is told by a relaxed reduction
// bug 4 init/race: the sums are taken without a look at the flag
// bug 5 sync: the flag counts one step too few
// bug 6 init/race: the warpgroup does not wait for the thread that looks at the flag
// bug 7 race HANDOVER=0: the flag is told by an ordinary store
enum { FENCE, RELEASE };

DEVICE void tell(u32* flag, u32 steps) {
    if (HANDOVER == FENCE) {
        if (BUG != 2) __threadfence();
        atomicAdd(flag, steps);
    } else if (BUG == 3) {
        asm volatile("red.relaxed.gpu.global.add.u32 [%0], %1;" ::"l"(flag), "r"(steps) : "memory");
    } else {
        asm volatile("red.release.gpu.global.add.u32 [%0], %1;" ::"l"(flag), "r"(steps) : "memory");
    }
}
DEVICE u32 look(const u32* flag) {
    u32 steps;
    if (HANDOVER == FENCE) {
        steps = *(volatile const u32*)flag;
        __threadfence();
    } else {
        asm volatile("ld.acquire.gpu.global.u32 %0, [%1];" : "=r"(steps) : "l"(flag) : "memory");
    }
    return steps;
}

extern "C" __global__ void __launch_bounds__(256, 1) kernel(const __grid_constant__ Problem p) {
    extern __shared__ __align__(1024) unsigned char shared[];
    Ring ring(shared_address(shared), p.stages, 2 * BLOCK);
    if (threadIdx.x == 0) {
        ring.set_up(1, SIGNALS);
        barriers_are_set_up();
    }
    __syncthreads();
    int rows = p.m / 64, steps = p.k / BK, all = rows * (p.n / 64) * steps, thread = threadIdx.x % 128;
    int part = (all + gridDim.x - 1) / gridDim.x, begin = blockIdx.x * part, end = min(begin + part, all);

    if (threadIdx.x == 0) {
        for (int i = begin; i < end; i++, ring.next()) {
            int tile = i / steps, k = i % steps * BK;
            barrier_wait(ring.is_empty(), ring.parity ^ 1);
            barrier_expect(ring.is_full(), 2 * BLOCK);
            load_block<TA>(ring.tile(), &p.a_map, ring.is_full(), tile % rows * 64, k);
            load_block<TB>(ring.tile() + BLOCK, &p.b_map, ring.is_full(), tile / rows * 64, k);
        }
    } else if (threadIdx.x >= 128) {
        while (begin < end) {
            int tile = begin / steps, first = begin % steps, last = min(steps, first + end - begin);
            Sums d = {};
            for (int step = first; step < last; step++, ring.next()) {
                barrier_wait(ring.is_full(), ring.parity);
                pin(d);
                wgmma_fence();
                multiply(d, ring.tile(), ring.tile() + BLOCK, step > first);
                wgmma_commit();
                pin(d);
                wgmma_wait<0>();
                if (signals(thread)) barrier_arrive(ring.is_empty());
            }
            pin(d);

            float* partial = p.partial + tile * 64 * 64;
            u32* flag = p.flags + tile;
            if (first > 0) {
                if (thread == 0 && BUG != 4) while (look(flag) < first) {}
                if (BUG != 6) named_sync(1, 128);
#pragma unroll
                for (int i = 0; i < 32; i++) d[i] += partial[i * 128 + thread];
            }
            if (last < steps) {
#pragma unroll
                for (int i = 0; i < 32; i++) partial[i * 128 + thread] = d[i];
                if (BUG != 1) named_sync(1, 128);
                if (thread == 0 && BUG != 7) tell(flag, last - first - (BUG == 5));
                if (thread == 0 && BUG == 7) *flag = last;
            } else {
                write(p.d + tile % rows * 64 * p.n + tile / rows * 64, p.n, d, thread);
            }
            begin += last - first;
        }
    }
}
