// Matrix products in float32, three layouts of one tiled core:
//
//   matmul_nt   out (M, N) = A (M, K) · B (N, K)ᵀ      forward:          inp · Wᵀ
//   matmul_nn   out (M, N) = A (M, K) · B (K, N)       input gradient:   dout · W
//   matmul_tn   out (M, N) = A (K, M)ᵀ · B (K, N)      weight gradient:  doutᵀ · inp
//
// each + bias[n] and + residual[m][n] where given.
//
//   A, B, bias (N,) or null, residual (M, N) or null, may be out, out (M, N): fp32, row-major; out
//   written (=). Sums run over k in order, one after another: bits depend on the shape alone.
//
// Grid: (ceil(N / TN), ceil(M / 64)) CTAs of 4 warps, TN = 64 or 128; a warp has 16 rows, a lane TN / 32 columns
// of them. So all lanes read the same A and neighbouring B: 16 TN / 32 multiply-adds for 4 + 1 shared
// loads, and no conflicts.
// Shared: 2 buffers of (16, 64) of A and (16, TN) of B, k-major: 8192 + 128 TN bytes. `vector`: bit 0 A, bit 1 B,
// bit 2 out, bias and residual may be accessed 16 bytes at a time (rows and addresses are multiples of
// 16 bytes).

#include "prelude.cuh"

#define THREADS 128
#define TM 64    // rows of a CTA
#define ROWS 16  // of a warp, and so of each thread
#define BK 16    // of the sums, a step

// W neighbours, in one access where they are aligned.
template <int W>
struct alignas(4 * W) Vector {
    float x[W];
};

// W values along a row, of which `valid` (any number) exist; the rest are zero.
template <int W>
__device__ __forceinline__ Vector<W> fetch(const float* p, int valid, bool vector) {
    Vector<W> v = {};
    if (vector) {
        if (valid > 0) v = *(const Vector<W>*)p;
    } else {
#pragma unroll
        for (int i = 0; i < W; ++i)
            if (i < valid) v.x[i] = p[i];
    }
    return v;
}

template <int W>
__device__ __forceinline__ void put(float* p, Vector<W> v, int valid, bool vector) {
    if (vector) {
        if (valid > 0) *(Vector<W>*)p = v;
    } else {
#pragma unroll
        for (int i = 0; i < W; ++i)
            if (i < valid) p[i] = v.x[i];
    }
}

// A thread's share of a (16, T) tile of an operand of `rows` × K: from memory to registers, so that it is on its
// way while the step before is multiplied, then to shared memory. K_MAJOR: stored (K, rows), else (rows, K).
template <int T, bool K_MAJOR>
struct Operand {
    static constexpr int PARTS = BK * T / (4 * THREADS);
    const float* p;
    int row0, rows, K;
    bool vector;
    Vector<4> part[PARTS];

    // Of a part, in the tile. Lanes lie along the rows, as shared memory does.
    __device__ __forceinline__ int row(int i) const {
        return K_MAJOR ? (threadIdx.x + i * THREADS) % (T / 4) * 4 : threadIdx.x % T;
    }
    __device__ __forceinline__ int k(int i) const {
        return K_MAJOR ? (threadIdx.x + i * THREADS) / (T / 4) : (threadIdx.x / T * PARTS + i) * 4;
    }

    __device__ __forceinline__ void load(int k0) {
#pragma unroll
        for (int i = 0; i < PARTS; ++i) {
            int r = row0 + row(i), kk = k0 + k(i);
            part[i] = K_MAJOR ? fetch<4>(p + (size_t)kk * rows + r, kk < K ? rows - r : 0, vector)
                              : fetch<4>(p + (size_t)r * K + kk, r < rows ? K - kk : 0, vector);
        }
    }

    __device__ __forceinline__ void store(float (*tile)[T]) const {
#pragma unroll
        for (int i = 0; i < PARTS; ++i) {
            if (K_MAJOR) {
                *(Vector<4>*)&tile[k(i)][row(i)] = part[i];
            } else {
#pragma unroll
                for (int j = 0; j < 4; ++j) tile[k(i) + j][row(i)] = part[i].x[j];
            }
        }
    }
};

template <int TN, bool A_K_MAJOR, bool B_K_MAJOR>
__device__ __forceinline__ void matmul(float* out, const float* A, const float* B, const float* bias,
                                       const float* residual, int M, int N, int K, int vector) {
    constexpr int COLS = TN / 32;
    __shared__ __align__(16) float a_tile[2][BK][TM];
    __shared__ __align__(16) float b_tile[2][BK][TN];
    int m0 = blockIdx.y * TM, n0 = blockIdx.x * TN;
    Operand<TM, A_K_MAJOR> a = {A, m0, M, K, (vector & 1) != 0};
    Operand<TN, B_K_MAJOR> b = {B, n0, N, K, (vector & 2) != 0};
    int m = ROWS * warp_id(), n = COLS * lane_id();

    float acc[ROWS][COLS] = {};
    a.load(0);
    b.load(0);
    int tiles = (K + BK - 1) / BK;
    for (int tile = 0; tile < tiles; ++tile) {
        float(*a_now)[TM] = a_tile[tile & 1];
        float(*b_now)[TN] = b_tile[tile & 1];
        a.store(a_now);
        b.store(b_now);
        __syncthreads();  // one a tile: the other buffer's readers passed the last one
        if (tile + 1 < tiles) {
            a.load((tile + 1) * BK);
            b.load((tile + 1) * BK);
        }
#pragma unroll
        for (int k = 0; k < BK; ++k) {
            float x[ROWS];
#pragma unroll
            for (int i = 0; i < ROWS; i += 4) *(Vector<4>*)&x[i] = *(const Vector<4>*)&a_now[k][m + i];
            Vector<COLS> y = *(const Vector<COLS>*)&b_now[k][n];
#pragma unroll
            for (int i = 0; i < ROWS; ++i)
#pragma unroll
                for (int j = 0; j < COLS; ++j) acc[i][j] = fmaf(x[i], y.x[j], acc[i][j]);
        }
    }

    m += m0;
    n += n0;
    bool out_vector = vector & 4;
    Vector<COLS> shift = {};
    if (bias) shift = fetch<COLS>(bias + n, N - n, out_vector);
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
        if (m + i >= M) break;
        size_t at = (size_t)(m + i) * N + n;
        Vector<COLS> sum = {};
        if (residual) sum = fetch<COLS>(residual + at, N - n, out_vector);
#pragma unroll
        for (int j = 0; j < COLS; ++j) sum.x[j] += acc[i][j] + shift.x[j];
        put<COLS>(out + at, sum, N - n, out_vector);
    }
}

#define MATMUL(NAME, TN, A_K_MAJOR, B_K_MAJOR)                                                               \
    extern "C" __global__ void __launch_bounds__(THREADS, 4)                                                 \
    NAME(float* out, const float* A, const float* B, const float* bias, const float* residual, int M, int N, \
         int K, int vector) {                                                                                \
        matmul<TN, A_K_MAJOR, B_K_MAJOR>(out, A, B, bias, residual, M, N, K, vector);                        \
    }

MATMUL(matmul_nt_64, 64, false, false)
MATMUL(matmul_nt_128, 128, false, false)
MATMUL(matmul_nn_64, 64, false, true)
MATMUL(matmul_nn_128, 128, false, true)
MATMUL(matmul_tn_64, 64, true, true)
MATMUL(matmul_tn_128, 128, true, true)
