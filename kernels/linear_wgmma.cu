// The products of linear.cuh on Hopper's tensor cores: float16 operands, float32 sums.
//
//   linear_wgmma   LAYOUT, ACT, GELU, OUT_FLOAT, A_TERMS, B_TERMS as there; tiles: BM, BN, STAGES, PINGPONG, CLUSTER_M, CLUSTER_N
//
//   maps: of each term A (batch or 1, M, K) or (batch or 1, K, M) as LAYOUT has it, then of B likewise; in boxes of 64
//   columns and so many rows: BM / CLUSTER_N and BN / CLUSTER_M, or 64 where M or N is along the columns; with the 128-byte
//   swizzle. The map of an operand that all products of the batch share (step 0) has one matrix. Outside a matrix is zero, so
//   that any M, N and K will do, and no tile has rows of two products.
//
// Grid: any number of clusters of CTAs of three warpgroups, which walk over tiles of (CLUSTER_M BM, CLUSTER_N BN).
// The first warpgroup brings 64 of K at a time into a ring of STAGES (one thread, TMA), tile after tile, as far ahead as
// there is room; the other two multiply (wgmma), BM / 2 rows each, or BN / 2 columns where BM is 64, and write while the
// next tile is on its way. With PINGPONG each of them has tiles to itself, and one writes while the other multiplies.
// The CTAs of a cluster have tiles below one another (CLUSTER_M 2), and each brings half of B for both; or beside one another
// (CLUSTER_N 2), and each brings half of A.
// Shared: 128 STAGES (A_TERMS BM + B_TERMS BN) bytes, 32,768 for what is on its way out, and 16 STAGES + 16.
//
// A sum is made in the order of k, 16 at a time, whichever the tile: a row's bits depend on N and K alone. With two terms the
// products of the second ones have sums of their own.

#include "linear.cuh"
#include "ptx.cuh"

#ifndef BM
#define BM 128
#endif
#ifndef BN
#define BN 256
#endif
#ifndef STAGES
#define STAGES 4
#endif
#ifndef PINGPONG
#define PINGPONG 0
#endif
#ifndef CLUSTER_M
#define CLUSTER_M 1
#endif
#ifndef CLUSTER_N
#define CLUSTER_N 1
#endif
#define CLUSTER (CLUSTER_M * CLUSTER_N)

#if __CUDA_ARCH_FEAT_SM90_ALL && ELEMENT_HALF

#define BK 64                // of the sums, a stage
#define PANEL (64 * 2 * BK)  // bytes of 64 rows of a stage
#define A_BYTES (BM / 64 * PANEL)
#define B_BYTES (BN / 64 * PANEL)
#define STAGE_BYTES (A_TERMS * A_BYTES + B_TERMS * B_BYTES)
#define CONSUMERS 2
// Of a warp, on the way out: 16 rows of 64 float.
#define CHUNK 64
#define CHUNK_BYTES (16 * 4 * CHUNK)

// The tile of a consumer.
constexpr int WM = PINGPONG || BM == 64 ? BM : BM / 2, WN = PINGPONG || BM > 64 ? BN : BN / 2;
constexpr bool TA = LAYOUT == 2, TB = LAYOUT != 0;
// Of 64 rows each; behind them those of the second terms' products.
typedef float Sums[(TERMS ? 2 : 1) * WM / 64][WN / 2];

struct Maps {
    TensorMap a[A_TERMS], b[B_TERMS];
};

static_assert(BM == 64 || BM == 128, "BM");
static_assert(!TERMS || (WM == 64 && LAYOUT == 0), "two terms");
static_assert(CLUSTER <= 2, "CLUSTER");
static_assert(WN == 64 || WN == 128 || WN == 256, "BN");

// Where the tiles are, in the order in which they are computed: panels of 16 tiles of M, in which one goes down first. So
// the tiles that are under way at one time share what they read.
struct Walk {
    static constexpr int HEIGHT = 16 / CLUSTER_M;
    int rows, columns, count;
    int batch, m, n;  // of a tile

