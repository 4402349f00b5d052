// nvrtc: --fmad=false
// Views of a batch's images, and their preprocess, from 8-bit RGB to normalised patches, as Pillow and torchvision do it,
// bit for bit: the definition in plain loops is src/ops/pillow.rs.
//
// Item i of S·N + S is view i % N of image i / N, or from S·N on the original of image i - S·N, which no jitter or
// rotation touches; a view may be an original too. A grid has as many items as are asked for: without originals S·N, without views N = 0 and S. H is the side of a view, K the most weights of an output, max_w and max_h the most of any image.
//
//   descs    (S,) ImageDesc           read
//   pixels   (bytes,) u8              read, (h, w, 3) an image at its offset
//   params   (S, N) ViewParams        read
//   sources  (S, max_w·max_h) u32     (h, w) an image: red, green and blue from the lowest byte
//   views    (items,) View            what the pixel kernels need to know of each item
//   bounds   (items, 2, H) int2       first input and number of inputs of each output, across and down
//   weights  (items, 2, K, H) int     their weights, 22 fractional bits
//   rows     (items, max_rows, H) u32 the crop's rows, resized across; as many as the crop has
//   patches, originals  (S·N, H/P · H/P, 3·P·P) E, and of S items   patches row by row, as far apart as patch.cuh says; in
//                                     each, channel, then row, then column
//   packed   (items, H, H) u32        in the place of patches, of items that chain.cu goes on with
//
// Of views that chain.cu makes from the padded image, nothing is made here. It comes back with the ends of their chains, as
// originals of `LAYERS`.
//
// Launches, in order, of grids that no image's size shows in:
//   plan_views      View, bounds and weights
//   pack_sources    pixels to sources
//   sum_luma        over the rotated image and the jitter before its contrast step: the mean it needs
//   resize_rows     rotation, jitter and crop of rows, then their resize across
//   resize_columns  the resize down, normalised, into patches; zeros where a slot is empty
//   pack_columns    the same, into packed
// All that is not read is written (=). The sums are of integers, so the order of the atomics does not show.
//
// Where Pillow scales down before across, `down_first`, the crop is turned over its diagonal on its way into resize_rows, and
// back on its way out of resize_columns: what is said of its rows is true of its columns there, and its bounds and weights are
// those of down and across.
//
// Each grid has a column of CTAs an item, blockIdx.y its parts. Products are not fused into sums here: Pillow rounds each.

#include "affine.cuh"
#include "element.cuh"
#include "jitter.cuh"
#include "patch.cuh"

struct View {
    u64 luma_sum;     // what contrast sees
    u32 image;        // whose source it is
    int w, h;         // of the source; 0 of an empty slot
    int xx, xy, x0;   // source x = (x0 + xx·x + xy·y) >> 16: rotation, then flips
    int yx, yy, y0;   // source y likewise
    Jitters jitters;  // the steps that change something
    u32 before;       // those of them before contrast, where there is contrast; else all bits set
    int top, left, height, width;
    int down_first;
    int is_packed;
};
static_assert(sizeof(View) == 96, "the host allocates 96 bytes a view");

const u32 LAYERS = 4;  // in the place of the Kind of views that this launch may have besides crops and originals

// How originals are resized: to these sizes, or the short side to `short_side` where that is not 0.
struct Resize { int short_side, width, height, is_bicubic; };

// A level over `divisor`, less the mean of its channel, over its deviation.
struct Scale {
    float divisor, mean[3], std[3];
    __device__ __forceinline__ float number(int level, int channel) const {
        return (level / divisor - mean[channel]) / std[channel];
    }
};

// ---------------------------------------------------------------------------------------------------
// Plans

__device__ double bilinear(double x) { return fabs(x) < 1.0 ? 1.0 - fabs(x) : 0.0; }

__device__ double bicubic(double x) {
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
    if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
    return 0.0;
}

// Bounds and weights of output `o` of a resize from `in` to `out` pixels, into column `column` of an axis's
// H: Pillow's precompute_coeffs and normalize_coeffs_8bpc. `reach` is where the filter ends.
template <double filter(double)>
__device__ void plan_output(int2* bounds, int* weights, int H, int column, int o, int in, int out, double reach) {
    double scale = (double)in / out;
    double stretch = fmax(scale, 1.0), support = reach * stretch, inverse = 1.0 / stretch;
    double center = (o + 0.5) * scale;
    int first = max((int)(center - support + 0.5), 0);
    int count = min((int)(center + support + 0.5), in) - first;
    double sum = 0.0;
    for (int i = 0; i < count; ++i) sum += filter((i + first - center + 0.5) * inverse);
    bounds[column] = make_int2(first, count);
    for (int i = 0; i < count; ++i) {
        double weight = filter((i + first - center + 0.5) * inverse) / sum * (1 << 22);
        weights[i * H + column] = (int)(weight < 0.0 ? weight - 0.5 : weight + 0.5);
    }
}

