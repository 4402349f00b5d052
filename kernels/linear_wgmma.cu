// The products of linear.cuh on Hopper's tensor cores: float16 operands, float32 sums.
//
//   linear_wgmma   LAYOUT, ACT, GELU, OUT_FLOAT as there; tiles: BM, BN, STAGES, PINGPONG, CLUSTER
//
//   a_map, b_map: A (batch or 1, M, K) or (batch or 1, K, M) as LAYOUT has it, and B likewise; in boxes of 64 columns
//   and so many rows: BM and BN / CLUSTER, or 64 where M or N is along the columns; with the 128-byte swizzle. The map of
//   an operand that all products of the batch share (step 0) has one matrix. Outside a matrix is zero, so that any
//   M, N and K will do, and no tile has rows of two products.
//
// Grid: any number of clusters of CLUSTER (1 or 2) CTAs of three warpgroups, which walk over tiles of (CLUSTER BM, BN).
// The first warpgroup brings 64 of K at a time into a ring of STAGES (one thread, TMA), tile after tile, as far ahead as
// there is room; the other two multiply (wgmma), BM / 2 rows each, or BN / 2 columns where BM is 64, and write while the
// next tile is on its way. With PINGPONG each of them has tiles to itself, and one writes while the other multiplies.
// The CTAs of a cluster have tiles below one another, and each brings half of B for both.
// Shared: 128 STAGES (BM + BN) bytes, 32,768 for what is on its way out, and 16 STAGES + 16.
//
// A sum is made in the order of k, 16 at a time, whichever the tile: a row's bits depend on N and K alone.

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
#ifndef CLUSTER
#define CLUSTER 1
#endif

#if __CUDA_ARCH_FEAT_SM90_ALL && ELEMENT_HALF

#define BK 64                // of the sums, a stage
#define PANEL (64 * 2 * BK)  // bytes of 64 rows of a stage
#define A_BYTES (BM / 64 * PANEL)
#define B_BYTES (BN / 64 * PANEL)
#define STAGE_BYTES (A_BYTES + B_BYTES)
#define CONSUMERS 2
// Of a warp, on the way out: 16 rows of 64 float.
#define CHUNK 64
#define CHUNK_BYTES (16 * 4 * CHUNK)

// The tile of a consumer.
constexpr int WM = PINGPONG || BM == 64 ? BM : BM / 2, WN = PINGPONG || BM > 64 ? BN : BN / 2;
constexpr bool TA = LAYOUT == 2, TB = LAYOUT != 0;
typedef float Sums[WM / 64][WN / 2];

static_assert(BM == 64 || BM == 128, "BM");
static_assert(WN == 64 || WN == 128 || WN == 256, "BN");

// Where the tiles are, in the order in which they are computed: panels of 16 tiles of M, in which one goes down first. So
// the tiles that are under way at one time share what they read.
struct Walk {
    static constexpr int HEIGHT = 16 / CLUSTER;
    int rows, columns, count;
    int batch, m, n;  // of a tile

