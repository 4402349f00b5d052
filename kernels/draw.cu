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
//   12      flip of the resized crop; depths of three chains
//   13      weight of what is unchanged; the two cuts of 0 to 1 that leave the chains' weights
//   14 + i  step i, of 9: operation, level, direction
// of which each kernel uses its own. An image that is padded and cropped to its own size takes top and left of block 2.
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

// Whose view thread `i` draws; where it is an original, or an empty slot's, it is done.
__device__ __forceinline__ bool begin(const ImageDesc& image, u32 number, u64 seed, u64 originals, Source& from, ViewParams& view) {
    from.counter = make_uint4((u32)image.index, (u32)(image.index >> 32), number, 0);
    from.key = make_uint2((u32)seed, (u32)(seed >> 32));
    if (image.w != 0 && number < originals) view.kind = ORIGINAL;
    return image.w != 0 && number >= originals;
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
    Source from;
    if (!begin(image, first_view + i % N, seed, originals, from, view)) {
        params[i] = view;
        return;
    }

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

// `padding` of an image that is cropped to its own size; of a resized crop -1.
struct AugMixArg {
    float severity, mirror;
    u32 fill;
    int padding;
    CropRange crop;
};

// An operation of MEMO's nine at a level of 0 to 10, as its int_parameter and float_parameter have it.
__device__ __forceinline__ Step augmix_step(u32 number, float level, bool back) {
    float sign = back ? -1.f : 1.f;
    switch (number) {
        case 0: return {AUTOCONTRAST, 0.f};
        case 1: return {EQUALIZE, 0.f};
        case 2: return {ROTATE, sign * (float)(int)(level * 3.f)};
        case 3: return {SOLARIZE, 256.f - (float)(int)(level * 25.6f)};
        case 4: return {SHEAR_X, sign * (level * 0.03f)};
        case 5: return {SHEAR_Y, sign * (level * 0.03f)};
        case 6: return {TRANSLATE_X, sign * (level * (1.f / 30.f))};
        case 7: return {TRANSLATE_Y, sign * (level * (1.f / 30.f))};
        default: return {POSTERIZE, 4.f - (float)(int)(level * 0.4f)};
    }
}

// As MEMO's authors have AugMix: three chains of one to three operations, mixed.
extern "C" __global__ void __launch_bounds__(64)
draw_augmix(const ImageDesc* __restrict__ descs, ViewParams* __restrict__ params, int count, int N,
            u64 seed, u32 first_view, u64 originals, AugMixArg policy) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const ImageDesc image = descs[i / N];
    ViewParams view = {};
    Source from;
    if (!begin(image, first_view + i % N, seed, originals, from, view)) {
        params[i] = view;
        return;
    }
    view.kind = policy.padding < 0 ? RESIZED_CHAINS : PADDED_CHAINS;
    if (policy.padding < 0) {
        draw_crop(view, from, image.w, image.h, policy.crop);
    } else {
        uint4 word = from.words(2);
        view.top = (int)uniform_below(word.z, 2 * policy.padding + 1) - policy.padding;
        view.left = (int)uniform_below(word.w, 2 * policy.padding + 1) - policy.padding;
        view.height = image.h;
        view.width = image.w;
    }
    uint4 word = from.words(12);
    view.mirror = uniform(word.x) < policy.mirror;
    view.depths[0] = 1 + uniform_below(word.y, 3);
    view.depths[1] = 1 + uniform_below(word.z, 3);
    view.depths[2] = 1 + uniform_below(word.w, 3);

    // The lengths that two uniform cuts leave are as Dirichlet(1, 1, 1) has them.
    word = from.words(13);
    float one = uniform(word.y), other = uniform(word.z);
    view.unchanged = uniform(word.x);
    view.weights[0] = fminf(one, other);
    view.weights[1] = fmaxf(one, other) - fminf(one, other);
    view.weights[2] = 1.f - fmaxf(one, other);

    view.chains = 3;
    view.is_bilinear = 1;
    view.fill = policy.fill;
    for (int step = 0; step < STEPS; ++step) {
        if (step % 3 >= view.depths[step / 3]) continue;
        word = from.words(14 + step);
        view.steps[step] = augmix_step(uniform_below(word.x, 9), uniform(word.y, 0.1f, policy.severity), word.z >> 31);
    }
    params[i] = view;
}

// Each operation of torchvision's list at its magnitude, forwards and back.
struct RandAugmentArg {
    float mirror;
    u32 steps, is_bilinear;
    CropRange crop;
    Step space[14][2];
};

// As torchvision's RandAugment, on a resized crop.
extern "C" __global__ void __launch_bounds__(64)
draw_randaugment(const ImageDesc* __restrict__ descs, ViewParams* __restrict__ params, int count, int N,
                 u64 seed, u32 first_view, u64 originals, RandAugmentArg policy) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    const ImageDesc image = descs[i / N];
    ViewParams view = {};
    Source from;
    if (!begin(image, first_view + i % N, seed, originals, from, view)) {
        params[i] = view;
        return;
    }
    view.kind = RESIZED_CHAINS;
    draw_crop(view, from, image.w, image.h, policy.crop);
    view.mirror = uniform(from.words(12).x) < policy.mirror;
    view.chains = 1;
    view.weights[0] = 1.f;
    view.depths[0] = policy.steps;
    view.is_bilinear = policy.is_bilinear;
    params[i] = view;
    for (int step = 0; step < policy.steps; ++step) {
        uint4 word = from.words(14 + step);
        params[i].steps[step] = policy.space[uniform_below(word.x, 14)][word.z >> 31];
    }
}
