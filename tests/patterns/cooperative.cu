// Two warpgroups multiply one tile of 128 x 64, a half each, out of a ring that a third one's thread fills. Registers go
// from the third to the two.
//
// bug 1 race/async/sync: the first warpgroup gives a stage back for both
// bug 2 sync: an empty stage expects the arrivals of one warpgroup more
// bug 3 race/async/sync: a warpgroup gives a stage back before its products are over
// bug 4 async: no wgmma.fence between clearing the sums and the first product
// bug 5 init/async: the second warpgroup's half is not among the bytes that a stage expects
extern "C" __global__ void __launch_bounds__(384, 1) kernel(const __grid_constant__ Problem p) {
    extern __shared__ __align__(1024) unsigned char shared[];
    Ring ring(shared_address(shared), p.stages, 3 * BLOCK);
    if (threadIdx.x == 0) {
        ring.set_up(1, BUG == 1 ? SIGNALS : BUG == 2 ? 3 * SIGNALS : 2 * SIGNALS);
        barriers_are_set_up();
    }
    __syncthreads();
    int rows = p.m / 128, tiles = rows * (p.n / 64), steps = p.k / BK, thread = threadIdx.x % 128;
    int group = __shfl_sync(0xffffffff, threadIdx.x / 128, 0);

    if (group == 0) {
        give_registers<40>();
        if (threadIdx.x != 0) return;
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            int row = tile % rows * 128, column = tile / rows * 64;
            for (int k = 0; k < p.k; k += BK, ring.next()) {
                barrier_wait(ring.is_empty(), ring.parity ^ 1);
                barrier_expect(ring.is_full(), (BUG == 5 ? 2 : 3) * BLOCK);
                load_block<TA>(ring.tile(), &p.a_map, ring.is_full(), row, k);
                load_block<TB>(ring.tile() + 2 * BLOCK, &p.b_map, ring.is_full(), column, k);
                load_block<TA>(ring.tile() + BLOCK, &p.a_map, ring.is_full(), row + 64, k);
            }
        }
    } else {
        take_registers<232>();
        int half = group - 1;
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            Sums d = {};
            for (int step = 0; step < steps; step++, ring.next()) {
                barrier_wait(ring.is_full(), ring.parity);
                pin(d);
                if (BUG != 4) wgmma_fence();
                multiply(d, ring.tile() + half * BLOCK, ring.tile() + 2 * BLOCK, step > 0);
                wgmma_commit();
                pin(d);
                if (BUG != 3) wgmma_wait<0>();
                if ((BUG != 1 || half == 0) && signals(thread)) barrier_arrive(ring.is_empty());
            }
            wgmma_wait<0>();
            pin(d);
            write(p.d + (tile % rows * 128 + half * 64) * p.n + tile / rows * 64, p.n, d, thread);
        }
    }
}
