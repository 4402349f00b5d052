// nvrtc: --fmad=false
// Views of one image, and its CLIP preprocess, from 8-bit RGB to normalised patches, as Pillow and
// torchvision do it, bit for bit: the definition in plain loops is src/ops/pillow.rs.
//
//   source   (h, w, 3) u8      read
//   views    (n,) View         what the pixel kernels need to know of each view
//   bounds   (n, 2, S) int2    first input and number of inputs of each output, across and down
//   weights  (n, 2, K, S) int  their weights, 22 fractional bits
//   rows     (n, h, S) u32     the crop's rows, resized across; as many of the h as the crop has
//   patches  (n, S/P · S/P, 3·P·P) fp32   patches row by row; in each, channel, then row, then column
//
// Launches, in order:
//   plan_views      ViewParams to View, bounds and weights   (or plan_original, for the preprocess)
//   sum_luma        over the rotated image and the jitter before its contrast step: the mean it needs
//   resize_rows     flips, rotation, jitter and crop of a row, then its resize across
//   resize_columns  the resize down, normalised, into patches
// All but the source is written (=). The sums are of integers, so the order of the atomics does not show.
//
// Products are not fused into sums here: Pillow rounds each.

#include "prelude.cuh"
#include "view.cuh"

struct View {
    u64 luma_sum;     // what contrast sees
    u32 hflip, vflip;
    int xx, xy, x0;   // source x = (x0 + xx·x + xy·y) >> 16
    int yx, yy, y0;   // source y likewise
    int jitter[4];    // the steps in order, NONE where a step changes nothing
    float factor[3];  // of brightness, contrast and saturation
    int hue;          // added to the hue modulo 256
    int top, left, height, width;
};
static_assert(sizeof(View) == 88, "the host allocates 88 bytes a view");

struct Rgb { int r, g, b; };

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
// S: Pillow's precompute_coeffs and normalize_coeffs_8bpc. `reach` is where the filter ends.
template <double filter(double)>
__device__ void plan_output(int2* bounds, int* weights, int S, int column, int o, int in, int out,
                            double reach) {
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
        weights[i * S + column] = (int)(weight < 0.0 ? weight - 0.5 : weight + 0.5);
    }
}

// Python's round(v, 15), for |v| <= 1: the product's rounding error decides what looks like a tie.
__device__ double round15(double v) {
    double product = v * 1e15, error = fma(v, 1e15, -product);
    double whole = rint(product), rest = (product - whole) + error;
    if (rest > 0.5) whole += 1.0;
    if (rest < -0.5) whole -= 1.0;
    return whole / 1e15;
}

__device__ int fixed(double v) { return (int)floor(v * 65536.0 + 0.5); }

// Of 0 to 2 pi, within 2 units in the last place: by Taylor series, after taking off whole quarter turns.
__device__ void sine_cosine(double x, double* sine, double* cosine) {
    int quarters = __double2int_rn(x * 0.6366197723675814);
    x = fma(-quarters, 6.123233995736766e-17, fma(-quarters, 1.5707963267948966, x));
    double s = 1.0, c = 1.0;
    for (int n = 18; n > 0; n -= 2) {
        s = 1.0 - x * x / (n * (n + 1)) * s;
        c = 1.0 - x * x / (n * (n - 1)) * c;
    }
    s *= x;
    *sine = quarters & 1 ? c : s;
    *cosine = quarters & 1 ? s : c;
    if (quarters & 2) *sine = -*sine;
    if ((quarters + 1) & 2) *cosine = -*cosine;
}

// Image.rotate about the centre, and the coefficients of its affine_fixed. Its sines are the C library's, which
// may differ from ours in the last bit; rounding to 15 digits and then to 16.16 all but always drops that.
__device__ void plan_rotation(View& view, float degrees, int w, int h) {
    double sine, cosine;
    sine_cosine((degrees < 0.f ? degrees + 360.0 : degrees) * (3.141592653589793 / 180.0), &sine, &cosine);
    double s = -round15(sine), c = round15(cosine);  // of the angle back
    double x0 = c * (-w / 2.0) + s * (-h / 2.0) + w / 2.0;
    double y0 = -s * (-w / 2.0) + c * (-h / 2.0) + h / 2.0;
    view.xx = view.yy = fixed(c);
    view.xy = fixed(s);
    view.yx = fixed(-s);
    view.x0 = fixed(x0 + c * 0.5 + s * 0.5);
    view.y0 = fixed(y0 - s * 0.5 + c * 0.5);
}

