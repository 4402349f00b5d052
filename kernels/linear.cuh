// What every backend of a matrix product has in common: its parameters, and what becomes of a sum.
//
//   acc (M, N) = A · B, for each of `batch` products      LAYOUT
//     0 NT   A (M, K)   B (N, K)    forward: inp · Wᵀ, and x · Xᵀ
//     1 NN   A (M, K)   B (K, N)    input gradient: dout · W, and the correction's P · dY
//     2 TN   A (K, M)   B (K, N)    weight gradient: doutᵀ · inp
//
//   y = alpha acc + beta bias[n] + addend[m][n]
//   ACT 0    out = y
//   ACT 1    out = f(y), and kept = y where there is one          forward through an MLP's activation
//   ACT 2    out = y f'(kept)                                     and back
//
// f is QuickGELU, or GELU with GELU=1. A, B, kept are E; bias, addend float; out is E, or float with OUT_FLOAT=1; all written (=).
// All rows of matrices may be further apart than they are long; a step is from one of the batch to the next, 0 where it
// is shared. `out` may be the addend.

#pragma once

#include "element.cuh"

#ifndef LAYOUT
#define LAYOUT 0
#endif
#ifndef ACT
#define ACT 0
#endif

#if OUT_FLOAT
typedef float Out;
#else
typedef E Out;
#endif

// `struct Linear` of src/ops/linear.rs. Pitches and steps in elements.
struct Linear {
    const E *a, *b;
    Out* out;
    E* kept;              // or null
    const float* bias;    // (batch or 1, N), or null
    const float* addend;  // (batch or 1, M, N), or null
    u64 a_step, b_step, out_step, kept_step, bias_step, addend_step;
    int M, N, K, batch;
    int a_pitch, b_pitch, out_pitch, kept_pitch, addend_pitch;
    float alpha, beta;
    // Whether rows and steps of each are whole multiples of 16 bytes, and addresses too: bit 0 A, 1 B, 2 all that the epilogue
    // reads and writes.
    int aligned;
};

// A power of two is what the hardware has; exp costs three times as much and is no nearer here.
__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + exp2f(-1.44269504f * x)); }
__device__ __forceinline__ float normal_cdf(float x) { return 0.5f * (1.f + erff(x * 0.70710678118654752f)); }

__device__ __forceinline__ float activation(float x) {
#if GELU
    return x * normal_cdf(x);
#else
    return x * sigmoid(1.702f * x);
#endif
}

__device__ __forceinline__ float activation_slope(float x) {
#if GELU
    return normal_cdf(x) + x * 0.39894228040143268f * exp2f(-0.72134752f * x * x);
#else
    float s = sigmoid(1.702f * x);
    return s + 1.702f * x * s * (1.f - s);
#endif
}

// Finishes W neighbouring sums of row m from column n, of which those before N exist. W · sizeof(E) is at most 16, and
// n a multiple of W.
template <int W>
__device__ __forceinline__ void finish(const Linear& p, int batch, int m, int n, const float (&acc)[W]) {
    if (m >= p.M || n >= p.N) return;
    bool vector = (p.aligned & 4) && n + W <= p.N;
    float y[W], more[W];
#pragma unroll
    for (int i = 0; i < W; ++i) y[i] = p.alpha * acc[i];
    auto read = [&](auto* from) {
        if (vector) load_pack<W>(more, from);
        else
#pragma unroll
            for (int i = 0; i < W; ++i) more[i] = n + i < p.N ? to_float(from[i]) : 0.f;
    };
    auto write = [&](auto* to, const float (&from)[W]) {
        if (vector) store_pack<W>(to, from);
        else
#pragma unroll
            for (int i = 0; i < W; ++i)
                if (n + i < p.N) from_float(to[i], from[i]);
    };
    if (p.bias) {
        read(p.bias + batch * p.bias_step + n);
#pragma unroll
        for (int i = 0; i < W; ++i) y[i] = fmaf(p.beta, more[i], y[i]);
    }
    if (p.addend) {
        read(p.addend + batch * p.addend_step + (u64)m * p.addend_pitch + n);
#pragma unroll
        for (int i = 0; i < W; ++i) y[i] += more[i];
    }
    E* kept = p.kept + batch * p.kept_step + (u64)m * p.kept_pitch + n;
#if ACT == 1
    if (p.kept) write(kept, y);
#pragma unroll
    for (int i = 0; i < W; ++i) y[i] = activation(y[i]);
#elif ACT == 2
    read((const E*)kept);
#pragma unroll
    for (int i = 0; i < W; ++i) y[i] *= activation_slope(more[i]);
#endif
    write(p.out + batch * p.out_step + (u64)m * p.out_pitch + n, y);
}
