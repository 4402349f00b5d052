// Which of an image's views are confident: the M whose predictions have the smallest entropies, and what each view predicts.
//
//   H[i]       = - sum_j p[i][j] log p[i][j],  p[i] = softmax(x[i])
//   weights[i] = 1 for the M smallest H, of equals those of smaller i; else 0
//   choices[i] = the j with the largest x[i][j], of equals the first
//
//   logits     (B, N, K) fp32   N views of each of B images, K classes
//   weights    (B, N)    fp32   written (=)
//   entropies  (B, N)    fp32   written (=), nats
//   choices    (B, N)    i32    written (=); or null
//
// Grid: one CTA of 256 threads per image; a warp per view, then a thread per view. With t the largest logit and
// u = sum_{j != t} exp(x[j] - x[t]), H = log1p(u) + sum_j exp(x[j] - x[t]) (x[t] - x[j]) / (1 + u): no term is negative, so that
// views that are all but sure are still told apart. A view whose logits are not finite counts as confident: what it spoils is seen.
// TPT's selection, arXiv 2209.07511, section 3.2.

#include "prelude.cuh"

extern "C" __global__ void __launch_bounds__(256, 1)
select_confident(const float* __restrict__ logits, float* weights, float* entropies, int* choices, int N, int K, int M) {
    const float* x = logits + (size_t)blockIdx.x * N * K;
    float* h = entropies + (size_t)blockIdx.x * N;

    for (int i = warp_id(); i < N; i += warp_count()) {
        float most = -FLT_MAX;
        int best = 0;
        for (int j = lane_id(); j < K; j += 32)
            if (x[i * K + j] > most) {
                most = x[i * K + j];
                best = j;
            }
        float top = warp_max(most);
        if (most < top) best = K;
        for (int mask = 16; mask > 0; mask >>= 1) best = min(best, __shfl_xor_sync(0xffffffff, best, mask));
        float others = 0.f, depth = 0.f;
        for (int j = lane_id(); j < K; j += 32) {
            float below = top - x[i * K + j], e = expf(-below);
            if (j != best) others += e;
            depth += e * below;
        }
        others = warp_sum(others);
        depth = warp_sum(depth);
        if (lane_id() == 0) {
            h[i] = log1pf(others) + depth / (1.f + others);
            if (choices) choices[(size_t)blockIdx.x * N + i] = best;
        }
    }
    __syncthreads();

    for (int i = threadIdx.x; i < N; i += blockDim.x) {
        int before = 0;
        for (int l = 0; l < N; ++l) before += h[l] < h[i] || (h[l] == h[i] && l < i);
        weights[(size_t)blockIdx.x * N + i] = before < M ? 1.f : 0.f;
    }
}