    __device__ __forceinline__ Walk(const Linear& p)
        : rows((p.M + CLUSTER * BM - 1) / (CLUSTER * BM)),
          columns((p.N + BN - 1) / BN),
          count(rows * columns * p.batch) {}
    __device__ __forceinline__ void go(int tile) {
        batch = tile / (rows * columns);
        tile -= batch * rows * columns;
        int panel = tile / (HEIGHT * columns), height = min(HEIGHT, rows - panel * HEIGHT);
        tile -= panel * HEIGHT * columns;
        n = tile / height;
        m = panel * HEIGHT + tile - n * height;
        n *= BN;
        m *= CLUSTER * BM;
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
    __device__ __forceinline__ u32 a() const { return stages + stage * STAGE_BYTES; }
    __device__ __forceinline__ u32 b() const { return a() + A_BYTES; }
    __device__ __forceinline__ void next() {
        if (++stage == STAGES) stage = 0, parity ^= 1;
    }
    __device__ __forceinline__ void skip(u32 steps) {
        stage += steps;
        parity ^= stage / STAGES & 1;
        stage %= STAGES;
    }
};

// 64 of K of a tile, from k on, to a stage.
__device__ __forceinline__ void bring(const Ring& ring, const TensorMap* a_map, const TensorMap* b_map, const Linear& p,
                                      const Walk& at, int k, u32 rank) {
    u32 full = ring.full + 8 * ring.stage;
    int a_batch = p.a_step ? at.batch : 0, b_batch = p.b_step ? at.batch : 0, m = at.m + rank * BM;
    barrier_expect(full, STAGE_BYTES);
    if (TA) {
#pragma unroll
        for (int i = 0; i < BM / 64; ++i) load_box(ring.a() + i * PANEL, a_map, full, m + 64 * i, k, a_batch);
    } else {
        load_box(ring.a(), a_map, full, k, m, a_batch);
    }
    // The part of this CTA.
    int n = at.n + rank * (BN / CLUSTER);
    u32 b = ring.b() + rank * (B_BYTES / CLUSTER);
    auto load = [&](u32 to, int x, int y) {
        if (CLUSTER == 1) load_box(to, b_map, full, x, y, b_batch);
        else load_box_to((1 << CLUSTER) - 1, to, b_map, full, x, y, b_batch);
    };
    if (TB) {
#pragma unroll
        for (int i = 0; i < BN / CLUSTER / 64; ++i) load(b + i * PANEL, n + 64 * i, k);
    } else {
        load(b, k, n);
    }
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
    for (int i = 0; i < HEIGHT; ++i) pin(d[i]);
}

// The sums of a tile's first 64 HEIGHT rows of this consumer, from row `row` and column `column` of it. Stages are given back
// one step late, so that a product is always under way.
template <int HEIGHT>
__device__ __forceinline__ void multiply(Sums& d, Ring& ring, int steps, int consumer, int row, int column, int thread) {
    int before = -1;
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
        barrier_wait(ring.full + 8 * ring.stage, ring.parity);
        u64 a = matrix(ring.a() + row / 64 * PANEL, TA ? PANEL : 16);
        u64 b = matrix(ring.b() + column / 64 * PANEL, TB ? PANEL : 16);
        pin_all<HEIGHT>(d);
        wgmma_fence();
#pragma unroll
        for (int j = 0; j < HEIGHT; ++j)
#pragma unroll
            for (int i = 0; i < BK / 16; ++i)
                wgmma<TA, TB>(d[j], a + j * (PANEL >> 4) + i * (TA ? 128 : 2), b + i * (TB ? 128 : 2), step > 0 || i > 0);
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
}

// A tile of which this consumer has no row that exists: only its stages are given back.
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
linear_wgmma(const __grid_constant__ TensorMap a_map, const __grid_constant__ TensorMap b_map,
             const __grid_constant__ Linear p) {
    extern __shared__ __align__(1024) u8 shared[];
    u32 chunks = shared_address(shared) + STAGES * STAGE_BYTES;
    Ring ring(shared_address(shared), chunks + 8 * CHUNK_BYTES);
    int group = __shfl_sync(0xffffffff, threadIdx.x >> 7, 0), thread = threadIdx.x & 127;
    if (threadIdx.x == 0) {
        prefetch_map(&a_map);
        prefetch_map(&b_map);
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
                at.go(tile);
#pragma unroll 1
                for (int k = 0; k < steps * BK; k += BK) {
                    barrier_wait(ring.empty + 8 * ring.stage, ring.parity ^ 1);
                    bring(ring, &a_map, &b_map, p, at, k, rank);
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
            at.go(tile);
            if (PINGPONG) barrier_wait(ring.turns + 8 * consumer, turn);
            turn ^= 1;
            int m = at.m + rank * BM + row;
            // What is past the last row costs nothing: an image's own product has few.
            if (m >= p.M) pass_over(ring, steps, consumer, thread);
            else if (WM > 64 && m + 64 >= p.M) multiply<1>(d, ring, steps, consumer, row, column, thread);
            else multiply<WM / 64>(d, ring, steps, consumer, row, column, thread);
            if (PINGPONG) ring.skip(steps);
            write(p, at.batch, m + warp * 16, at.n + column, d, chunk);
        }
    }
    // Neither CTA of a cluster leaves before the other has told it of its last stages.
    if (CLUSTER > 1) cluster_sync();
}

#endif