// Image.rotate about the centre, and the coefficients of its affine_fixed.
// The rotation finds its pixels in the flipped image; a flip of what it finds, w - 1 - (x >> 16), is (w·2^16 - 1 - x) >> 16.
__device__ void plan_rotation(View& view, const ViewParams& p) {
    int w = view.w, h = view.h;
    double s, c;
    turn_back(p.angle, &s, &c);
    double x0 = c * (-w / 2.0) + s * (-h / 2.0) + w / 2.0;
    double y0 = -s * (-w / 2.0) + c * (-h / 2.0) + h / 2.0;
    int mirror_x = p.hflip ? -1 : 1, mirror_y = p.vflip ? -1 : 1;
    view.xx = mirror_x * fixed(c);
    view.xy = mirror_x * fixed(s);
    view.yx = mirror_y * fixed(-s);
    view.yy = mirror_y * fixed(c);
    view.x0 = mirror_x * fixed(x0 + c * 0.5 + s * 0.5) + (p.hflip ? (w << 16) - 1 : 0);
    view.y0 = mirror_y * fixed(y0 - s * 0.5 + c * 0.5) + (p.vflip ? (h << 16) - 1 : 0);
}

__device__ void plan_jitter(View& view, const ViewParams& p) {
    Jitters& by = view.jitters;
    by.brightness = p.brightness;
    by.contrast = p.contrast;
    by.saturation = p.saturation;
    by.hue = (int)(p.hue * 255.0) & 255;
    int place = 0;
    for (int i = 0; i < 4; ++i) {
        int step = p.jitter_order[i];
        bool idle = step == HUE          ? p.hue == 0.f
                    : step == BRIGHTNESS ? p.brightness == 1.f
                    : step == CONTRAST   ? p.contrast == 1.f
                                         : p.saturation == 1.f;
        if (idle) continue;
        if (step == CONTRAST) view.before = by.steps;
        by.steps |= (u32)(step + 1) << place;
        place += 8;
    }
}

__device__ bool inside(const ViewParams& p, int w, int h) {
    return p.left >= 0 && p.top >= 0 && p.width > 0 && p.height > 0 && p.width <= w - p.left && p.height <= h - p.top;
}

// Whether Pillow 13 scales down before across.
__device__ bool is_down_first(int2 from, int2 to) {
    return to.y < from.y && from.y - to.y > 2 * (from.x - to.x);
}

// Grid: (items, ceil(2·H / 128)), 128 threads a CTA: a thread per output of either pass, and an item's first plans
// its pixels too. An image that is larger than the plan, a crop that is not inside its image, and a view whose kind is neither
// ORIGINAL nor `chains`, end the launch.
extern "C" __global__ void __launch_bounds__(128)
plan_views(const ImageDesc* __restrict__ descs, const ViewParams* __restrict__ params, int S, int N, int max_w, int max_h,
           int H, int K, Resize resize, int is_pillow_13, u32 chains, View* __restrict__ views, int2* __restrict__ bounds,
           int* __restrict__ weights) {
    int item = blockIdx.x, i = blockIdx.y * blockDim.x + threadIdx.x;
    bool drawn = item < S * N;
    int image = drawn ? item / N : item - S * N;
    int w = descs[image].w, h = descs[image].h;
    if (w < 0 || w > max_w || h < 0 || h > max_h || (w == 0) != (h == 0)) __trap();
    const ViewParams* p = drawn ? params + item : nullptr;
    u32 kind = drawn ? p->kind : ORIGINAL;
    bool original = kind == ORIGINAL;
    bool packed = w != 0 && (drawn ? kind >= RESIZED_CHAINS : chains == LAYERS), padded = kind == PADDED_CHAINS;
    if (w != 0 && kind != ORIGINAL && kind != chains) __trap();
    if (w != 0 && (kind == CROP || kind == RESIZED_CHAINS) && !inside(*p, w, h)) __trap();
    int2 from = make_int2(w, h), to = make_int2(H, H);
    if (!original) {
        from = make_int2(p->width, p->height);
    } else if (w != 0) {
        int side = resize.short_side, least = min(w, h);
        to = side ? make_int2(side * w / least, side * h / least) : make_int2(resize.width, resize.height);
    }
    bool down_first = is_pillow_13 && is_down_first(from, to);
    if (w != 0 && !padded && i < 2 * H) {
        int pass = i >= H, column = i - pass * H;
        size_t table = (size_t)item * 2 + pass;
        bounds += table * H;
        weights += table * K * H;
        bool down = pass != down_first;
        int in = down ? from.y : from.x, out = down ? to.y : to.x;
        int o = column + __double2int_rn((out - H) / 2.0);  // of a resized original, the centre
        if (!original && !down && p->mirror) o = H - 1 - column;
        if (original && resize.is_bicubic) plan_output<bicubic>(bounds, weights, H, column, o, in, out, 2.0);
        else plan_output<bilinear>(bounds, weights, H, column, o, in, out, 1.0);
    }
    if (i != 0) return;
    View view = {};
    view.image = image;
    view.w = w;
    view.h = h;
    view.before = ~0u;
    view.down_first = down_first;
    view.is_packed = packed;
    if (padded) {
        view.w = view.h = 0;
    } else if (w != 0) {
        view.top = original ? 0 : p->top;
        view.left = original ? 0 : p->left;
        view.height = original ? h : p->height;
        view.width = original ? w : p->width;
        if (original || packed) {
            view.xx = view.yy = 1 << 16;
            view.x0 = view.y0 = 1 << 15;
        } else {
            plan_rotation(view, *p);
            plan_jitter(view, *p);
        }
    }
    views[item] = view;
}