    __device__ __forceinline__ Walk(const Linear& p)
        : rows((p.M + CLUSTER_M * BM - 1) / (CLUSTER_M * BM)),
          columns((p.N + CLUSTER_N * BN - 1) / (CLUSTER_N * BN)),
          count(rows * columns * p.batch) {}
    // To a tile, and in it to that of the CTA.
    __device__ __forceinline__ void go(int tile, int rank) {
        batch = tile / (rows * columns);
        tile -= batch * rows * columns;
        int panel = tile / (HEIGHT * columns), height = min(HEIGHT, rows - panel * HEIGHT);
        tile -= panel * HEIGHT * columns;
        n = tile / height;
        m = panel * HEIGHT + tile - n * height;
        m = (m * CLUSTER_M + (CLUSTER_M > 1 ? rank : 0)) * BM;
        n = (n * CLUSTER_N + (CLUSTER_N > 1 ? rank : 0)) * BN;
    }
};

// Stages one behind the other, then for each a barrier that says it is full, and one that it is empty; and one for each
// consumer that says it is its turn.
struct Ring {
    u32 stages, full, empty, turns;
    u32 stage = 0, parity = 0;

    __device__ __forceinline__ Ring(u32 stages, u32 barriers)
        : stages(stages), full(barriers), empty(full + 8 * STAGES), turns(empty + 8 * STAGES) {}
    __device__ __forceinline__ void set_up() {
        for (int i = 0; i < STAGES; ++i) {
            barrier_init(full + 8 * i, 1);
            barrier_init(empty + 8 * i, CLUSTER * (PINGPONG ? 1 : CONSUMERS));
        }
        for (int i = 0; i < CONSUMERS; ++i) barrier_init(turns + 8 * i, 1);
        barriers_are_set_up();
    }
    __device__ __forceinline__ u32 a(int term = 0) const { return stages + stage * STAGE_BYTES + term * A_BYTES; }
    __device__ __forceinline__ u32 b(int term = 0) const { return a(A_TERMS) + term * B_BYTES; }
    __device__ __forceinline__ void next() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
    __device__ __forceinline__ void skip(u32 steps) {
        stage += steps;
        parity ^= stage / STAGES & 1;
        stage %= STAGES;
    }
};

// Brings 64 of K of an operand's tile, from row (of M or N) `at` of it on: all rows, or where SHARED CTAs have the same, this
// CTA's part of them to each.
template <int ROWS_OF, bool TRANSPOSED, int SHARED>
__device__ __forceinline__ void bring(u32 to, const TensorMap* map, u32 full, int at, int k, int batch, u32 rank) {
    constexpr int PART = ROWS_OF / SHARED;
    if (SHARED > 1) to += rank * (PART / 64 * PANEL), at += rank * PART;
#pragma unroll
    for (int i = 0; i < (TRANSPOSED ? PART / 64 : 1); ++i) {
        int x = TRANSPOSED ? at + 64 * i : k, y = TRANSPOSED ? k : at;
        if (SHARED > 1) load_box_to((1 << SHARED) - 1, to + i * PANEL, map, full, x, y, batch);
        else load_box(to + i * PANEL, map, full, x, y, batch);
    }
}

// 64 of K of this CTA's tile, from k on, to a stage.
__device__ __forceinline__ void bring(const Ring& ring, const Maps& maps, const Linear& p, const Walk& at, int k, u32 rank) {
    u32 full = ring.full + 8 * ring.stage;
    int a_batch = p.a_step ? at.batch : 0, b_batch = p.b_step ? at.batch : 0;
    barrier_expect(full, STAGE_BYTES);
#pragma unroll
    for (int i = 0; i < A_TERMS; ++i)
        bring<BM, TA, CLUSTER_N>(ring.a(i), &maps.a[i], full, at.m, k, a_batch, rank);
#pragma unroll
    for (int i = 0; i < B_TERMS; ++i)
        bring<BN, TB, CLUSTER_M>(ring.b(i), &maps.b[i], full, at.n, k, b_batch, rank);
}

__device__ __forceinline__ void release(const Ring& ring, u32 stage, int thread) {
    if (CLUSTER == 1) {
        if (thread == 0) barrier_arrive(ring.empty + 8 * stage);
    } else {
        if (thread < CLUSTER) barrier_arrive_at(ring.empty + 8 * stage, thread);
    }
}

template <int HEIGHT>
__device__ __forceinline__ void pin_all(Sums& d) {
#pragma unroll
    for (int i = 0; i < HEIGHT + TERMS; ++i) pin(d[i]);
}

// Adds the product of a stage to 64 rows of sums.
__device__ __forceinline__ void multiply_stage(float (&d)[WN / 2], u64 a, u64 b, bool adds) {
#pragma unroll
    for (int i = 0; i < BK / 16; ++i) wgmma<TA, TB>(d, a + i * (TA ? 128 : 2), b + i * (TB ? 128 : 2), adds || i > 0);
}

