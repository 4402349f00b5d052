// The step of what takes it explicitly (biases, norms, class and position embeddings), each image its own; which images'
// gradients have overflowed; and the conversion of weights.
//
//   step_images     out[s][i] = param[s][i] - rate · grad[s][i]     rate: the learning rate over the loss scale
//                   flags[s] |= 1 where a grad[s] is not finite
//   flag_overflow   flags[s] |= 1 where one of values[s] is not finite
//   convert         out[i] = inp[i]
//   split           first[i] = inp[i]      second[i] = scale · (inp[i] - first[i])     inp in two terms
//
//   param (n,) or (S, n), grad, out (S, n) float: of each piece, in a table; out may be param   flags (S,) u32   values (S, n) float
//   inp (n,) float, out, first, second (n,) E; outputs but flags written (=)
//
// Grid: step_images a CTA per piece, images in y; flag_overflow a CTA per 1024 values, images in y; convert and split a thread per
// eight elements; 256 threads a CTA. One fused multiply-add an element. Flags are set by integer atomics.

#include "element.cuh"

// `struct Piece` of src/ops/step.rs: up to 1024 neighbours of a parameter.
struct Piece {
    const float *param, *grad;
    float* out;
    u64 param_step, grad_step, out_step;  // from an image to the next, in elements; 0 of a parameter that they share
    int len;
    int aligned;  // whether addresses and steps are whole multiples of 16 bytes
};

__device__ __forceinline__ bool finite(float x) { return fabsf(x) <= FLT_MAX; }

__device__ __forceinline__ void raise(u32* flag, bool overflow) {
    if (__any_sync(0xffffffff, overflow) && lane_id() == 0) atomicOr(flag, 1u);
}

extern "C" __global__ void __launch_bounds__(256)
step_images(const Piece* __restrict__ pieces, u32* __restrict__ flags, float rate) {
    Piece piece = pieces[blockIdx.x];
    const float* param = piece.param + blockIdx.y * piece.param_step;
    const float* grad = piece.grad + blockIdx.y * piece.grad_step;
    float* out = piece.out + blockIdx.y * piece.out_step;
    bool overflow = false;
    int i = threadIdx.x * 4, end = min(i + 4, piece.len);
    if (piece.aligned && i + 4 <= piece.len) {
        float4 p = load4(param + i), g = load4(grad + i);
        overflow = !(finite(g.x) && finite(g.y) && finite(g.z) && finite(g.w));
        p.x = fmaf(-rate, g.x, p.x);
        p.y = fmaf(-rate, g.y, p.y);
        p.z = fmaf(-rate, g.z, p.z);
        p.w = fmaf(-rate, g.w, p.w);
        store4(out + i, p);
    } else {
        for (; i < end; ++i) {
            float g = grad[i];
            overflow = overflow || !finite(g);
            out[i] = fmaf(-rate, g, param[i]);
        }
    }
    raise(flags + blockIdx.y, overflow);
}

extern "C" __global__ void __launch_bounds__(256)
flag_overflow(u32* __restrict__ flags, const float* __restrict__ values, int n) {
    const float* from = values + (u64)blockIdx.y * n;
    int end = min((int)(blockIdx.x + 1) * 1024, n);
    bool overflow = false;
    for (int i = blockIdx.x * 1024 + threadIdx.x; i < end; i += 256) overflow = overflow || !finite(from[i]);
    raise(flags + blockIdx.y, overflow);
}

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
