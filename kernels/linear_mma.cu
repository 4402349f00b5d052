// Matrix products of float16 on tensor cores, for sm_75 and up: mma.sync m16n8k16 with float32 sums, operands by cp.async
// through a ring of stages. linear.cuh says what they compute.
//
// Sums run over k in steps of 16, each added by the tensor core: bits depend on K alone, not on the tile. With two terms the
// products of the second ones have sums of their own.
//
// Grid: (ceil(N / TILE_N), ceil(M / 128), batch) CTAs of 4 warps of 64 rows by TILE_N / 2 columns, TILE_N = 64 or 128. n is
// the fastest: what runs at one time reads few rows of A, and a B (a weight) that the L2 holds.
// Shared: STAGES × (A_TERMS 128 + B_TERMS TILE_N) × BK halves, (rows, BK) or (BK, rows) as the operand lies in memory; their
// 16-byte chunks are exchanged by the row's low bits, so that ldmatrix has no bank conflicts. Then the sums, half of a warp's
// rows at a time, so that they are finished 16 bytes a lane. `shared_bytes` of src/ops/linear/backend.rs.
// What is ragged is zero in shared memory. An operand whose rows are not multiples of 16 bytes comes by single elements.

#undef ELEMENT_HALF
#define ELEMENT_HALF 1
#include "linear.cuh"
#include "mma.cuh"

#ifndef TILE_N
#define TILE_N 128
#endif
#ifndef BK
#define BK 32
#endif
#ifndef STAGES
#define STAGES 4
#endif

#define THREADS 128
#define TILE_M 128
#define WARP_M (TILE_M / 2)
#define WARP_N (TILE_N / 2)

// Tiles of T rows by BK of an operand of `rows` × K. K_MAJOR: stored (K, rows), else (rows, K).
template <int T, bool K_MAJOR>
struct Operand {
    static constexpr int LINE = K_MAJOR ? T : BK;              // elements of a line of a tile
    static constexpr int CHUNKS = LINE / 8;                    // of 16 bytes, of a line
    static constexpr int APART = THREADS / CHUNKS;             // lines between a thread's chunks
    static constexpr int PARTS = T * BK / 8 / THREADS;         // chunks of a thread
    static constexpr int SHIFT = LINE * 2 >= 128 ? 0 : 1;      // lines that share the 128 bytes of all banks
    static constexpr int MASK = LINE * 2 >= 128 ? 7 : CHUNKS - 1;
    static constexpr u32 BYTES = T * BK * 2;

    const E* next;    // this thread's first chunk of the next tile
    int pitch, K;     // K is what is left
    int last, exist;  // lines to the last one that exists; elements of a chunk that exist, as far as rows have an end
    bool vector, whole;

    // Of a line and chunk, in a tile.
    __device__ __forceinline__ static u32 place(int line, int chunk) {
        return line * (LINE * 2) + ((chunk ^ (line >> SHIFT & MASK)) << 4);
    }

    // Where rows are lines, the last one stands for those past it, whose sums nobody wants.
    __device__ __forceinline__ Operand(const E* p, int pitch, int row0, int rows, int K, bool vector)
        : pitch(pitch), K(K), vector(vector), whole(!K_MAJOR || row0 + T <= rows) {
        int line = threadIdx.x / CHUNKS, at = threadIdx.x % CHUNKS * 8;
        next = p + (u64)(K_MAJOR ? line : min(row0 + line, rows - 1)) * pitch + (K_MAJOR ? row0 + at : at);
        last = K_MAJOR ? T : max(rows - 1 - row0 - line, 0);
        exist = K_MAJOR ? rows - row0 - at : 8;
    }

    // Brings the next tile.
    __device__ __forceinline__ void copy(u32 tile) {
        int line = threadIdx.x / CHUNKS, at = threadIdx.x % CHUNKS * 8;
        u32 to = tile + place(line, threadIdx.x % CHUNKS);
        auto from = [&](int i) { return next + (u64)(K_MAJOR ? i * APART : min(i * APART, last)) * pitch; };
        auto size = [&](int i) {
            return K_MAJOR ? (line + i * APART < K ? min(max(exist, 0), 8) : 0) : min(max(K - at, 0), 8);
        };
        if (vector && whole && K >= BK) {
#pragma unroll
            for (int i = 0; i < PARTS; ++i)
                copy_16_bytes(to + i * APART * LINE * 2, from(i));
        } else if (vector) {
#pragma unroll 1
            for (int i = 0; i < PARTS; ++i)
                copy_16_bytes(to + i * APART * LINE * 2, from(i), 2 * size(i));
        } else {
#pragma unroll 1
            for (int i = 0; i < PARTS; ++i) {
                u32 pairs[4] = {};
#pragma unroll
                for (int j = 0; j < 8; ++j)
                    if (j < size(i)) pairs[j / 2] |= (u32)from(i)[j].bits << j % 2 * 16;
                asm volatile("st.shared.v4.b32 [%0], {%1, %2, %3, %4};" ::"r"(to + i * APART * LINE * 2),
                             "r"(pairs[0]), "r"(pairs[1]), "r"(pairs[2]), "r"(pairs[3])
                             : "memory");
            }
        }
        next += K_MAJOR ? (u64)BK * pitch : BK;
        K -= BK;
    }

