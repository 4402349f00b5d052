// The steps of a chain that change pixels, by a CTA, as Pillow does them, bit for bit. The definition in plain loops is
// src/ops/pillow_steps.rs.
//
// Products are not fused into sums where Pillow rounds each: compile with --fmad=false.

#pragma once

#include "affine.cuh"
#include "chain.cuh"
#include "ptx.cuh"

// What a step comes to on a picture of w × h pixels.
struct Move {
    double xx, xy, x0, yx, yy, y0;           // of what is turned or sheared: Image.transform's matrix
    long long fxx, fxy, fx0, fyx, fyy, fy0;  // in fixed point: of 40 bits, from a pixel to one; nearest, of 16, to the pixel's
    u32 operation;
    float factor;
    u32 is_bilinear, fill;
    int right, down;                         // where what is translated comes from
};

__device__ long long fixed40(double v) { return __double2ll_rn(v * 0x1p40); }

__device__ void plan_move(Move& move, const Chain& chain, const Step& step) {
    move.operation = step.operation;
    move.factor = step.argument;
    move.is_bilinear = chain.params->is_bilinear;
    move.fill = chain.params->fill;
    move.right = step.operation == TRANSLATE_X ? chain.shift(step) : 0;
    move.down = step.operation == TRANSLATE_Y ? chain.shift(step) : 0;
    if (step.operation != ROTATE && step.operation != SHEAR_X && step.operation != SHEAR_Y) return;
    double xx = 1.0, xy = 0.0, x0 = 0.0, yx = 0.0, yy = 1.0, y0 = 0.0;
    if (step.operation == SHEAR_X) xy = step.argument;
    if (step.operation == SHEAR_Y) yx = step.argument;
    if (step.operation == ROTATE) {
        double s, c;
        turn_back(step.argument, &s, &c);
        xx = yy = c;
        xy = s;
        yx = -s;
        x0 = c * (-chain.w / 2.0) + s * (-chain.h / 2.0) + chain.w / 2.0;
        y0 = -s * (-chain.w / 2.0) + c * (-chain.h / 2.0) + chain.h / 2.0;
    }
    move.xx = xx;
    move.xy = xy;
    move.x0 = x0;
    move.yx = yx;
    move.yy = yy;
    move.y0 = y0;
    double first_x = x0 + xx * 0.5 + xy * 0.5, first_y = y0 + yx * 0.5 + yy * 0.5;
    if (move.is_bilinear) {
        move.fxx = fixed40(xx);
        move.fxy = fixed40(xy);
        move.fx0 = fixed40(first_x - 0.5);
        move.fyx = fixed40(yx);
        move.fyy = fixed40(yy);
        move.fy0 = fixed40(first_y - 0.5);
    } else {
        move.fxx = fixed(xx);
        move.fxy = fixed(xy);
        move.fx0 = fixed(first_x);
        move.fyx = fixed(yx);
        move.fyy = fixed(yy);
        move.fy0 = fixed(first_y);
    }
}

struct Picture {
    const u32* pixels;
    int w, h;
    __device__ __forceinline__ u32 at(int x, int y) const { return pixels[y * w + x]; }
    __device__ __forceinline__ int column(int x) const { return min(max(x, 0), w - 1); }
    __device__ __forceinline__ int row(int y) const { return min(max(y, 0), h - 1) * w; }
    // Of the four around a place between pixels, of which those outside are the nearest inside.
    __device__ __forceinline__ uint4 around(int left, int top) const {
        int x0 = column(left), x1 = column(left + 1), y0 = row(top), y1 = row(top + 1);
        return make_uint4(pixels[y0 + x0], pixels[y0 + x1], pixels[y1 + x0], pixels[y1 + x1]);
    }
};

// ---------------------------------------------------------------------------------------------------
// Between pixels

