// Attention of every head over its tokens on tensor cores (sm_75 and up), forward and backward: float16 operands, float32
// sums, softmax and statistics. The formulas are attention.cu's; P and dS are float16 where they are multiplied.
//
//   qkv, dqkv (B, T, 3C) fp16: q | k | v, heads side by side inside each, C = NH · HS; out, dout (B, any number >= queries, C) fp16;
//   lse, delta (B, NH, T) fp32; dbias (B, 3C) fp32; all written (=), out and lse of the first `queries` tokens alone.
//   Of dqkv all is written: dq of other tokens is zero.
//
// dbias is dqkv summed over a sample's tokens: of dq as it is stored; of dv by what it comes to, the sum of dout, since a
// row of P adds to one; of dk zero, since a row of dS does, whatever the key's bias.
//
// Compiled for TOKENS tokens, heads of HEAD channels (128 at most), CAUSAL, and VECTOR: heads' rows are whole multiples of 16
// bytes, from aligned addresses on.
//
// Grid: x over (B, NH), y over blocks of 64 tokens; a warp of the CTA has 16 of them as rows. The CTA walks over blocks
// of 64 tokens as columns, the next one on its way (FlashAttention-2, arXiv 2307.08691). Up to 64 tokens there is one block,
// as many warps as it takes, and the backward pass is one kernel; else two, rows being queries in the first and keys in the second,
// so that no sum depends on who is first.
// Shared: forward TILE (1 + 2 STAGES) bytes; backward in one 4 TILE + P_TILE, and P_TILE again where that is more than TILE;
// in two TILE (2 + 2 STAGES), the second 8 STAGES BLOCK more.

// nvrtc: -default-device

#include "attention_mma.cuh"

#if __CUDA_ARCH__ >= 750

// A CTA's head, and this warp's rows in the block.
struct Place {
    int b, h, C, row;
    u32 shared;

    __device__ __forceinline__ Place(int NH, u32 shared) : b(blockIdx.x / NH), h(blockIdx.x % NH), C(NH * HEAD), row(warp_id() * 16), shared(shared) {}
    // Token t of this head in a tensor of `rows` tokens, each of `parts` C.
    __device__ __forceinline__ size_t at(int t, int rows, int parts) const { return ((size_t)b * rows + t) * parts * C + h * HEAD; }
};

extern __shared__ __align__(128) u8 shared_tiles[];

// Writes out and lse.
extern "C" __global__ void __launch_bounds__(THREADS, DEPTH > 64 ? 2 : BLOCKS > 1 ? 3 : 4)
attention_forward(half* __restrict__ out, float* __restrict__ lse, const half* __restrict__ qkv, int NH, int queries, int out_rows,
                  float scale) {
    Place p(NH, shared_address(shared_tiles));
    u32 q = p.shared, k = q + TILE, v = k + STAGES * TILE;
    int first = blockIdx.y * BLOCK, row = first + p.row + (lane_id() >> 2);
    bool idle = first + p.row >= queries;
    float c = scale * LOG2_E;
    copy_tile(q, qkv + p.at(first, TOKENS, 3), 3 * p.C, queries - first);

    Sums<HEAD> acc;
    acc.clear();
    float top[2] = {-FLT_MAX, -FLT_MAX}, total[2] = {};  // of which `total` is of this lane's columns alone
    auto load = [&](int i, int stage) {
        const half* from = qkv + p.at(i * BLOCK, TOKENS, 3);
        copy_tile<TAIL>(k + stage * TILE, from + p.C, 3 * p.C, TOKENS - i * BLOCK);
        copy_tile<TAIL>(v + stage * TILE, from + 2 * p.C, 3 * p.C, TOKENS - i * BLOCK);
    };
    auto step = [&](auto columns, int i, int stage) {
        if (idle) return;
        Sums<I(columns)> s;
        multiply_transposed(s, q, p.row, k + stage * TILE);
        s.beyond([&](float& x) { x = -FLT_MAX; });
#if CAUSAL
        s.each([&](float& x, int j, int column) {
            if (i * BLOCK + column > row + 8 * j) x = -FLT_MAX;
        });
#endif
        float most[2] = {top[0], top[1]}, base[2];
        s.each([&](float x, int j, int) { most[j] = fmaxf(most[j], x); });
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            most[j] = row_max(most[j]);
            base[j] = c * most[j];
            if (BLOCKS > 1) {
                float shrink = power_of_two(fmaf(c, top[j], -base[j]));
                total[j] *= shrink;
#pragma unroll
                for (auto& tile : acc.x) tile[2 * j] *= shrink, tile[2 * j + 1] *= shrink;
            }
            top[j] = most[j];
        }
        s.each([&](float& x, int j, int) {
            x = power_of_two(fmaf(c, x, -base[j]));
            total[j] += x;
        });
        Rows<I(columns)> probability;
        probability.take(s);
        multiply(acc, probability, v + stage * TILE);
    };
    walk<true>(0, CAUSAL ? min(BLOCKS, (int)blockIdx.y + 1) : BLOCKS, load, step);
    if (idle) return;

    float inverse[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        float sum = row_sum(total[j]);
        inverse[j] = 1.f / sum;
        if ((lane_id() & 3) == 0 && row + 8 * j < queries)
            lse[(size_t)blockIdx.x * TOKENS + row + 8 * j] = fmaf(c, top[j], log2f(sum));
    }
    __syncwarp();  // Q has been read
    put_rows(q, p.row, acc, inverse);
    __syncwarp();
    store_rows(out + p.at(first, out_rows, 1), p.C, q, p.row, queries - first);
}