    // Sixteen rows by sixteen of k, four 8×8 matrices: of rows 0 and 8 of k 0, then of k 8, as mma takes A; or with the
    // middle two exchanged, as it takes two B.
    template <bool IS_A>
    __device__ __forceinline__ static void load(u32 (&x)[4], u32 tile, int row, int k) {
        int lane = lane_id(), low = lane & 7, middle = lane >> 3 & 1, high = lane >> 4;
        int r = (IS_A ? middle : high) * 8, kk = (IS_A ? high : middle) * 8;
        if (K_MAJOR)
            load_matrices_transposed<0>(x, tile + place(k + kk + low, (row + r) / 8));
        else
            load_matrices<0>(x, tile + place(row + r + low, (k + kk) / 8));
    }
};

typedef Operand<TILE_M, LAYOUT == 2> A;
typedef Operand<TILE_N, LAYOUT != 0> B;
constexpr u32 A_BYTES = A_TERMS * A::BYTES, STAGE_BYTES = A_BYTES + B_TERMS * B::BYTES;
// Sums in shared memory: two rows begin eight banks apart.
constexpr int SUMS_PITCH = WARP_N + 8;
typedef float Sums[WARP_M / 16][WARP_N / 8][4];

// Sixteen of k.
__device__ __forceinline__ void multiply(Sums& d, const u32 (&x)[WARP_M / 16][4], const u32 (&y)[WARP_N / 16][4]) {
#pragma unroll
    for (int i = 0; i < WARP_M / 16; ++i)
#pragma unroll
        for (int j = 0; j < WARP_N / 8; ++j) mma(d[i][j], x[i], y[j / 2][j % 2 * 2], y[j / 2][j % 2 * 2 + 1]);
}

// Eight of a row. Every other four lanes read the second half first: so eight lanes, which shared memory serves at once, meet in
// no bank.
__device__ __forceinline__ void load_sums(float (&to)[8], const float* from) {
    bool second = lane_id() & 4;
    float4 x = load4(from + (second ? 4 : 0)), y = load4(from + (second ? 0 : 4));
    if (second) {
        float4 z = x;
        x = y;
        y = z;
    }
    to[0] = x.x, to[1] = x.y, to[2] = x.z, to[3] = x.w;
    to[4] = y.x, to[5] = y.y, to[6] = y.z, to[7] = y.w;
}

