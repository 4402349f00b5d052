// nvrtc: --fmad=false
// The ends of views' chains, mixed as MEMO's AugMix does with NumPy, bit for bit. The definition in plain loops is
// src/ops/chain.rs; shapes are chain.cuh's.
//
// Launches: mix_views; where the images are padded, end_chains and a resize by augment.cu before it.

#include "chain.cuh"
#include "patch.cuh"
#include "ptx.cuh"

// Grid: (S·N·(L + 1), parts) of 256 threads: what a view's chains begin with, and the end of each, with a description each.
//   out  (S·N, L + 1, A) u32   written (=)
extern "C" __global__ void __launch_bounds__(256)
end_chains(const ImageDesc* __restrict__ descs, const ViewParams* __restrict__ params, Shape shape,
           const End* __restrict__ ends, const u32* __restrict__ bases, u32* __restrict__ layers,
           u8* __restrict__ levels, u32* __restrict__ out, ImageDesc* __restrict__ end_descs) {
    __shared__ u8 table[3][256];
    int view = blockIdx.x / (shape.L + 1), layer = blockIdx.x % (shape.L + 1);
    Chain chain(descs, params, shape, view * shape.L + max(layer - 1, 0));
    if (blockIdx.y == 0 && threadIdx.x == 0) {
        ImageDesc desc = {};
        if (chain.exists) {
            desc.w = chain.w;
            desc.h = chain.h;
        }
        end_descs[blockIdx.x] = desc;
    }
    if (!chain.exists) return;
    int item = view * shape.L + chain.number;
    bool has_levels = layer != 0 && ends[item].has_levels;
    for (int i = threadIdx.x; i < 768; i += blockDim.x)
        table[0][i] = has_levels ? levels[(size_t)item * 768 + i] : i;
    __syncthreads();
    const u32* from = picture(bases, layers, item, shape, layer == 0 ? 0 : ends[item].times);
    u32* to = out + (size_t)blockIdx.x * shape.area;
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < chain.w * chain.h; i += gridDim.y * blockDim.x)
        to[i] = with_levels(table, from[i]);
}

// A level over `divisor`, less the mean of its channel, over its deviation: torchvision's ToTensor and Normalize.
struct Scale { float divisor, mean[3], std[3]; };

// Neighbours, by one access.
template <int W>
__device__ __forceinline__ Pack<u32, W> pixels_at(const u32* from) {
    if constexpr (W == 4) {
        uint4 four = *(const uint4*)from;
        return {four.x, four.y, four.z, four.w};
    } else {
        return *(const Pack<u32, W>*)from;
    }
}

// Where a pixel's levels are in a table of words, (3, 256): of each channel without what comes before it.
template <int W>
__device__ __forceinline__ void addresses(u32 (&at)[3][W], u32 table, const Pack<u32, W>& pixels) {
#pragma unroll
    for (int j = 0; j < W; ++j) {
        at[0][j] = word_of<0>(table, pixels.x[j]);
        at[1][j] = word_of<8>(table, pixels.x[j]);
        at[2][j] = word_of<16>(table, pixels.x[j]);
    }
}

template <int layer, int channel>
__device__ __forceinline__ float number(u32 at) { return shared_float<4 * 256 * (3 * layer + channel)>(at); }

// Adds a layer's numbers, or begins with them; of what has not moved, `own` says where they are.
template <bool is_first, int layer, int W>
__device__ __forceinline__ void
add(float (&sum)[3][W], bool moved, const u32 (&own)[3][W], u32 table, const u32* pixels) {
    auto all = [&](const u32 (&at)[3][W]) {
#pragma unroll
        for (int j = 0; j < W; ++j) {
            float red = number<layer, 0>(at[0][j]), green = number<layer, 1>(at[1][j]), blue = number<layer, 2>(at[2][j]);
            sum[0][j] = is_first ? red : sum[0][j] + red;
            sum[1][j] = is_first ? green : sum[1][j] + green;
            sum[2][j] = is_first ? blue : sum[2][j] + blue;
        }
    };
    if (moved) {
        u32 at[3][W];
        addresses(at, table, pixels_at<W>(pixels));
        all(at);
    } else {
        all(own);
    }
}