// P = 2^(c S - lse), row by row; zero past the last column, and past the row if causal.
template <int COLUMNS>
__device__ __forceinline__ void probabilities(Sums<COLUMNS>& s, float c, const float (&lse)[2], int row, int column) {
    s.each([&](float& x, int j, int) { x = power_of_two(fmaf(c, x, -lse[j])); });
    s.beyond([&](float& x) { x = 0.f; });
#if CAUSAL
    s.each([&](float& x, int j, int key) {
        if (column + key > row + 8 * j) x = 0.f;
    });
#endif
}

#if TOKENS <= 64

template <int COLUMNS>
__device__ __forceinline__ void put_square(u32 tile, int row, const Rows<COLUMNS>& x) {
    tile += (row + (lane_id() >> 2)) * P_PITCH + (lane_id() & 3) * 4;
    unroll<Rows<COLUMNS>::STEPS>([&](auto k) {
        unroll<4>([&](auto i) { store_shared<I(i) % 2 * 8 * P_PITCH + I(k) * 32 + I(i) / 2 * 16>(tile, x.x[k][i]); });
    });
}

// sums = columns of the square `a` from `column`, transposed · tile `b`, over the first `queries` rows of both
__device__ __forceinline__ void multiply_columns(Sums<HEAD>& sums, u32 a, int column, u32 b, int queries) {
    a += column * 2 + along(P_PITCH);
    b += down(PITCH);
    sums.clear();
    unroll<BLOCK / 16>([&](auto k) {
        if (k * 16 >= queries) return;
        u32 x[4];
        load_matrices_transposed<I(k) * 16 * P_PITCH>(x, a);
        multiply_step(sums, x, b + k * 16 * PITCH);
    });
}

