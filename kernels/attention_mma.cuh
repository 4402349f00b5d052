// What attention_mma.cu is made of: tiles of tokens in shared memory, and a warp's 16 rows of their products.
//
// Rows of tiles are 16 bytes further apart than an even number of 16 bytes: eight of them are in different banks, at places
// known when compiled.

#pragma once

#include "element.cuh"
#include "mma.cuh"

#ifndef TOKENS
#define TOKENS 50
#endif
#ifndef HEAD
#define HEAD 64
#endif
#ifndef CAUSAL
#define CAUSAL 0
#endif
#ifndef VECTOR
#define VECTOR (HEAD % 8 == 0)
#endif

#if __CUDA_ARCH__ >= 750

constexpr int DEPTH = (HEAD + 15) / 16 * 16;                       // channels, of which those past HEAD are zero
constexpr int BLOCK = TOKENS < 64 ? (TOKENS + 15) / 16 * 16 : 64;  // tokens of a tile
constexpr int BLOCKS = (TOKENS + 63) / 64;
constexpr int TAIL = TOKENS - (BLOCKS - 1) * BLOCK;                // tokens of the last tile
constexpr int WARPS = BLOCK / 16, THREADS = 32 * WARPS;
constexpr int PITCH = DEPTH * 2 + 16, TILE = BLOCK * PITCH;        // bytes
// Two where both fit into the 99 KiB of sm_86; sm_75 has 64 KiB, and nothing that copies meanwhile.
constexpr int STAGES = BLOCKS == 1 || DEPTH > 112 || __CUDA_ARCH__ < 800 ? 1 : 2;
constexpr int P_PITCH = BLOCK * 2 + 16, P_TILE = BLOCK * P_PITCH;

#define LOG2_E 1.44269504f

// 16 rows and COLUMNS columns, as mma leaves them; and as it takes them, for a sum over as many.
template <int COLUMNS>
struct Sums {
    static constexpr int TILES = (COLUMNS + 7) / 8;
    float x[(COLUMNS + 15) / 16 * 2][4];

    __device__ __forceinline__ void clear() {
#pragma unroll
        for (auto& tile : x) tile[0] = tile[1] = tile[2] = tile[3] = 0.f;
    }
    // f(value, whether it is of the second row, column)
    template <typename F>
    __device__ __forceinline__ void each(const F& f) {
        int first = (lane_id() & 3) * 2;
#pragma unroll
        for (int i = 0; i < TILES; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) f(x[i][j], j / 2, i * 8 + first + j % 2);
    }
    // The same of those columns of the last tile that do not exist.
    template <typename F>
    __device__ __forceinline__ void beyond(const F& f) {
        if constexpr (COLUMNS % 8) {
            int first = (TILES - 1) * 8 + (lane_id() & 3) * 2;
#pragma unroll
            for (int j = 0; j < 4; ++j)
                if (first + j % 2 >= COLUMNS) f(x[TILES - 1][j]);
        }
    }
};
template <int COLUMNS>
struct Rows {
    static constexpr int STEPS = (COLUMNS + 15) / 16;
    u32 x[STEPS][4];

    __device__ __forceinline__ void take(const Sums<COLUMNS>& sums) {
#pragma unroll
        for (int k = 0; k < STEPS; ++k)
#pragma unroll
            for (int i = 0; i < 4; ++i) x[k][i] = pack_halves(sums.x[2 * k + i / 2][i % 2 * 2], sums.x[2 * k + i / 2][i % 2 * 2 + 1]);
    }
};

// Where a lane's row of four 8 x 8 matrices is: the matrices down first and then along, or the other way.
__device__ __forceinline__ u32 down(int pitch) { return (lane_id() & 15) * pitch + (lane_id() >> 4) * 16; }
__device__ __forceinline__ u32 along(int pitch) {
    return ((lane_id() & 7) + (lane_id() >> 4) * 8) * pitch + (lane_id() >> 3 & 1) * 16;
}

// sums = rows of `a` from `row` · tile `b`ᵀ, of which COLUMNS rows.
template <int COLUMNS>
__device__ __forceinline__ void multiply_transposed(Sums<COLUMNS>& sums, u32 a, int row, u32 b) {
    a += row * PITCH + down(PITCH);
    b += along(PITCH);
    sums.clear();
    unroll<DEPTH / 16>([&](auto k) {
        u32 x[4];
        load_matrices<I(k) * 32>(x, a);
        unroll<(COLUMNS + 15) / 16>([&](auto n) {
            u32 y[4];
            load_matrices<I(n) * 16 * PITCH + I(k) * 32>(y, b);
            mma(sums.x[2 * n], x, y[0], y[1]);
            if constexpr (2 * I(n) + 1 < Sums<COLUMNS>::TILES) mma(sums.x[2 * n + 1], x, y[2], y[3]);
        });
    });
}

// sums += step k of `a` · rows 16 k and so on of tile `b`
__device__ __forceinline__ void multiply_step(Sums<HEAD>& sums, const u32 (&a)[4], u32 b) {
    unroll<DEPTH / 16>([&](auto n) {
        u32 y[4];
        load_matrices_transposed<I(n) * 32>(y, b);
        mma(sums.x[2 * n], a, y[0], y[1]);
        if constexpr (2 * I(n) + 1 < Sums<HEAD>::TILES) mma(sums.x[2 * n + 1], a, y[2], y[3]);
    });
}

// sums += a · tile `b`, of which COLUMNS rows.
template <int COLUMNS>
__device__ __forceinline__ void multiply(Sums<HEAD>& sums, const Rows<COLUMNS>& a, u32 b) {
    b += down(PITCH);
#pragma unroll
    for (int k = 0; k < Rows<COLUMNS>::STEPS; ++k) multiply_step(sums, a.x[k], b + k * 16 * PITCH);
}

