// Attention of every head over its T tokens, forward and backward, without a (T, T) matrix in memory.
//
//   S = scale log2(e) Q Kᵀ, columns past the row left out if causal     lse = log2 Σ 2^S, row by row
//   P = 2^(S - lse)                      out = P V
//   dS = scale P ∘ (dout Vᵀ - delta)     delta = Σ dout ∘ out, row by row
//   dQ = dS K      dK = dSᵀ Q      dV = Pᵀ dout
//
// Powers of two throughout: what the hardware has, and exp costs three times as much.
//
//   qkv, dqkv (B, T, 3C): q | k | v, heads side by side inside each, C = NH · HS
//   out, dout (B, any number >= queries, C); lse, delta (B, NH, T); dbias (B, 3C), or null; all fp32, outputs written (=),
//   out and lse of the first `queries` tokens alone. Of dqkv all is written: dq of other tokens is zero. With OUT_TERMS out
//   is in two terms of float16: a row has C first ones, then C second ones, that many times what they are.
//
// dbias is dqkv summed over a sample's tokens: of dq as it is; of dv by what it comes to, the sum of dout, since a row of P
// adds to one; of dk zero, since a row of dS does, whatever the key's bias.
//
// Softmax in tiles: FlashAttention-2 (arXiv 2307.08691).
//
// Grid: x over (B, NH), y over tiles of 32 tokens (the rows), 4 warps a CTA, 8 rows a warp. A CTA walks over
// tiles of 64 tokens (the columns). A lane holds columns `lane` and `lane + 32` of its warp's 8 rows,
// and later the same two channels of the result, 64 channels a pass: a head wider than that takes
// several passes, each of which computes S again.
// Shared: (32, 64) and (64, 65) floats, 24.6 KiB. No atomics: every sum has one order.

#include "element.cuh"

constexpr int ROWS = 8;          // of a warp
constexpr int TILE_ROWS = 32;    // of a CTA
constexpr int SPAN = 64;         // columns of a tile, and channels of a chunk
constexpr int PITCH = SPAN + 1;  // odd, so that both directions of a tile are free of bank conflicts

#define LOG2_E 1.44269504f

typedef float Fragment[ROWS][2];

// One head of q, k, v or dout: token t, channel d at p[t · stride + d].
struct Head {
    const float* p;
    int stride, T, HS;
};

struct Tiles {
    float* left;   // (ROWS, SPAN), this warp's own
    float* right;  // (SPAN, PITCH), the CTA's
    bool idle;     // all of this warp's rows are past the last token

    // acc += left · right over the first `depth` of the sum, for the first `width` columns.
    __device__ __forceinline__ void multiply(Fragment& acc, int depth, int width) const {
        if (idle) return;
        const float* column = right + lane_id();
        for (int k = 0; k < depth; k += 4) {
            float x[ROWS][4];
#pragma unroll
            for (int r = 0; r < ROWS; ++r) *(float4*)x[r] = load4(left + r * SPAN + k);
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                if (j == 1 && width <= 32) break;
                float y[4];
#pragma unroll
                for (int i = 0; i < 4; ++i) y[i] = column[(k + i) * PITCH + 32 * j];
#pragma unroll
                for (int r = 0; r < ROWS; ++r)
#pragma unroll
                    for (int i = 0; i < 4; ++i) acc[r][j] = fmaf(x[r][i], y[i], acc[r][j]);
            }
        }
    }

    // Puts a fragment where `multiply` takes its left side.
    __device__ __forceinline__ void store_left(const Fragment& x) const {
        __syncwarp();
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            left[r * SPAN + lane_id()] = x[r][0];
            left[r * SPAN + lane_id() + 32] = x[r][1];
        }
    }

    // to[i · pitch + c · step] = token first + i · every, channel d + c, for a warp; zero past the ends.
    // Lanes past the last channel read it again: cheaper than a branch that splits the warp.
    __device__ __forceinline__ static void load(float* to, int pitch, int step, const Head& from, int first,
                                                int every, int count, int d) {
        int last = from.HS - 1, here = d + lane_id(), next = here + 32;
        bool wide = d + 32 <= last;
        to += lane_id() * step;
#pragma unroll 4
        for (int i = 0; i < count; ++i) {
            int t = first + i * every;
            float x = 0.f, y = 0.f;
            if (t < from.T) {
                const float* p = from.p + t * from.stride;
                x = p[min(here, last)];
                y = p[min(next, last)];
            }
            to[i * pitch] = here <= last ? x : 0.f;
            if (wide) to[i * pitch + 32 * step] = next <= last ? y : 0.f;
        }
    }

    // acc = a bᵀ: rows of `a` from `row`, those of `b` from `column`, summed over all channels.
    __device__ __forceinline__ void scores(Fragment& acc, const Head& a, int row, const Head& b,
                                           int column) const {
        int width = min(SPAN, b.T - column);
#pragma unroll
        for (int r = 0; r < ROWS; ++r) acc[r][0] = acc[r][1] = 0.f;
        for (int d = 0; d < a.HS; d += SPAN) {
            __syncthreads();
            if (!idle) load(left, SPAN, 1, a, row, 1, ROWS, d);
            load(right + warp_id(), 4, PITCH, b, column + warp_id(), 4, width > 32 ? SPAN / 4 : SPAN / 8, d);
            __syncthreads();
            multiply(acc, min(SPAN, a.HS - d), width);
        }
    }

    // acc += left · b: tokens of `b` from `column`, channels from `d`.
    __device__ __forceinline__ void gather(Fragment& acc, const Head& b, int column, int d) const {
        int depth = min(SPAN, b.T - column);
        __syncthreads();
        load(right + warp_id() * PITCH, 4 * PITCH, 1, b, column + warp_id(), 4, (depth + 3) / 4, d);
        __syncthreads();
        multiply(acc, depth, b.HS - d);
    }
};