// Grid: (2·S threads, n views), 128 threads a CTA: a thread per output of either axis, and a view's first
// plans its pixels too.
extern "C" __global__ void __launch_bounds__(128)
plan_views(const ViewParams* __restrict__ params, int w, int h, int S, int K, View* __restrict__ views,
           int2* __restrict__ bounds, int* __restrict__ weights) {
    const ViewParams& p = params[blockIdx.y];
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < 2 * S) {
        int axis = i >= S, o = i - axis * S, in = axis ? p.height : p.width;
        size_t table = (size_t)blockIdx.y * 2 + axis;
        plan_output<bilinear>(bounds + table * S, weights + table * K * S, S, o, o, in, S, 1.0);
    }
    if (i != 0) return;
    View& view = views[blockIdx.y];
    view.luma_sum = 0;
    view.hflip = p.hflip;
    view.vflip = p.vflip;
    plan_rotation(view, p.angle, w, h);
    view.factor[BRIGHTNESS] = p.brightness;
    view.factor[CONTRAST] = p.contrast;
    view.factor[SATURATION] = p.saturation;
    view.hue = (int)(p.hue * 255.0) & 255;
    for (int step = 0; step < 4; ++step) {
        int jitter = p.jitter_order[step];
        bool idle = jitter == HUE ? p.hue == 0.f : view.factor[jitter] == 1.f;
        view.jitter[step] = idle ? NONE : jitter;
    }
    view.top = p.top;
    view.left = p.left;
    view.height = p.height;
    view.width = p.width;
}

// CLIP's preprocess as a view: nothing happens to the pixels, and the outputs are the centre S × S of a
// resize to (width, height). Grid: 2·S threads, 128 a CTA.
extern "C" __global__ void __launch_bounds__(128)
plan_original(int w, int h, int width, int height, int S, int K, View* __restrict__ views,
              int2* __restrict__ bounds, int* __restrict__ weights) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < 2 * S) {
        int axis = i >= S, column = i - axis * S;
        int in = axis ? h : w, out = axis ? height : width;
        int o = column + __double2int_rn((out - S) / 2.0);
        plan_output<bicubic>(bounds + axis * S, weights + (size_t)axis * K * S, S, column, o, in, out, 2.0);
    }
    if (i != 0) return;
    View view = {};
    view.xx = view.yy = 1 << 16;
    view.x0 = view.y0 = 1 << 15;
    for (int step = 0; step < 4; ++step) view.jitter[step] = NONE;
    view.height = h;
    view.width = w;
    *views = view;
}

// ---------------------------------------------------------------------------------------------------
// Pixels

__device__ __forceinline__ int luma(Rgb p) { return (p.r * 19595 + p.g * 38470 + p.b * 7471 + 0x8000) >> 16; }

// Image.blend: float, clamped, truncated.
__device__ __forceinline__ int blend(int degenerate, int value, float factor) {
    float t = degenerate + factor * (value - degenerate);
    return (int)fminf(fmaxf(t, 0.f), 255.f);
}

// Equals C's round for every value that an 8-bit HSV gives.
__device__ __forceinline__ int round_half_up(double v) { return (int)(v + 0.5); }

// A channel of a saturated colour, by its distance round the wheel in sectors of 60 degrees.
__device__ __forceinline__ int channel(int sector, int high, int falling, int rising, int low) {
    int side = sector < 3 ? falling : rising, flat = sector == 0 || sector == 5 ? high : low;
    return sector == 1 || sector == 4 ? side : flat;
}

// To HSV, around the wheel, and back: in Pillow's mixture of float and double. Selects rather than branches,
// since neighbours differ; what a grey makes of 0 / 0 on the way is not used.
__device__ __forceinline__ Rgb turn_hue(Rgb p, int shift) {
    int high = max(p.r, max(p.g, p.b)), low = min(p.r, min(p.g, p.b));
    float range = high - low;
    float rc = (high - p.r) / range, gc = (high - p.g) / range, bc = (high - p.b) / range;
    float from_green = 2.0 + rc - bc, from_blue = 4.0 + gc - rc;
    float turn = p.r == high ? bc - gc : p.g == high ? from_green : from_blue;
    double wheel = turn / 6.0 + 1.0;  // in [5/6, 11/6]
    turn = wheel >= 1.0 ? wheel - 1.0 : wheel;
    int hue = ((int)(turn * 255.0) + shift) & 255;
    int saturation = (int)(range / max(high, 1) * 255.0);

    double place = hue * 6.0 / 255.0;
    int sector = (int)place;
    float f = place - sector, s = saturation / 255.0;
    int bottom = round_half_up(high * (1.0 - s));
    int falling = round_half_up(high * (1.0 - s * f));
    int rising = round_half_up(high * (1.0 - s * (1.0 - f)));
    if (saturation == 0) return {high, high, high};
    return {channel(sector % 6, high, falling, rising, bottom),
            channel((sector + 4) % 6, high, falling, rising, bottom),
            channel((sector + 2) % 6, high, falling, rising, bottom)};
}

// Pixel (x, y) of the flipped and rotated image; black where that lies outside the source.
__device__ __forceinline__ Rgb rotated(const u8* source, int w, int h, const View& view, int x, int y) {
    int sx = (view.x0 + view.xx * x + view.xy * y) >> 16, sy = (view.y0 + view.yx * x + view.yy * y) >> 16;
    if (sx < 0 || sx >= w || sy < 0 || sy >= h) return {0, 0, 0};
    if (view.hflip) sx = w - 1 - sx;
    if (view.vflip) sy = h - 1 - sy;
    const u8* p = source + 3 * ((size_t)sy * w + sx);
    return {p[0], p[1], p[2]};
}