// Grid: (S·N, parts) of 256 threads, which take W neighbours at a time, W dividing P. What the chains come to: w of the sum
// of each chain's end under its weight, and of what they began with, each product and sum rounded to float as NumPy does.
// A chain's end whose pixels have not moved is read where that is, by one look for both: it is `still`.
//   resized  (S·N, L + 1, H, H) u32   ends that have been resized; or null, and they are read where they are
template <int W>
__device__ __forceinline__ void
mix_of(const ImageDesc* descs, const ViewParams* params, const Shape& shape, const End* ends, const u32* bases,
       u32* layers, const u8* levels, const u32* resized, int H, int P, const Scale& scale, E* patches) {
    __shared__ float numbers[4][3][256];  // of a level of each layer, under its weight
    __shared__ float plain[3][256];
    int view = blockIdx.x;
    const ViewParams& p = params[view];
    if (p.kind < RESIZED_CHAINS || descs[view / shape.N].w == 0) return;
    // Its divisions are calls, so it is done before there is anything to be kept in registers.
#pragma unroll 1
    for (int channel = 0; channel < 3; ++channel)
        plain[channel][threadIdx.x] = ((int)threadIdx.x / scale.divisor - scale.mean[channel]) / scale.std[channel];
    __syncthreads();
    const u32* pictures[4];
    bool moved[4];
#pragma unroll
    for (int layer = 0; layer < 4; ++layer) {
        if (layer > shape.L) break;
        int item = view * shape.L + max(layer - 1, 0);
        End end = {};
        if (layer != 0) end = ends[item];
        moved[layer] = layer != 0 && (resized || end.times != 0);
        pictures[layer] = resized ? resized + ((size_t)view * (shape.L + 1) + layer) * H * H
                                  : picture(bases, layers, item, shape, end.times);
        float weight = layer == 0 ? p.unchanged : p.weights[layer - 1];
        for (int i = threadIdx.x; i < 768; i += blockDim.x) {
            int level = end.has_levels && !resized ? levels[(size_t)item * 768 + i] : i & 255;
            float number = weight * plain[i >> 8][level];
            numbers[layer][i >> 8][i & 255] = layer == 1 ? 0.f + number : number;  // the sum that begins with 0
        }
    }
    __syncthreads();
    float changed = 1.f - p.unchanged;
    int patch = patch_pitch(P), tiles = H / P, across = H / W;
    int thread = blockIdx.y * blockDim.x + threadIdx.x, threads = gridDim.y * blockDim.x;
    patches += (size_t)view * (tiles * tiles * patch);
    pad_patches(patches, P, tiles * tiles, patch, thread, threads);
    u32 table = shared_address(numbers);
    for (int i = thread; i < H * across; i += threads) {
        int y = i / across, x = i % across * W, place = y * H + x;
        u32 own[3][W];
        float sum[3][W];
        addresses(own, table, pixels_at<W>(pictures[0] + place));
        add<true, 1>(sum, moved[1], own, table, pictures[1] + place);
        if (shape.L > 1) {
            add<false, 2>(sum, moved[2], own, table, pictures[2] + place);
            add<false, 3>(sum, moved[3], own, table, pictures[3] + place);
        }
        E* at = patches + (y / P * tiles + x / P) * patch + y % P * P + x % P;
#pragma unroll
        for (int j = 0; j < W; ++j) {
            sum[0][j] = number<0, 0>(own[0][j]) + changed * sum[0][j];
            sum[1][j] = number<0, 1>(own[1][j]) + changed * sum[1][j];
            sum[2][j] = number<0, 2>(own[2][j]) + changed * sum[2][j];
        }
#pragma unroll
        for (int channel = 0; channel < 3; ++channel, at += P * P) store_pack(at, sum[channel]);
    }
}

#define MIX_VIEWS(W)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                              \
    mix_views_##W(const ImageDesc* __restrict__ descs, const ViewParams* __restrict__ params, Shape shape,            \
                  const End* __restrict__ ends, const u32* __restrict__ bases, u32* __restrict__ layers,              \
                  const u8* __restrict__ levels, const u32* __restrict__ resized, int H, int P, Scale scale,          \
                  E* __restrict__ patches) {                                                                          \
        mix_of<W>(descs, params, shape, ends, bases, layers, levels, resized, H, P, scale, patches);                  \
    }

MIX_VIEWS(4)
MIX_VIEWS(2)
MIX_VIEWS(1)
