// Tiles are written back by TMA from one buffer or two, which are filled again as soon as they have been read.
//
//   BUFFERS  1 or 2
//   STORER 0: thread 0 stores; 1: a lane elected in the first warp
//
// bug 1 race/async: the buffer is filled again while the store may still read it
// bug 2 async: no proxy fence between filling the buffer and the store
// bug 3 race/async: the warpgroup does not wait for the thread that waits for the store
// bug 4 race/async: the store begins when its thread, not the warpgroup, has filled its part
// bug 5 race/async: another thread than the one that stores waits for the store
// bug 6 race/async BUFFERS=1: as many stores may be under way as if there were one buffer more
// bug 7 race/async: what the store reads is not committed to a group
extern "C" __global__ void __launch_bounds__(256, 1) kernel(const __grid_constant__ Problem p) {
    extern __shared__ __align__(1024) unsigned char shared[];
    u32 buffers = shared_address(shared);
    Ring ring(buffers + BUFFERS * 16384, p.stages, 2 * BLOCK);
    if (threadIdx.x == 0) {
        ring.set_up(1, SIGNALS);
        barriers_are_set_up();
    }
    __syncthreads();
    int rows = p.m / 64, tiles = rows * (p.n / 64), steps = p.k / BK, thread = threadIdx.x % 128;

    if (threadIdx.x == 0) {
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x)
            for (int k = 0; k < p.k; k += BK, ring.next()) {
                barrier_wait(ring.is_empty(), ring.parity ^ 1);
                barrier_expect(ring.is_full(), 2 * BLOCK);
                load_block<TA>(ring.tile(), &p.a_map, ring.is_full(), tile % rows * 64, k);
                load_block<TB>(ring.tile() + BLOCK, &p.b_map, ring.is_full(), tile / rows * 64, k);
            }
    } else if (threadIdx.x >= 128) {
        bool stores = STORER == 0 ? thread == 0 : thread < 32 && elect();
        bool waits = BUG == 5 ? thread == 1 : stores;
        u32 buffer = buffers;
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            Sums d = {};
            for (int step = 0; step < steps; step++, ring.next()) {
                barrier_wait(ring.is_full(), ring.parity);
                pin(d);
                wgmma_fence();
                multiply(d, ring.tile(), ring.tile() + BLOCK, step > 0);
                wgmma_commit();
                pin(d);
                wgmma_wait<0>();
                if (signals(thread)) barrier_arrive(ring.is_empty());
            }
            pin(d);

            if (waits && BUG != 1) stores_wait_read<BUFFERS - (BUG != 6)>();
            if (BUG != 3) named_sync(1, 128);
            write_shared(buffer, d, thread);
            if (BUG != 2) proxy_fence();
            if (BUG != 4) named_sync(1, 128);
            if (stores) {
                for (int i = 0; i < 2; i++)
                    store_box(&p.d_map, buffer + i * 8192, tile / rows * 64 + i * 32, tile % rows * 64);
                if (BUG != 7) stores_commit();
            }
            if (BUFFERS == 2) buffer = buffers + (buffer == buffers) * 16384;
        }
        if (stores) stores_wait<0>();
    }
}
