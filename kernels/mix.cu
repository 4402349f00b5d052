// nvrtc: --fmad=false
// The ends of views' chains, mixed as MEMO's AugMix does with NumPy, bit for bit. The definition in plain loops is
// src/ops/chain.rs; shapes are chain.cuh's.
//
// Launches: mix_views; where the images are padded, end_chains and a resize by augment.cu before it.

#include "chain.cuh"
#include "patch.cuh"

// Grid: (S·N·(L + 1), parts) of 256 threads: what a view's chains begin with, and the end of each, with a description each.
//   ends  (S·N, L + 1, A) u32   written (=)
extern "C" __global__ void __launch_bounds__(256)
end_chains(const ImageDesc* __restrict__ descs, const ViewParams* __restrict__ params, Shape shape,
           const u32* __restrict__ bases, u32* __restrict__ layers, u8* __restrict__ levels, u32* __restrict__ ends,
           ImageDesc* __restrict__ end_descs) {
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
    int times = 0;
    bool has_levels = false;
    if (layer != 0) chain.before(chain.depth, &times, &has_levels);
    const u8* entries = levels_of(levels, chain, shape);
    for (int i = threadIdx.x; i < 768; i += blockDim.x) table[0][i] = has_levels ? entries[i] : i & 255;
    __syncthreads();
    const u32* from = picture(bases, layers, chain, shape, times);
    u32* to = ends + (size_t)blockIdx.x * shape.area;
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < chain.w * chain.h; i += gridDim.y * blockDim.x)
        to[i] = with_levels(table, from[i]);
}

// A level over `divisor`, less the mean of its channel, over its deviation: torchvision's ToTensor and Normalize.
struct Scale { float divisor, mean[3], std[3]; };

// Grid: (S·N, parts) of 256 threads, which take W neighbours at a time, W dividing P. What the chains come to: w of the sum
// of each chain's end under its weight, and of what they began with, each product and sum rounded to float as NumPy does.
//   resized  (S·N, L + 1, H, H) u32   ends that have been resized; or null, and they are read where they are
template <int W>
__device__ __forceinline__ void
mix_of(const ImageDesc* descs, const ViewParams* params, const Shape& shape, const u32* bases, u32* layers, u8* levels,
       const u32* resized, int H, int P, const Scale& scale, E* patches) {
    __shared__ float numbers[4][3][256];  // of a level of each layer, under its weight
    __shared__ float plain[3][256];
    // Its divisions are calls, so it is done before there is anything to be kept in registers.
#pragma unroll 1
    for (int channel = 0; channel < 3; ++channel)
        plain[channel][threadIdx.x] = ((int)threadIdx.x / scale.divisor - scale.mean[channel]) / scale.std[channel];
    __syncthreads();
    int view = blockIdx.x;
    const ViewParams& p = params[view];
    const u32* pictures[4];
#pragma unroll
    for (int layer = 0; layer < 4; ++layer) {
        Chain chain(descs, params, shape, view * shape.L + min(max(layer - 1, 0), shape.L - 1));
        if (!chain.exists) return;
        int times = 0;
        bool has_levels = false;
        if (layer != 0) chain.before(chain.depth, &times, &has_levels);
        bool is_used = layer <= shape.L;
        if (resized) has_levels = false;
        pictures[layer] = resized ? resized + ((size_t)view * (shape.L + 1) + min(layer, shape.L)) * H * H
                                  : picture(bases, layers, chain, shape, times);
        const u8* entries = levels_of(levels, chain, shape);
        float weight = !is_used ? 0.f : layer == 0 ? p.unchanged : p.weights[layer - 1];
        for (int i = threadIdx.x; i < 768; i += blockDim.x) {
            int channel = i >> 8, level = has_levels ? entries[i] : i & 255;
            numbers[layer][channel][i & 255] = weight * plain[channel][level];
        }
    }
    __syncthreads();
    float changed = 1.f - p.unchanged;
    int patch = patch_pitch(P), tiles = H / P, across = H / W;
    int thread = blockIdx.y * blockDim.x + threadIdx.x, threads = gridDim.y * blockDim.x;
    patches += (size_t)view * (tiles * tiles * patch);
    pad_patches(patches, P, tiles * tiles, patch, thread, threads);
    for (int i = thread; i < H * across; i += threads) {
        int y = i / across, x = i % across * W;
        float sum[3][W] = {};
        Pack<u32, W> own = *(const Pack<u32, W>*)(pictures[0] + y * H + x);
#pragma unroll
        for (int layer = 1; layer < 4; ++layer) {
            if (layer > shape.L) break;
            Pack<u32, W> pixels = *(const Pack<u32, W>*)(pictures[layer] + y * H + x);
#pragma unroll
            for (int j = 0; j < W; ++j) {
#pragma unroll
                for (int channel = 0; channel < 3; ++channel)
                    sum[channel][j] += numbers[layer][channel][pixels.x[j] >> 8 * channel & 255];
            }
        }
        E* at = patches + (y / P * tiles + x / P) * patch + y % P * P + x % P;
#pragma unroll
        for (int channel = 0; channel < 3; ++channel, at += P * P) {
            float value[W];
#pragma unroll
            for (int j = 0; j < W; ++j)
                value[j] = numbers[0][channel][own.x[j] >> 8 * channel & 255] + changed * sum[channel][j];
            store_pack(at, value);
        }
    }
}

#define MIX_VIEWS(W)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                              \
    mix_views_##W(const ImageDesc* __restrict__ descs, const ViewParams* __restrict__ params, Shape shape,            \
                  const u32* __restrict__ bases, u32* __restrict__ layers, u8* __restrict__ levels,                   \
                  const u32* __restrict__ resized, int H, int P, Scale scale, E* __restrict__ patches) {              \
        mix_of<W>(descs, params, shape, bases, layers, levels, resized, H, P, scale, patches);                        \
    }

MIX_VIEWS(4)
MIX_VIEWS(2)
MIX_VIEWS(1)
