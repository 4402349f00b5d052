// Kernels of many kinds, written for one thing: how many registers a thread of them takes. `table.txt` has what
// `ptxas` gave each; nobody runs them.

typedef unsigned int u32;
typedef unsigned long long u64;
#define KERNEL(threads) extern "C" __global__ void __launch_bounds__(threads)

__device__ inline float warp_sum(float x) {
    for (int i = 16; i > 0; i >>= 1) x += __shfl_xor_sync(~0u, x, i);
    return x;
}

__device__ inline float warp_max(float x) {
    for (int i = 16; i > 0; i >>= 1) x = fmaxf(x, __shfl_xor_sync(~0u, x, i));
    return x;
}

// Element by element.

KERNEL(256) axpy(const float* x, float* y, float a, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] = a * x[i] + y[i];
}

KERNEL(256) axpy_strided(const float4* x, float4* y, float a, int n) {
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
        float4 u = x[i], v = y[i];
        y[i] = make_float4(a * u.x + v.x, a * u.y + v.y, a * u.z + v.z, a * u.w + v.w);
    }
}

KERNEL(128) gelu_tanh(const float* x, float* y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float u = x[i];
    y[i] = 0.5f * u * (1 + tanhf(0.79788456f * (u + 0.044715f * u * u * u)));
}

KERNEL(256) adam(float* w, const float* g, float* m, float* v, float rate, float b1, float b2, float eps, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float gi = g[i], mi = b1 * m[i] + (1 - b1) * gi, vi = b2 * v[i] + (1 - b2) * gi * gi;
    m[i] = mi, v[i] = vi, w[i] -= rate * mi / (sqrtf(vi) + eps);
}

KERNEL(256) black_scholes(const float* price, const float* strike, const float* years, float* call, float* put, float r, float v, int n) {
    for (int i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) {
        float s = price[i], x = strike[i], t = years[i], q = sqrtf(t);
        float d1 = (logf(s / x) + (r + 0.5f * v * v) * t) / (v * q), d2 = d1 - v * q;
        float n1 = 0.5f * erfcf(-d1 * 0.70710678f), n2 = 0.5f * erfcf(-d2 * 0.70710678f), e = expf(-r * t);
        call[i] = s * n1 - x * e * n2;
        put[i] = x * e * (1 - n2) - s * (1 - n1);
    }
}

KERNEL(256) mandelbrot(u32* out, int width, int height, double x0, double y0, double step, int most) {
    int x = blockIdx.x * 16 + threadIdx.x % 16, y = blockIdx.y * 16 + threadIdx.x / 16;
    if (x >= width || y >= height) return;
    double cx = x0 + x * step, cy = y0 + y * step, a = 0, b = 0;
    int k = 0;
    for (; k < most && a * a + b * b < 4; k++) {
        double t = a * a - b * b + cx;
        b = 2 * a * b + cy, a = t;
    }
    out[y * width + x] = k;
}

KERNEL(256) sines(const double* x, double* y, int n) {
    int i = blockIdx.x * 256 + threadIdx.x;
    if (i < n) y[i] = sin(x[i]) + exp(-x[i] * x[i]);
}

KERNEL(256) polynomial(const double* x, double* y, int n) {
    int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= n) return;
    double t = x[i], s = 0;
#pragma unroll
    for (int k = 24; k >= 0; k--) s = s * t + 1.0 / (k * k + 1);
    y[i] = s;
}

KERNEL(256) yuv(const uchar4* rgb, unsigned char* y, unsigned char* u, unsigned char* v, int n) {
    int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= n) return;
    uchar4 p = rgb[i];
    y[i] = (66 * p.x + 129 * p.y + 25 * p.z + 4224) >> 8;
    u[i] = (-38 * p.x - 74 * p.y + 112 * p.z + 32896) >> 8;
    v[i] = (112 * p.x - 94 * p.y - 18 * p.z + 32896) >> 8;
}

// Reductions and scans.

KERNEL(256) sum_atomic(const float* x, float* out, int n) {
    float s = 0;
    for (int i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) s += x[i];
    s = warp_sum(s);
    if (threadIdx.x % 32 == 0) atomicAdd(out, s);
}

KERNEL(1024) sum_block(const float* x, float* out, int n) {
    __shared__ float parts[32];
    float s = 0;
    for (int i = threadIdx.x; i < n; i += 1024) s += x[(u64)blockIdx.x * n + i];
    s = warp_sum(s);
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = s;
    __syncthreads();
    if (threadIdx.x < 32) {
        s = warp_sum(parts[threadIdx.x]);
        if (threadIdx.x == 0) out[blockIdx.x] = s;
    }
}

KERNEL(256) dot_double(const double* x, const double* y, double* out, int n) {
    __shared__ double parts[256];
    double s = 0, c = 0;
    for (int i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) {
        double t = x[i] * y[i] - c, u = s + t;
        c = (u - s) - t, s = u;
    }
    parts[threadIdx.x] = s;
    __syncthreads();
    for (int k = 128; k > 0; k >>= 1) {
        if (threadIdx.x < k) parts[threadIdx.x] += parts[threadIdx.x + k];
        __syncthreads();
    }
    if (threadIdx.x == 0) out[blockIdx.x] = parts[0];
}

