// Marginal entropy of each image's views, and its gradient, in one launch.
//
//   lse[i]     = log sum_j exp x[i][j]
//   logpbar[j] = log sum_i exp(x[i][j] - lse[i]) - log N        (clamped at -FLT_MAX)
//   H          = - sum_j exp(logpbar[j]) logpbar[j]
//   dx[i][j]   = - (scale / N) p[i][j] (logpbar[j] - sum_h p[i][h] logpbar[h])
//
//   logits   (B, N, K) fp32   N views of each of B images, K classes
//   dlogits  (B, N, K) fp32   written (=), times `scale`, the loss scale
//   entropy  (B,)      fp32   written (=), nats, not scaled
//
// Grid: one CTA of 256 threads per image; a warp per view, then a thread per class.
// Shared: (N + K) floats. No atomics: the same input gives the same bits.
// MEMO, arXiv 2110.09506, equation 3, in log-sum-exp form.

#include "prelude.cuh"

extern "C" __global__ void __launch_bounds__(256)
entropy_forward_backward(const float* __restrict__ logits, float* __restrict__ dlogits,
                         float* __restrict__ entropy, int N, int K, float scale) {
    extern __shared__ float shared[];
    float* lse = shared;          // (N,)
    float* logpbar = shared + N;  // (K,)
    const float* x = logits + (size_t)blockIdx.x * N * K;
    float* dx = dlogits + (size_t)blockIdx.x * N * K;

    for (int i = warp_id(); i < N; i += warp_count()) {
        float top = -FLT_MAX, sum = 0.f;
        for (int j = lane_id(); j < K; j += 32) top = fmaxf(top, x[i * K + j]);
        top = warp_max(top);
        for (int j = lane_id(); j < K; j += 32) sum += expf(x[i * K + j] - top);
        sum = warp_sum(sum);
        if (lane_id() == 0) lse[i] = top + logf(sum);
    }
    __syncthreads();

    float h = 0.f;
    for (int j = threadIdx.x; j < K; j += blockDim.x) {
        float top = -FLT_MAX, sum = 0.f;
        for (int i = 0; i < N; ++i) top = fmaxf(top, x[i * K + j] - lse[i]);
        for (int i = 0; i < N; ++i) sum += expf(x[i * K + j] - lse[i] - top);
        float lp = fmaxf(top + logf(sum) - logf((float)N), -FLT_MAX);
        logpbar[j] = lp;
        h -= expf(lp) * lp;
    }
    h = block_sum(h);  // a barrier: logpbar is complete after it
    if (threadIdx.x == 0) entropy[blockIdx.x] = h;

    for (int i = warp_id(); i < N; i += warp_count()) {
        float mean = 0.f;  // of logpbar under view i's prediction
        for (int j = lane_id(); j < K; j += 32) mean += expf(x[i * K + j] - lse[i]) * logpbar[j];
        mean = warp_sum(mean);
        for (int j = lane_id(); j < K; j += 32) {
            float p = expf(x[i * K + j] - lse[i]);
            dx[i * K + j] = -scale / N * p * (logpbar[j] - mean);
        }
    }
}
