// nvrtc: --fmad=false
// The steps of views' chains: MEMO's AugMix and torchvision's RandAugment, as Pillow and NumPy do them, bit for bit. The
// definition in plain loops is src/ops/chain.rs; shapes are chain.cuh's.
//
//   plans   (S·N, STEPS) Plan       where a step's pixels come from
//
// Launches: crop_bases where the images are padded, plan_chains, then for each step change_levels and change_pixels; mix.cu
// goes on.

#include "affine.cuh"
#include "chain.cuh"

struct Plan {
    double xx, xy, x0, yx, yy, y0;            // Image.transform's matrix
    long long fxx, fxy, fx0, fyx, fyy, fy0;   // in fixed point: of 40 bits, from a pixel to one; nearest, of 16, to the pixel's
};
static_assert(sizeof(Plan) == 96, "the host allocates 96 bytes a step");

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

// Grid: a thread for each of `count` = S·N·STEPS. A program that this launch has no room for ends it.
extern "C" __global__ void __launch_bounds__(128)
plan_chains(const ImageDesc* __restrict__ descs, const ViewParams* __restrict__ params, Shape shape, int count,
            Plan* __restrict__ plans) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= count) return;
    int most = STEPS / shape.L, number = i % STEPS / most, k = i % STEPS % most;
    Chain chain(descs, params, shape, i / STEPS * shape.L + number);
    if (!chain.exists) return;
    if (chain.params->chains != shape.L || chain.depth > most) __trap();
    if (k >= chain.depth) return;
    Step step = chain.steps[k];
    if (step.operation > IDENTITY) __trap();
    if (step.operation != ROTATE && step.operation != SHEAR_X && step.operation != SHEAR_Y) return;
    Plan plan = {1.0, 0.0, 0.0, 0.0, 1.0, 0.0};
    if (step.operation == SHEAR_X) plan.xy = step.argument;
    if (step.operation == SHEAR_Y) plan.yx = step.argument;
    if (step.operation == ROTATE) {
        double s, c;
        turn_back(step.argument, &s, &c);
        plan.xx = plan.yy = c;
        plan.xy = s;
        plan.yx = -s;
        plan.x0 = c * (-chain.w / 2.0) + s * (-chain.h / 2.0) + chain.w / 2.0;
        plan.y0 = -s * (-chain.w / 2.0) + c * (-chain.h / 2.0) + chain.h / 2.0;
    }
    if (chain.params->is_bilinear) {
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
    plans[i] = plan;
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

// Grid: (S·N·L) of 512 threads. Step k of each chain where it changes levels.
extern "C" __global__ void __launch_bounds__(512)
change_levels(const ImageDesc* __restrict__ descs, const ViewParams* __restrict__ params, Shape shape, int k,
              const u32* __restrict__ bases, u32* __restrict__ layers, u8* __restrict__ levels) {
    __shared__ u8 table[3][256], changed[3][256];
    __shared__ u32 counts[3][256];
    __shared__ u64 sum;
    Chain chain(descs, params, shape, blockIdx.x);
    if (k >= chain.depth || !Chain::changes_levels(chain.steps[k].operation)) return;
    Step step = chain.steps[k];
    int times;
    bool has_levels;
    chain.before(k, &times, &has_levels);
    const u32* from = picture(bases, layers, chain, shape, times);
    u8* to = levels_of(levels, chain, shape);
    u8* entries = table[0];
    for (int i = threadIdx.x; i < 768; i += blockDim.x) {
        entries[i] = has_levels ? to[i] : i & 255;
        counts[0][i] = 0;
    }
    if (threadIdx.x == 0) sum = 0;
    __syncthreads();

    int count = chain.w * chain.h;
    bool spreads = step.operation == AUTOCONTRAST || step.operation == EQUALIZE;
    if (spreads) {
        for (int i = threadIdx.x; i < count; i += blockDim.x) {
            u32 p = with_levels(table, from[i]);
            atomicAdd(&counts[0][p & 255], 1u);
            atomicAdd(&counts[1][p >> 8 & 255], 1u);
            atomicAdd(&counts[2][p >> 16], 1u);
        }
        __syncthreads();
        if (warp_id() < 3) spread(step.operation == EQUALIZE, counts[warp_id()], changed[warp_id()]);
        __syncthreads();
    } else if (step.operation == CONTRAST_OF) {
        u32 own = 0;
        for (int i = threadIdx.x; i < count; i += blockDim.x) own += (u32)luma(unpacked(with_levels(table, from[i])));
        atomicAdd(&sum, (u64)own);
        __syncthreads();
    }
    float mean = step.operation == CONTRAST_OF ? (float)(u32)((2 * sum + count) / (2 * (u64)count)) : 0.f;
    u32 mask = ~((1u << (8 - min((u32)step.argument, 8u))) - 1);
    for (int i = threadIdx.x; i < 768; i += blockDim.x) {
        int value = entries[i];
        if (spreads) value = changed[i >> 8][value];
        else if (step.operation == POSTERIZE) value &= mask;
        else if (step.operation == SOLARIZE) value = (float)value < step.argument ? value : 255 - value;
        else value = (int)blend(mean, (float)value, step.argument);
        to[i] = value;
    }
}

// A picture, read through a table of levels.
template <bool has_levels>
struct Picture {
    const u32* pixels;
    const u8 (*table)[256];
    int w, h;
    __device__ __forceinline__ u32 at(int i) const { return has_levels ? with_levels(table, pixels[i]) : pixels[i]; }
    __device__ __forceinline__ u32 at(int x, int y) const { return at(y * w + x); }
    __device__ __forceinline__ int column(int x) const { return min(max(x, 0), w - 1); }
    __device__ __forceinline__ int row(int y) const { return min(max(y, 0), h - 1) * w; }
};

// Whether what is within 2^-25 of a fraction of 2^-32 is on the same side of 0 and of 1/2.
__device__ __forceinline__ bool is_clear(u32 fraction) { return (fraction + 128 & 0x7fffffff) >= 256; }

// ImagingTransform's BILINEAR, in its own double.
template <typename From>
__device__ __forceinline__ u32 bilinear_in_double(const From& from, const Plan& plan, u32 fill, int x, int y) {
    double column = plan.xx * (x + 0.5) + plan.xy * (y + 0.5) + plan.x0;
    double row = plan.yx * (x + 0.5) + plan.yy * (y + 0.5) + plan.y0;
    if (column < 0.0 || column >= from.w || row < 0.0 || row >= from.h) return fill;
    column -= 0.5;
    row -= 0.5;
    int left = (int)floor(column), top = (int)floor(row);
    double dx = column - left, dy = row - top;
    int x0 = from.column(left), x1 = from.column(left + 1), y0 = from.row(top), y1 = from.row(top + 1);
    u32 a = from.at(y0 + x0), b = from.at(y0 + x1), c = from.at(y1 + x0), d = from.at(y1 + x1), out = 0;
#pragma unroll 1
    for (int shift = 0; shift < 24; shift += 8) {
        int p = a >> shift & 255, q = b >> shift & 255, r = c >> shift & 255, s = d >> shift & 255;
        double upper = p + (q - p) * dx, lower = r + (s - r) * dx;
        out |= (u32)(int)(upper + (lower - upper) * dy) << shift;
    }
    return out;
}

// Which taps there are besides the first: an axis along which a shear does not move is exact.
enum Taps { ACROSS = 1, DOWN = 2, BOTH = 3 };

// The same, of a place in fixed point: in float, whose errors stay below 2^-14 here, where no whole level and no edge is so
// near that they could tell.
template <int taps, typename From>
__device__ __forceinline__ u32 bilinear(const From& from, const Plan& plan, long long sx, long long sy, u32 fill, int x, int y) {
    int left = (int)(sx >> 40), top = (int)(sy >> 40);
    u32 fx = (u32)(sx >> 8), fy = (u32)(sy >> 8);
    bool sure = (!(taps & ACROSS) || is_clear(fx)) && (!(taps & DOWN) || is_clear(fy));
    bool inside = (u32)(left + (int)(fx >> 31)) < from.w && (u32)(top + (int)(fy >> 31)) < from.h;
    u32 out = fill;
    if (inside && sure) {
        float dx = fx * 0x1p-32f, dy = fy * 0x1p-32f;
        int x0 = from.column(left), y0 = from.row(top);
        int x1 = taps & ACROSS ? from.column(left + 1) : x0, y1 = taps & DOWN ? from.row(top + 1) : y0;
        u32 a = from.at(y0 + x0), b = from.at(y1 + x1);
        u32 c = taps == BOTH ? from.at(y1 + x0) : a, d = taps == BOTH ? from.at(y0 + x1) : b;
        u32 differs = (a ^ b) | (a ^ c) | (a ^ d);
        out = 0;
#pragma unroll
        for (int shift = 0; shift < 24; shift += 8) {
            float p = a >> shift & 255, q = b >> shift & 255, r = c >> shift & 255, s = d >> shift & 255, value;
            if (taps == BOTH) {
                float upper = fmaf(s - p, dx, p), lower = fmaf(q - r, dx, r);
                value = fmaf(lower - upper, dy, upper);
            } else {
                value = fmaf(q - p, taps == ACROSS ? dx : dy, p);
            }
            int level = (int)value;
            float rest = value - (float)level;
            sure &= (differs >> shift & 255) == 0 || fabsf(rest - 0.5f) < 0.5f - 0x1p-13f;
            out |= (u32)level << shift;
        }
    }
    return sure ? out : bilinear_in_double(from, plan, fill, x, y);
}

// ImageEnhance.Sharpness: blended with ImageFilter.SMOOTH, which leaves the edge as it is.
template <typename From>
__device__ __forceinline__ u32 sharpened(const From& from, float factor, int x, int y) {
    u32 p = from.at(x, y);
    if (x == 0 || y == 0 || x == from.w - 1 || y == from.h - 1) return p;
    u32 r = 4 * (p & 255), g = 4 * (p >> 8 & 255), b = 4 * (p >> 16);
#pragma unroll
    for (int i = 0; i < 9; ++i) {
        u32 q = from.at(x + i % 3 - 1, y + i / 3 - 1);
        r += q & 255;
        g += q >> 8 & 255;
        b += q >> 16;
    }
    Rgb smooth = {(float)((2 * r + 13) / 26), (float)((2 * g + 13) / 26), (float)((2 * b + 13) / 26)}, own = unpacked(p);
    return packed(Rgb{blend(smooth.r, own.r, factor), blend(smooth.g, own.g, factor), blend(smooth.b, own.b, factor)});
}

// Pixels that `pixel` makes of their places: a warp takes 32 columns and every so many rows.
template <typename F>
__device__ __forceinline__ void each_pixel(const Chain& chain, u32* to, F pixel) {
    int first = blockIdx.y * warp_count() + warp_id(), rows = gridDim.y * warp_count();
    for (int x = lane_id(); x < chain.w; x += 32) {
        for (int y = first; y < chain.h; y += rows) to[y * chain.w + x] = pixel(x, y);
    }
}

// The same by a plan; `place` makes them of places in its fixed point.
template <typename F>
__device__ __forceinline__ void each_place(const Chain& chain, const Plan& plan, u32* to, F place) {
    int first = blockIdx.y * warp_count() + warp_id(), rows = gridDim.y * warp_count();
    for (int x = lane_id(); x < chain.w; x += 32) {
        long long sx = plan.fx0 + plan.fxx * x + plan.fxy * first, sy = plan.fy0 + plan.fyx * x + plan.fyy * first;
        for (int y = first; y < chain.h; y += rows) {
            to[y * chain.w + x] = place(sx, sy, x, y);
            sx += plan.fxy * rows;
            sy += plan.fyy * rows;
        }
    }
}

template <bool has_levels>
__device__ __forceinline__ void change(const u32* pixels, const u8 (*table)[256], const Chain& chain, const Step& step,
                                       const Plan& plan, u32* to) {
    Picture<has_levels> from = {pixels, table, chain.w, chain.h};
    u32 fill = chain.params->fill;
    bool is_bilinear = chain.params->is_bilinear;
    float factor = step.argument;
    if (step.operation == COLOR) {
        each_pixel(chain, to, [&](int x, int y) {
            Rgb p = unpacked(from.at(x, y));
            return packed(blend(luma(p), p, factor));
        });
    } else if (step.operation == SHARPNESS) {
        each_pixel(chain, to, [&](int x, int y) { return sharpened(from, factor, x, y); });
    } else if (step.operation == TRANSLATE_X || step.operation == TRANSLATE_Y) {
        int shift = chain.shift(step), right = step.operation == TRANSLATE_X ? shift : 0, down = shift - right;
        each_pixel(chain, to, [&](int x, int y) {
            return (u32)(x + right) < from.w && (u32)(y + down) < from.h ? from.at(x + right, y + down) : fill;
        });
    } else if (!is_bilinear) {
        each_place(chain, plan, to, [&](long long sx, long long sy, int, int) {
            int column = (int)sx >> 16, row = (int)sy >> 16;
            return (u32)column < from.w && (u32)row < from.h ? from.at(column, row) : fill;
        });
    } else if (step.operation == SHEAR_X) {
        each_place(chain, plan, to, [&](long long sx, long long sy, int x, int y) {
            return bilinear<ACROSS>(from, plan, sx, sy, fill, x, y);
        });
    } else if (step.operation == SHEAR_Y) {
        each_place(chain, plan, to, [&](long long sx, long long sy, int x, int y) {
            return bilinear<DOWN>(from, plan, sx, sy, fill, x, y);
        });
    } else {
        each_place(chain, plan, to, [&](long long sx, long long sy, int x, int y) {
            return bilinear<BOTH>(from, plan, sx, sy, fill, x, y);
        });
    }
}

// Grid: (S·N·L, parts) of 256 threads. Step k of each chain where it changes pixels.
extern "C" __global__ void __launch_bounds__(256, 2)
change_pixels(const ImageDesc* __restrict__ descs, const ViewParams* __restrict__ params, Shape shape, int k,
              const Plan* __restrict__ plans, const u32* bases, u32* layers, u8* levels) {
    __shared__ u8 table[3][256];
    Chain chain(descs, params, shape, blockIdx.x);
    if (k >= chain.depth || !chain.changes_pixels(chain.steps[k])) return;
    int times;
    bool has_levels;
    chain.before(k, &times, &has_levels);
    const u32* from = picture(bases, layers, chain, shape, times);
    u32* to = picture(layers, chain, shape, times + 1);
    const Step step = chain.steps[k];
    const Plan& plan = plans[(size_t)chain.view * STEPS + chain.number * (STEPS / shape.L) + k];
    if (!has_levels) {
        change<false>(from, nullptr, chain, step, plan, to);
        return;
    }
    const u8* entries = levels_of(levels, chain, shape);
    for (int i = threadIdx.x; i < 768; i += blockDim.x) table[0][i] = entries[i];
    __syncthreads();
    change<true>(from, table, chain, step, plan, to);
}