// ImagingTransform's BILINEAR, in its own double.
__device__ __forceinline__ u32 bilinear_in_double(const Picture& from, const Move& move, int x, int y) {
    double column = move.xx * (x + 0.5) + move.xy * (y + 0.5) + move.x0;
    double row = move.yx * (x + 0.5) + move.yy * (y + 0.5) + move.y0;
    if (column < 0.0 || column >= from.w || row < 0.0 || row >= from.h) return move.fill;
    column -= 0.5;
    row -= 0.5;
    int left = (int)floor(column), top = (int)floor(row);
    double dx = column - left, dy = row - top;
    uint4 four = from.around(left, top);
    u32 out = 0;
#pragma unroll 1
    for (int shift = 0; shift < 24; shift += 8) {
        int p = four.x >> shift & 255, q = four.y >> shift & 255, r = four.z >> shift & 255, s = four.w >> shift & 255;
        double upper = p + (q - p) * dx, lower = r + (s - r) * dx;
        out |= (u32)(int)(upper + (lower - upper) * dy) << shift;
    }
    return out;
}

// Of two pixels, in parts of 65536: the first one's in the lower half.
__device__ __forceinline__ u32 between(u32 a, u32 b, u32 parts) {
    u32 two = permuted<0x5140>(a, b), last = permuted<0x0062>(a, b);
    u32 red = __dp2a_lo(parts, two, 0u), green = __dp2a_hi(parts, two, 0u), blue = __dp2a_lo(parts, last, 0u);
    return permuted<0x3610>(permuted<0x3362>(red, green), blue);
}

// A row or column that a shear moves along itself: by `offset` whole pixels and a part of one, the same for all its pixels,
// of which `factor` is 65536 times, near enough for every two levels; 0 where none is. `half` is 1 if the part is 1/2 or more.
struct Line { short offset, half; u32 factor; };

// Of one whose first pixel comes from `place`, in units of 2^-40 of a pixel.
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

__device__ __forceinline__ u32 parts_of(const Line& line) { return 65536 - line.factor | line.factor << 16; }

// A warp takes a row.
__device__ __forceinline__ void shear_rows(const Picture& from, const Move& move, const Line* lines, u32* to) {
    for (int y = warp_id(); y < from.h; y += warp_count()) {
        Line line = lines[y];
        u32 parts = parts_of(line);
        int start = y * from.w, offset = line.offset;
        auto edge = [&](int x) {
            u32 out = move.fill;
            if (line.factor == 0) {
                out = bilinear_in_double(from, move, x, y);
            } else if ((u32)(x + offset + line.half) < from.w) {
                out = between(from.pixels[start + from.column(x + offset)], from.pixels[start + from.column(x + offset + 1)], parts);
            }
            to[start + x] = out;
        };
        // From the first column that 32 lanes find neighbours inside from, to the last.
        int x = lane_id(), last = line.factor == 0 ? -1 : min(from.w - 32, from.w - 33 - offset);
#pragma unroll 1
        for (; x - lane_id() < min(max(0, -offset), from.w); x += 32)
            if (x < from.w) edge(x);
        const u32* at = from.pixels + start + offset;
#pragma unroll 4
        for (; x - lane_id() <= last; x += 32) to[start + x] = between(at[x], at[x + 1], parts);
#pragma unroll 1
        for (; x < from.w; x += 32) edge(x);
    }
}

// A warp takes so many rows of 32 columns, down which each pixel is read once.
const int STRIP = 16;