__device__ __forceinline__ Tiles shared_tiles(bool idle) {
    __shared__ alignas(16) float left[TILE_ROWS * SPAN], right[SPAN * PITCH];
    return {left + warp_id() * ROWS * SPAN, right, idle};
}

// Rows of a fragment to one head of a (T, stride) matrix, channels from `d`.
__device__ __forceinline__ void store_rows(float* p, const Fragment& x, int row, int d, int T, int HS, int stride) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            int channel = d + lane_id() + 32 * j;
            if (row + r < T && channel < HS) p[(row + r) * stride + channel] = x[r][j];
        }
}

// The same in two terms, `low` further on.
__device__ __forceinline__ void store_rows(half* p, int low, float scale, const Fragment& x, int row, int d, int T, int HS, int stride) {
#pragma unroll
    for (int r = 0; r < ROWS; ++r)
#pragma unroll
        for (int j = 0; j < 2; ++j) {
            int channel = d + lane_id() + 32 * j;
            if (row + r < T && channel < HS) {
                half* to = p + (row + r) * stride + channel;
                half high;
                from_float(high, x[r][j]);
                *to = high;
                from_float(to[low], scale * (x[r][j] - to_float(high)));
            }
        }
}

// Writes out and lse. Rows are queries, columns keys.
extern "C" __global__ void __launch_bounds__(128, 3)
attention_forward(float* __restrict__ out, float* __restrict__ lse, const float* __restrict__ qkv, int T, int NH,
                  int HS, int queries, int out_rows, float scale, int causal) {
    int b = blockIdx.x / NH, h = blockIdx.x % NH, C = NH * HS;
    const float* base = qkv + (size_t)b * T * 3 * C + h * HS;
    Head q = {base, 3 * C, queries, HS}, k = {base + C, 3 * C, T, HS}, v = {base + 2 * C, 3 * C, T, HS};
    int row = blockIdx.y * TILE_ROWS + warp_id() * ROWS;
    Tiles tiles = shared_tiles(row >= queries);
    int end = causal ? min(T, (int)(blockIdx.y + 1) * TILE_ROWS) : T;

    for (int d = 0; d < HS; d += SPAN) {
        Fragment acc = {}, x;
        float top[ROWS], sum[ROWS];
#pragma unroll
        for (int r = 0; r < ROWS; ++r) top[r] = -FLT_MAX, sum[r] = 0.f;
        for (int column = 0; column < end; column += SPAN) {
            tiles.scores(x, q, row, k, column);
            bool wide = end - column > 32;
#pragma unroll
            for (int r = 0; r < ROWS; ++r) {
                if (tiles.idle) break;
                float most = top[r];
#pragma unroll
                for (int j = 0; j < 2; ++j) {
                    int key = column + lane_id() + 32 * j;
                    x[r][j] = key < T && !(causal && key > row + r) ? scale * LOG2_E * x[r][j] : -FLT_MAX;
                    most = fmaxf(most, x[r][j]);
                }
                most = warp_max(most);
                x[r][0] = exp2f(x[r][0] - most);
                x[r][1] = wide ? exp2f(x[r][1] - most) : 0.f;
                if (column > 0) {
                    float shrink = exp2f(top[r] - most);
                    sum[r] *= shrink;
                    acc[r][0] *= shrink;
                    acc[r][1] *= shrink;
                }
                sum[r] += x[r][0] + x[r][1];
                top[r] = most;
            }
            tiles.store_left(x);
            tiles.gather(acc, v, column, d);
        }
        if (tiles.idle) continue;
        float row_top = 0.f, row_sum = 1.f;  // of row `lane`
#pragma unroll
        for (int r = 0; r < ROWS; ++r) {
            float total = warp_sum(sum[r]);
            acc[r][0] /= total;
            acc[r][1] /= total;
            if (lane_id() == r) row_top = top[r], row_sum = total;
        }
        if (d == 0 && lane_id() < ROWS && row + lane_id() < queries)
            lse[(size_t)blockIdx.x * T + row + lane_id()] = row_top + log2f(row_sum);
#if OUT_TERMS
        store_rows((half*)out + (size_t)b * out_rows * 2 * C + h * HS, C, OUT_TERMS, acc, row, d, queries, HS, 2 * C);
#else
        store_rows(out + (size_t)b * out_rows * C + h * HS, acc, row, d, queries, HS, C);
#endif
    }
}

