// One plain SGD step over every parameter, in place.
//
//   params[i] -= learning_rate * grads[i]
//
//   params  (n,) fp32   updated
//   grads   (n,) fp32   read
//
// Grid: a thread per four elements, 256 threads a CTA. n is a multiple of 4 (the layout pads).
// Rounded as PyTorch rounds p.add_(g, alpha=-lr): one fused multiply-add per element.

#include "prelude.cuh"

extern "C" __global__ void __launch_bounds__(256)
sgd_step(float* __restrict__ params, const float* __restrict__ grads, int n, float learning_rate) {
    int i = 4 * (blockIdx.x * blockDim.x + threadIdx.x);
    if (i >= n) return;
    float4 p = load4(params + i), g = load4(grads + i);
    p.x = fmaf(-learning_rate, g.x, p.x);
    p.y = fmaf(-learning_rate, g.y, p.y);
    p.z = fmaf(-learning_rate, g.z, p.z);
    p.w = fmaf(-learning_rate, g.w, p.w);
    store4(params + i, p);
}
