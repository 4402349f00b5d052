// nvrtc: --fmad=false
// The steps of views' chains that change pixels, as Pillow does them, bit for bit. The definition in plain loops is
// src/ops/chain.rs; shapes are chain.cuh's.
//
// Launches: change_pixels, after chain.cu's change_levels.

#include "chain.cuh"

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

// Which of all warps this one is, and how many there are.
__device__ __forceinline__ int first_row() { return blockIdx.y * warp_count() + warp_id(); }
__device__ __forceinline__ int row_step() { return gridDim.y * warp_count(); }

// ---------------------------------------------------------------------------------------------------
// Between pixels

// ImagingTransform's BILINEAR, in its own double.
template <typename From>
__device__ __forceinline__ u32 bilinear_in_double(const From& from, const Plan& plan, int x, int y) {
    double column = plan.xx * (x + 0.5) + plan.xy * (y + 0.5) + plan.x0;
    double row = plan.yx * (x + 0.5) + plan.yy * (y + 0.5) + plan.y0;
    if (column < 0.0 || column >= from.w || row < 0.0 || row >= from.h) return plan.fill;
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

// Of two pixels, in parts of 65536: the first one's in the lower half.
__device__ __forceinline__ u32 between(u32 a, u32 b, u32 parts) {
    u32 two = __byte_perm(a, b, 0x5140), last = __byte_perm(a, b, 0x0062);
    u32 red = __dp2a_lo(parts, two, 0u), green = __dp2a_hi(parts, two, 0u), blue = __dp2a_lo(parts, last, 0u);
    return __byte_perm(__byte_perm(red, green, 0x3362), blue, 0x3610);
}

__device__ __forceinline__ u32 parts_of(const Line& line) { return 65536 - line.factor | line.factor << 16; }

// A warp takes a row.
template <typename From>
__device__ __forceinline__ void shear_rows(const From& from, const Plan& plan, const Line* lines, u32* to) {
    for (int y = first_row(); y < from.h; y += row_step()) {
        Line line = lines[y];
        u32 parts = parts_of(line);
        int start = y * from.w, offset = line.offset;
        // From where to where 32 neighbours read what is there.
        int inner = max(0, -offset), last = line.factor == 0 ? -1 : min(from.w - 32, from.w - 33 - offset);
        for (int x0 = 0; x0 < from.w; x0 += 32) {
            int x = x0 + lane_id(), left = x + offset;
            u32 out = plan.fill;
            if (x0 >= inner && x0 <= last) {
                out = between(from.at(start + left), from.at(start + left + 1), parts);
            } else if (x >= from.w) {
                continue;
            } else if (line.factor == 0) {
                out = bilinear_in_double(from, plan, x, y);
            } else if ((u32)(left + line.half) < from.w) {
                out = between(from.at(start + from.column(left)), from.at(start + from.column(left + 1)), parts);
            }
            to[start + x] = out;
        }
    }
}

// A warp takes so many rows of 32 columns, down which each pixel is read once.
const int STRIP = 16;

template <typename From>
__device__ __forceinline__ void shear_columns(const From& from, const Plan& plan, const Line* lines, u32* to) {
    int across = (from.w + 31) / 32, down = (from.h + STRIP - 1) / STRIP;
    for (int unit = first_row(); unit < across * down; unit += row_step()) {
        int x = unit % across * 32 + lane_id(), first = unit / across * STRIP;
        Line line = {};
        if (x < from.w) line = lines[x];
        u32 parts = parts_of(line);
        int top = first + line.offset;
        bool inner = line.factor != 0 && top >= 0 && top + STRIP < from.h && first + STRIP <= from.h;
        if (__all_sync(0xffffffff, inner)) {
            int i = top * from.w + x, out = first * from.w + x;
            u32 upper = from.at(i);
#pragma unroll 4
            for (int j = 0; j < STRIP; ++j) {
                i += from.w;
                u32 lower = from.at(i);
                to[out] = between(upper, lower, parts);
                out += from.w;
                upper = lower;
            }
            continue;
        }
        if (x >= from.w) continue;
#pragma unroll 1
        for (int y = first; y < min(first + STRIP, from.h); ++y, ++top) {
            u32 out = plan.fill;
            if (line.factor == 0) {
                out = bilinear_in_double(from, plan, x, y);
            } else if ((u32)(top + line.half) < from.h) {
                out = between(from.at(from.row(top) + x), from.at(from.row(top + 1) + x), parts);
            }
            to[y * from.w + x] = out;
        }
    }
}

// Levels between two in each row and between those, in units of 2^-24, and half of what they may be off by: 400 of positions
// in fixed point and of what is dropped.
__device__ __forceinline__ u32 between_four(u32 a, u32 b, u32 c, u32 d, int shift, u32 fx, u32 fy) {
    u32 p = a >> shift & 255, q = b >> shift & 255, r = c >> shift & 255, s = d >> shift & 255, rest = (1 << 24) - fx;
    return __umulhi(p * rest + q * fx, 0u - fy) + 512 + __umulhi(r * rest + s * fx, fy);
}

// Whether a channel's level is in doubt: it is near a whole number, and the pixels that it is between are not all the same.
__device__ __forceinline__ bool is_doubtful(u32 level, u32 differs) { return (level & 0xffffff) < 1024 && differs != 0; }

template <typename From>
__device__ __forceinline__ void turn(const From& from, const Plan& plan, u32* to) {
    int first = first_row(), rows = row_step();
    for (int x0 = 0; x0 < from.w; x0 += 32) {
        int x = x0 + lane_id();
        long long sx = plan.fx0 + plan.fxx * x + plan.fxy * first, sy = plan.fy0 + plan.fyx * x + plan.fyy * first;
        for (int y = first; y < from.h; y += rows) {
            int left = (int)(sx >> 40), top = (int)(sy >> 40);
            u32 fx = (u32)(sx >> 8), fy = (u32)(sy >> 8);
            sx += plan.fxy * rows;
            sy += plan.fyy * rows;
            // A place that is within 2^-25 of a pixel's centre may be on its other side.
            bool is_clear = min(fx + 128, fy + 128) >= 256;
            bool inner = x < from.w && (u32)left < from.w - 1 && (u32)top < from.h - 1;
            int upper0 = top * from.w + left, upper1 = upper0 + 1, lower0 = upper0 + from.w, lower1 = lower0 + 1;
            if (!__all_sync(0xffffffff, inner)) {
                if (x >= from.w) continue;
                // The edges are half a pixel from centres.
                is_clear &= min(fx + 0x80000080, fy + 0x80000080) >= 256;
                if (is_clear && ((u32)(left + (int)(fx >> 31)) >= from.w || (u32)(top + (int)(fy >> 31)) >= from.h)) {
                    to[y * from.w + x] = plan.fill;
                    continue;
                }
                int x1 = from.column(left), x2 = from.column(left + 1), y1 = from.row(top), y2 = from.row(top + 1);
                upper0 = y1 + x1;
                upper1 = y1 + x2;
                lower0 = y2 + x1;
                lower1 = y2 + x2;
            }
            u32 a = from.at(upper0), b = from.at(upper1), c = from.at(lower0), d = from.at(lower1);
            u32 red = between_four(a, b, c, d, 0, fx >> 8, fy), green = between_four(a, b, c, d, 8, fx >> 8, fy);
            u32 blue = between_four(a, b, c, d, 16, fx >> 8, fy);
            u32 out = __byte_perm(__byte_perm(red, green, 0x0073), blue, 0x0710) & 0xffffff;
            bool doubtful = !is_clear;
            if (min(min(red & 0xffffff, green & 0xffffff), blue & 0xffffff) < 1024) {
                u32 differs = (a ^ b) | (a ^ c) | (a ^ d);
                doubtful |= is_doubtful(red, differs & 0xff) || is_doubtful(green, differs & 0xff00) ||
                            is_doubtful(blue, differs & 0xff0000);
            }
            if (doubtful) out = bilinear_in_double(from, plan, x, y);
            to[y * from.w + x] = out;
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// Whole pixels

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

// Pixels that `pixel` makes of their places.
template <typename F>
__device__ __forceinline__ void each_pixel(const Plan& plan, u32* to, F pixel) {
    for (int x = lane_id(); x < plan.w; x += 32) {
        for (int y = first_row(); y < plan.h; y += row_step()) to[y * plan.w + x] = pixel(x, y);
    }
}

template <typename From>
__device__ __forceinline__ void translate(const From& from, const Plan& plan, u32* to) {
    int right = plan.right, inner = max(0, -right), last = min(from.w - 32, from.w - 32 - right);
    for (int y = first_row(); y < from.h; y += row_step()) {
        bool is_there = (u32)(y + plan.down) < from.h;
        int start = (y + plan.down) * from.w + right;
        for (int x0 = 0; x0 < from.w; x0 += 32) {
            int x = x0 + lane_id();
            u32 out = plan.fill;
            if (is_there && x0 >= inner && x0 <= last) {
                out = from.at(start + x);
            } else if (x >= from.w) {
                continue;
            } else if (is_there && (u32)(x + right) < from.w) {
                out = from.at(start + x);
            }
            to[y * from.w + x] = out;
        }
    }
}

template <typename From>
__device__ __forceinline__ void turn_to_nearest(const From& from, const Plan& plan, u32* to) {
    int first = first_row(), rows = row_step();
    for (int x = lane_id(); x < from.w; x += 32) {
        int sx = (int)(plan.fx0 + plan.fxx * x + plan.fxy * first), sy = (int)(plan.fy0 + plan.fyx * x + plan.fyy * first);
        for (int y = first; y < from.h; y += rows) {
            int column = sx >> 16, row = sy >> 16;
            to[y * from.w + x] = (u32)column < from.w && (u32)row < from.h ? from.at(column, row) : plan.fill;
            sx += (int)plan.fxy * rows;
            sy += (int)plan.fyy * rows;
        }
    }
}

template <bool has_levels>
__device__ __forceinline__ void
change(const u32* pixels, const u8 (*table)[256], const Plan& plan, const Line* lines, u32* to) {
    Picture<has_levels> from = {pixels, table, plan.w, plan.h};
    float factor = plan.argument;
    switch (plan.operation) {
        case COLOR:
            return each_pixel(plan, to, [&](int x, int y) {
                Rgb p = unpacked(from.at(x, y));
                return packed(blend(luma(p), p, factor));
            });
        case SHARPNESS: return each_pixel(plan, to, [&](int x, int y) { return sharpened(from, factor, x, y); });
        case TRANSLATE_X:
        case TRANSLATE_Y: return translate(from, plan, to);
    }
    if (!plan.is_bilinear) return turn_to_nearest(from, plan, to);
    if (plan.operation == SHEAR_X) return shear_rows(from, plan, lines, to);
    if (plan.operation == SHEAR_Y) return shear_columns(from, plan, lines, to);
    turn(from, plan, to);
}

// Grid: (S·N·L, parts) of 256 threads. Step k of each chain where it changes pixels.
extern "C" __global__ void __launch_bounds__(256, 2)
change_pixels(Shape shape, int k, const Plan* __restrict__ plans, const Line* __restrict__ lines, const u32* bases,
              u32* layers, u8* levels) {
    __shared__ u8 table[3][256];
    int item = blockIdx.x;
    size_t place = plan_of(item, shape, k);
    const Plan& plan = plans[place];
    if (plan.operation == IDENTITY) return;
    const u32* from = picture(bases, layers, item, shape, plan.times);
    u32* to = picture(layers, item, shape, plan.times + 1);
    lines += place * shape.lines;
    if (!plan.has_levels) {
        change<false>(from, nullptr, plan, lines, to);
        return;
    }
    for (int i = threadIdx.x; i < 768; i += blockDim.x) table[0][i] = levels[(size_t)item * 768 + i];
    __syncthreads();
    change<true>(from, table, plan, lines, to);
}