// The first `steps` jitter steps; `mean` is contrast's grey.
__device__ __forceinline__ Rgb jittered(Rgb p, const View& view, int steps, int mean) {
#pragma unroll 1
    for (int step = 0; step < steps; ++step) {
        int jitter = view.jitter[step];
        if (jitter == HUE) {
            p = turn_hue(p, view.hue);
        } else if (jitter != NONE) {
            int grey = jitter == BRIGHTNESS ? 0 : jitter == CONTRAST ? mean : luma(p);
            float factor = view.factor[jitter];
            p = {blend(grey, p.r, factor), blend(grey, p.g, factor), blend(grey, p.b, factor)};
        }
    }
    return p;
}

// Grid: (any, n views), 256 threads a CTA, which stride over the image's pixels.
extern "C" __global__ void __launch_bounds__(256)
sum_luma(const u8* __restrict__ source, int w, int h, View* __restrict__ views) {
    const View& view = views[blockIdx.y];
    int before = 0;
    while (before < 4 && view.jitter[before] != CONTRAST) ++before;
    if (before == 4) return;
    u32 sum = 0;
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < w * h; i += gridDim.x * blockDim.x) {
        sum += luma(jittered(rotated(source, w, h, view, i % w, i / w), view, before, 0));
    }
    for (int mask = 16; mask > 0; mask >>= 1) sum += __shfl_xor_sync(0xffffffff, sum, mask);
    if (lane_id() == 0) atomicAdd(&views[blockIdx.y].luma_sum, (u64)sum);
}

// ---------------------------------------------------------------------------------------------------
// Resize

__device__ __forceinline__ u32 pack(Rgb p) { return p.r | p.g << 8 | p.b << 16; }

// One output: `count` packed pixels, `stride` apart, under weights that are S apart; rounded to 8 bits.
__device__ __forceinline__ Rgb weighted(const u32* inp, size_t stride, const int* weights, int S, int count) {
    const int half = 1 << 21;
    Rgb sum = {half, half, half};
    for (int k = 0; k < count; ++k) {
        u32 p = inp[k * stride];
        int weight = weights[k * S];
        sum.r += weight * (int)(p & 255);
        sum.g += weight * (int)(p >> 8 & 255);
        sum.b += weight * (int)(p >> 16);
    }
    return {min(max(sum.r >> 22, 0), 255), min(max(sum.g >> 22, 0), 255), min(max(sum.b >> 22, 0), 255)};
}

// Grid: (h rows, n views), 256 threads a CTA; CTAs past the crop's height have nothing to do.
// Shared: 4·w bytes, the crop's row.
extern "C" __global__ void __launch_bounds__(256)
resize_rows(const u8* __restrict__ source, int w, int h, int S, int K, const View* __restrict__ views,
            const int2* __restrict__ bounds, const int* __restrict__ weights, u32* __restrict__ rows) {
    extern __shared__ u32 row[];
    const View& view = views[blockIdx.y];
    int y = blockIdx.x;
    if (y >= view.height) return;
    u64 count = (u64)w * h;
    int mean = (2 * view.luma_sum + count) / (2 * count);
    for (int x = threadIdx.x; x < view.width; x += blockDim.x) {
        row[x] = pack(jittered(rotated(source, w, h, view, view.left + x, view.top + y), view, 4, mean));
    }
    __syncthreads();

    bounds += (size_t)blockIdx.y * 2 * S;
    weights += (size_t)blockIdx.y * 2 * K * S;
    rows += ((size_t)blockIdx.y * h + y) * S;
    for (int x = threadIdx.x; x < S; x += blockDim.x) {
        int2 inputs = bounds[x];
        rows[x] = pack(weighted(row + inputs.x, 1, weights + x, S, inputs.y));
    }
}

// Grid: (patches, n views), 256 threads a CTA.
extern "C" __global__ void __launch_bounds__(256)
resize_columns(const u32* __restrict__ rows, int h, int S, int P, int K, const int2* __restrict__ bounds,
               const int* __restrict__ weights, float* __restrict__ patches) {
    int per_row = S / P, top = blockIdx.x / per_row * P, left = blockIdx.x % per_row * P;
    bounds += ((size_t)blockIdx.y * 2 + 1) * S;
    weights += ((size_t)blockIdx.y * 2 + 1) * K * S;
    rows += (size_t)blockIdx.y * h * S;
    patches += ((size_t)blockIdx.y * gridDim.x + blockIdx.x) * 3 * P * P;
    for (int i = threadIdx.x; i < P * P; i += blockDim.x) {
        int y = top + i / P, x = left + i % P;
        int2 inputs = bounds[y];
        Rgb p = weighted(rows + (size_t)inputs.x * S + x, S, weights + y, S, inputs.y);
        patches[i] = (p.r / 255.f - 0.48145466f) / 0.26862954f;
        patches[P * P + i] = (p.g / 255.f - 0.4578275f) / 0.26130258f;
        patches[2 * P * P + i] = (p.b / 255.f - 0.40821073f) / 0.27577711f;
    }
}