KERNEL(256) variance(const float* x, float2* out, int n) {
    float mean = 0, m2 = 0, count = 0;
    for (int i = threadIdx.x; i < n; i += 256) {
        float v = x[blockIdx.x * n + i], d = v - mean;
        count += 1, mean += d / count, m2 += d * (v - mean);
    }
    for (int i = 16; i > 0; i >>= 1) {
        float c = __shfl_down_sync(~0u, count, i), m = __shfl_down_sync(~0u, mean, i), q = __shfl_down_sync(~0u, m2, i);
        float all = count + c, d = m - mean;
        if (all > 0) mean += d * c / all, m2 += q + d * d * count * c / all, count = all;
    }
    if (threadIdx.x % 32 == 0) out[blockIdx.x * 8 + threadIdx.x / 32] = make_float2(mean, m2);
}

KERNEL(256) scan_block(const u32* x, u32* y, u32* sums, int n) {
    __shared__ u32 parts[8];
    int i = blockIdx.x * 256 + threadIdx.x, lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    u32 v = i < n ? x[i] : 0, s = v;
    for (int k = 1; k < 32; k <<= 1) {
        u32 t = __shfl_up_sync(~0u, s, k);
        if (lane >= k) s += t;
    }
    if (lane == 31) parts[warp] = s;
    __syncthreads();
    u32 before = 0;
    for (int k = 0; k < warp; k++) before += parts[k];
    if (i < n) y[i] = s - v + before;
    if (threadIdx.x == 255) sums[blockIdx.x] = s + before;
}

KERNEL(128) scan_many(const uint4* x, uint4* y, int n) {
    __shared__ u32 parts[4];
    uint4 v[4];
    int base = (blockIdx.x * 128 + threadIdx.x) * 4, lane = threadIdx.x % 32;
    u32 s = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        v[k] = base + k < n ? x[base + k] : make_uint4(0, 0, 0, 0);
        v[k].x += s, v[k].y += v[k].x, v[k].z += v[k].y, v[k].w += v[k].z, s = v[k].w;
    }
    u32 t = s;
    for (int k = 1; k < 32; k <<= 1) {
        u32 o = __shfl_up_sync(~0u, t, k);
        if (lane >= k) t += o;
    }
    if (lane == 31) parts[threadIdx.x / 32] = t;
    __syncthreads();
    t -= s;
    for (int k = 0; k < threadIdx.x / 32; k++) t += parts[k];
#pragma unroll
    for (int k = 0; k < 4; k++)
        if (base + k < n) y[base + k] = make_uint4(v[k].x + t, v[k].y + t, v[k].z + t, v[k].w + t);
}

KERNEL(256) histogram(const uchar4* x, u32* out, int n) {
    __shared__ u32 bins[256];
    bins[threadIdx.x] = 0;
    __syncthreads();
    for (int i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) {
        uchar4 v = x[i];
        atomicAdd(bins + v.x, 1), atomicAdd(bins + v.y, 1), atomicAdd(bins + v.z, 1), atomicAdd(bins + v.w, 1);
    }
    __syncthreads();
    atomicAdd(out + threadIdx.x, bins[threadIdx.x]);
}

KERNEL(256) argmax(const float* x, int* out, int n) {
    float best = -1e30f;
    int at = 0;
    for (int i = threadIdx.x; i < n; i += 256) {
        float v = x[(u64)blockIdx.x * n + i];
        if (v > best) best = v, at = i;
    }
    for (int k = 16; k > 0; k >>= 1) {
        float v = __shfl_xor_sync(~0u, best, k);
        int i = __shfl_xor_sync(~0u, at, k);
        if (v > best || (v == best && i < at)) best = v, at = i;
    }
    if (threadIdx.x % 32 == 0) out[blockIdx.x * 8 + threadIdx.x / 32] = at;
}

// Sorts and hashes.

KERNEL(512) bitonic_shared(u32* x) {
    __shared__ u32 keys[1024];
    x += blockIdx.x * 1024;
    keys[threadIdx.x] = x[threadIdx.x], keys[threadIdx.x + 512] = x[threadIdx.x + 512];
    for (u32 size = 2; size <= 1024; size <<= 1)
        for (u32 stride = size / 2; stride > 0; stride >>= 1) {
            __syncthreads();
            u32 a = 2 * threadIdx.x - (threadIdx.x & (stride - 1)), b = a + stride;
            bool up = (a & size) == 0;
            u32 u = keys[a], v = keys[b];
            if ((u > v) == up) keys[a] = v, keys[b] = u;
        }
    __syncthreads();
    x[threadIdx.x] = keys[threadIdx.x], x[threadIdx.x + 512] = keys[threadIdx.x + 512];
}