// Writes dq, delta and partial (B, tiles of rows, 2C): a tile's sums of dq and dout. Rows are queries, columns keys.
extern "C" __global__ void __launch_bounds__(128, 3)
attention_backward_q(float* __restrict__ dqkv, float* __restrict__ delta, float* __restrict__ partial,
                     const float* __restrict__ dout, const float* __restrict__ out, const float* __restrict__ qkv,
                     const float* __restrict__ lse, int T, int NH, int HS, int queries, int out_rows, float scale,
                     int causal) {
    int b = blockIdx.x / NH, h = blockIdx.x % NH, C = NH * HS;
    size_t at = (size_t)b * out_rows * C + h * HS, at3 = (size_t)b * T * 3 * C + h * HS;
    Head q = {qkv + at3, 3 * C, queries, HS}, k = {qkv + at3 + C, 3 * C, T, HS}, v = {qkv + at3 + 2 * C, 3 * C, T, HS};
    Head dO = {dout + at, C, queries, HS};
    const float* o = out + at;
    int first = blockIdx.y * TILE_ROWS, row = first + warp_id() * ROWS;
    Tiles tiles = shared_tiles(row >= queries);
    // A tile without queries only writes zeros.
    int end = first >= queries ? 0 : causal ? min(T, first + TILE_ROWS) : T;
    float* sums = partial + ((size_t)b * gridDim.y + blockIdx.y) * 2 * C + h * HS;

    float row_lse[ROWS], row_delta[ROWS];
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        row_lse[r] = row_delta[r] = 0.f;
        if (row + r >= queries) continue;
        for (int d = lane_id(); d < HS; d += 32) row_delta[r] += dO.p[(row + r) * C + d] * o[(row + r) * C + d];
        row_delta[r] = warp_sum(row_delta[r]);
        row_lse[r] = lse[(size_t)blockIdx.x * T + row + r];
        if (lane_id() == 0) delta[(size_t)blockIdx.x * T + row + r] = row_delta[r];
    }
    for (int d = 0; d < HS; d += SPAN) {
        Fragment acc = {}, x, dp;
        for (int column = 0; column < end; column += SPAN) {
            tiles.scores(x, q, row, k, column);
            tiles.scores(dp, dO, row, v, column);
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                int key = column + lane_id() + 32 * j;
                bool any = !tiles.idle && column + 32 * j < end;
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    bool seen = row + r < queries && key < T && !(causal && key > row + r);
                    if (any) x[r][j] = scale * exp2f(scale * LOG2_E * x[r][j] - row_lse[r]) * (dp[r][j] - row_delta[r]);
                    if (!seen) x[r][j] = 0.f;
                }
            }
            tiles.store_left(x);
            tiles.gather(acc, k, column, d);
        }
        store_rows(dqkv + at3, acc, row, d, T, HS, 3 * C);
        if (!partial) continue;
        tiles.store_left(acc);
        __syncthreads();
        const float* tile = tiles.left - warp_id() * ROWS * SPAN;
        for (int i = threadIdx.x; i < min(SPAN, HS - d); i += 128) {
            float dq = 0.f, dv = 0.f;
            for (int r = 0; r < min(TILE_ROWS, queries - first); ++r) {
                dq += tile[r * SPAN + i];
                dv += dO.p[(first + r) * C + d + i];
            }
            sums[d + i] = dq;
            sums[C + d + i] = dv;
        }
        __syncthreads();
    }
}