__device__ __forceinline__ void shear_columns(const Picture& from, const Move& move, const Line* lines, u32* to) {
    int across = (from.w + 31) / 32, down = (from.h + STRIP - 1) / STRIP;
    for (int unit = warp_id(); unit < across * down; unit += warp_count()) {
        int x = unit % across * 32 + lane_id(), first = unit / across * STRIP;
        Line line = {};
        if (x < from.w) line = lines[x];
        u32 parts = parts_of(line);
        int top = first + line.offset;
        bool inner = line.factor != 0 && top >= 0 && top + STRIP < from.h && first + STRIP <= from.h;
        if (__all_sync(0xffffffff, inner)) {
            const u32* at = from.pixels + top * from.w + x;
            u32* out = to + first * from.w + x;
            u32 upper = *at;
#pragma unroll 4
            for (int j = 0; j < STRIP; ++j, out += from.w) {
                at += from.w;
                u32 lower = *at;
                *out = between(upper, lower, parts);
                upper = lower;
            }
            continue;
        }
        if (x >= from.w) continue;
#pragma unroll 1
        for (int y = first; y < min(first + STRIP, from.h); ++y, ++top) {
            u32 out = move.fill;
            if (line.factor == 0) {
                out = bilinear_in_double(from, move, x, y);
            } else if ((u32)(top + line.half) < from.h) {
                out = between(from.pixels[from.row(top) + x], from.pixels[from.row(top + 1) + x], parts);
            }
            to[y * from.w + x] = out;
        }
    }
}

// A channel's level between four, of 8 bits and a fraction of 24, and 512 more: of places in fixed point and of what is dropped
// it may be off by 400.
template <int first>
__device__ __forceinline__ u32 between_four(const uint4& four, u32 fx, u32 fy) {
    u32 rest = (1 << 24) - (fx >> 8), part = fx >> 8;
    u32 upper = byte_of<first>(four.x) * rest + byte_of<first>(four.y) * part;
    u32 lower = byte_of<first>(four.z) * rest + byte_of<first>(four.w) * part;
    return __umulhi(upper, 0u - fy) + 512 + __umulhi(lower, fy);
}

// The same of all, in whole numbers; `are_sure` where they are Pillow's, whose double may be on the other side of one that is
// near. Where all four are the same it is not.
__device__ __forceinline__ u32 between_four(const uint4& four, u32 fx, u32 fy, bool& are_sure) {
    u32 red = between_four<0>(four, fx, fy), green = between_four<8>(four, fx, fy), blue = between_four<16>(four, fx, fy);
    if (min(min(red & 0xffffff, green & 0xffffff), blue & 0xffffff) < 1024) {
        u32 differs = (four.x ^ four.y) | (four.x ^ four.z) | (four.x ^ four.w);
        u32 near = ((red & 0xffffff) < 1024 ? 0xff : 0) | ((green & 0xffffff) < 1024 ? 0xff00 : 0) |
                   ((blue & 0xffffff) < 1024 ? 0xff0000 : 0);
        are_sure &= (differs & near) == 0;
    }
    return permuted<0x0710>(permuted<0x0073>(red, green), blue) & 0xffffff;
}

// A warp takes 32 columns of every so many rows.
__device__ __forceinline__ void turn(const Picture& from, const Move& move, u32* to) {
    int first = warp_id(), rows = warp_count(), w = from.w;
    long long down_x = move.fxy * rows, down_y = move.fyy * rows;
    for (int x0 = 0; x0 < w; x0 += 32) {
        int x = x0 + lane_id();
        long long sx = move.fx0 + move.fxx * x + move.fxy * first, sy = move.fy0 + move.fyx * x + move.fyy * first;
        u32* out = to + first * w + x;
        u32 columns = x < w ? w - 1 : 0;
        for (int y = first; y < from.h; y += rows, out += rows * w, sx += down_x, sy += down_y) {
            int left = (int)(sx >> 40), top = (int)(sy >> 40);
            u32 fx = (u32)(sx >> 8), fy = (u32)(sy >> 8), value;
            // A place that is within 2^-25 of a pixel's centre may be on its other side.
            bool are_sure = min(fx + 128, fy + 128) >= 256;
            if (__all_sync(0xffffffff, (u32)left < columns && (u32)top < from.h - 1)) {
                const u32 *upper = from.pixels + (top * w + left), *lower = upper + w;
                value = between_four(make_uint4(upper[0], upper[1], lower[0], lower[1]), fx, fy, are_sure);
            } else {
                if (x >= w) continue;
                are_sure &= min(fx + 0x80000080, fy + 0x80000080) >= 256;  // the edges are half a pixel from centres
                bool inside = (u32)(left + (int)(fx >> 31)) < w && (u32)(top + (int)(fy >> 31)) < from.h;
                value = inside ? between_four(from.around(left, top), fx, fy, are_sure) : move.fill;
            }
            if (!are_sure) value = bilinear_in_double(from, move, x, y);
            *out = value;
        }
    }
}

