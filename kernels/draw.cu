// nvrtc: --fmad=false
// Draws the parameters of a batch's views: as torchvision's RandomHorizontalFlip, RandomVerticalFlip,
// RandomRotation, ColorJitter, RandomResizedCrop and RandomHorizontalFlip do.
//
//   descs   (S,) ImageDesc       read
//   params  (S, N) ViewParams    written (=); zeros for an empty slot
//
// View v's words are philox(counter = (its image's index, first_view + v, block), key = seed), in blocks of four:
//   0       horizontal flip, vertical flip, angle, order of the jitter
//   1       brightness, contrast, saturation, hue
//   2 + k   try k of the crop, of 10: area, ratio, top, left
//   12      flip of the finished view
// so that a view depends on nothing but its seed, its image's size and index, and its own.
// Roundings are explicit where they could differ from the plain definition's: no product is fused into a sum.
//
// Grid: a thread for each of `count` = S·N views, 64 threads a CTA. The policy's numbers are those of src/policy.

#include "prelude.cuh"
#include "philox.cuh"
#include "view.cuh"

// Permutation number `index` of 24, in lexicographic order.
__device__ __forceinline__ void permutation(u32 index, u8 order[4]) {
    u32 left = 0x3210, below = 6;  // the items that are left, a nibble each; permutations of the rest
    for (int i = 0; i < 4; ++i) {
        u32 shift = 4 * (index / below);
        index %= below;
        order[i] = (left >> shift) & 15;
        u32 lower = (1u << shift) - 1;
        left = (left & lower) | ((left >> 4) & ~lower);
        below = below == 6 ? 2 : 1;
    }
}

// Random words of a view.
struct Source {
    uint4 counter;
    uint2 key;
    __device__ __forceinline__ uint4 words(u32 block) {
        counter.w = block;
        return philox4x32_10(counter, key);
    }
};

struct CropRange { float scale_low, scale_high, ratio_low, ratio_high, log_ratio_low, log_ratio_high; };

// Up to ten crops of a random area and ratio; the first that fits. Else the largest central crop
// whose ratio is in range. Rounds half to even, as Python does.
__device__ void draw_crop(ViewParams& view, Source from, int w, int h, CropRange range) {
    for (int k = 0; k < 10; ++k) {
        uint4 word = from.words(2 + k);
        double area = (double)h * w * uniform(word.x, range.scale_low, range.scale_high);
        double ratio = (float)exp((double)uniform(word.y, range.log_ratio_low, range.log_ratio_high));
        view.width = __double2int_rn(sqrt(area * ratio));
        view.height = __double2int_rn(sqrt(area / ratio));
        if (0 < view.width && view.width <= w && 0 < view.height && view.height <= h) {
            view.top = uniform_below(word.z, h - view.height + 1);
            view.left = uniform_below(word.w, w - view.width + 1);
            return;
        }
    }
    double ratio = (double)w / h;
    view.width = w;
    view.height = h;
    if (ratio < range.ratio_low) view.height = max(1, __double2int_rn(w / (double)range.ratio_low));
    else if (ratio > range.ratio_high) view.width = max(1, __double2int_rn(h * (double)range.ratio_high));
    view.top = (h - view.height) / 2;
    view.left = (w - view.width) / 2;
}

struct CropsArg {
    float hflip, vflip, rotation, brightness, contrast, saturation, hue, mirror;
    CropRange crop;
};

extern "C" __global__ void __launch_bounds__(64)
draw_views(const ImageDesc* __restrict__ descs, ViewParams* __restrict__ params, int count, int N,
           u64 seed, u32 first_view, u64 originals, CropsArg policy) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const ImageDesc image = descs[i / N];
    ViewParams view = {};
    u32 number = first_view + i % N;
    if (image.w == 0 || number < originals) {
        view.kind = image.w == 0 ? CROP : ORIGINAL;
        params[i] = view;
        return;
    }
    Source from = {make_uint4((u32)image.index, (u32)(image.index >> 32), number, 0),
                   make_uint2((u32)seed, (u32)(seed >> 32))};

    // First of all, while nothing else is to be kept in registers: its divisions are calls.
    draw_crop(view, from, image.w, image.h, policy.crop);

    uint4 word = from.words(0);
    view.hflip = uniform(word.x) < policy.hflip;
    view.vflip = uniform(word.y) < policy.vflip;
    view.angle = uniform(word.z, -policy.rotation, policy.rotation);
    permutation(uniform_below(word.w, 24), view.jitter_order);

    word = from.words(1);
    view.brightness = uniform(word.x, fmaxf(0.f, 1.f - policy.brightness), 1.f + policy.brightness);
    view.contrast = uniform(word.y, fmaxf(0.f, 1.f - policy.contrast), 1.f + policy.contrast);
    view.saturation = uniform(word.z, fmaxf(0.f, 1.f - policy.saturation), 1.f + policy.saturation);
    view.hue = uniform(word.w, -policy.hue, policy.hue);

    view.mirror = uniform(from.words(12).x) < policy.mirror;
    params[i] = view;
}