// ---------------------------------------------------------------------------------------------------
// Pixels

// Grid: (S, parts) of 256 threads, which stride over its pixels. Pixels past the end of all end the launch.
extern "C" __global__ void __launch_bounds__(256)
pack_sources(const ImageDesc* __restrict__ descs, const u8* __restrict__ pixels, u64 bytes, int max_pixels,
             u32* __restrict__ sources) {
    int image = blockIdx.x, count = descs[image].w * descs[image].h;
    u64 offset = descs[image].offset, len = 3 * (u64)count;
    if (count != 0 && (offset > bytes || len > bytes - offset)) __trap();
    pixels += offset;
    sources += (size_t)image * max_pixels;
    for (int i = blockIdx.y * blockDim.x + threadIdx.x; i < count; i += gridDim.y * blockDim.x) {
        const u8* p = pixels + 3 * (size_t)i;
        sources[i] = packed(p[0], p[1], p[2]);
    }
}

// Pixels (x, y .. y+R-1) of the flipped and rotated image, of which the first `count` are in it; black where they lie
// outside the source.
template <int R>
__device__ __forceinline__ void rotated(Rgb (&p)[R], const u32* source, const View& view, int x, int y, int count) {
    int sx = view.x0 + view.xx * x + view.xy * y, sy = view.y0 + view.yx * x + view.yy * y;
#pragma unroll
    for (int j = 0; j < R; ++j) {
        u32 column = sx >> 16, row = sy >> 16;
        bool inside = column < view.w && row < view.h && j < count;
        p[j] = unpacked(inside ? source[row * view.w + column] : 0);
        sx += view.xy;
        sy += view.yy;
    }
}

// Grid: (S·N, parts) of 256 threads. A warp takes 4 rows, 32 columns at a time.
extern "C" __global__ void __launch_bounds__(256)
sum_luma(const u32* __restrict__ sources, int max_pixels, View* __restrict__ views) {
    int item = blockIdx.x, warps = gridDim.y * warp_count();
    const View view = views[item];
    if (view.before == ~0u) return;
    sources += (size_t)view.image * max_pixels;
    u32 sum = 0;
    for (int y = 4 * (blockIdx.y * warp_count() + warp_id()); y < view.h; y += 4 * warps) {
        for (int x = lane_id(); x < view.w; x += 32) {
            Rgb p[4];
            rotated(p, sources, view, x, y, view.h - y);
            jitter(p, view.before, view.jitters, 0.f);
            sum += (u32)(luma(p[0]) + luma(p[1]) + (luma(p[2]) + luma(p[3])));  // black stays black
        }
    }
    for (int mask = 16; mask > 0; mask >>= 1) sum += __shfl_xor_sync(0xffffffff, sum, mask);
    if (lane_id() == 0 && sum != 0) atomicAdd(&views[item].luma_sum, (u64)sum);
}

// ---------------------------------------------------------------------------------------------------
// Resize