KERNEL(128) sort_16(const u32* x, u32* y, int n) {
    u32 v[16];
    int base = (blockIdx.x * 128 + threadIdx.x) * 16;
    if (base + 16 > n) return;
#pragma unroll
    for (int i = 0; i < 16; i++) v[i] = x[base + i];
#pragma unroll
    for (int k = 2; k <= 16; k <<= 1)
#pragma unroll
        for (int j = k / 2; j > 0; j >>= 1)
#pragma unroll
            for (int i = 0; i < 16; i++) {
                int other = i ^ j;
                if (other > i) {
                    u32 low = min(v[i], v[other]), high = max(v[i], v[other]);
                    v[i] = (i & k) ? high : low, v[other] = (i & k) ? low : high;
                }
            }
#pragma unroll
    for (int i = 0; i < 16; i++) y[base + i] = v[i];
}

KERNEL(256) radix_count(const u32* keys, u32* counts, int shift, int n) {
    __shared__ u32 bins[16][8];
    if (threadIdx.x < 128) bins[threadIdx.x / 8][threadIdx.x % 8] = 0;
    __syncthreads();
    int warp = threadIdx.x / 32;
    for (int i = blockIdx.x * 256 + threadIdx.x; i < n; i += gridDim.x * 256) {
        u32 digit = keys[i] >> shift & 15, peers = __match_any_sync(__activemask(), digit);
        if (__popc(peers & ((1u << threadIdx.x % 32) - 1)) == 0) atomicAdd(&bins[digit][warp], __popc(peers));
    }
    __syncthreads();
    if (threadIdx.x < 16) {
        u32 s = 0;
        for (int k = 0; k < 8; k++) s += bins[threadIdx.x][k];
        counts[threadIdx.x * gridDim.x + blockIdx.x] = s;
    }
}

KERNEL(256) hash_insert(u64* table, const u32* keys, const u32* values, u32 mask, int n) {
    int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= n) return;
    u32 key = keys[i], h = key;
    h ^= h >> 16, h *= 0x85ebca6b, h ^= h >> 13, h *= 0xc2b2ae35, h ^= h >> 16;
    u64 entry = (u64)key << 32 | values[i];
    for (u32 k = 0; k <= mask; k++) {
        u64 old = atomicCAS(table + ((h + k) & mask), 0ull, entry);
        if (old == 0 || (u32)(old >> 32) == key) return;
    }
}

#define ROUND(a, b, c, d, x, s, t) a = b + __funnelshift_l(a + ((b & c) | (~b & d)) + x + t, a + ((b & c) | (~b & d)) + x + t, s)
KERNEL(128) md5_like(const uint4* x, uint4* y, int n) {
    int i = blockIdx.x * 128 + threadIdx.x;
    if (i >= n) return;
    u32 m[16], a = 0x67452301, b = 0xefcdab89, c = 0x98badcfe, d = 0x10325476;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        uint4 v = x[4 * i + k];
        m[4 * k] = v.x, m[4 * k + 1] = v.y, m[4 * k + 2] = v.z, m[4 * k + 3] = v.w;
    }
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int k = 0; k < 16; k += 4) {
            ROUND(a, b, c, d, m[(k + 5 * r) % 16], 7, 0xd76aa478 + k);
            ROUND(d, a, b, c, m[(k + 5 * r + 1) % 16], 12, 0xe8c7b756 + k);
            ROUND(c, d, a, b, m[(k + 5 * r + 2) % 16], 17, 0x242070db + k);
            ROUND(b, c, d, a, m[(k + 5 * r + 3) % 16], 22, 0xc1bdceee + k);
        }
    y[i] = make_uint4(a, b, c, d);
}

KERNEL(128) philox(uint4* out, u32 key0, u32 key1, int n) {
    int i = blockIdx.x * 128 + threadIdx.x;
    if (i >= n) return;
    u32 x = i, y = 0, z = 0, w = 0;
#pragma unroll
    for (int r = 0; r < 10; r++) {
        u32 h0 = __umulhi(0xD2511F53, x), l0 = 0xD2511F53 * x, h1 = __umulhi(0xCD9E8D57, z), l1 = 0xCD9E8D57 * z;
        x = h1 ^ y ^ key0, y = l1, z = h0 ^ w ^ key1, w = l0;
        key0 += 0x9E3779B9, key1 += 0xBB67AE85;
    }
    out[i] = make_uint4(x, y, z, w);
}

// Neighbours and grids.

KERNEL(256) stencil_2d(const float* x, float* y, int width, int height, float a, float b) {
    int i = blockIdx.x * 32 + threadIdx.x % 32, j = blockIdx.y * 8 + threadIdx.x / 32;
    if (i < 1 || j < 1 || i >= width - 1 || j >= height - 1) return;
    const float* p = x + (u64)j * width + i;
    y[(u64)j * width + i] = a * p[0] + b * (p[-1] + p[1] + p[-width] + p[width]);
}

