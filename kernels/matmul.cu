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
// Grid: (ceil(N / T), ceil(M / T)) CTAs of (T / 8)² threads, T = 64 or 128; a thread has 8 × 8 outputs,
// in four 4 × 4 corners so that a warp's shared loads do not conflict.
// Shared: 2 buffers of (16, T) of each operand, k-major: 256 T bytes. `vector`: bit 0 A, bit 1 B, bit 2
// out and residual may be accessed 16 bytes at a time (rows and addresses are multiples of 16 bytes).

#include "prelude.cuh"

#define BK 16

// Four values along a row, of which `valid` (any number) exist; the rest are zero.
__device__ __forceinline__ float4 fetch4(const float* p, int valid, bool vector) {
    if (vector && valid >= 4) return load4(p);
    float4 v = make_float4(0.f, 0.f, 0.f, 0.f);
    if (valid > 0) v.x = p[0];
    if (valid > 1) v.y = p[1];
    if (valid > 2) v.z = p[2];
    if (valid > 3) v.w = p[3];
    return v;
}

__device__ __forceinline__ float4 add4(float4 a, float4 b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}

// A thread's share of a (16, T) tile of an operand of `rows` × K, from memory to registers.
// K_MAJOR: stored (K, rows), else (rows, K).
template <int T, bool K_MAJOR>
__device__ __forceinline__ void load_tile(float4* part, const float* p, int rows, int K, int row0, int k0, bool vector) {
    constexpr int THREADS = T * T / 64, PARTS = 256 / T;
#pragma unroll
    for (int i = 0; i < PARTS; ++i) {
        int q = threadIdx.x + i * THREADS;
        if (K_MAJOR) {
            int k = k0 + q / (T / 4), row = row0 + q % (T / 4) * 4;
            part[i] = fetch4(p + (size_t)k * rows + row, k < K ? rows - row : 0, vector);
        } else {
            int row = row0 + q / (BK / 4), k = k0 + q % (BK / 4) * 4;
            part[i] = fetch4(p + (size_t)row * K + k, row < rows ? K - k : 0, vector);
        }
    }
}

// From registers to shared memory, k-major either way.
template <int T, bool K_MAJOR>
__device__ __forceinline__ void store_tile(float (*tile)[T], const float4* part) {
    constexpr int THREADS = T * T / 64, PARTS = 256 / T;
#pragma unroll
    for (int i = 0; i < PARTS; ++i) {
        int q = threadIdx.x + i * THREADS;
        if (K_MAJOR) {
            store4(&tile[q / (T / 4)][q % (T / 4) * 4], part[i]);
        } else {
            int row = q / (BK / 4), k = q % (BK / 4) * 4;
            tile[k][row] = part[i].x;
            tile[k + 1][row] = part[i].y;
            tile[k + 2][row] = part[i].z;
            tile[k + 3][row] = part[i].w;
        }
    }
}

template <int T, bool A_K_MAJOR, bool B_K_MAJOR>
__device__ __forceinline__ void matmul(float* out, const float* __restrict__ A, const float* __restrict__ B,
                                       const float* __restrict__ bias, const float* residual, int M, int N, int K, int vector) {
    __shared__ __align__(16) float a_tile[2][BK][T];
    __shared__ __align__(16) float b_tile[2][BK][T];
    constexpr int SIDE = T / 8, PARTS = 256 / T;
    int tx = threadIdx.x % SIDE, ty = threadIdx.x / SIDE;
    int m0 = blockIdx.y * T, n0 = blockIdx.x * T;
    bool a_vector = vector & 1, b_vector = vector & 2;

    float acc[8][8] = {};
    float4 a_part[PARTS], b_part[PARTS];
    load_tile<T, A_K_MAJOR>(a_part, A, M, K, m0, 0, a_vector);
    load_tile<T, B_K_MAJOR>(b_part, B, N, K, n0, 0, b_vector);
    int tiles = (K + BK - 1) / BK;
    for (int tile = 0; tile < tiles; ++tile) {
        float(*a_now)[T] = a_tile[tile & 1];
        float(*b_now)[T] = b_tile[tile & 1];
        store_tile<T, A_K_MAJOR>(a_now, a_part);
        store_tile<T, B_K_MAJOR>(b_now, b_part);
        __syncthreads();  // one a tile: the other buffer's readers passed the last one
        if (tile + 1 < tiles) {
            load_tile<T, A_K_MAJOR>(a_part, A, M, K, m0, (tile + 1) * BK, a_vector);
            load_tile<T, B_K_MAJOR>(b_part, B, N, K, n0, (tile + 1) * BK, b_vector);
        }
#pragma unroll
        for (int k = 0; k < BK; ++k) {
            float a[8], b[8];
            *(float4*)(a) = load4(&a_now[k][ty * 4]);
            *(float4*)(a + 4) = load4(&a_now[k][T / 2 + ty * 4]);
            *(float4*)(b) = load4(&b_now[k][tx * 4]);
            *(float4*)(b + 4) = load4(&b_now[k][T / 2 + tx * 4]);
#pragma unroll
            for (int i = 0; i < 8; ++i)
#pragma unroll
                for (int j = 0; j < 8; ++j) acc[i][j] = fmaf(a[i], b[j], acc[i][j]);
        }
    }

#pragma unroll
    for (int i = 0; i < 8; ++i) {
        int m = m0 + (i / 4) * (T / 2) + ty * 4 + i % 4;
        if (m >= M) continue;
#pragma unroll
        for (int half = 0; half < 2; ++half) {
            int n = n0 + half * (T / 2) + tx * 4;
            size_t at = (size_t)m * N + n;
            if ((vector & 4) && n + 3 < N) {
                float4 x = make_float4(acc[i][half * 4], acc[i][half * 4 + 1], acc[i][half * 4 + 2], acc[i][half * 4 + 3]);
                if (bias) x = add4(x, load4(bias + n));
                if (residual) x = add4(x, load4(residual + at));
                store4(out + at, x);
            } else {
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    if (n + j >= N) continue;
                    float x = acc[i][half * 4 + j];
                    if (bias) x += bias[n + j];
                    if (residual) x += residual[at + j];
                    out[at + j] = x;
                }
            }
        }
    }
}

#define MATMUL(NAME, T, A_K_MAJOR, B_K_MAJOR)                                                                  \
    extern "C" __global__ void __launch_bounds__(T* T / 64)                                                    \
    NAME(float* out, const float* A, const float* B, const float* bias, const float* residual, int M, int N,   \
         int K, int vector) {                                                                                  \
        matmul<T, A_K_MAJOR, B_K_MAJOR>(out, A, B, bias, residual, M, N, K, vector);                           \
    }

MATMUL(matmul_nt_64, 64, false, false)
MATMUL(matmul_nt_128, 128, false, false)
MATMUL(matmul_nn_64, 64, false, true)
MATMUL(matmul_nn_128, 128, false, true)
MATMUL(matmul_tn_64, 64, true, true)
MATMUL(matmul_tn_128, 128, true, true)