// A tile of rows from `from`, which are `stride` apart; zeros from row `limit` on. LIMIT: what is known of `limit`.
template <int LIMIT = 0>
__device__ __forceinline__ void copy_tile(u32 to, const half* from, int stride, int limit) {
#if VECTOR
    constexpr int CHUNKS = DEPTH / 8, COUNT = BLOCK * CHUNKS;
#pragma unroll(DEPTH <= 96 ? 16 : 2)  // addresses take registers
    for (int first = 0; first < COUNT; first += THREADS) {
        int i = first + threadIdx.x;
        if (COUNT % THREADS != 0 && first + THREADS > COUNT && i >= COUNT) break;
        int row = i / CHUNKS, at = i % CHUNKS;
        u32 place = to + row * PITCH + at * 16;
        if (DEPTH == HEAD && first + THREADS <= LIMIT * CHUNKS) copy_16_bytes(place, from + row * stride + at * 8);
        else {
            bool exist = row < limit && (DEPTH == HEAD || at * 8 < HEAD);
            copy_16_bytes(place, exist ? from + row * stride + at * 8 : from, exist ? 16 : 0);
        }
    }
#else
    for (int i = threadIdx.x; i < BLOCK * DEPTH; i += THREADS) {
        int row = i / DEPTH, at = i % DEPTH;
        half x = {0};
        if (row < limit && at < HEAD) x = from[row * stride + at];
        asm volatile("st.shared.b16 [%0], %1;" ::"r"(to + row * PITCH + at * 2), "h"(x.bits) : "memory");
    }
#endif
}

// The warp's 16 rows of a tile from sums times their row's factor.
__device__ __forceinline__ void put_rows(u32 tile, int row, const Sums<HEAD>& sums, const float (&factor)[2]) {
    tile += (row + (lane_id() >> 2)) * PITCH + (lane_id() & 3) * 4;
    unroll<DEPTH / 8>([&](auto i) {
        unroll<2>([&](auto j) {
            const float* x = sums.x[i] + 2 * j;
            store_shared<I(j) * 8 * PITCH + I(i) * 16>(tile, pack_halves(x[0] * factor[j], x[1] * factor[j]));
        });
    });
}
__device__ __forceinline__ void put_rows(u32 tile, int row, const Sums<HEAD>& sums, float factor) {
    put_rows(tile, row, sums, {factor, factor});
}

// The warp's 16 rows of a tile, which it has written itself, to rows of `to`, those before `limit`.
__device__ __forceinline__ void store_rows(half* to, int stride, u32 tile, int row, int limit) {
#if VECTOR
    constexpr int CHUNKS = HEAD / 8;
#pragma unroll
    for (int first = 0; first < 16 * CHUNKS; first += 32) {
        int i = first + lane_id();
        if (16 * CHUNKS % 32 != 0 && i >= 16 * CHUNKS) break;
        int r = row + i / CHUNKS, at = i % CHUNKS;
        if (r < limit) {
            copy_16_bytes_out(to + r * stride + at * 8, tile + r * PITCH + at * 16);
        }
    }
#else
    for (int i = lane_id(); i < 16 * HEAD; i += 32) {
        int r = row + i / HEAD, at = i % HEAD;
        half x;
        asm volatile("ld.shared.b16 %0, [%1];" : "=h"(x.bits) : "r"(tile + r * PITCH + at * 2) : "memory");
        if (r < limit) to[r * stride + at] = x;
    }
#endif
}

// The sums of a tile's columns, by products with ones.
__device__ __forceinline__ void store_column_sums(float* to, u32 tile) {
    const u32 ones[4] = {0x3c003c00, 0x3c003c00, 0x3c003c00, 0x3c003c00};
    for (int group = warp_id(); group < DEPTH / 16; group += WARPS) {
        u32 at = tile + group * 32 + down(PITCH);
        float left[4] = {}, right[4] = {};
        unroll<BLOCK / 16>([&](auto k) {
            u32 y[4];
            load_matrices_transposed<I(k) * 16 * PITCH>(y, at);
            mma(left, ones, y[0], y[1]);
            mma(right, ones, y[2], y[3]);
        });
        int d = group * 16 + lane_id() * 2;
        if (lane_id() < 4) {
            if (d < HEAD) to[d] = left[0];
            if (d + 1 < HEAD) to[d + 1] = left[1];
            if (d + 8 < HEAD) to[d + 8] = right[0];
            if (d + 9 < HEAD) to[d + 9] = right[1];
        }
    }
}

// Over the four lanes that share a row.
__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(0xffffffff, x, 1);
    return x + __shfl_xor_sync(0xffffffff, x, 2);
}
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(0xffffffff, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffff, x, 2));
}

// step(Constant<tokens of the tile>, i, its stage) for tiles from `i` to `end`, brought by load(i, stage). Without RAGGED the
// last is like the others.
template <bool RAGGED, typename Load, typename Step>
__device__ __forceinline__ void walk(int i, int end, const Load& load, const Step& step) {
    if (i < end) load(i, 0);
    copies_commit();
    for (int stage = 0; i < end; ++i) {
        copies_wait<0>();
        __syncthreads();
        if (STAGES == 2 && i + 1 < end) {
            load(i + 1, stage ^ 1);
            copies_commit();
        }
        if (!RAGGED || TAIL == BLOCK || i < BLOCKS - 1) step(Constant<BLOCK>{}, i, stage);
        else step(Constant<TAIL>{}, i, stage);
        if (STAGES == 2) stage ^= 1;
        else if (i + 1 < end) {
            __syncthreads();
            load(i + 1, 0);
            copies_commit();
        }
    }
}

#endif