KERNEL(256) stencil_shared(const float* x, float* y, int width, int height) {
    __shared__ float tile[10][34];
    int i = blockIdx.x * 32, j = blockIdx.y * 8;
    for (int k = threadIdx.x; k < 340; k += 256) {
        int u = min(max(i + k % 34 - 1, 0), width - 1), v = min(max(j + k / 34 - 1, 0), height - 1);
        tile[k / 34][k % 34] = x[v * width + u];
    }
    __syncthreads();
    int u = threadIdx.x % 32, v = threadIdx.x / 32;
    float s = 0;
#pragma unroll
    for (int k = 0; k < 9; k++) s += tile[v + k / 3][u + k % 3] * (k == 4 ? 4.0f : k % 2 ? 2.0f : 1.0f);
    if (i + u < width && j + v < height) y[(j + v) * width + i + u] = s / 16;
}

KERNEL(256) stencil_3d(const float* x, float* y, int nx, int ny, int nz, float c0, float c1, float c2) {
    int i = blockIdx.x * 32 + threadIdx.x % 32 + 2, j = blockIdx.y * 8 + threadIdx.x / 32 + 2;
    if (i >= nx - 2 || j >= ny - 2) return;
    u64 plane = (u64)nx * ny, at = (u64)j * nx + i;
    float b2 = x[at], b1 = x[at + plane], c = x[at + 2 * plane], f1 = x[at + 3 * plane];
    at += 2 * plane;
    for (int k = 2; k < nz - 2; k++, at += plane) {
        float f2 = x[at + 2 * plane];
        float s = c0 * c + c1 * (b1 + f1 + x[at - 1] + x[at + 1] + x[at - nx] + x[at + nx]);
        y[at] = s + c2 * (b2 + f2 + x[at - 2] + x[at + 2] + x[at - 2 * nx] + x[at + 2 * nx]);
        b2 = b1, b1 = c, c = f1, f1 = f2;
    }
}

KERNEL(128) convolution_5x5(const float* x, const float* weights, float* y, int width, int height) {
    __shared__ float w[25];
    if (threadIdx.x < 25) w[threadIdx.x] = weights[threadIdx.x];
    __syncthreads();
    int i = blockIdx.x * 32 + threadIdx.x % 32, j = blockIdx.y * 4 + threadIdx.x / 32;
    if (i + 4 >= width || j + 4 >= height) return;
    float s = 0;
#pragma unroll
    for (int k = 0; k < 25; k++) s += w[k] * x[(j + k / 5) * width + i + k % 5];
    y[j * width + i] = s;
}

KERNEL(128) median_3x3(const float* x, float* y, int width, int height) {
    int i = blockIdx.x * 32 + threadIdx.x % 32 + 1, j = blockIdx.y * 4 + threadIdx.x / 32 + 1;
    if (i >= width - 1 || j >= height - 1) return;
    float v[9];
#pragma unroll
    for (int k = 0; k < 9; k++) v[k] = x[(j + k / 3 - 1) * width + i + k % 3 - 1];
#pragma unroll
    for (int a = 0; a < 5; a++)
#pragma unroll
        for (int b = a + 1; b < 9; b++) {
            float low = fminf(v[a], v[b]);
            v[b] = fmaxf(v[a], v[b]), v[a] = low;
        }
    y[j * width + i] = v[4];
}

KERNEL(256) transpose(const float* x, float* y, int rows, int columns) {
    __shared__ float tile[32][33];
    int i = blockIdx.x * 32 + threadIdx.x % 32, j = blockIdx.y * 32 + threadIdx.x / 32;
    for (int k = 0; k < 32; k += 8)
        if (i < columns && j + k < rows) tile[threadIdx.x / 32 + k][threadIdx.x % 32] = x[(j + k) * columns + i];
    __syncthreads();
    i = blockIdx.y * 32 + threadIdx.x % 32, j = blockIdx.x * 32 + threadIdx.x / 32;
    for (int k = 0; k < 32; k += 8)
        if (i < rows && j + k < columns) y[(j + k) * rows + i] = tile[threadIdx.x % 32][threadIdx.x / 32 + k];
}

KERNEL(256) n_body(const float4* bodies, float4* forces, float soft, int n) {
    __shared__ float4 tile[256];
    int i = blockIdx.x * 256 + threadIdx.x;
    float4 me = bodies[min(i, n - 1)];
    float ax = 0, ay = 0, az = 0;
    for (int base = 0; base < n; base += 256) {
        tile[threadIdx.x] = bodies[min(base + threadIdx.x, n - 1)];
        __syncthreads();
#pragma unroll 8
        for (int k = 0; k < 256; k++) {
            float4 b = tile[k];
            float dx = b.x - me.x, dy = b.y - me.y, dz = b.z - me.z;
            float r = rsqrtf(dx * dx + dy * dy + dz * dz + soft), f = b.w * r * r * r;
            ax += dx * f, ay += dy * f, az += dz * f;
        }
        __syncthreads();
    }
    if (i < n) forces[i] = make_float4(ax, ay, az, 0);
}

