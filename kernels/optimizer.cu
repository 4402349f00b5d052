// A step of parameters by their gradients, each image its own, as torch.optim defines it; and which images' gradients have
// overflowed. With g = inverse · grad + decay · param (AdamW: without its second term), elementwise:
//
//   sgd_plain   out = param - rate · grad                           rate: the learning rate over the loss scale
//   sgd         b = momentum · b + g; at the first step b = g       out = param - rate · b
//   adamw       m = beta1 · m + (1 - beta1) · g                     out = param - (decay · param + rate · m / (root · √v + 1e-8))
//               v = beta2 · v + (1 - beta2) · g²                    at the first step m and v are 0 before
//
//   flags[s] |= 1 where a grad[s] is not finite
//   first[s] = out[s], rounded to float16, and second[s] = scale (out[s] - first[s]), where these are: what products take
//
//   param (n,) or (S, n), grad (S, n) float: of each piece, in a table   out (S, width) float, of which a piece is some columns, and
//   may be param   b, m, v (S, width) float, or null: written (=), and not read at the first step   flags (S,) u32
//   first, second (S, width) fp16, or null; written (=)
//   inverse: of the loss scale   decay: SGD's weight decay; AdamW's times the learning rate
//   pace (2,) float: the rate and, of AdamW, the root, which a step's number is in: rate, the learning rate, of AdamW over
//   1 - beta1^t; root, 1 / √(1 - beta2^t)
//
// Grid: a CTA per piece, images in y; 256 threads a CTA. What becomes of a parameter is rounded once. Flags are set by integer
// atomics.

#include "element.cuh"

// `struct Piece` of src/ops/optimizer.rs: up to 1024 neighbours of a parameter.
struct Piece {
    const float *param, *grad;
    u64 param_step, grad_step;  // from an image to the next, in elements; 0 of a parameter that they share
    u64 column;                 // of an image's row of results
    int len;
    int aligned;  // whether four neighbours may be read and written at once
};

__device__ __forceinline__ bool finite(float x) { return fabsf(x) <= FLT_MAX; }

// N neighbours of a state: 0 at the first step; a state that no later step reads is not there.
template <int N>
__device__ __forceinline__ void load_state(float (&to)[N], const float* state, u64 at, bool first) {
    if (first) {
        for (int i = 0; i < N; ++i) to[i] = 0.f;
    } else {
        load_pack<N>(to, state + at);
    }
}
template <int N>
__device__ __forceinline__ void store_state(float* state, u64 at, const float (&from)[N]) {
    if (state) store_pack<N>(state + at, from);
}

struct Plain {
    float rate;

    template <int N>
    __device__ void step(float (&p)[N], const float (&grad)[N], u64) const {
        for (int i = 0; i < N; ++i) p[i] = fmaf(-rate, grad[i], p[i]);
    }
};

struct Sgd {
    float* buffer;
    float rate, inverse, momentum, decay;
    bool first;

    template <int N>
    __device__ void step(float (&p)[N], const float (&grad)[N], u64 at) const {
        float b[N];
        load_state(b, buffer, at, first);
        for (int i = 0; i < N; ++i) {
            b[i] = fmaf(momentum, b[i], fmaf(decay, p[i], inverse * grad[i]));
            p[i] = fmaf(-rate, b[i], p[i]);
        }
        store_state(buffer, at, b);
    }
};

struct AdamW {
    float *mean, *square;
    float rate, inverse, decay, root;
    bool first;

    template <int N>
    __device__ void step(float (&p)[N], const float (&grad)[N], u64 at) const {
        float m[N], v[N];
        load_state(m, mean, at, first);
        load_state(v, square, at, first);
        for (int i = 0; i < N; ++i) {
            float g = inverse * grad[i];
            m[i] = fmaf(0.9f, m[i], 0.1f * g);
            v[i] = fmaf(0.999f, v[i], 0.001f * g * g);
            p[i] -= fmaf(decay, p[i], rate * (m[i] / fmaf(root, sqrtf(v[i]), 1e-8f)));
        }
        store_state(mean, at, m);
        store_state(square, at, v);
    }
};

// Where results are in two terms, if anywhere.
struct Terms {
    half *first, *second;
    float scale;

    template <int N>
    __device__ void store(u64 at, const float (&p)[N]) const {
        if (!first) return;
        float rest[N];
        for (int i = 0; i < N; ++i) {
            half high;
            from_float(high, p[i]);
            rest[i] = scale * (p[i] - to_float(high));
        }
        store_pack<N>(first + at, p);
        store_pack<N>(second + at, rest);
    }
};

template <typename Rule>
__device__ __forceinline__ void step_piece(const Piece* pieces, u32* flags, float* out, u64 width, const Rule& rule,
                                           const Terms& terms) {
    Piece piece = pieces[blockIdx.x];
    const float* param = piece.param + blockIdx.y * piece.param_step;
    const float* grad = piece.grad + blockIdx.y * piece.grad_step;
    u64 row = blockIdx.y * width + piece.column;
    bool overflow = false;
    int i = threadIdx.x * 4, end = min(i + 4, piece.len);
    if (piece.aligned && i + 4 <= piece.len) {
        float p[4], g[4];
        load_pack<4>(p, param + i);
        load_pack<4>(g, grad + i);
        overflow = !(finite(g[0]) && finite(g[1]) && finite(g[2]) && finite(g[3]));
        rule.step(p, g, row + i);
        store_pack<4>(out + row + i, p);
        terms.store(row + i, p);
    } else {
        for (; i < end; ++i) {
            float p[1] = {param[i]}, g[1] = {grad[i]};
            overflow = overflow || !finite(g[0]);
            rule.step(p, g, row + i);
            out[row + i] = p[0];
            terms.store(row + i, p);
        }
    }
    if (__any_sync(0xffffffff, overflow) && lane_id() == 0) atomicOr(flags + blockIdx.y, 1u);
}

extern "C" __global__ void __launch_bounds__(256)
sgd_plain(const Piece* __restrict__ pieces, u32* __restrict__ flags, float* out, u64 width, float rate) {
    step_piece(pieces, flags, out, width, Plain{rate}, {});
}

extern "C" __global__ void __launch_bounds__(256)
sgd(const Piece* __restrict__ pieces, u32* __restrict__ flags, float* out, float* __restrict__ buffer, u64 width,
    const float* __restrict__ pace, float inverse, float momentum, float decay, int first, half* __restrict__ first_term,
    half* __restrict__ second_term, float scale) {
    Sgd rule{buffer, pace[0], inverse, momentum, decay, first != 0};
    step_piece(pieces, flags, out, width, rule, {first_term, second_term, scale});
}

extern "C" __global__ void __launch_bounds__(256)
adamw(const Piece* __restrict__ pieces, u32* __restrict__ flags, float* out, float* __restrict__ mean, float* __restrict__ square,
      u64 width, const float* __restrict__ pace, float inverse, float decay, int first, half* __restrict__ first_term,
      half* __restrict__ second_term, float scale) {
    AdamW rule{mean, square, pace[0], inverse, decay, pace[1], first != 0};
    step_piece(pieces, flags, out, width, rule, {first_term, second_term, scale});
}
