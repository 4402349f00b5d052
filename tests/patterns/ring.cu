// A producer fills a ring of stages by TMA; a warpgroup multiplies them, tile after tile, and gives each stage back.
//
//   SIGNAL    who gives it back
//   WAIT 0    when its own products are over; 1: those of the stage before, while its own run on
//   PRODUCER  who fills: thread 0; a lane elected once, for each tile, or for each stage
//
// bug 1 race/async/sync: a stage is given back before its products have been waited for
// bug 2 race/async/sync WAIT=1: the stage is given back whose products still run
// bug 3 init/race/async: nobody waits until a stage is full
// bug 4 init/race/async/sync: the consumers wait for the wrong parity
// bug 5 sync: the producer waits for the wrong parity
// bug 6 sync: an empty stage expects one arrival more than comes
// bug 7 race/async/sync SIGNAL=2: an empty stage expects one arrival fewer than come
// bug 8 sync: a stage expects 16 bytes more than come
// bug 9 async: a stage expects the bytes of A alone
// bug 10 async: no wgmma.fence between clearing the sums and the first product
// bug 11 async: the sums are written before they have been waited for
// bug 12 init/race/sync: the barriers are used before the threads know that they are set up
// bug 13 init/race/async/sync: the parity does not turn when the ring comes round
// bug 14 sync PRODUCER=3: a lane waits for the stage before it comes to the election of who fills it
// bug 15 race/sync: the producer does not wait until a stage is empty
enum { THREAD, ELECTED_ONCE, ELECTED_A_TILE, ELECTED_A_STAGE };

extern "C" __global__ void __launch_bounds__(256, 1) kernel(const __grid_constant__ Problem p) {
    extern __shared__ __align__(1024) unsigned char shared[];
    Ring ring(shared_address(shared), p.stages, 2 * BLOCK);
    if (threadIdx.x == 0) {
        ring.set_up(1, SIGNALS + (BUG == 6) - (BUG == 7));
        barriers_are_set_up();
    }
    if (BUG != 12) __syncthreads();
    int rows = p.m / 64, tiles = rows * (p.n / 64), steps = p.k / BK, thread = threadIdx.x % 128;

    if (threadIdx.x < 32) {
        bool fills = PRODUCER == THREAD ? threadIdx.x == 0 : PRODUCER == ELECTED_ONCE ? elect() : true;
        if (!fills) return;
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            if (PRODUCER == ELECTED_A_TILE) fills = elect();
            for (int step = 0; step < steps; step++, ring.next()) {
                if (BUG == 14 && threadIdx.x == 31) barrier_wait(ring.is_full(), ring.parity);
                if (PRODUCER == ELECTED_A_STAGE) fills = elect();
                if (!fills) continue;
                if (BUG != 15) barrier_wait(ring.is_empty(), ring.parity ^ (BUG != 5));
                barrier_expect(ring.is_full(), BUG == 9 ? BLOCK : 2 * BLOCK + (BUG == 8 ? 16 : 0));
                load_block<TA>(ring.tile(), &p.a_map, ring.is_full(), tile % rows * 64, step * BK);
                load_block<TB>(ring.tile() + BLOCK, &p.b_map, ring.is_full(), tile / rows * 64, step * BK);
            }
        }
    } else if (threadIdx.x >= 128) {
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            Sums d = {};
            u32 before = 0;
            for (int step = 0; step < steps; step++, ring.next()) {
                u32 parity = BUG == 13 ? 0 : ring.parity ^ (BUG == 4);
                if (BUG != 3) barrier_wait(ring.is_full(), parity);
                pin(d);
                if (BUG != 10) wgmma_fence();
                multiply(d, ring.tile(), ring.tile() + BLOCK, step > 0);
                wgmma_commit();
                pin(d);
                if (BUG != 1 && (BUG != 11 || step < steps - 1)) wgmma_wait<WAIT>();
                u32 done = WAIT == 0 || BUG == 2 ? ring.is_empty() : before;
                if (done && signals(thread)) barrier_arrive(done);
                before = ring.is_empty();
            }
            if (BUG != 11) wgmma_wait<0>();
            pin(d);
            if (WAIT == 1 && BUG != 2 && signals(thread)) barrier_arrive(before);
            write(p.d + tile % rows * 64 * p.n + tile / rows * 64, p.n, d, thread);
        }
    }
}