// Sums of packed pixels under weights, to 8 bits.
struct Sum {
    int r, g, b;
    __device__ __forceinline__ void clear() { r = g = b = 1 << 21; }
    __device__ __forceinline__ void add(int weight, u32 p) {
        r += weight * (int)(p & 255);
        g += weight * (int)(p >> 8 & 255);
        b += weight * (int)(p >> 16);
    }
    static __device__ __forceinline__ int rounded(int sum) { return min(max(sum >> 22, 0), 255); }
    __device__ __forceinline__ int level(int channel) const {
        return rounded(channel == 0 ? r : channel == 1 ? g : b);
    }
};

template <typename T>
__device__ __forceinline__ void swap(T& a, T& b) {
    T c = a;
    a = b;
    b = c;
}

// Grid: (items, parts), which take R rows of the crop at a time. Shared: 4·R bytes for each pixel of the longest row, these
// rows side by side.
template <int R>
__device__ __forceinline__ void
rows_of(const u32* sources, int max_pixels, int max_rows, int H, int K, const View* views,
        const int2* bounds, const int* weights, u32* rows) {
    extern __shared__ uint4 shared[];
    Pack<u32, R>* columns = (Pack<u32, R>*)shared;
    int item = blockIdx.x;
    View view = views[item];
    if (view.down_first) {
        swap(view.xx, view.xy);
        swap(view.yx, view.yy);
        swap(view.top, view.left);
        swap(view.height, view.width);
    }
    u64 count = (u64)view.w * view.h;
    float mean = view.luma_sum == 0 ? 0.f : (float)(u32)((2 * view.luma_sum + count) / (2 * count));
    sources += (size_t)view.image * max_pixels;
    bounds += (size_t)item * 2 * H;
    weights += (size_t)item * 2 * K * H;
    rows += (size_t)item * max_rows * H;
    for (int y = R * blockIdx.y; y < view.height; y += R * gridDim.y) {
        for (int x = threadIdx.x; x < view.width; x += blockDim.x) {
            Rgb p[R];
            rotated(p, sources, view, view.left + x, view.top + y, view.height - y);
            jitter(p, view.jitters.steps, view.jitters, mean);
            Pack<u32, R> column;
#pragma unroll
            for (int j = 0; j < R; ++j) column.x[j] = packed(p[j]);
            columns[x] = column;
        }
        __syncthreads();
        for (int x = threadIdx.x; x < H; x += blockDim.x) {
            int2 inputs = bounds[x];
            Sum sum[R];
#pragma unroll
            for (int j = 0; j < R; ++j) sum[j].clear();
#pragma unroll 1
            for (int k = 0; k < inputs.y; ++k) {
                int weight = weights[k * H + x];
                Pack<u32, R> column = columns[inputs.x + k];
#pragma unroll
                for (int j = 0; j < R; ++j) sum[j].add(weight, column.x[j]);
            }
#pragma unroll
            for (int j = 0; j < R; ++j) {
                if (y + j >= view.height) break;
                rows[(y + j) * H + x] =
                    packed(Sum::rounded(sum[j].r), Sum::rounded(sum[j].g), Sum::rounded(sum[j].b));
            }
        }
        __syncthreads();
    }
}

#define RESIZE_ROWS(NAME, R)                                                                                          \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
    NAME(const u32* __restrict__ sources, int max_pixels, int max_rows, int H, int K,                                 \
         const View* __restrict__ views, const int2* __restrict__ bounds, const int* __restrict__ weights,            \
         u32* __restrict__ rows) {                                                                                    \
        rows_of<R>(sources, max_pixels, max_rows, H, K, views, bounds, weights, rows);                                \
    }

RESIZE_ROWS(resize_rows, 4)
RESIZE_ROWS(resize_rows_wide, 1)  // where four rows do not fit into the shared memory of any GPU