KERNEL(128) lattice_boltzmann(const float* f, float* g, int nx, int ny, float omega) {
    const int cx[9] = {0, 1, 0, -1, 0, 1, -1, -1, 1}, cy[9] = {0, 0, 1, 0, -1, 1, 1, -1, -1};
    const float w[9] = {4 / 9.f, 1 / 9.f, 1 / 9.f, 1 / 9.f, 1 / 9.f, 1 / 36.f, 1 / 36.f, 1 / 36.f, 1 / 36.f};
    int i = blockIdx.x * 128 + threadIdx.x, j = blockIdx.y;
    if (i >= nx) return;
    float v[9], rho = 0, ux = 0, uy = 0;
#pragma unroll
    for (int k = 0; k < 9; k++) {
        int x = (i - cx[k] + nx) % nx, y = (j - cy[k] + ny) % ny;
        v[k] = f[(k * ny + y) * nx + x];
        rho += v[k], ux += cx[k] * v[k], uy += cy[k] * v[k];
    }
    ux /= rho, uy /= rho;
#pragma unroll
    for (int k = 0; k < 9; k++) {
        float c = cx[k] * ux + cy[k] * uy;
        float e = w[k] * rho * (1 + 3 * c + 4.5f * c * c - 1.5f * (ux * ux + uy * uy));
        g[(k * ny + j) * nx + i] = v[k] + omega * (e - v[k]);
    }
}

// Fourier transforms.

__device__ inline float2 times(float2 a, float2 b) { return make_float2(a.x * b.x - a.y * b.y, a.x * b.y + a.y * b.x); }

KERNEL(64) fft_8(const float2* x, float2* y, int n) {
    int i = blockIdx.x * 64 + threadIdx.x;
    if (i >= n) return;
    float2 v[8];
#pragma unroll
    for (int k = 0; k < 8; k++) v[k] = x[k * n + i];
#pragma unroll
    for (int half = 4; half > 0; half >>= 1)
#pragma unroll
        for (int k = 0; k < 8; k++)
            if (!(k & half)) {
                float2 a = v[k], b = v[k + half];
                float angle = -3.14159265f * (k % half) / half, c = __cosf(angle), s = __sinf(angle);
                v[k] = make_float2(a.x + b.x, a.y + b.y);
                v[k + half] = times(make_float2(a.x - b.x, a.y - b.y), make_float2(c, s));
            }
#pragma unroll
    for (int k = 0; k < 8; k++) y[k * n + i] = v[k];
}

KERNEL(128) fft_shared(float2* x, int bits) {
    extern __shared__ float2 line[];
    int n = 1 << bits;
    x += (u64)blockIdx.x << bits;
    for (int i = threadIdx.x; i < n; i += 128) line[__brev(i) >> (32 - bits)] = x[i];
    for (int half = 1; half < n; half <<= 1) {
        __syncthreads();
        for (int i = threadIdx.x; i < n / 2; i += 128) {
            int k = i & (half - 1), a = 2 * i - k;
            float s, c;
            sincospif(-(float)k / half, &s, &c);
            float2 u = line[a], v = times(line[a + half], make_float2(c, s));
            line[a] = make_float2(u.x + v.x, u.y + v.y), line[a + half] = make_float2(u.x - v.x, u.y - v.y);
        }
    }
    __syncthreads();
    for (int i = threadIdx.x; i < n; i += 128) x[i] = line[i];
}

// Rows: softmax, norms, losses.

KERNEL(128) softmax_row(const float* x, float* y, int n) {
    int row = blockIdx.x * 4 + threadIdx.x / 32, lane = threadIdx.x % 32;
    x += (u64)row * n, y += (u64)row * n;
    float most = -1e30f, s = 0;
    for (int i = lane; i < n; i += 32) most = fmaxf(most, x[i]);
    most = warp_max(most);
    for (int i = lane; i < n; i += 32) s += __expf(x[i] - most);
    s = 1 / warp_sum(s);
    for (int i = lane; i < n; i += 32) y[i] = __expf(x[i] - most) * s;
}

KERNEL(256) softmax_registers(const float4* x, float4* y) {
    float4 v[4];
    int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    float most = -1e30f, s = 0;
#pragma unroll
    for (int k = 0; k < 4; k++) {
        v[k] = x[row * 128 + k * 32 + lane];
        most = fmaxf(fmaxf(most, fmaxf(v[k].x, v[k].y)), fmaxf(v[k].z, v[k].w));
    }
    most = warp_max(most);
#pragma unroll
    for (int k = 0; k < 4; k++) {
        v[k] = make_float4(__expf(v[k].x - most), __expf(v[k].y - most), __expf(v[k].z - most), __expf(v[k].w - most));
        s += v[k].x + v[k].y + v[k].z + v[k].w;
    }
    s = 1 / warp_sum(s);
#pragma unroll
    for (int k = 0; k < 4; k++) y[row * 128 + k * 32 + lane] = make_float4(v[k].x * s, v[k].y * s, v[k].z * s, v[k].w * s);
}