// Writes dqkv and dbias, without need of `out`: the sum of P ∘ dP is that of dout ∘ out.
extern "C" __global__ void __launch_bounds__(THREADS, DEPTH <= 64 ? 4 : 2)
attention_backward(half* __restrict__ dqkv, float* __restrict__ dbias, const half* __restrict__ dout, const half* __restrict__ qkv,
                   const float* __restrict__ lse, int NH, int queries, int out_rows, float scale) {
    Place p(NH, shared_address(shared_tiles));
    // dS lies where V was, or P's place is large enough for it too.
    u32 q = p.shared, k = q + TILE, v = k + TILE, o = v + TILE, p_square = o + TILE, ds_square = P_TILE <= TILE ? v : p_square + P_TILE;
    const half* from = qkv + p.at(0, TOKENS, 3);
    copy_tile(q, from, 3 * p.C, queries);
    copy_tile<TOKENS>(k, from + p.C, 3 * p.C, TOKENS);
    copies_commit();
    copy_tile(o, dout + p.at(0, out_rows, 1), p.C, queries);
    copy_tile<TOKENS>(v, from + 2 * p.C, 3 * p.C, TOKENS);
    copies_commit();
    int row = p.row + (lane_id() >> 2);
    bool idle = p.row >= queries;
    // Rows that do not exist have zeros for everything; what becomes of them is multiplied by zeros.
    float base[2];
#pragma unroll
    for (int j = 0; j < 2; ++j) base[j] = row + 8 * j < queries ? lse[(size_t)blockIdx.x * TOKENS + row + 8 * j] : 0.f;
    Rows<TOKENS> ds;
    copies_wait<1>();
    __syncthreads();
    Sums<TOKENS> s, d;
    if (!idle) {
        multiply_transposed(s, q, p.row, k);
        probabilities(s, scale * LOG2_E, base, row, 0);
        ds.take(s);
        put_square(p_square, p.row, ds);
    }
    copies_wait<0>();
    __syncthreads();
    if (!idle) {
        multiply_transposed(d, o, p.row, v);
        float delta[2] = {};
#pragma unroll
        for (int i = 0; i < Sums<TOKENS>::TILES; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) delta[j / 2] = fmaf(s.x[i][j], d.x[i][j], delta[j / 2]);
        delta[0] = row_sum(delta[0]);
        delta[1] = row_sum(delta[1]);
#pragma unroll
        for (int i = 0; i < Sums<TOKENS>::TILES; ++i)
#pragma unroll
            for (int j = 0; j < 4; ++j) d.x[i][j] = s.x[i][j] * (d.x[i][j] - delta[j / 2]);
        ds.take(d);
    }
    __syncthreads();  // V has been read
    Sums<HEAD> acc;
    acc.clear();
    if (!idle) {
        put_square(ds_square, p.row, ds);
        multiply(acc, ds, k);
    }
    store_column_sums(dbias + (size_t)p.b * 3 * p.C + 2 * p.C + p.h * HEAD, o);
    __syncthreads();  // K has been read, P and dS are whole
    put_rows(k, p.row, acc, scale);
    half* to = dqkv + p.at(0, TOKENS, 3);
    __syncwarp();
    store_rows(to, 3 * p.C, k, p.row, TOKENS);
    multiply_columns(acc, p_square, p.row, o, queries);
    Sums<HEAD> dk;
    multiply_columns(dk, ds_square, p.row, q, queries);
    __syncthreads();  // all has been read, dQ is whole
    put_rows(o, p.row, acc, 1.f);
    put_rows(q, p.row, dk, scale);
    __syncwarp();
    store_rows(to + 2 * p.C, 3 * p.C, o, p.row, TOKENS);
    store_rows(to + p.C, 3 * p.C, q, p.row, TOKENS);
    float* sums = dbias + (size_t)p.b * 3 * p.C + p.h * HEAD;
    store_column_sums(sums, k);
    for (int i = threadIdx.x; i < HEAD; i += THREADS) sums[p.C + i] = 0.f;
}

#else

