// The activations of CLIP's MLPs and their derivatives.
//
//   quick_gelu(x) = x sigmoid(1.702 x)      gelu(x) = x (1 + erf(x / sqrt 2)) / 2
//   forward: out = f(inp)      backward: dout = dout f'(inp), in place
//
//   inp, out (n,) fp32, out written (=)   dout (n,) fp32, updated
//
// Grid: a thread per element, 256 a CTA.

#include "prelude.cuh"

// A power of two is what the hardware has; exp costs three times as much and is no nearer here.
__device__ __forceinline__ float sigmoid(float x) { return 1.f / (1.f + exp2f(-1.44269504f * x)); }
__device__ __forceinline__ float normal_cdf(float x) { return 0.5f * (1.f + erff(x * 0.70710678118654752f)); }

extern "C" __global__ void __launch_bounds__(256)
quick_gelu_forward(float* __restrict__ out, const float* __restrict__ inp, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = inp[i] * sigmoid(1.702f * inp[i]);
}

extern "C" __global__ void __launch_bounds__(256)
quick_gelu_backward(float* __restrict__ dout, const float* __restrict__ inp, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float x = inp[i], s = sigmoid(1.702f * x);
    dout[i] *= s + 1.702f * x * s * (1.f - s);
}

extern "C" __global__ void __launch_bounds__(256)
gelu_forward(float* __restrict__ out, const float* __restrict__ inp, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) out[i] = inp[i] * normal_cdf(inp[i]);
}

extern "C" __global__ void __launch_bounds__(256)
gelu_backward(float* __restrict__ dout, const float* __restrict__ inp, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= n) return;
    float x = inp[i];
    dout[i] *= normal_cdf(x) + x * 0.39894228040143268f * expf(-0.5f * x * x);
}