KERNEL(256) layer_norm(const float* x, const float* gain, const float* bias, float* y, int n, float eps) {
    __shared__ float parts[16];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    x += (u64)blockIdx.x * n, y += (u64)blockIdx.x * n;
    float s = 0, q = 0;
    for (int i = threadIdx.x; i < n; i += 256) s += x[i], q += x[i] * x[i];
    s = warp_sum(s), q = warp_sum(q);
    if (lane == 0) parts[warp] = s, parts[warp + 8] = q;
    __syncthreads();
    s = q = 0;
    for (int k = 0; k < 8; k++) s += parts[k], q += parts[k + 8];
    float mean = s / n, scale = rsqrtf(q / n - mean * mean + eps);
    for (int i = threadIdx.x; i < n; i += 256) y[i] = (x[i] - mean) * scale * gain[i] + bias[i];
}

KERNEL(128) rms_norm_backward(const float4* x, const float4* gain, const float4* dy, float4* dx, int n, float eps) {
    int lane = threadIdx.x % 32;
    u64 row = blockIdx.x * 4 + threadIdx.x / 32;
    x += row * n, dy += row * n, dx += row * n;
    float q = 0, d = 0;
    for (int i = lane; i < n; i += 32) {
        float4 u = x[i], v = dy[i], g = gain[i];
        q += u.x * u.x + u.y * u.y + u.z * u.z + u.w * u.w;
        d += u.x * v.x * g.x + u.y * v.y * g.y + u.z * v.z * g.z + u.w * v.w * g.w;
    }
    q = warp_sum(q), d = warp_sum(d);
    float scale = rsqrtf(q / (4 * n) + eps), c = d * scale * scale * scale / (4 * n);
    for (int i = lane; i < n; i += 32) {
        float4 u = x[i], v = dy[i], g = gain[i];
        dx[i] = make_float4(v.x * g.x * scale - u.x * c, v.y * g.y * scale - u.y * c, v.z * g.z * scale - u.z * c, v.w * g.w * scale - u.w * c);
    }
}

KERNEL(256) cross_entropy(const float* x, const int* labels, float* loss, float* dx, int n) {
    __shared__ float parts[8];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const float* row = x + (u64)blockIdx.x * n;
    float most = -1e30f, s = 0;
    for (int i = threadIdx.x; i < n; i += 256) {
        float v = row[i], high = fmaxf(most, v);
        s = s * __expf(most - high) + __expf(v - high), most = high;
    }
    float all = warp_max(most);
    s = warp_sum(s * __expf(most - all));
    if (lane == 0) parts[warp] = logf(s) + all;
    __syncthreads();
    most = parts[0];
    for (int k = 1; k < 8; k++) most = fmaxf(most, parts[k]);
    s = 0;
    for (int k = 0; k < 8; k++) s += __expf(parts[k] - most);
    float total = logf(s) + most;
    int label = labels[blockIdx.x];
    if (threadIdx.x == 0) loss[blockIdx.x] = total - row[label];
    for (int i = threadIdx.x; i < n; i += 256) dx[(u64)blockIdx.x * n + i] = __expf(row[i] - total) - (i == label);
}

// Products.

template <typename T, int TM, int TN>
__device__ inline void gemm(const T* a, const T* b, T* c, int m, int n, int k) {
    constexpr int BM = 16 * TM, BN = 16 * TN, BK = 16;
    __shared__ T as[BK][BM], bs[BK][BN];
    int x = threadIdx.x % 16, y = threadIdx.x / 16, row = blockIdx.y * BM, column = blockIdx.x * BN;
    T sums[TM][TN] = {};
    for (int p = 0; p < k; p += BK) {
        for (int i = threadIdx.x; i < BM * BK; i += 256) {
            int r = row + i / BK, q = p + i % BK;
            as[i % BK][i / BK] = r < m && q < k ? a[r * k + q] : T(0);
        }
        for (int i = threadIdx.x; i < BN * BK; i += 256) {
            int q = p + i / BN, r = column + i % BN;
            bs[i / BN][i % BN] = q < k && r < n ? b[q * n + r] : T(0);
        }
        __syncthreads();
#pragma unroll
        for (int q = 0; q < BK; q++)
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++) sums[i][j] += as[q][y * TM + i] * bs[q][x * TN + j];
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < TM; i++)
#pragma unroll
        for (int j = 0; j < TN; j++) {
            int r = row + y * TM + i, q = column + x * TN + j;
            if (r < m && q < n) c[r * n + q] = sums[i][j];
        }
}

KERNEL(256) gemm_1x1(const float* a, const float* b, float* c, int m, int n, int k) { gemm<float, 1, 1>(a, b, c, m, n, k); }
KERNEL(256) gemm_4x4(const float* a, const float* b, float* c, int m, int n, int k) { gemm<float, 4, 4>(a, b, c, m, n, k); }
KERNEL(256) gemm_8x4(const float* a, const float* b, float* c, int m, int n, int k) { gemm<float, 8, 4>(a, b, c, m, n, k); }
KERNEL(256) gemm_8x8(const float* a, const float* b, float* c, int m, int n, int k) { gemm<float, 8, 8>(a, b, c, m, n, k); }
KERNEL(256) gemm_double(const double* a, const double* b, double* c, int m, int n, int k) { gemm<double, 4, 4>(a, b, c, m, n, k); }
extern "C" __global__ void __launch_bounds__(256, 4) gemm_bounded(const float* a, const float* b, float* c, int m, int n, int k) { gemm<float, 8, 8>(a, b, c, m, n, k); }

