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
// What is in two terms is the first, rounded to float16, and `second` times the second:
//   A_TERMS=2, B_TERMS=2   an operand, A = a + second a2, so that products of float16 are as exact as of float32:
//                          acc = a · b + second (a2 · b + a · b2); that of the second two is beyond float32's digits
//   ADDEND_TERMS=1         the addend, + second addend2
//   OUT_TERMS=1            the result: kept, and rest; and out besides where there is one. With ACT 0, and 1, which then keeps
//                          no y
//
// f is QuickGELU, or GELU with GELU=1. A, B, kept, rest and terms are E; bias and addend float; out is E, or float with
// OUT_FLOAT=1; all written (=).
// All rows of matrices may be further apart than they are long; a step is from one of the batch to the next, 0 where it
// is shared. The result may be the addend.

#pragma once

#include "element.cuh"

#ifndef LAYOUT
#define LAYOUT 0
#endif
#ifndef ACT
#define ACT 0
#endif
#ifndef OUT_TERMS
#define OUT_TERMS 0
#endif
#ifndef A_TERMS
#define A_TERMS 1
#endif
#ifndef B_TERMS
#define B_TERMS 1
#endif
#define TERMS (A_TERMS > 1 || B_TERMS > 1)

#if ADDEND_TERMS
typedef E Addend;
#else
typedef float Addend;
#endif
#if OUT_FLOAT
typedef float Out;
#else
typedef E Out;
#endif

// `struct Params` of src/ops/linear/mod.rs. Pitches and steps in elements.
struct Linear {
    const E *a, *b;
    const E *a2, *b2;  // or null
    Out* out;
    E* kept;              // or null
    const float* bias;    // (batch or 1, N), or null
    const Addend* addend;  // (batch or 1, M, N), or null
    u64 a_step, b_step, out_step, kept_step, bias_step, addend_step;
    int M, N, K, batch;
    int a_pitch, b_pitch, out_pitch, kept_pitch, addend_pitch;
    float alpha, beta, second;
    // Whether rows and steps of each are whole multiples of 16 bytes, and addresses too: bit 0 A, 1 B, 2 all that the epilogue
    // reads and writes.
    int aligned;
    E* rest;           // as far apart as kept
    const E* addend2;  // as far apart as the addend
};

// As the hardware has it, within 2^-22.
__device__ __forceinline__ float reciprocal(float x) {
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float sigmoid(float x) { return reciprocal(1.f + power_of_two(-1.44269504f * x)); }
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
    return normal_cdf(x) + x * 0.39894228040143268f * power_of_two(-0.72134752f * x * x);
#else
    float s = sigmoid(1.702f * x);
    return s + 1.702f * x * s * (1.f - s);
#endif
}

// What becomes of the sums in W columns from column n, of any rows. W is 1; or W · sizeof(E) is at most 16, n a multiple of
// W, bit 2 of `aligned` set, and all W columns exist.
template <int W>
struct Epilogue {
    const Linear& p;
    int batch, n;
    float bias[W], inverse;

    // What a row adds: read for several rows before the first is written, since no compiler may do that by itself.
    struct Row {
        float addend[W], kept[W];
    };

    __device__ __forceinline__ Epilogue(const Linear& p, int batch, int n) : p(p), batch(batch), n(n) {
#if OUT_TERMS
        inverse = 1.f / p.second;
#endif
#pragma unroll
        for (int i = 0; i < W; ++i) bias[i] = 0.f;
        if (p.bias) load_pack<W>(bias, p.bias + batch * p.bias_step + n);
#pragma unroll
        for (int i = 0; i < W; ++i) bias[i] *= p.beta;
    }

    __device__ __forceinline__ u64 at(u64 step, int m, int pitch) const { return batch * step + (u64)m * pitch + n; }

    __device__ __forceinline__ void read(Row& row, int m) const {
#pragma unroll
        for (int i = 0; i < W; ++i) row.addend[i] = 0.f;
        if (p.addend) {
            load_pack<W>(row.addend, p.addend + at(p.addend_step, m, p.addend_pitch));
#if ADDEND_TERMS
            float more[W];
            load_pack<W>(more, p.addend2 + at(p.addend_step, m, p.addend_pitch));
#pragma unroll
            for (int i = 0; i < W; ++i) row.addend[i] = fmaf(p.second, more[i], row.addend[i]);
#endif
        }
#if ACT == 2
        load_pack<W>(row.kept, (const E*)p.kept + at(p.kept_step, m, p.kept_pitch));
#endif
    }

    __device__ __forceinline__ void write(const Row& row, int m, const float (&acc)[W]) const {
        float y[W];
#pragma unroll
        for (int i = 0; i < W; ++i) y[i] = fmaf(p.alpha, acc[i], bias[i]) + row.addend[i];
#if ACT == 1
        if (!OUT_TERMS && p.kept) store_pack<W>(p.kept + at(p.kept_step, m, p.kept_pitch), y);
#pragma unroll
        for (int i = 0; i < W; ++i) y[i] = activation(y[i]);
#elif ACT == 2
#pragma unroll
        for (int i = 0; i < W; ++i) y[i] *= activation_slope(row.kept[i]);
#endif
#if OUT_TERMS
        float rest[W];
#pragma unroll
        for (int i = 0; i < W; ++i) {
            E high;
            from_float(high, y[i]);
            rest[i] = inverse * (y[i] - to_float(high));
        }
        store_pack<W>(p.kept + at(p.kept_step, m, p.kept_pitch), y);
        store_pack<W>(p.rest + at(p.kept_step, m, p.kept_pitch), rest);
        if (!p.out) return;
#endif
        store_pack<W>(p.out + at(p.out_step, m, p.out_pitch), y);
    }
};

// Finishes W neighbouring sums of row m from column n, which may lie outside. W · sizeof(E) is at most 16, and n a
// multiple of W.
template <int W>
__device__ __forceinline__ void finish(const Linear& p, int batch, int m, int n, const float (&acc)[W]) {
    if (m >= p.M || n >= p.N) return;
    if ((p.aligned & 4) && n + W <= p.N) {
        Epilogue<W> epilogue(p, batch, n);
        typename Epilogue<W>::Row row;
        epilogue.read(row, m);
        epilogue.write(row, m, acc);
        return;
    }
#pragma unroll
    for (int i = 0; i < W; ++i) {
        if (n + i >= p.N) return;
        Epilogue<1> epilogue(p, batch, n + i);
        Epilogue<1>::Row row;
        epilogue.read(row, m);
        epilogue.write(row, m, {acc[i]});
    }
}