// Grid: (items, H / band), each a band of rows of a row of patches. A thread makes W neighbours at a time, W dividing P, and no
// more than one load has: of further ones each load of a warp would touch all sectors that the next one does.
// block.x threads stride over the columns, block.y over the band's rows. The first `drawn` items are views. A level's number is
// looked up: dividing for each pixel takes longer, and registers that there are not. Items of the other way of writing, `packs`
// or not, are passed over.
template <int W, bool packs>
__device__ __forceinline__ void
columns_of(const u32* rows, int max_rows, int H, int P, int K, int band, const Scale& scale, const View* views,
           const int2* bounds, const int* weights, int drawn, E* patches, E* originals, u32* packed_items) {
    __shared__ float numbers[3][256];
    int item = blockIdx.x, top = blockIdx.y * band;
    if (views[item].is_packed != packs) return;
#pragma unroll
    for (int channel = 0; channel < 3; ++channel) {
        for (int level = threadIdx.y * blockDim.x + threadIdx.x; level < 256 && !packs; level += blockDim.x * blockDim.y)
            numbers[channel][level] = scale.number(level, channel);
    }
    __syncthreads();
    bool empty = views[item].width == 0, turned = views[item].down_first;
    if (empty && packs) return;
    if (packs) packed_items += (size_t)item * H * H;
    bounds += ((size_t)item * 2 + 1) * H + top;
    weights += ((size_t)item * 2 + 1) * K * H + top;
    rows += (size_t)item * max_rows * H;
    E* out = item < drawn ? patches : originals;
    int patch = patch_pitch(P), tiles = H / P;
    out += (size_t)(item < drawn ? item : item - drawn) * (tiles * tiles * patch);
    // Where a row of the band and a column lie among the patches: a step down a patch is P, to the patch below `tiles` of them.
    int to_row = turned ? 1 : P, to_column = turned ? P : 1;
    int to_rows = turned ? patch : tiles * patch, to_columns = turned ? tiles * patch : patch;
    out += top / P * to_rows + top % P * to_row;
    if (!packs && top % P == 0)
        pad_patches(out, P, tiles, to_columns, threadIdx.y * blockDim.x + threadIdx.x, blockDim.x * blockDim.y);
    for (int x = threadIdx.x * W; x < H; x += blockDim.x * W) {
        int place = x / P * to_columns + x % P * to_column;
        for (int y = threadIdx.y; y < band; y += blockDim.y) {
            E* at = out + place + y * to_row;
            if (empty) {
                const float zeros[W] = {};
                for (int channel = 0; channel < 3; ++channel) store_pack(at + channel * P * P, zeros);
                continue;
            }
            Sum sum[W];
#pragma unroll
            for (int i = 0; i < W; ++i) sum[i].clear();
            int2 inputs = bounds[y];
            const u32* row = rows + (size_t)inputs.x * H + x;
#pragma unroll 1
            for (int k = 0; k < inputs.y; ++k) {
                int weight = weights[k * H + y];
                Pack<u32, W> p = *(const Pack<u32, W>*)row;
                row += H;
#pragma unroll
                for (int i = 0; i < W; ++i) sum[i].add(weight, p.x[i]);
            }
            if constexpr (packs) {
                Pack<u32, W> p;
#pragma unroll
                for (int i = 0; i < W; ++i)
                    p.x[i] = packed(Sum::rounded(sum[i].r), Sum::rounded(sum[i].g), Sum::rounded(sum[i].b));
                if (!turned) *(Pack<u32, W>*)(packed_items + (top + y) * H + x) = p;
#pragma unroll
                for (int i = 0; i < W; ++i)
                    if (turned) packed_items[(x + i) * H + top + y] = p.x[i];
            } else {
#pragma unroll
                for (int channel = 0; channel < 3; ++channel, at += P * P) {
                    float value[W];
#pragma unroll
                    for (int i = 0; i < W; ++i) value[i] = numbers[channel][sum[i].level(channel)];
                    if (!turned) {
                        store_pack(at, value);
                        continue;
                    }
#pragma unroll
                    for (int i = 0; i < W; ++i) from_float(at[i * P], value[i]);
                }
            }
        }
    }
}

// Asked for no more than 4 CTAs a multiprocessor, no NVRTC spills a register to have 5 of them.
#define RESIZE_COLUMNS(W)                                                                                             \
    extern "C" __global__ void __launch_bounds__(256, 4)                                                              \
    resize_columns_##W(const u32* __restrict__ rows, int max_rows, int H, int P, int K, int band, Scale scale,        \
                       const View* __restrict__ views, const int2* __restrict__ bounds,                               \
                       const int* __restrict__ weights, int drawn, E* patches, E* originals, u32* packed_items) {     \
        columns_of<W, false>(rows, max_rows, H, P, K, band, scale, views, bounds, weights, drawn, patches, originals, \
                             packed_items);                                                                           \
    }                                                                                                                 \
    extern "C" __global__ void __launch_bounds__(256)                                                                 \
    pack_columns_##W(const u32* __restrict__ rows, int max_rows, int H, int P, int K, int band, Scale scale,          \
                     const View* __restrict__ views, const int2* __restrict__ bounds,                                 \
                     const int* __restrict__ weights, int drawn, E* patches, E* originals, u32* packed_items) {       \
        columns_of<W, true>(rows, max_rows, H, P, K, band, scale, views, bounds, weights, drawn, patches, originals,  \
                            packed_items);                                                                            \
    }

RESIZE_COLUMNS(4)
RESIZE_COLUMNS(2)
RESIZE_COLUMNS(1)