KERNEL(256) gemv(const float* a, const float* x, float* y, int m, int n) {
    int row = blockIdx.x * 8 + threadIdx.x / 32, lane = threadIdx.x % 32;
    if (row >= m) return;
    float s = 0;
    for (int i = lane; i < n; i += 32) s += a[(u64)row * n + i] * x[i];
    s = warp_sum(s);
    if (lane == 0) y[row] = s;
}

KERNEL(256) sparse_rows(const int* starts, const int* columns, const float* values, const float* x, float* y, int rows) {
    int row = blockIdx.x * 256 + threadIdx.x;
    if (row >= rows) return;
    float s = 0;
    for (int i = starts[row]; i < starts[row + 1]; i++) s += values[i] * x[columns[i]];
    y[row] = s;
}

KERNEL(64) invert_4x4(const float* x, float* y, int n) {
    int at = blockIdx.x * 64 + threadIdx.x;
    if (at >= n) return;
    float a[4][8];
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) a[i][j] = x[16 * at + 4 * i + j], a[i][j + 4] = i == j;
#pragma unroll
    for (int p = 0; p < 4; p++) {
        float r = 1 / a[p][p];
#pragma unroll
        for (int j = 0; j < 8; j++) a[p][j] *= r;
#pragma unroll
        for (int i = 0; i < 4; i++)
            if (i != p) {
                float f = a[i][p];
#pragma unroll
                for (int j = 0; j < 8; j++) a[i][j] -= f * a[p][j];
            }
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) y[16 * at + 4 * i + j] = a[i][j + 4];
}

KERNEL(128) attention_row(const float* q, const float* k, const float* v, float* out, int n) {
    __shared__ float ks[32][64], vs[32][64];
    int row = blockIdx.x * 128 + threadIdx.x;
    float query[64], sums[64], most = -1e30f, total = 0;
#pragma unroll
    for (int i = 0; i < 64; i++) query[i] = q[(u64)row * 64 + i], sums[i] = 0;
    for (int base = 0; base < n; base += 32) {
        for (int i = threadIdx.x; i < 2048; i += 128) ks[i / 64][i % 64] = k[(u64)base * 64 + i], vs[i / 64][i % 64] = v[(u64)base * 64 + i];
        __syncthreads();
        for (int j = 0; j < 32; j++) {
            float s = 0;
#pragma unroll
            for (int i = 0; i < 64; i++) s += query[i] * ks[j][i];
            float high = fmaxf(most, s), fade = __expf(most - high), p = __expf(s - high);
            total = total * fade + p, most = high;
#pragma unroll
            for (int i = 0; i < 64; i++) sums[i] = sums[i] * fade + p * vs[j][i];
        }
        __syncthreads();
    }
#pragma unroll
    for (int i = 0; i < 64; i++) out[(u64)row * 64 + i] = sums[i] / total;
}

// Products on tensor cores.

__device__ inline void mma(float* d, const u32* a, const u32* b) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void load_matrices(u32* d, u32 at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(d[0]), "=r"(d[1]), "=r"(d[2]), "=r"(d[3]) : "r"(at));
}

// A (m, k) and B (n, k) of halves; a warp has 16 MI rows and 8 NI columns.
template <int MI, int NI>
__device__ inline void gemm_tensor(const uint4* a, const uint4* b, float* c, int n, int k) {
    constexpr int BM = 32 * MI, BN = 16 * NI;
    __shared__ uint4 tiles[2][(BM + BN) * 4];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, row = warp / 2 * 16 * MI, column = warp % 2 * 8 * NI;
    a += (u64)blockIdx.y * BM * k / 8, b += (u64)blockIdx.x * BN * k / 8;
    float sums[MI][NI][4] = {};
    u32 base = (u32)__cvta_generic_to_shared(tiles);
    auto fetch = [&](int stage, int p) {
        for (int i = threadIdx.x; i < (BM + BN) * 4; i += 128) {
            int r = i / 4, q = i % 4;
            const uint4* from = r < BM ? a + (u64)r * k / 8 + p / 8 + q : b + (u64)(r - BM) * k / 8 + p / 8 + q;
            u32 to = base + (stage * (BM + BN) * 4 + r * 4 + (q ^ (r / 2 & 3))) * 16;
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from));
        }
        asm volatile("cp.async.commit_group;");
    };
    fetch(0, 0);
    for (int p = 0; p < k; p += 32) {
        asm volatile("cp.async.wait_group 0;");
        __syncthreads();
        if (p + 32 < k) fetch(p / 32 + 1 & 1, p + 32);
        u32 stage = base + (p / 32 & 1) * (BM + BN) * 64;
#pragma unroll
        for (int h = 0; h < 2; h++) {
            u32 as[MI][4], bs[NI / 2][4];
#pragma unroll
            for (int i = 0; i < MI; i++) {
                int r = row + 16 * i + lane % 16, q = 2 * h + lane / 16;
                load_matrices(as[i], stage + (r * 4 + (q ^ (r / 2 & 3))) * 16);
            }
#pragma unroll
            for (int j = 0; j < NI / 2; j++) {
                int r = BM + column + 16 * j + lane % 16, q = 2 * h + lane / 16;
                load_matrices(bs[j], stage + (r * 4 + (q ^ (r / 2 & 3))) * 16);
            }
#pragma unroll
            for (int i = 0; i < MI; i++)
#pragma unroll
                for (int j = 0; j < NI; j++) {
                    u32 pair[2] = {bs[j / 2][j % 2], bs[j / 2][j % 2 + 2]};
                    mma(sums[i][j], as[i], pair);
                }
        }
    }