// ---------------------------------------------------------------------------------------------------
// Whole pixels

// ImageEnhance.Sharpness: blended with ImageFilter.SMOOTH, which leaves the edge as it is.
__device__ __forceinline__ u32 sharpened(const Picture& from, float factor, int x, int y) {
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
__device__ __forceinline__ void each_pixel(const Picture& from, u32* to, F pixel) {
    for (int y = warp_id(); y < from.h; y += warp_count()) {
        for (int x = lane_id(); x < from.w; x += 32) to[y * from.w + x] = pixel(x, y);
    }
}

__device__ __forceinline__ void translate(const Picture& from, const Move& move, u32* to) {
    for (int y = warp_id(); y < from.h; y += warp_count()) {
        bool is_there = (u32)(y + move.down) < from.h;
        int first = is_there ? max(0, -move.right) : from.w, end = min(from.w, from.w - move.right);
        const u32* at = from.pixels + (y + move.down) * from.w + move.right;
        u32* out = to + y * from.w;
        for (int x = lane_id(); x < min(first, from.w); x += 32) out[x] = move.fill;
#pragma unroll 4
        for (int x = first + lane_id(); x < end; x += 32) out[x] = at[x];
        for (int x = max(first, end) + lane_id(); x < from.w; x += 32) out[x] = move.fill;
    }
}

__device__ __forceinline__ void turn_to_nearest(const Picture& from, const Move& move, u32* to) {
    int first = warp_id(), rows = warp_count();
    for (int x = lane_id(); x < from.w; x += 32) {
        int sx = (int)(move.fx0 + move.fxx * x + move.fxy * first), sy = (int)(move.fy0 + move.fyx * x + move.fyy * first);
        for (int y = first; y < from.h; y += rows) {
            int column = sx >> 16, row = sy >> 16;
            to[y * from.w + x] = (u32)column < from.w && (u32)row < from.h ? from.at(column, row) : move.fill;
            sx += (int)move.fxy * rows;
            sy += (int)move.fyy * rows;
        }
    }
}

// The picture with other levels.
__device__ __forceinline__ void put_levels(const u32* from, int count, const u8 (*table)[256], u32* to) {
    u32 entries = shared_address(table);
#pragma unroll 4
    for (int i = threadIdx.x; i < count; i += CHAIN_THREADS) {
        u32 p = from[i];
        u32 red = shared_byte<0>(entries + byte_of<0>(p)), green = shared_byte<256>(entries + byte_of<8>(p));
        to[i] = permuted<0x3410>(permuted<0x3340>(red, green), shared_byte<512>(entries + byte_of<16>(p)));
    }
}

// * `lines`: memory for as many as the picture's longer side has pixels.
__device__ __forceinline__ void change_pixels(const Picture& from, const Move& move, Line* lines, u32* to) {
    switch (move.operation) {
        case COLOR:
            return each_pixel(from, to, [&](int x, int y) {
                Rgb p = unpacked(from.at(x, y));
                return packed(blend(luma(p), p, move.factor));
            });
        case SHARPNESS:
            return each_pixel(from, to, [&](int x, int y) { return sharpened(from, move.factor, x, y); });
        case TRANSLATE_X:
        case TRANSLATE_Y: return translate(from, move, to);
    }
    if (!move.is_bilinear) return turn_to_nearest(from, move, to);
    if (move.operation == ROTATE) return turn(from, move, to);
    bool across = move.operation == SHEAR_X;
    for (int i = threadIdx.x; i < (across ? from.h : from.w); i += blockDim.x)
        lines[i] = line_of(across ? move.fx0 + move.fxy * i : move.fy0 + move.fyx * i);
    __syncthreads();
    if (across) shear_rows(from, move, lines, to);
    else shear_columns(from, move, lines, to);
}