extern "C" __global__ void __launch_bounds__(THREADS, 2) linear_mma(const __grid_constant__ Linear p) {
    extern __shared__ __align__(128) u8 shared[];
    u32 stages = shared_address(shared);
    int batch = blockIdx.z, m0 = blockIdx.y * TILE_M, n0 = blockIdx.x * TILE_N;
    int warp_m = warp_id() / 2 * WARP_M, warp_n = warp_id() % 2 * WARP_N, lane = lane_id();
    A a(p.a + batch * p.a_step, p.a_pitch, m0, p.M, p.K, p.aligned & 1);
    B b(p.b + batch * p.b_step, p.b_pitch, n0, p.N, p.K, p.aligned & 2);
#if TERMS
    A a2(p.a2 + batch * p.a_step, p.a_pitch, m0, p.M, p.K, p.aligned & 1);
    B b2(p.b2 + batch * p.b_step, p.b_pitch, n0, p.N, p.K, p.aligned & 2);
    Sums of_second = {};
#endif
    int steps = (p.K + BK - 1) / BK;
    bool has_sums = m0 + warp_m < p.M && n0 + warp_n < p.N;

    auto copy = [&](int step) {
        if (step < steps) {
            u32 stage = stages + step % STAGES * STAGE_BYTES;
            a.copy(stage);
            b.copy(stage + A_BYTES);
#if TERMS
            if (A_TERMS > 1) a2.copy(stage + A::BYTES);
            if (B_TERMS > 1) b2.copy(stage + A_BYTES + B::BYTES);
#endif
        }
        copies_commit();
    };
    // A's and B's fragments of a warp, 16 of k.
    auto load_rows = [&](u32(&x)[WARP_M / 16][4], u32 tile, int k) {
#pragma unroll
        for (int i = 0; i < WARP_M / 16; ++i) A::load<true>(x[i], tile, warp_m + 16 * i, k);
    };
    auto load_columns = [&](u32(&y)[WARP_N / 16][4], u32 tile, int k) {
#pragma unroll
        for (int j = 0; j < WARP_N / 16; ++j) B::load<false>(y[j], tile, warp_n + 16 * j, k);
    };
    Sums acc = {};
#pragma unroll
    for (int step = 0; step < STAGES - 1; ++step) copy(step);
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
        copies_wait<STAGES - 2>();
        __syncthreads();
        copy(step + STAGES - 1);
        if (!has_sums) continue;
        u32 stage = stages + step % STAGES * STAGE_BYTES;
#pragma unroll
        for (int k = 0; k < BK; k += 16) {
            u32 x[WARP_M / 16][4], y[WARP_N / 16][4];
            load_rows(x, stage, k);
            load_columns(y, stage + A_BYTES, k);
            multiply(acc, x, y);
#if TERMS
            u32 more[WARP_M / 16][4];
            if (A_TERMS > 1) {
                load_rows(more, stage + A::BYTES, k);
                multiply(of_second, more, y);
            }
            if (B_TERMS > 1) {
                load_columns(y, stage + A_BYTES + B::BYTES, k);
                multiply(of_second, x, y);
            }
#endif
        }
    }
#if TERMS
#pragma unroll
    for (int i = 0; i < WARP_M / 16; ++i)
#pragma unroll
        for (int j = 0; j < WARP_N / 8; ++j)
#pragma unroll
            for (int h = 0; h < 4; ++h) acc[i][j][h] = fmaf(p.second, of_second[i][j][h], acc[i][j][h]);
#endif

    __syncthreads();  // the last stage's readers
    if (!has_sums) return;
    m0 += warp_m;
    n0 += warp_n;
    float* sums = (float*)shared + warp_id() * (WARP_M / 2 * SUMS_PITCH);
    bool vector = (p.aligned & 4) && (p.N % 8 == 0 || n0 + WARP_N <= p.N);
#pragma unroll
    for (int part = 0; part < 2; ++part, m0 += WARP_M / 2) {
        __syncwarp();
#pragma unroll
        for (int i = 0; i < WARP_M / 32; ++i)
#pragma unroll
            for (int j = 0; j < WARP_N / 8; ++j)
#pragma unroll
                for (int h = 0; h < 2; ++h) {
                    const float(&d)[4] = acc[part * (WARP_M / 32) + i][j];
                    store_pack<2>(&sums[(16 * i + 8 * h + lane / 4) * SUMS_PITCH + 8 * j + lane % 4 * 2], {d[2 * h], d[2 * h + 1]});
                }
        __syncwarp();
        if (vector) {
            constexpr int PACKS = WARP_N / 8, APART = 32 / PACKS, AT_ONCE = 4;
            int column = lane % PACKS * 8;
            if (n0 + column >= p.N) continue;
            Epilogue<8> epilogue(p, batch, n0 + column);
#pragma unroll 1
            for (int r = lane / PACKS; r < WARP_M / 2; r += AT_ONCE * APART) {
                Epilogue<8>::Row rows[AT_ONCE];
#pragma unroll
                for (int i = 0; i < AT_ONCE; ++i)
                    if (m0 + r + i * APART < p.M) epilogue.read(rows[i], m0 + r + i * APART);
#pragma unroll
                for (int i = 0; i < AT_ONCE; ++i) {
                    float sum[8];
                    load_sums(sum, &sums[(r + i * APART) * SUMS_PITCH + column]);
                    if (m0 + r + i * APART < p.M) epilogue.write(rows[i], m0 + r + i * APART, sum);
                }
            }
        } else {
#pragma unroll 1
            for (int i = lane; i < WARP_M / 2 * WARP_N; i += 32)
                finish<1>(p, batch, m0 + i / WARP_N, n0 + i % WARP_N, {sums[i / WARP_N * SUMS_PITCH + i % WARP_N]});
        }
    }
}