// The sums of a tile's first 64 HEIGHT rows of this consumer, from row `row` and column `column` of it. Stages are given back
// one step late, so that a product is always under way.
template <int HEIGHT>
__device__ __forceinline__ void multiply(Sums& d, Ring& ring, int steps, int consumer, int row, int column, int thread,
                                         float second) {
    int before = -1;
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
        barrier_wait(ring.full + 8 * ring.stage, ring.parity);
        u64 a = matrix(ring.a() + row / 64 * PANEL, TA ? PANEL : 16);
        u64 b = matrix(ring.b() + column / 64 * PANEL, TB ? PANEL : 16);
        pin_all<HEIGHT>(d);
        wgmma_fence();
#pragma unroll
        for (int j = 0; j < HEIGHT; ++j) multiply_stage(d[j], a + j * (PANEL >> 4), b, step > 0);
#if TERMS
        if (A_TERMS > 1) multiply_stage(d[1], a + (A_BYTES >> 4), b, step > 0);
        if (B_TERMS > 1) multiply_stage(d[1], a, b + (B_BYTES >> 4), A_TERMS > 1 || step > 0);
#endif
        wgmma_commit();
        pin_all<HEIGHT>(d);
        wgmma_wait<1>();
        if (before >= 0) release(ring, before, thread);
        before = ring.stage;
        ring.next();
    }
    // A parity tells a phase from those beside it alone: nobody waits for stages while another still waits for some before.
    if (PINGPONG && thread == 0) barrier_arrive(ring.turns + 8 * (1 - consumer));
    wgmma_wait<0>();
    pin_all<HEIGHT>(d);
    if (before >= 0) release(ring, before, thread);
#if TERMS
    // Not behind the branch that calls this: there ptxas takes the sums for written elsewhere, and has every wgmma wait.
#pragma unroll
    for (int i = 0; i < WN / 2; ++i) d[0][i] = fmaf(second, d[1][i], d[0][i]);
#endif
}

// A tile of which this consumer has no row or column that exists: only its stages are given back.
__device__ __forceinline__ void pass_over(Ring& ring, int steps, int consumer, int thread) {
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
        barrier_wait(ring.full + 8 * ring.stage, ring.parity);
        warpgroup_sync(1 + consumer);  // as products do: none waits for a phase while another is two ahead
        release(ring, ring.stage, thread);
        ring.next();
    }
    if (PINGPONG && thread == 0) barrier_arrive(ring.turns + 8 * (1 - consumer));
}

// 16 rows of 64 sums of a warp in shared memory, where 16 bytes of a row are moved so that lanes which read or write in
// one turn do so in different banks: the byte of one in its row.
__device__ __forceinline__ u32 moved(u32 row, u32 column) {
    return (column / 4 ^ column / 32 ^ (row & 3) * 2) * 16 + column % 4 * 4;
}

// Of a row of the result, as a lane has them.
constexpr int W = 16 / sizeof(Out);
constexpr int LANES_A_ROW = CHUNK / W, ROWS = 32 / LANES_A_ROW, PARTS = 16 / ROWS, AT_ONCE = PARTS;

// Finishes the sums of a chunk, from row m and column n.
__device__ __forceinline__ void finish_chunk(const Linear& p, int batch, int m, int n, u32 chunk, u32 lane) {
    u32 row = lane / LANES_A_ROW, column = lane % LANES_A_ROW * W, from = chunk + row * (4 * CHUNK) + moved(row, column);
    m += row;
    n += column;
    auto sums = [&](float (&acc)[W], int part) {
#pragma unroll
        for (int i = 0; i < W; i += 4) load_shared(&acc[i], (from ^ moved(part * ROWS, i)) + part * ROWS * (4 * CHUNK));
    };
    __syncwarp();
    if ((p.aligned & 4) && n - column + CHUNK <= p.N && m - row + 16 <= p.M) {
        Epilogue<W> epilogue(p, batch, n);
#pragma unroll
        for (int i = 0; i < PARTS; i += AT_ONCE) {
            typename Epilogue<W>::Row rows[AT_ONCE];
#pragma unroll
            for (int j = 0; j < AT_ONCE; ++j) epilogue.read(rows[j], m + (i + j) * ROWS);
#pragma unroll
            for (int j = 0; j < AT_ONCE; ++j) {
                float acc[W];
                sums(acc, i + j);
                epilogue.write(rows[j], m + (i + j) * ROWS, acc);
            }
        }
    } else {
#pragma unroll 1
        for (int i = 0; i < PARTS; ++i) {
            float acc[W];
            sums(acc, i);
            finish(p, batch, m + i * ROWS, n, acc);
        }
    }
}