// Writes dk, dv, and dbias from attention_backward_q's partial sums; delta is its too. Rows are keys, columns queries.
extern "C" __global__ void __launch_bounds__(128, 3)
attention_backward_kv(float* __restrict__ dqkv, float* __restrict__ dbias, const float* __restrict__ delta,
                      const float* __restrict__ partial, const float* __restrict__ dout,
                      const float* __restrict__ qkv, const float* __restrict__ lse, int T, int NH, int HS, int queries,
                      int out_rows, float scale, int causal) {
    int b = blockIdx.x / NH, h = blockIdx.x % NH, C = NH * HS;
    size_t at = (size_t)b * out_rows * C + h * HS, at3 = (size_t)b * T * 3 * C + h * HS;
    Head q = {qkv + at3, 3 * C, queries, HS}, k = {qkv + at3 + C, 3 * C, T, HS}, v = {qkv + at3 + 2 * C, 3 * C, T, HS};
    Head dO = {dout + at, C, queries, HS};
    int row = blockIdx.y * TILE_ROWS + warp_id() * ROWS;
    Tiles tiles = shared_tiles(row >= T);
    int start = causal ? blockIdx.y * TILE_ROWS / SPAN * SPAN : 0;

    for (int d = 0; d < HS; d += SPAN) {
        Fragment dk = {}, dv = {}, x, dp;
        for (int column = start; column < queries; column += SPAN) {
            tiles.scores(x, k, row, q, column);
            tiles.scores(dp, v, row, dO, column);
#pragma unroll
            for (int j = 0; j < 2; ++j) {
                int query = column + lane_id() + 32 * j;
                bool any = !tiles.idle && column + 32 * j < queries;
                float column_lse = query < queries ? lse[(size_t)blockIdx.x * T + query] : 0.f;
                float column_delta = query < queries ? delta[(size_t)blockIdx.x * T + query] : 0.f;
#pragma unroll
                for (int r = 0; r < ROWS; ++r) {
                    bool seen = row + r < T && query < queries && !(causal && row + r > query);
                    if (any) x[r][j] = exp2f(scale * LOG2_E * x[r][j] - column_lse);
                    if (!seen) x[r][j] = 0.f;
                    dp[r][j] = scale * x[r][j] * (dp[r][j] - column_delta);
                }
            }
            tiles.store_left(x);
            tiles.gather(dv, dO, column, d);
            tiles.store_left(dp);
            tiles.gather(dk, q, column, d);
        }
        store_rows(dqkv + at3 + C, dk, row, d, T, HS, 3 * C);
        store_rows(dqkv + at3 + 2 * C, dv, row, d, T, HS, 3 * C);
    }
    if (!dbias || blockIdx.y != 0) return;
    float* sums = dbias + (size_t)b * 3 * C + h * HS;
    for (int i = threadIdx.x; i < HS; i += 128) {
        float dq = 0.f, dv = 0.f;
        const float* from = partial + (size_t)b * gridDim.y * 2 * C + h * HS + i;
        for (int tile = 0; tile < gridDim.y; ++tile, from += 2 * C) dq += from[0], dv += from[C];
        sums[i] = dq;
        sums[C + i] = 0.f;
        sums[2 * C + i] = dv;
    }
}