// Writes dq, delta and partial (B, BLOCKS, 2C): a block's sums of dq and dout. Rows are queries, columns keys.
extern "C" __global__ void __launch_bounds__(THREADS, DEPTH <= 64 ? 3 : 1)
attention_backward_q(half* __restrict__ dqkv, float* __restrict__ delta, float* __restrict__ partial, const half* __restrict__ dout,
                     const half* __restrict__ out, const half* __restrict__ qkv, const float* __restrict__ lse, int NH, int queries,
                     int out_rows, float scale) {
    Place p(NH, shared_address(shared_tiles));
    u32 q = p.shared, o = q + TILE, k = o + TILE, v = k + STAGES * TILE;
    int first = blockIdx.y * BLOCK, row = first + p.row + (lane_id() >> 2);
    bool idle = first + p.row >= queries;
    copy_tile(q, qkv + p.at(first, TOKENS, 3), 3 * p.C, queries - first);
    copy_tile(o, dout + p.at(first, out_rows, 1), p.C, queries - first);

    float base[2], mean[2] = {};
#pragma unroll
    for (int j = 0; j < 2; ++j) {
        bool exists = row + 8 * j < queries;
        base[j] = exists ? lse[(size_t)blockIdx.x * TOKENS + row + 8 * j] : 0.f;
        size_t at = p.at(exists ? row + 8 * j : 0, out_rows, 1);
        // The four lanes of a row take eight channels each, or one.
        constexpr int W = VECTOR ? 8 : 1;
        for (int d = (lane_id() & 3) * W; d < HEAD; d += 4 * W) {
            float x[W], y[W];
            load_pack<W>(x, out + at + d);
            load_pack<W>(y, dout + at + d);
#pragma unroll
            for (int i = 0; i < W; ++i) mean[j] = fmaf(x[i], y[i], mean[j]);
        }
        mean[j] = exists ? row_sum(mean[j]) : row_sum(0.f);
        if ((lane_id() & 3) == 0 && exists) delta[(size_t)blockIdx.x * TOKENS + row + 8 * j] = mean[j];
    }
    Sums<HEAD> acc;
    acc.clear();
    auto load = [&](int i, int stage) {
        const half* from = qkv + p.at(i * BLOCK, TOKENS, 3);
        copy_tile<TAIL>(k + stage * TILE, from + p.C, 3 * p.C, TOKENS - i * BLOCK);
        copy_tile<TAIL>(v + stage * TILE, from + 2 * p.C, 3 * p.C, TOKENS - i * BLOCK);
    };
    auto step = [&](auto columns, int i, int stage) {
        if (idle) return;
        Sums<I(columns)> s, d;
        multiply_transposed(s, q, p.row, k + stage * TILE);
        probabilities(s, scale * LOG2_E, base, row, i * BLOCK);
        multiply_transposed(d, o, p.row, v + stage * TILE);
#pragma unroll
        for (int n = 0; n < Sums<I(columns)>::TILES; ++n)
#pragma unroll
            for (int j = 0; j < 4; ++j) d.x[n][j] = s.x[n][j] * (d.x[n][j] - mean[j / 2]);
        Rows<I(columns)> ds;
        ds.take(d);
        multiply(acc, ds, k + stage * TILE);
    };
    // A block without queries only writes zeros.
    int end = CAUSAL ? min(BLOCKS, (int)blockIdx.y + 1) : BLOCKS;
    walk<true>(0, first < queries ? end : 0, load, step);
    copies_wait<0>();
    __syncthreads();
    put_rows(q, p.row, acc, scale);
    __syncwarp();
    store_rows(dqkv + p.at(first, TOKENS, 3), 3 * p.C, q, p.row, TOKENS - first);
    __syncthreads();
    float* sums = partial + ((size_t)p.b * BLOCKS + blockIdx.y) * 2 * p.C + p.h * HEAD;
    store_column_sums(sums, q);
    store_column_sums(sums + p.C, o);
}