#pragma unroll
    for (int i = 0; i < MI; i++)
#pragma unroll
        for (int j = 0; j < NI; j++) {
            int r = blockIdx.y * BM + row + 16 * i + lane / 4, q = blockIdx.x * BN + column + 8 * j + lane % 4 * 2;
            *(float2*)(c + (u64)r * n + q) = make_float2(sums[i][j][0], sums[i][j][1]);
            *(float2*)(c + (u64)(r + 8) * n + q) = make_float2(sums[i][j][2], sums[i][j][3]);
        }
}

KERNEL(128) gemm_mma_1x4(const uint4* a, const uint4* b, float* c, int n, int k) { gemm_tensor<1, 4>(a, b, c, n, k); }
KERNEL(128) gemm_mma_2x4(const uint4* a, const uint4* b, float* c, int n, int k) { gemm_tensor<2, 4>(a, b, c, n, k); }
KERNEL(128) gemm_mma_4x8(const uint4* a, const uint4* b, float* c, int n, int k) { gemm_tensor<4, 8>(a, b, c, n, k); }

// Control.

KERNEL(128) breadth_first(const int* starts, const int* edges, int* levels, int* frontier, int* next, int* count, int level, int n) {
    int i = blockIdx.x * 128 + threadIdx.x;
    if (i >= n) return;
    int node = frontier[i];
    for (int e = starts[node]; e < starts[node + 1]; e++)
        if (atomicCAS(levels + edges[e], -1, level) == -1) next[atomicAdd(count, 1)] = edges[e];
}

KERNEL(256) binary_search(const u32* sorted, const u32* keys, int* out, int n, int m) {
    int i = blockIdx.x * 256 + threadIdx.x;
    if (i >= m) return;
    u32 key = keys[i];
    int low = 0, high = n;
    while (low < high) {
        int middle = (low + high) / 2;
        if (sorted[middle] < key) low = middle + 1;
        else high = middle;
    }
    out[i] = low;
}

KERNEL(64) ray_sphere(const float4* spheres, float4* image, int width, int height, int count) {
    int x = blockIdx.x * 8 + threadIdx.x % 8, y = blockIdx.y * 8 + threadIdx.x / 8;
    if (x >= width || y >= height) return;
    float ox = 0, oy = 0, oz = -4, dx = (x - width * 0.5f) / width, dy = (y - height * 0.5f) / width, dz = 1, light = 0, fade = 1;
    float inv = rsqrtf(dx * dx + dy * dy + dz * dz);
    dx *= inv, dy *= inv, dz *= inv;
    for (int bounce = 0; bounce < 4; bounce++) {
        float near = 1e30f;
        int hit = -1;
        for (int i = 0; i < count; i++) {
            float4 s = spheres[i];
            float cx = s.x - ox, cy = s.y - oy, cz = s.z - oz, b = cx * dx + cy * dy + cz * dz;
            float d = b * b - cx * cx - cy * cy - cz * cz + s.w * s.w;
            if (d < 0) continue;
            float t = b - sqrtf(d);
            if (t > 1e-3f && t < near) near = t, hit = i;
        }
        if (hit < 0) break;
        float4 s = spheres[hit];
        ox += near * dx, oy += near * dy, oz += near * dz;
        float nx = (ox - s.x) / s.w, ny = (oy - s.y) / s.w, nz = (oz - s.z) / s.w, c = dx * nx + dy * ny + dz * nz;
        light += fade * fmaxf(0.f, ny), fade *= 0.5f;
        dx -= 2 * c * nx, dy -= 2 * c * ny, dz -= 2 * c * nz;
    }
    image[y * width + x] = make_float4(light, light * 0.9f, light * 0.8f, fade);
}

KERNEL(1024) bounded_1024(const float* a, const float* b, float* c, int m, int n, int k) {
    int i = blockIdx.x * 32 + threadIdx.x % 32, j = blockIdx.y * 32 + threadIdx.x / 32;
    float sums[8][8] = {};
    for (int p = 0; p < k; p++)
#pragma unroll
        for (int u = 0; u < 8; u++)
#pragma unroll
            for (int v = 0; v < 8; v++) sums[u][v] += a[(8 * i + u) * k + p] * b[(8 * j + v) * k + p];
#pragma unroll
    for (int u = 0; u < 8; u++)
#pragma unroll
        for (int v = 0; v < 8; v++) c[(8 * i + u) * n + 8 * j + v] = sums[u][v];
}
