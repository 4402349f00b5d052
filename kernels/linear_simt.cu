// Matrix products by multiply-adds in float32, of float or of float16: linear.cuh says what they compute. For float32, for
// GPUs without tensor cores of float16, and for proving the other backends.
//
// Sums run over k in order, one after another: bits depend on K alone. Operands in two terms are put together first.
//
// Grid: (ceil(N / TILE_N), ceil(M / 64), batch) CTAs of 4 warps, TILE_N = 64 or 128; a warp has 16 rows, a lane TILE_N / 32
// columns of them. So all lanes read the same A and neighbouring B: 16 TILE_N / 32 multiply-adds for 4 + 1 shared loads, and
// no conflicts.
// Shared: 2 buffers of (16, 64) of A and (16, TILE_N) of B, float32, k-major: 8192 + 128 TILE_N bytes.

#include "linear.cuh"

#ifndef TILE_N
#define TILE_N 128
#endif

#define THREADS 128
#define TILE_M 64
#define ROWS 16             // of a warp, and so of each thread
#define COLS (TILE_N / 32)  // of a thread
#define BK 16               // of the sums, a step

// A thread's share of a (16, T) tile of an operand of `rows` × K: from memory to registers, so that it is on its
// way while the step before is multiplied, then to shared memory. K_MAJOR: stored (K, rows), else (rows, K).
template <int T, bool K_MAJOR, int TERMS_OF>
struct Operand {
    static constexpr int PARTS = BK * T / (4 * THREADS);
    const E *p, *p2;
    float second;
    int pitch, row0, rows, K;
    bool vector;
    float part[PARTS][4];

    // Of a part, in the tile. Lanes lie along the rows, as shared memory does.
    __device__ __forceinline__ int row(int i) const {
        return K_MAJOR ? (threadIdx.x + i * THREADS) % (T / 4) * 4 : threadIdx.x % T;
    }
    __device__ __forceinline__ int k(int i) const {
        return K_MAJOR ? (threadIdx.x + i * THREADS) / (T / 4) : (threadIdx.x / T * PARTS + i) * 4;
    }

    __device__ __forceinline__ void load_four(float (&x)[4], const E* from, int exist) {
        if (vector && exist >= 4) {
            load_pack<4>(x, from);
        } else {
#pragma unroll
            for (int j = 0; j < 4; ++j) x[j] = j < exist ? to_float(from[j]) : 0.f;
        }
    }

    __device__ __forceinline__ void load(int k0) {
#pragma unroll
        for (int i = 0; i < PARTS; ++i) {
            int r = row0 + row(i), kk = k0 + k(i);
            u64 from = K_MAJOR ? (u64)kk * pitch + r : (u64)r * pitch + kk;
            int exist = K_MAJOR ? (kk < K ? rows - r : 0) : (r < rows ? K - kk : 0);
            load_four(part[i], p + from, exist);
            if (TERMS_OF > 1) {
                float more[4];
                load_four(more, p2 + from, exist);
#pragma unroll
                for (int j = 0; j < 4; ++j) part[i][j] = fmaf(second, more[j], part[i][j]);
            }
        }
    }

    __device__ __forceinline__ void store(float (*tile)[T]) const {
#pragma unroll
        for (int i = 0; i < PARTS; ++i) {
            if (K_MAJOR) {
                store_pack<4>(&tile[k(i)][row(i)], part[i]);
            } else {
#pragma unroll
                for (int j = 0; j < 4; ++j) tile[k(i) + j][row(i)] = part[i][j];
            }
        }
    }
};

extern "C" __global__ void __launch_bounds__(THREADS, 3) linear_simt(const __grid_constant__ Linear p) {
    __shared__ __align__(16) float a_tile[2][BK][TILE_M];
    __shared__ __align__(16) float b_tile[2][BK][TILE_N];
    int m0 = blockIdx.y * TILE_M, n0 = blockIdx.x * TILE_N, batch = blockIdx.z;
    Operand<TILE_M, LAYOUT == 2, A_TERMS> a = {p.a + batch * p.a_step, p.a2 + batch * p.a_step, p.second, p.a_pitch, m0, p.M,
                                               p.K, (p.aligned & 1) != 0};
    Operand<TILE_N, LAYOUT != 0, B_TERMS> b = {p.b + batch * p.b_step, p.b2 + batch * p.b_step, p.second, p.b_pitch, n0, p.N,
                                               p.K, (p.aligned & 2) != 0};
    int m = ROWS * warp_id(), n = COLS * lane_id();

    float acc[ROWS][COLS] = {};
    a.load(0);
    b.load(0);
    int tiles = (p.K + BK - 1) / BK;
    for (int tile = 0; tile < tiles; ++tile) {
        float(*a_now)[TILE_M] = a_tile[tile & 1];
        float(*b_now)[TILE_N] = b_tile[tile & 1];
        a.store(a_now);
        b.store(b_now);
        __syncthreads();  // one a tile: the other buffer's readers passed the last one
        if (tile + 1 < tiles) {
            a.load((tile + 1) * BK);
            b.load((tile + 1) * BK);
        }
        if (m0 + m >= p.M) continue;
#pragma unroll
        for (int k = 0; k < BK; ++k) {
            float x[ROWS], y[COLS];
            load_pack<ROWS>(x, &a_now[k][m]);
            load_pack<COLS>(y, &b_now[k][n]);
#pragma unroll
            for (int i = 0; i < ROWS; ++i)
#pragma unroll
                for (int j = 0; j < COLS; ++j) acc[i][j] = fmaf(x[i], y[j], acc[i][j]);
        }
    }

    m += m0;
    n += n0;
    // What belongs to a column is read once for all rows.
    if ((p.aligned & 4) && n + COLS <= p.N) {
        Epilogue<COLS> epilogue(p, batch, n);
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            if (m + i >= p.M) return;
            typename Epilogue<COLS>::Row row;
            epilogue.read(row, m + i);
            epilogue.write(row, m + i, acc[i]);
        }
        return;
    }
#pragma unroll
    for (int j = 0; j < COLS; ++j) {
        if (n + j >= p.N) return;
        Epilogue<1> epilogue(p, batch, n + j);
#pragma unroll
        for (int i = 0; i < ROWS; ++i) {
            if (m + i >= p.M) break;
            Epilogue<1>::Row row;
            epilogue.read(row, m + i);
            epilogue.write(row, m + i, {acc[i][j]});
        }
    }
}
