// Attention, one product out of another: S = Q Kᵀ, its softmax from registers as A of O += P V. Q (m, 64), and after each
// other in B: K (n, 64), V (n, 64). P = 2^(c S - its row's maximum), rounded to float16; c = log2(e) / 8.
//
// A producer thread fills a ring of blocks, K's and V's, in the order in which a warpgroup takes them.
//
//   OVERLAP 0: one product after the other; 1: the next block's S is under way while this one's P is multiplied, and
//   then while the one is waited for, the other still runs
//
// bug 1 async: S is read before it has been waited for
// bug 2 async: the sums are scaled, and nothing orders that before the product that adds to them
// bug 3 race/async/sync: V's block is given back before the product that reads it is over
// bug 4 async OVERLAP=1: the sums are scaled while a product still adds to them
// bug 5 result: what has been summed is not scaled to the new maximum
// bug 6 result: a row's maximum is taken over two of its four threads
// bug 7 race/async/sync OVERLAP=1: K's block is given back while its product still runs
constexpr float SCALE = 0.125f * 1.44269504f;

DEVICE float power2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
DEVICE u32 pack(float low, float high) {
    u32 pair;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
    return pair;
}

// A thread's two rows: maxima of the scaled S, and sums of P.
struct Rows { float most[2], total[2]; };

// S becomes P, relative to the new maximum; what sums relative to the old must be multiplied by.
DEVICE void softmax(Sums& s, Rows& rows, float (&factor)[2]) {
    for (int r = 0; r < 2; r++) {
        float most = rows.most[r];
        for (int i = 2 * r; i < 32; i += i % 2 ? 3 : 1) most = fmaxf(most, s[i] * SCALE);
        most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, 1));
        if (BUG != 6) most = fmaxf(most, __shfl_xor_sync(0xffffffff, most, 2));
        factor[r] = power2(rows.most[r] - most);
        rows.most[r] = most;
        rows.total[r] *= factor[r];
        for (int i = 2 * r; i < 32; i += i % 2 ? 3 : 1) rows.total[r] += s[i] = power2(s[i] * SCALE - most);
    }
}

typedef u32 Fragments[4][4];  // 64 x 64 of float16, as wgmma takes A from registers

DEVICE void as_factor(Fragments& p, const Sums& s) {
#pragma unroll
    for (int i = 0; i < 16; i++) p[i / 4][i % 4] = pack(s[2 * i], s[2 * i + 1]);
}
DEVICE void scale(Sums& d, const float (&factor)[2]) {
#pragma unroll
    for (int i = 0; i < 32; i++)
        if (BUG != 5) d[i] *= factor[i / 2 % 2];
}
// Begins S = Q · a block of Kᵀ.
DEVICE void begin_scores(Sums& s, u32 q, u32 keys) {
    pin(s);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; i++) wgmma<0, 0>(s, matrix(q, 0) + 2 * i, matrix(keys, 0) + 2 * i, i > 0);
    wgmma_commit();
    pin(s);
}
// Begins d += P · a block of V.
DEVICE void begin_values(Sums& d, const Fragments& p, u32 values) {
    pin(d);
    if (BUG != 2) wgmma_fence();
#pragma unroll
    for (int i = 0; i < 4; i++) wgmma_registers<1>(d, p[i], matrix(values, 1) + i * SPAN, 1);
    wgmma_commit();
    pin(d);
}

extern "C" __global__ void __launch_bounds__(256, 1) kernel(const __grid_constant__ Problem p) {
    extern __shared__ __align__(1024) unsigned char shared[];
    u32 q = shared_address(shared), q_full = q + BLOCK;
    Ring ring(q + BLOCK + 1024, p.stages, BLOCK);
    if (threadIdx.x == 0) {
        ring.set_up(1, SIGNALS);
        barrier_init(q_full, 1);
        barriers_are_set_up();
    }
    __syncthreads();
    int blocks = p.n / 64, row = blockIdx.x * 64, thread = threadIdx.x % 128;

    if (threadIdx.x == 0) {
        barrier_expect(q_full, BLOCK);
        load_box(q, &p.a_map, q_full, 0, row);
        for (int i = 0; i < 2 * blocks; i++, ring.next()) {
            // K V K V …, or K K V K V … V
            bool keys = OVERLAP ? i == 0 || (i % 2 == 1 && i < 2 * blocks - 1) : i % 2 == 0;
            int block = OVERLAP ? (keys ? (i + 1) / 2 : (i - 1) / 2) : i / 2;
            barrier_wait(ring.is_empty(), ring.parity ^ 1);
            barrier_expect(ring.is_full(), BLOCK);
            load_box(ring.tile(), &p.b_map, ring.is_full(), 0, (keys ? 0 : p.n) + block * 64);
        }
        return;
    }
    if (threadIdx.x < 128) return;

    Sums s, d = {};
    Fragments factor_a;
    Rows rows = {{-1e30f, -1e30f}, {0.f, 0.f}};
    float factor[2];
    barrier_wait(q_full, 0);
    if (OVERLAP) {
        barrier_wait(ring.is_full(), ring.parity);
        begin_scores(s, q, ring.tile());
        wgmma_wait<0>();
        pin(s);
        if (signals(thread)) barrier_arrive(ring.is_empty());
        ring.next();
        softmax(s, rows, factor);
        as_factor(factor_a, s);
        for (int block = 1; block < blocks; block++) {
            barrier_wait(ring.is_full(), ring.parity);
            begin_scores(s, q, ring.tile());
            u32 keys = ring.is_empty();
            ring.next();
            if (BUG == 7 && signals(thread)) barrier_arrive(keys);
            barrier_wait(ring.is_full(), ring.parity);
            begin_values(d, factor_a, ring.tile());
            if (BUG != 1) wgmma_wait<1>();
            pin(s);
            if (BUG != 7 && signals(thread)) barrier_arrive(keys);
            softmax(s, rows, factor);
            if (BUG == 4) scale(d, factor);
            if (BUG == 3 && signals(thread)) barrier_arrive(ring.is_empty());
            wgmma_wait<0>();
            pin(d);
            if (BUG != 3 && signals(thread)) barrier_arrive(ring.is_empty());
            ring.next();
            if (BUG != 4) scale(d, factor);
            as_factor(factor_a, s);
        }
        barrier_wait(ring.is_full(), ring.parity);
        begin_values(d, factor_a, ring.tile());
    } else {
        for (int block = 0; block < blocks; block++) {
            barrier_wait(ring.is_full(), ring.parity);
            begin_scores(s, q, ring.tile());
            if (BUG != 1) wgmma_wait<0>();
            pin(s);
            if (signals(thread)) barrier_arrive(ring.is_empty());
            ring.next();
            softmax(s, rows, factor);
            scale(d, factor);
            as_factor(factor_a, s);
            barrier_wait(ring.is_full(), ring.parity);
            begin_values(d, factor_a, ring.tile());
            if (BUG == 3 && signals(thread)) barrier_arrive(ring.is_empty());
            wgmma_wait<0>();
            pin(d);
            if (BUG != 3 && signals(thread)) barrier_arrive(ring.is_empty());
            ring.next();
        }
    }
    wgmma_wait<0>();
    pin(d);
    for (int r = 0; r < 2; r++) {
        rows.total[r] += __shfl_xor_sync(0xffffffff, rows.total[r], 1);
        rows.total[r] += __shfl_xor_sync(0xffffffff, rows.total[r], 2);
        factor[r] = 1.f / rows.total[r];
    }
    scale(d, factor);
    write(p.d + row * 64, 64, d, thread);
}
