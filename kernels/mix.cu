// nvrtc: --fmad=false
// The ends of views' chains, mixed as MEMO's AugMix does with NumPy, bit for bit. The definition in plain loops is
// src/ops/chain.rs; shapes are chain.cuh's.
//
// Launches: mix_views; where the images are padded, end_chains and a resize by augment.cu before it.

#include "chain.cuh"
#include "element.cuh"

// Grid: (S·N·(L + 1), parts) of 256 threads: what a view's chains begin with, and the end of each, with a description each.
//   ends  (S·N, L + 1, A) u32   written (=)
extern "C" __global__ void __launch_bounds__(256)
end_chains(const ImageDesc* __restrict__ descs, const ViewParams* __restrict__ params, Shape shape,
           const Plan* __restrict__ plans, const u32* __restrict__ bases, u32* __restrict__ layers,
           u8* __restrict__ levels, u32* __restrict__ ends, ImageDesc* __restrict__ end_descs) {
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
    const Plan& plan = plans[plan_of(item, shape, 0)];
    bool has_levels = layer != 0 && plan.end_has_levels;
    for (int i = threadIdx.x; i < 768; i += blockDim.x)
        table[0][i] = has_levels ? levels[(size_t)item * 768 + i] : i;
    __syncthreads();
    const u32* from = picture(bases, layers, item, shape, layer == 0 ? 0 : plan.end_times);
    u32* to = ends + (size_t)blockIdx.x * shape.area;
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < chain.w * chain.h; i += gridDim.y * blockDim.x)
        to[i] = with_levels(table, from[i]);
}

// A level over `divisor`, less the mean of its channel, over its deviation: torchvision's ToTensor and Normalize.
struct Scale { float divisor, mean[3], std[3]; };

// Grid: (S·N, parts) of 256 threads, which take W neighbours at a time, W dividing P. What the chains come to: w of the sum
// of each chain's end under its weight, and of what they began with, each product and sum rounded to float as NumPy does.
// A chain's end whose pixels have not moved is read where that is, by one look for both: it is `still`.
//   resized  (S·N, L + 1, H, H) u32   ends that have been resized; or null, and they are read where they are
template <int W>
__device__ __forceinline__ void
mix_of(const ViewParams* params, const Shape& shape, const Plan* plans, const u32* bases, u32* layers, const u8* levels,
       const u32* resized, int H, int P, const Scale& scale, E* patches) {
    __shared__ float numbers[4][3][256];  // of a level of each layer, under its weight; 0 of a layer that there is not
    __shared__ float plain[3][256];
    int view = blockIdx.x;
    const ViewParams& p = params[view];
    if (p.kind < RESIZED_CHAINS || plans[(size_t)view * STEPS].w == 0) return;
    // Its divisions are calls, so it is done before there is anything to be kept in registers.
#pragma unroll 1
    for (int channel = 0; channel < 3; ++channel)
        plain[channel][threadIdx.x] = ((int)threadIdx.x / scale.divisor - scale.mean[channel]) / scale.std[channel];
    __syncthreads();
    const u32* pictures[4];
    bool moved[4];
#pragma unroll
    for (int layer = 0; layer < 4; ++layer) {
        int item = view * shape.L + min(max(layer - 1, 0), shape.L - 1);
        const Plan& plan = plans[plan_of(item, shape, 0)];
        bool is_used = layer <= shape.L, has_levels = is_used && layer != 0 && !resized && plan.end_has_levels;
        moved[layer] = is_used && layer != 0 && (resized || plan.end_times != 0);
        pictures[layer] = resized ? resized + ((size_t)view * (shape.L + 1) + min(layer, shape.L)) * H * H
                                  : picture(bases, layers, item, shape, layer == 0 ? 0 : plan.end_times);
        float weight = !is_used ? 0.f : layer == 0 ? p.unchanged : p.weights[layer - 1];
        for (int i = threadIdx.x; i < 768; i += blockDim.x) {
            int level = has_levels ? levels[(size_t)item * 768 + i] : i & 255;
            numbers[layer][i >> 8][i & 255] = is_used ? weight * plain[i >> 8][level] : 0.f;
        }
    }
    __syncthreads();
    float changed = 1.f - p.unchanged;
    bool all_still = !moved[1] && !moved[2] && !moved[3];
    if (all_still) {
        for (int i = threadIdx.x; i < 768; i += blockDim.x) {
            float* own = &numbers[0][0][i];
            own[0] += changed * (0.f + own[768] + own[2 * 768] + own[3 * 768]);
        }
        __syncthreads();
    }
    patches += (size_t)view * 3 * H * H;
    int across = H / W;
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < H * across; i += gridDim.y * blockDim.x) {
        int y = i / across, x = i % across * W, place = y * H + x;
        float value[3][W], sum[3][W];
        u32 own[3][W];
        Pack<u32, W> pixels = *(const Pack<u32, W>*)(pictures[0] + place);
#pragma unroll
        for (int channel = 0; channel < 3; ++channel) {
#pragma unroll
            for (int j = 0; j < W; ++j) {
                own[channel][j] = pixels.x[j] >> 8 * channel & 255;
                value[channel][j] = numbers[0][channel][own[channel][j]];
                sum[channel][j] = 0.f;
            }
        }
#pragma unroll
        for (int layer = 1; layer < 4; ++layer) {
            if (layer > shape.L || all_still) break;
            if (moved[layer]) {
                pixels = *(const Pack<u32, W>*)(pictures[layer] + place);
#pragma unroll
                for (int channel = 0; channel < 3; ++channel) {
#pragma unroll
                    for (int j = 0; j < W; ++j)
                        sum[channel][j] += numbers[layer][channel][pixels.x[j] >> 8 * channel & 255];
                }
            } else {
#pragma unroll
                for (int channel = 0; channel < 3; ++channel) {
#pragma unroll
                    for (int j = 0; j < W; ++j) sum[channel][j] += numbers[layer][channel][own[channel][j]];
                }
            }
        }
        E* at = patches + y / P * (3 * H * P) + x / P * (3 * P * P) + y % P * P + x % P;
#pragma unroll
        for (int channel = 0; channel < 3; ++channel, at += P * P) {
#pragma unroll
            for (int j = 0; j < W; ++j) {
                if (!all_still) value[channel][j] += changed * sum[channel][j];
            }
            store_pack(at, value[channel]);
        }
    }
}

#define MIX_VIEWS(W)                                                                                                  \
    extern "C" __global__ void __launch_bounds__(256, 2)                                                              \
    mix_views_##W(const ViewParams* __restrict__ params, Shape shape, const Plan* __restrict__ plans,                 \
                  const u32* __restrict__ bases, u32* __restrict__ layers, const u8* __restrict__ levels,             \
                  const u32* __restrict__ resized, int H, int P, Scale scale, E* __restrict__ patches) {              \
        mix_of<W>(params, shape, plans, bases, layers, levels, resized, H, P, scale, patches);                        \
    }

MIX_VIEWS(4)
MIX_VIEWS(2)
MIX_VIEWS(1)
