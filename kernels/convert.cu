// Weights as products take them, of float32.
//
//   convert   out[i] = inp[i]
//   split     first[i] = inp[i]      second[i] = scale · (inp[i] - first[i])     inp in two terms
//
//   inp (n,) float, out, first, second (n,) E; outputs written (=)
//
// Grid: a thread per eight elements, 256 threads a CTA.

#include "element.cuh"

extern "C" __global__ void __launch_bounds__(256)
convert(E* __restrict__ out, const float* __restrict__ inp, u64 n) {
    u64 i = 8 * ((u64)blockIdx.x * 256 + threadIdx.x);
    if (i + 8 <= n) {
        float x[8];
        load_pack<8>(x, inp + i);
        store_pack<8>(out + i, x);
    } else {
        for (; i < n; ++i) from_float(out[i], inp[i]);
    }
}

extern "C" __global__ void __launch_bounds__(256)
split(E* __restrict__ first, E* __restrict__ second, const float* __restrict__ inp, u64 n, float scale) {
    u64 i = 8 * ((u64)blockIdx.x * 256 + threadIdx.x);
    float x[8], low[8];
    if (i + 8 <= n) {
        load_pack<8>(x, inp + i);
#pragma unroll
        for (int j = 0; j < 8; ++j) {
            E high;
            from_float(high, x[j]);
            low[j] = scale * (x[j] - to_float(high));
        }
        store_pack<8>(first + i, x);
        store_pack<8>(second + i, low);
    } else {
        for (; i < n; ++i) {
            from_float(first[i], inp[i]);
            from_float(second[i], scale * (inp[i] - to_float(first[i])));
        }
    }
}
