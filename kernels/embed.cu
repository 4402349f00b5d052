// The tokens that enter the vision tower: the class embedding, then the projected patches, each with its position's
// embedding; of G groups of V views each. The projection itself is a product.
//
//   forward    x[g][v][0] = class + position[0]      x[g][v][t] = projected[g][v][t - 1] + position[t]
//   backward   dprojected[g][v][t - 1] = dx[g][v][t]      dposition[g][t] = sum_v dx[g][v][t], in order      dclass[g] = dposition[g][0]
//
//   x, dx (G, V, T, C) float   projected, dprojected (G, V, T - 1, C) E
//   class (C,) and position (T, C) float, shared, or each group's own, so many elements apart   dposition (G, T, C), dclass (G, C)
//   float: all outputs written (=).
//
// Grid: a CTA of 192 threads per t, forward: `each` views in y; groups in z. A thread has W = WIDTH neighbours of a row, of which
// C is a multiple, in all of its views, so that a position is read once for them.

#include "element.cuh"

#ifndef WIDTH
#define WIDTH 1
#endif
#define W WIDTH

extern "C" __global__ void __launch_bounds__(192)
embed_forward(float* __restrict__ x, const E* __restrict__ projected, const float* __restrict__ class_embedding,
              const float* __restrict__ position, int class_step, int position_step, int V, int T, int C, int each) {
    int t = blockIdx.x, end = min((int)(blockIdx.y + 1) * each, V);
    u64 group = blockIdx.z;
    for (int c = threadIdx.x * W; c < C; c += blockDim.x * W) {
        float place[W], token[W];
        load_pack<W>(place, position + group * position_step + (u64)t * C + c);
        if (t == 0) {
            load_pack<W>(token, class_embedding + group * class_step + c);
#pragma unroll
            for (int i = 0; i < W; ++i) token[i] += place[i];
        }
#pragma unroll 4
        for (int v = blockIdx.y * each; v < end; ++v) {
            u64 b = group * V + v;
            if (t > 0) {
                load_pack<W>(token, projected + (b * (T - 1) + t - 1) * C + c);
#pragma unroll
                for (int i = 0; i < W; ++i) token[i] += place[i];
            }
            store_pack<W>(x + (b * T + t) * C + c, token);
        }
    }
}

extern "C" __global__ void __launch_bounds__(192)
embed_backward(E* __restrict__ dprojected, float* __restrict__ dposition, float* __restrict__ dclass,
               const float* __restrict__ dx, int V, int T, int C) {
    int t = blockIdx.x;
    u64 group = blockIdx.z;
    for (int c = threadIdx.x * W; c < C; c += blockDim.x * W) {
        float sum[W] = {}, d[W];
#pragma unroll 4
        for (int v = 0; v < V; ++v) {
            u64 b = group * V + v;
            load_pack<W>(d, dx + (b * T + t) * C + c);
            if (t > 0) store_pack<W>(dprojected + (b * (T - 1) + t - 1) * C + c, d);
#pragma unroll
            for (int i = 0; i < W; ++i) sum[i] += d[i];
        }
        store_pack<W>(dposition + (group * T + t) * C + c, sum);
        if (t == 0) store_pack<W>(dclass + group * C + c, sum);
    }
}
