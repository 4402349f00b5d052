// Marginal entropy of each image's views, and its gradient, in one launch.
//
//   z[i][j]    = x[i][j] - max_h x[i][h] - log sum_h exp(x[i][h] - max x[i])
//   logpbar[j] = log sum_i w[i] exp z[i][j] - log sum_i w[i]        (clamped at -FLT_MAX)
//   H          = - sum_j exp(logpbar[j]) logpbar[j]
//   d[i][j]    = logpbar[j] - logpbar[t]              t: a class with the largest x[i]; p = exp z
//   dx[i][j]   = - (scale w[i] / sum w) p[i][j] (d[i][j] - sum_h p[i][h] d[i][h])
//
//   logits   (B, N, K) fp32   N views of each of B images, K classes
//   weights  (B, N)    fp32   of the views, 0 for those that are not selected, not all of them; or null: all 1
//   dlogits  (B, N, K) fp32   written (=), times `scale`, the loss scale
//   entropy  (B,)      fp32   written (=), nats, not scaled
//   average  (B, K)    fp32   written (=), logpbar; or null
//   scratch  (B, 4 N + 2 K) words, written, with SCRATCH 1; else null
//
// Grid: one CTA of 256 threads per image; a warp per view, then a thread per class.
// Shared: (4 N + 2 K) words, or none with SCRATCH 1, for more views or classes than fit: the same bits. The largest logit is
// taken off first, exactly, so that z keeps its digits; the gradient of a view that is sure of its class is a small difference,
// which d leaves whole. The more views, the nearer to each other their averages come, and the more terms these have: they are
// summed in float64, and logpbar is kept in two terms, so that d is as exact for any number of views. No atomics: the same
// input gives the same bits.
// MEMO, arXiv 2110.09506, equation 3, in log-sum-exp form.

#include "prelude.cuh"

#ifndef SCRATCH
#define SCRATCH 0
#endif

extern "C" __global__ void __launch_bounds__(256, 1)
entropy_forward_backward(const float* __restrict__ logits, const float* __restrict__ weights,
                         float* __restrict__ dlogits, float* __restrict__ entropy, float* __restrict__ average,
                         float* scratch, int N, int K, float scale) {
#if SCRATCH
    float* shared = scratch + (size_t)blockIdx.x * (4 * N + 2 * K);
#else
    extern __shared__ float shared[];
#endif
    float* top = shared;                 // (N,)
    float* log_sum = shared + N;         // (N,)
    int* surest = (int*)shared + 2 * N;  // (N,) t
    float* weight = shared + 3 * N;      // (N,)
    float* logpbar = shared + 4 * N;     // (K,)
    float* rest = logpbar + K;           // (K,) what logpbar has beyond float32
    const float* x = logits + (size_t)blockIdx.x * N * K;
    float* dx = dlogits + (size_t)blockIdx.x * N * K;

    for (int i = warp_id(); i < N; i += warp_count()) {
        float most = -FLT_MAX, sum = 0.f;
        int best = 0;
        for (int j = lane_id(); j < K; j += 32) {
            if (x[i * K + j] > most) best = j;
            most = fmaxf(most, x[i * K + j]);
        }
        float of_lane = most;
        most = warp_max(most);
        u32 surest_lanes = __ballot_sync(0xffffffff, of_lane == most);
        for (int j = lane_id(); j < K; j += 32) sum += expf(x[i * K + j] - most);
        sum = warp_sum(sum);
        if (lane_id() == __ffs(surest_lanes) - 1) {
            top[i] = most;
            log_sum[i] = logf(sum);
            surest[i] = best;
            weight[i] = weights ? weights[(size_t)blockIdx.x * N + i] : 1.f;
        }
    }
    __syncthreads();
    double total = 0.0;
    for (int i = 0; i < N; ++i) total += weight[i];
    double log_total = log(total);
    float views = total;

    float h = 0.f;
    for (int j = threadIdx.x; j < K; j += blockDim.x) {
        float most = -FLT_MAX;
        double sum = 0.0;
        for (int i = 0; i < N; ++i)
            if (weight[i] > 0.f) most = fmaxf(most, x[i * K + j] - top[i] - log_sum[i]);
        for (int i = 0; i < N; ++i)
            if (weight[i] > 0.f) sum += weight[i] * expf(x[i * K + j] - top[i] - log_sum[i] - most);
        double exact = most + (log(sum) - log_total);
        float lp = exact < -FLT_MAX ? -FLT_MAX : (float)exact;  // what is no number stays none
        logpbar[j] = lp;
        if (average) average[(size_t)blockIdx.x * K + j] = lp;
        rest[j] = exact - lp;
        h -= expf(lp) * lp;
    }
    h = block_sum(h);  // a barrier: logpbar and rest are complete after it
    if (threadIdx.x == 0) entropy[blockIdx.x] = h;

    for (int i = warp_id(); i < N; i += warp_count()) {
        float of_surest = logpbar[surest[i]], rest_of_surest = rest[surest[i]];
        auto d = [&](int j) { return logpbar[j] - of_surest + (rest[j] - rest_of_surest); };
        float mean = 0.f;  // of d under view i's prediction
        for (int j = lane_id(); j < K; j += 32) mean += expf(x[i * K + j] - top[i] - log_sum[i]) * d(j);
        mean = warp_sum(mean);
        for (int j = lane_id(); j < K; j += 32) {
            float p = expf(x[i * K + j] - top[i] - log_sum[i]);
            dx[i * K + j] = -scale * weight[i] / views * p * (d(j) - mean);
        }
    }
}