// A warp's 16 rows of each 64 of a consumer's tile, from row m and column n on.
__device__ __forceinline__ void write(const Linear& p, int batch, int m, int n, const Sums& d, u32 chunk) {
    constexpr int ACROSS = WN / CHUNK;
#pragma unroll 1
    for (int part = 0; part < WM / 64 * ACROSS; ++part) {
        int m0 = m + part / ACROSS * 64, n0 = n + part % ACROSS * CHUNK;
        if (m0 >= p.M || n0 >= p.N) continue;
        u32 lane = lane_here(), row = lane / 4, to = chunk + row * (4 * CHUNK) + moved(row, lane % 4 * 2);
        __syncwarp();
        // Which registers these are is known where the code is made.
#pragma unroll
        for (int i = 0; i < WM / 64 * ACROSS; ++i) {
            if (i != part) continue;
#pragma unroll
            for (int j = 0; j < CHUNK / 2; j += 2) {
                const float* pair = &d[i / ACROSS][i % ACROSS * (CHUNK / 2) + j];
                store_shared((to ^ moved(0, j / 4 * 8)) + j / 2 % 2 * 8 * (4 * CHUNK), pair[0], pair[1]);
            }
        }
        finish_chunk(p, batch, m0, n0, chunk, lane);
    }
}

extern "C" __global__ void __launch_bounds__(384, 1)
linear_wgmma(const __grid_constant__ Maps maps, const __grid_constant__ Linear p) {
    extern __shared__ __align__(1024) u8 shared[];
    u32 chunks = shared_address(shared) + STAGES * STAGE_BYTES;
    Ring ring(shared_address(shared), chunks + 8 * CHUNK_BYTES);
    int group = __shfl_sync(0xffffffff, threadIdx.x >> 7, 0), thread = threadIdx.x & 127;
    if (threadIdx.x == 0) {
        for (const TensorMap& map : maps.a) prefetch_map(&map);
        for (const TensorMap& map : maps.b) prefetch_map(&map);
        ring.set_up();
    }
    if (CLUSTER == 1) __syncthreads();
    else cluster_sync();
    u32 rank = CLUSTER == 1 ? 0 : cluster_rank();
    Walk at(p);
    int steps = (p.K + BK - 1) / BK, first = blockIdx.x / CLUSTER, stride = gridDim.x / CLUSTER;

    if (group == 0) {
        give_registers<40>();
        if (threadIdx.x == 0)
            for (int tile = first; tile < at.count; tile += stride) {
                at.go(tile, rank);
#pragma unroll 1
                for (int k = 0; k < steps * BK; k += BK) {
                    barrier_wait(ring.empty + 8 * ring.stage, ring.parity ^ 1);
                    bring(ring, maps, p, at, k, rank);
                    ring.next();
                }
            }
    } else {
        take_registers<232>();
        int consumer = group - 1, warp = thread / 32;
        int row = PINGPONG || BM == 64 ? 0 : consumer * WM, column = PINGPONG || BM > 64 ? 0 : consumer * WN;
        u32 chunk = chunks + (consumer * 4 + warp) * CHUNK_BYTES;
        u32 turn = 1 - consumer;
        if (PINGPONG && consumer) ring.skip(steps);
        if (PINGPONG) first += consumer * stride, stride *= CONSUMERS;
        for (int tile = first; tile < at.count; tile += stride) {
            Sums d;
            at.go(tile, rank);
            if (PINGPONG) barrier_wait(ring.turns + 8 * consumer, turn);
            turn ^= 1;
            int m = at.m + row, n = at.n + column;
            // What is past the last row costs nothing: an image's own product has few.
            if (m >= p.M || n >= p.N) pass_over(ring, steps, consumer, thread);
            else if (WM > 64 && m + 64 >= p.M) multiply<1>(d, ring, steps, consumer, row, column, thread, p.second);
            else multiply<WM / 64>(d, ring, steps, consumer, row, column, thread, p.second);
            if (PINGPONG) ring.skip(steps);
            write(p, at.batch, m + warp * 16, n, d, chunk);
        }
    }
    // Neither CTA of a cluster leaves before the other has told it of its last stages.
    if (CLUSTER > 1) cluster_sync();
}

#endif
