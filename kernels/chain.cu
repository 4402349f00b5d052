// nvrtc: --fmad=false
// The steps of views' chains: MEMO's AugMix and torchvision's RandAugment, as Pillow and NumPy do them, bit for bit. The
// definition in plain loops is src/ops/chain.rs; shapes are chain.cuh's. Here what begins them, their plans, and the steps that
// change levels; those that change pixels are in move.cu.
//
// Launches: crop_bases where the images are padded, plan_chains, then for each step change_levels and move.cu's change_pixels;
// mix.cu goes on.

#include "affine.cuh"
#include "chain.cuh"

// Grid: (S·N, parts) of 256 threads. torchvision's RandomCrop of the image padded by zeros, and its flip.
extern "C" __global__ void __launch_bounds__(256)
crop_bases(const ImageDesc* __restrict__ descs, const ViewParams* __restrict__ params, Shape shape,
           const u32* __restrict__ sources, u32* __restrict__ bases) {
    int view = blockIdx.x, image = view / shape.N, w = descs[image].w, h = descs[image].h;
    const ViewParams& p = params[view];
    if (w == 0 || p.kind != PADDED_CHAINS) return;
    sources += (size_t)image * shape.area;
    bases += (size_t)view * shape.area;
    for (int y = blockIdx.y * warp_count() + warp_id(); y < h; y += gridDim.y * warp_count()) {
        for (int x = lane_id(); x < w; x += 32) {
            int column = p.left + (p.mirror ? w - 1 - x : x), row = p.top + y;
            bool inside = (u32)column < w && (u32)row < h;
            bases[y * w + x] = inside ? sources[row * w + column] : 0;
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// Steps

__device__ long long fixed40(double v) { return __double2ll_rn(v * 0x1p40); }

// Of what lies at `place` along it, in units of 2^-40 of a pixel: what a shear does to a row.
//
// A level between two, (p·(1 - f) + q·f) rounded down, depends on the part f only by which of the fractions of denominators
// up to 255 are below it. Two neighbours of them are more than 2^-16 apart, so those that f is between have a multiple of
// 2^-16 between them: it is f's own, rounded down, or the next. Euclid's algorithm finds the neighbours; where f is within
// 2^-25 of one, Pillow's double may be on its other side.
__device__ Line line_of(long long place) {
    u32 part = (u32)(place >> 8);
    Line line = {(short)(place >> 40), (short)(part >> 31), 0};
    u32 below = part, above = 0u - part, b = 1, d = 1;  // denominators, and how far b·f and d·f are from whole numbers
    while (b + d <= 255 && below != 0 && above != 0) {
        if (below >= above) {
            u32 times = min(below / above, (255 - b) / d);
            below -= times * above;
            b += times * d;
        } else {
            u32 times = min(above / below, (255 - d) / b);
            above -= times * below;
            d += times * b;
        }
    }
    if (below > 128 * b && above > 128 * d) line.factor = (part >> 16) + (below > b * (part & 0xffff) ? 0 : 1);
    return line;
}

// Grid: (S·N·STEPS), a warp each. A program that this launch has no room for ends it.
extern "C" __global__ void __launch_bounds__(32)
plan_chains(const ImageDesc* __restrict__ descs, const ViewParams* __restrict__ params, Shape shape,
            Plan* __restrict__ plans, Line* __restrict__ lines) {
    int i = blockIdx.x, most = STEPS / shape.L, number = i % STEPS / most, k = i % STEPS % most;
    Chain chain(descs, params, shape, i / STEPS * shape.L + number);
    if (chain.exists && (chain.params->chains != shape.L || chain.depth > most)) __trap();
    Plan plan = {1.0, 0.0, 0.0, 0.0, 1.0, 0.0};
    plan.operation = IDENTITY;
    Step step = chain.steps[k];
    if (chain.exists) {
        plan.begins_levels = k < chain.depth && Chain::changes_levels(step.operation);
        chain.before(k, &plan.times, &plan.has_levels);
        chain.before(chain.depth, &plan.end_times, &plan.end_has_levels);
        plan.begins_levels &= !plan.has_levels;
        plan.w = chain.w;
        plan.h = chain.h;
    }
    if (k < chain.depth) {
        if (step.operation > IDENTITY) __trap();
        if (chain.changes_pixels(step)) plan.operation = step.operation;
    }
    plan.argument = step.argument;
    plan.is_bilinear = chain.params->is_bilinear;
    plan.fill = chain.params->fill;
    if (plan.operation == TRANSLATE_X) plan.right = chain.shift(step);
    if (plan.operation == TRANSLATE_Y) plan.down = chain.shift(step);
    if (plan.operation == SHEAR_X) plan.xy = step.argument;
    if (plan.operation == SHEAR_Y) plan.yx = step.argument;
    if (plan.operation == ROTATE) {
        double s, c;
        turn_back(step.argument, &s, &c);
        plan.xx = plan.yy = c;
        plan.xy = s;
        plan.yx = -s;
        plan.x0 = c * (-chain.w / 2.0) + s * (-chain.h / 2.0) + chain.w / 2.0;
        plan.y0 = -s * (-chain.w / 2.0) + c * (-chain.h / 2.0) + chain.h / 2.0;
    }
    if (plan.is_bilinear) {
        plan.fxx = fixed40(plan.xx);
        plan.fxy = fixed40(plan.xy);
        plan.fx0 = fixed40(plan.x0 + plan.xx * 0.5 + plan.xy * 0.5 - 0.5);
        plan.fyx = fixed40(plan.yx);
        plan.fyy = fixed40(plan.yy);
        plan.fy0 = fixed40(plan.y0 + plan.yx * 0.5 + plan.yy * 0.5 - 0.5);
    } else {
        plan.fxx = fixed(plan.xx);
        plan.fxy = fixed(plan.xy);
        plan.fx0 = fixed(plan.x0 + plan.xx * 0.5 + plan.xy * 0.5);
        plan.fyx = fixed(plan.yx);
        plan.fyy = fixed(plan.yy);
        plan.fy0 = fixed(plan.y0 + plan.yx * 0.5 + plan.yy * 0.5);
    }
    if (lane_id() == 0) plans[i] = plan;
    if (!plan.is_bilinear) return;
    lines += (size_t)i * shape.lines;
    if (plan.operation == SHEAR_X)
        for (int y = lane_id(); y < plan.h; y += 32) lines[y] = line_of(plan.fx0 + plan.fxy * y);
    if (plan.operation == SHEAR_Y)
        for (int x = lane_id(); x < plan.w; x += 32) lines[x] = line_of(plan.fy0 + plan.fyx * x);
}

// ImageOps.autocontrast and .equalize of a channel, of its levels' counts, by a warp: what becomes of each level.
__device__ void spread(bool equalize, const u32* counts, u8* out) {
    u32 sum = 0;
    int low = 256, high = -1;
    for (int i = 0; i < 8; ++i) {
        int level = 8 * lane_id() + i;
        sum += counts[level];
        if (counts[level] == 0) continue;
        low = min(low, level);
        high = level;
    }
    u32 below = sum;  // of the levels up to this lane's last
    for (int delta = 1; delta < 32; delta *= 2) {
        u32 lower = __shfl_up_sync(0xffffffff, below, delta);
        if (lane_id() >= delta) below += lower;
    }
    for (int mask = 16; mask > 0; mask >>= 1) {
        low = min(low, __shfl_xor_sync(0xffffffff, low, mask));
        high = max(high, __shfl_xor_sync(0xffffffff, high, mask));
    }
    u32 step = (__shfl_sync(0xffffffff, below, 31) - counts[high]) / 255;
    u32 before = step / 2 + below - sum;
    double scale = 255.0 / max(high - low, 1), offset = -low * scale;
    for (int i = 0; i < 8; ++i) {
        int level = 8 * lane_id() + i, value = level;
        if (equalize && low < high && step != 0) value = min(before / step, 255u);
        if (!equalize && low < high) value = min(max((int)(level * scale + offset), 0), 255);
        out[level] = value;
        before += counts[level];
    }
}

// What becomes of a picture's levels.
struct Levels {
    u8 table[3][256];    // so far
    u8 changed[3][256];  // of them by one more step
    u32 counts[3][256];  // in the picture itself
    u32 mapped[3][256];  // in what the table makes of it
    u64 luma_sum;
};

__device__ void count_levels(const u32* picture, int count, Levels& is) {
    for (int i = threadIdx.x; i < 768; i += blockDim.x) is.counts[0][i] = 0;
    __syncthreads();
#pragma unroll 4
    for (int i = threadIdx.x; i < count; i += blockDim.x) {
        u32 p = picture[i];
        atomicAdd(&is.counts[0][p & 255], 1u);
        atomicAdd(&is.counts[1][p >> 8 & 255], 1u);
        atomicAdd(&is.counts[2][p >> 16], 1u);
    }
    __syncthreads();
}

// One more step. `counts` are those of the picture if the step goes by them.
__device__ void change(const Step& step, const u32* picture, int count, Levels& is) {
    u8* entries = is.table[0];
    bool spreads = step.operation == AUTOCONTRAST || step.operation == EQUALIZE;
    if (spreads) {
        for (int i = threadIdx.x; i < 768; i += blockDim.x) is.mapped[0][i] = 0;
        __syncthreads();
        for (int i = threadIdx.x; i < 768; i += blockDim.x) atomicAdd(&is.mapped[i >> 8][entries[i]], is.counts[0][i]);
        __syncthreads();
        if (warp_id() < 3) spread(step.operation == EQUALIZE, is.mapped[warp_id()], is.changed[warp_id()]);
    } else if (step.operation == CONTRAST_OF) {
        if (threadIdx.x == 0) is.luma_sum = 0;
        __syncthreads();
        u32 own = 0;
        for (int i = threadIdx.x; i < count; i += blockDim.x) own += (u32)luma(unpacked(with_levels(is.table, picture[i])));
        atomicAdd(&is.luma_sum, (u64)own);
    }
    __syncthreads();
    float mean = step.operation == CONTRAST_OF ? (float)(u32)((2 * is.luma_sum + count) / (2 * (u64)count)) : 0.f;
    u32 mask = ~((1u << (8 - min((u32)step.argument, 8u))) - 1);
    for (int i = threadIdx.x; i < 768; i += blockDim.x) {
        int value = entries[i];
        if (spreads) value = is.changed[i >> 8][value];
        else if (step.operation == POSTERIZE) value &= mask;
        else if (step.operation == SOLARIZE) value = (float)value < step.argument ? value : 255 - value;
        else value = (int)blend(mean, (float)value, step.argument);
        entries[i] = value;
    }
    __syncthreads();
}

// Grid: for step 0 (S·N) of 1024 threads, whose views' chains begin with the same picture, of which the levels are counted
// once; else (S·N·L). Step k of each chain where it is the first to change a picture's levels, and those that follow until
// pixels change.
extern "C" __global__ void __launch_bounds__(1024)
change_levels(const ViewParams* __restrict__ params, Shape shape, int k, const Plan* __restrict__ plans,
              const u32* __restrict__ bases, u32* __restrict__ layers, u8* __restrict__ levels) {
    __shared__ Levels is;
    int chains = k == 0 ? shape.L : 1, most = STEPS / shape.L;
    bool are_counted = false;
    for (int item = blockIdx.x * chains; item < (blockIdx.x + 1) * chains; ++item) {
        const Plan* plan = plans + plan_of(item, shape, k);
        if (!plan->begins_levels) continue;
        const u32* from = picture(bases, layers, item, shape, plan->times);
        const ViewParams& p = params[item / shape.L];
        int count = plan->w * plan->h, number = item % shape.L;
        for (int i = threadIdx.x; i < 768; i += blockDim.x) is.table[0][i] = i;
        __syncthreads();
        for (int next = k; next < p.depths[number] && plan->operation == IDENTITY; ++next, ++plan) {
            const Step step = p.steps[number * most + next];
            if (!Chain::changes_levels(step.operation)) continue;
            if (step.operation <= EQUALIZE && !are_counted) {
                count_levels(from, count, is);
                are_counted = true;
            }
            change(step, from, count, is);
        }
        for (int i = threadIdx.x; i < 768; i += blockDim.x) levels[(size_t)item * 768 + i] = is.table[0][i];
        __syncthreads();
    }
}
