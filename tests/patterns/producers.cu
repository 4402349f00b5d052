// A warpgroup fills the ring without TMA, sixteen bytes a thread at a time, and another multiplies it. wgmma reads through
// the async proxy what was written through the generic one, so a proxy fence stands between.
//
//   FORM STORES  ordinary loads and stores, the fence, an arrival of each thread
//        NOINC   cp.async, an arrival of each thread when its copies are done; the readers have the fence
//        GROUPS  cp.async in groups: the stage before is waited for, the fence, an arrival of each thread
//
// bug 1 async FORM=0: no proxy fence between the stores and the arrival
// bug 2 async/race FORM=1: an ordinary arrival, which does not wait for the copies
// bug 3 async FORM=1: the readers have no proxy fence
// bug 4 async/race FORM=2: the copies of the stage are not waited for
// bug 5 async FORM=2: the proxy fence stands before the wait
// bug 6 init/race/async/sync FORM=0: the producers do not wait until the stage is empty
// bug 7 sync FORM=1: a full stage expects one arrival more than there are threads
// bug 8 init/race/async/sync FORM=0: a full stage expects the arrivals of one warp
// bug 9 race/async/sync FORM=0: a stage is given back before its products are over
// bug 10 sync FORM=1: the arrivals of the copies are counted besides
enum { STORES, NOINC, GROUPS };

DEVICE void copy_or_store16(u32 to, const u16* from) {
    if (FORM != STORES) return copy16(to, from);
    uint4 x = *(const uint4*)from;
    asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to), "r"(x.x), "r"(x.y), "r"(x.z), "r"(x.w) : "memory");
}
// The block of 64 rows of the operand from `row`, BK columns from `k`; the matrix has `rows` rows and `columns` columns.
template <int TRANSPOSED>
DEVICE void fill_block(u32 to, const u16* from, int rows, int columns, int row, int k, int thread) {
    constexpr int CHUNKS = SPAN / 16;
    for (int i = thread; i < 64 * CHUNKS; i += 128) {
        int r = i / CHUNKS, x = i % CHUNKS * 8;
        const u16* piece = TRANSPOSED ? from + (k + r % BK) * rows + row + r / BK * BK + x : from + (row + r) * columns + k + x;
        copy_or_store16(to + swizzled<SPAN>(i * 16), piece);
    }
}

extern "C" __global__ void __launch_bounds__(256, 1) kernel(const __grid_constant__ Problem p) {
    extern __shared__ __align__(1024) unsigned char shared[];
    Ring ring(shared_address(shared), p.stages, 2 * BLOCK);
    if (threadIdx.x == 0) {
        ring.set_up(BUG == 8 ? 32 : 128 + (BUG == 7), SIGNALS);
        barriers_are_set_up();
    }
    __syncthreads();
    int rows = p.m / 64, tiles = rows * (p.n / 64), steps = p.k / BK, thread = threadIdx.x % 128;

    if (threadIdx.x < 128) {
        u32 before = 0;
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x)
            for (int k = 0; k < p.k; k += BK, ring.next()) {
                if (BUG != 6) barrier_wait(ring.is_empty(), ring.parity ^ 1);
                fill_block<TA>(ring.tile(), p.a, p.m, p.k, tile % rows * 64, k, thread);
                fill_block<TB>(ring.tile() + BLOCK, p.b, p.n, p.k, tile / rows * 64, k, thread);
                if (FORM == STORES) {
                    if (BUG != 1) proxy_fence();
                    barrier_arrive(ring.is_full());
                } else if (FORM == NOINC) {
                    if (BUG == 2) barrier_arrive(ring.is_full());
                    else if (BUG == 10) copies_arrive_besides(ring.is_full());
                    else copies_arrive(ring.is_full());
                } else {
                    copies_commit();
                    if (before) {
                        if (BUG == 5) proxy_fence();
                        if (BUG != 4) copies_wait<1>();
                        if (BUG != 5) proxy_fence();
                        barrier_arrive(before);
                    }
                    before = ring.is_full();
                }
            }
        if (FORM == GROUPS) {
            copies_wait<0>();
            proxy_fence();
            barrier_arrive(before);
        }
    } else {
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
            Sums d = {};
            for (int step = 0; step < steps; step++, ring.next()) {
                barrier_wait(ring.is_full(), ring.parity);
                if (FORM == NOINC && BUG != 3) proxy_fence();
                pin(d);
                wgmma_fence();
                multiply(d, ring.tile(), ring.tile() + BLOCK, step > 0);
                wgmma_commit();
                pin(d);
                if (BUG != 9) wgmma_wait<0>();
                if (signals(thread)) barrier_arrive(ring.is_empty());
            }
            wgmma_wait<0>();
            pin(d);
            write(p.d + tile % rows * 64 * p.n + tile / rows * 64, p.n, d, thread);
        }
    }
}
