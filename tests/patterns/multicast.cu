// A cluster of CTAs, CLUSTER_M tiles down and CLUSTER_N across, shares its blocks: of a block of A that CTAs of one row
// need, each brings a slice to all of them; of one of B, those of one column. A stage is free when the warpgroups of all
// CTAs that need what comes next have done with it, each of which tells the others.
//
//   ARRIVAL  who tells CTA i: thread i; thread i of each warp; or one thread of sixteen, spread over the warpgroup
//   TAIL 0   a CTA ends when all its stages have been given back by all; 1: when all CTAs of the cluster end
//
// bug 1 race/async: a CTA fills a stage that only its own warpgroup has given back
// bug 2 race: nothing but a CTA's own barrier between setting barriers up and others' use of them
// bug 3 memory/sync/async: a CTA ends while others may still tell it that a stage is free
// bug 4 sync: the last CTA is not told that a stage is free
// bug 5 async: a stage expects the bytes of its CTA's own copies alone
// bug 6 sync: the slice of B is brought to all CTAs but the last
// bug 7 memory/sync/async TAIL=1: a CTA ends before the others of its cluster
// bug 8 race/async/sync: a stage is given back before its products are over
enum { FIRST, WARPS, SPREAD };
constexpr int CTAS = CLUSTER_M * CLUSTER_N, SLICE_A = 64 / CLUSTER_N, SLICE_B = 64 / CLUSTER_M;

// Whether they are in one row or column of the cluster.
DEVICE bool share(int x, int y) { return x % CLUSTER_M == y % CLUSTER_M || x / CLUSTER_M == y / CLUSTER_M; }

DEVICE void give_back(u32 barrier, int rank, int thread) {
    int warp = thread / 32, eighth = thread / 8 % 4;
    int cta = ARRIVAL == FIRST ? thread : ARRIVAL == WARPS ? thread % 32 : thread % 8 == 0 ? (warp ^ eighth) * 4 + eighth : CTAS;
    if (cta >= CTAS - (BUG == 4) || !share(cta, rank) || (BUG == 1 && cta != rank)) return;
    if (ARRIVAL == SPREAD) barrier_arrive_at(barrier, cta);
    else barrier_release_at(barrier, cta);
}

extern "C" __global__ void __launch_bounds__(256, 1) kernel(const __grid_constant__ Problem p) {
    extern __shared__ __align__(1024) unsigned char shared[];
    Ring ring(shared_address(shared), p.stages, 2 * BLOCK);
    if (threadIdx.x == 0) {
        ring.set_up(1, (BUG == 1 ? 1 : CLUSTER_M + CLUSTER_N - 1) * (ARRIVAL == WARPS ? 4 : 1));
        barriers_are_set_up();
    }
    if (BUG == 2) __syncthreads();
    else cluster_sync();
    int rank = cluster_rank(), down = rank % CLUSTER_M, across = rank / CLUSTER_M, thread = threadIdx.x % 128;
    int rows = p.m / 64 / CLUSTER_M, groups = rows * (p.n / 64 / CLUSTER_N), steps = p.k / BK;
    auto row = [&](int group) { return (group % rows * CLUSTER_M + down) * 64; };
    auto column = [&](int group) { return (group / rows * CLUSTER_N + across) * 64; };

    if (threadIdx.x == 0) {
        u16 same_row = 0, same_column = ((1 << CLUSTER_M) - 1) << across * CLUSTER_M;
        for (int i = 0; i < CLUSTER_N; i++) same_row |= 1 << (down + i * CLUSTER_M);
        if (BUG == 6) same_column &= ~(1 << (CTAS - 1));
        for (int group = blockIdx.x / CTAS; group < groups; group += gridDim.x / CTAS)
            for (int k = 0; k < p.k; k += BK, ring.next()) {
                u32 a = ring.tile() + across * SLICE_A * SPAN, b = ring.tile() + BLOCK + down * SLICE_B * SPAN;
                barrier_wait(ring.is_empty(), ring.parity ^ 1);
                barrier_expect(ring.is_full(), BUG == 5 ? (SLICE_A + SLICE_B) * SPAN : 2 * BLOCK);
                load_box_multicast(a, &p.a_map, ring.is_full(), k, row(group) + across * SLICE_A, same_row);
                load_box_multicast(b, &p.b_map, ring.is_full(), k, column(group) + down * SLICE_B, same_column);
            }
        if (TAIL == 0 && BUG != 3)
            for (int i = 0; i < p.stages; i++, ring.next()) barrier_wait(ring.is_empty(), ring.parity ^ 1);
    } else if (threadIdx.x >= 128) {
        for (int group = blockIdx.x / CTAS; group < groups; group += gridDim.x / CTAS) {
            Sums d = {};
            for (int step = 0; step < steps; step++, ring.next()) {
                barrier_wait(ring.is_full(), ring.parity);
                pin(d);
                wgmma_fence();
                multiply(d, ring.tile(), ring.tile() + BLOCK, step > 0);
                wgmma_commit();
                pin(d);
                if (BUG != 8) wgmma_wait<0>();
                give_back(ring.is_empty(), rank, thread);
            }
            wgmma_wait<0>();
            pin(d);
            write(p.d + row(group) * p.n + column(group), p.n, d, thread);
        }
    }
    if (TAIL == 1 && BUG != 7) {
        __syncthreads();
        cluster_sync();
    }
}