// Writes dk, dv, and dbias from attention_backward_q's partial sums; delta is its too. Rows are keys, columns queries.
extern "C" __global__ void __launch_bounds__(THREADS, DEPTH <= 64 ? 2 : 1)
attention_backward_kv(half* __restrict__ dqkv, float* __restrict__ dbias, const float* __restrict__ delta,
                      const float* __restrict__ partial, const half* __restrict__ dout, const half* __restrict__ qkv,
                      const float* __restrict__ lse, int NH, int queries, int out_rows, float scale) {
    Place p(NH, shared_address(shared_tiles));
    u32 k = p.shared, v = k + TILE, q = v + TILE, o = q + STAGES * TILE, column_lse = o + STAGES * TILE;
    u32 column_delta = column_lse + STAGES * BLOCK * 4;
    int first = blockIdx.y * BLOCK, row = first + p.row + (lane_id() >> 2);
    bool idle = first + p.row >= TOKENS;
    const half* own = qkv + p.at(first, TOKENS, 3);
    copy_tile<TAIL>(k, own + p.C, 3 * p.C, TOKENS - first);
    copy_tile<TAIL>(v, own + 2 * p.C, 3 * p.C, TOKENS - first);

    Sums<HEAD> dk, dv;
    dk.clear();
    dv.clear();
    // Queries that do not exist have zeros for everything, and add zeros.
    auto load = [&](int i, int stage) {
        int column = i * BLOCK;
        copy_tile(q + stage * TILE, qkv + p.at(column, TOKENS, 3), 3 * p.C, queries - column);
        copy_tile(o + stage * TILE, dout + p.at(column, out_rows, 1), p.C, queries - column);
        int query = column + threadIdx.x % BLOCK;
        bool exists = query < queries, second = threadIdx.x >= BLOCK;
        const float* from = (second ? delta : lse) + (size_t)blockIdx.x * TOKENS;
        copy_4_bytes((second ? column_delta : column_lse) + (stage * BLOCK + threadIdx.x % BLOCK) * 4, from + (exists ? query : 0), exists);
    };
    auto step = [&](auto, int i, int stage) {
        if (idle) return;
        int count = min(BLOCK, queries - i * BLOCK);
        // Some columns at a time: two matrices of sums leave few registers.
        constexpr int COLUMNS = 32;
#pragma unroll 1
        for (int column = 0; column < count; column += COLUMNS) {
            u32 from_q = q + stage * TILE + column * PITCH, from_o = o + stage * TILE + column * PITCH;
            u32 at = (stage * BLOCK + column) * 4 + (lane_id() & 3) * 8;
            Sums<COLUMNS> s, d;
            Rows<COLUMNS> a;
            multiply_transposed(s, k, p.row, from_q);
            unroll<Sums<COLUMNS>::TILES>([&](auto n) {
                float base[2];
                load_shared<I(n) * 32>(base[0], base[1], column_lse + at);
#pragma unroll
                for (int j = 0; j < 4; ++j) {
                    s.x[n][j] = power_of_two(fmaf(scale * LOG2_E, s.x[n][j], -base[j % 2]));
#if CAUSAL
                    if (row + j / 2 * 8 > i * BLOCK + column + n * 8 + (lane_id() & 3) * 2 + j % 2) s.x[n][j] = 0.f;
#endif
                }
            });
            a.take(s);
            multiply(dv, a, from_o);
            multiply_transposed(d, v, p.row, from_o);
            unroll<Sums<COLUMNS>::TILES>([&](auto n) {
                float mean[2];
                load_shared<I(n) * 32>(mean[0], mean[1], column_delta + at);
#pragma unroll
                for (int j = 0; j < 4; ++j) d.x[n][j] = s.x[n][j] * (d.x[n][j] - mean[j % 2]);
            });
            a.take(d);
            multiply(dk, a, from_q);
        }
    };
    walk<false>(CAUSAL ? blockIdx.y : 0, (queries + BLOCK - 1) / BLOCK, load, step);
    copies_wait<0>();
    __syncthreads();
    put_rows(k, p.row, dk, scale);
    put_rows(v, p.row, dv, 1.f);
    __syncwarp();
    half* to = dqkv + p.at(first, TOKENS, 3);
    store_rows(to + p.C, 3 * p.C, k, p.row, TOKENS - first);
    store_rows(to + 2 * p.C, 3 * p.C, v, p.row, TOKENS - first);
    if (blockIdx.y != 0) return;
    float* sums = dbias + (size_t)p.b * 3 * p.C + p.h * HEAD;
    for (int i = threadIdx.x; i < HEAD; i += THREADS) {
        float dq = 0.f, dv = 0.f;
        const float* from = partial + (size_t)p.b * BLOCKS * 2 * p.C + p.h * HEAD + i;
        for (int block = 0; block < BLOCKS; ++block, from += 2 * p.C) dq += from[0], dv += from[p.C];
        sums[i] = dq;
        sums[p.C + i] = 0.f;
        sums[2 * p.C + i] = dv;
    }
}

#endif
#endif
