// Two warpgroups take turns: while one writes its tile back, the other multiplies the next, from the same ring. Both
// write through one buffer.
//
//   ORDER  whose turn it is to multiply, and to write back, is said by named barriers, or by mbarriers
//
// bug 1 race: a warpgroup writes to the buffer when it is not its turn
// bug 2 race/async: the turn to write is handed on before the buffer has been read
// bug 3 sync: nobody has the first turn to multiply
// bug 4 race/async/sync: a warpgroup does not skip the stages of the other's tile
// bug 5 sync ORDER=1: the turn is handed on by one thread of a warpgroup
enum { NAMED, MBARRIER };
enum { MULTIPLY, WRITE };

// Turns of two warpgroups at two things, one after the other.
struct Turns {
    u32 barriers;
    int group;
    u32 parity;

    DEVICE Turns(u32 barriers, int group) : barriers(barriers), group(group), parity(group == 0) {}
    DEVICE void wait(int what) {
        if (ORDER == MBARRIER) barrier_wait(barriers + 8 * (2 * what + group), parity);
        else named_sync(1 + 2 * what + group, 256);
    }
    DEVICE void hand_on(int what, int thread) {
        if (ORDER == NAMED) named_arrive(1 + 2 * what + (group ^ 1), 256);
        else if (BUG != 5 || thread == 0) barrier_arrive(barriers + 8 * (2 * what + (group ^ 1)));
        if (what == WRITE) parity ^= 1;
    }
};

extern "C" __global__ void __launch_bounds__(384, 1) kernel(const __grid_constant__ Problem p) {
    extern __shared__ __align__(1024) unsigned char shared[];
    u32 buffer = shared_address(shared), turn = buffer + 16384;
    Ring ring(turn + 1024, p.stages, 2 * BLOCK);
    if (threadIdx.x == 0) {
        ring.set_up(1, SIGNALS);
        for (int i = 0; i < 4; i++) barrier_init(turn + 8 * i, 128);
        barriers_are_set_up();
    }
    __syncthreads();
    int rows = p.m / 64, tiles = rows * (p.n / 64), steps = p.k / BK, thread = threadIdx.x % 128;
    int group = __shfl_sync(0xffffffff, threadIdx.x / 128, 0) - 1;

    if (group < 0) {
        if (threadIdx.x != 0) return;
        for (int tile = blockIdx.x; tile < tiles; tile += gridDim.x)
            for (int k = 0; k < p.k; k += BK, ring.next()) {
                barrier_wait(ring.is_empty(), ring.parity ^ 1);
                barrier_expect(ring.is_full(), 2 * BLOCK);
                load_block<TA>(ring.tile(), &p.a_map, ring.is_full(), tile % rows * 64, k);
                load_block<TB>(ring.tile() + BLOCK, &p.b_map, ring.is_full(), tile / rows * 64, k);
            }
        return;
    }
    Turns turns(turn, group);
    if (ORDER == NAMED && group == 1) {
        if (BUG != 3) named_arrive(1 + 2 * MULTIPLY, 256);
        named_arrive(1 + 2 * WRITE, 256);
    }
    if (BUG == 3 && ORDER == MBARRIER) turns.parity = 0;
    if (group == 1 && BUG != 4) ring.next(steps);
    for (int tile = blockIdx.x + group * gridDim.x; tile < tiles; tile += 2 * gridDim.x) {
        Sums d = {};
        turns.wait(MULTIPLY);
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
        turns.hand_on(MULTIPLY, thread);
        pin(d);
        ring.next(steps);

        if (BUG != 1) turns.wait(WRITE);
        int row = tile % rows * 64, column = tile / rows * 64;
        write_shared(buffer, d, thread);
        proxy_fence();
        named_sync(5 + group, 128);
        if (thread == 0) {
            for (int i = 0; i < 2; i++) store_box(&p.d_map, buffer + i * 8192, column + i * 32, row);
            stores_commit();
            if (BUG != 2) stores_wait_read<0>();
        }
        turns.hand_on(WRITE, thread);
    }
    if (thread == 0) stores_wait<0>();
}
