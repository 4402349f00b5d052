// nvrtc: --fmad=false
// The steps of views' chains: MEMO's AugMix and torchvision's RandAugment, as Pillow and NumPy do them, bit for bit. The
// definition in plain loops is src/ops/chain.rs; shapes are chain.cuh's.
//
// Launches: crop_bases where the images are padded, make_chains; mix.cu goes on.

#include "levels.cuh"
#include "move.cuh"

// Grid: (S·N, parts) of 256 threads. torchvision's RandomCrop of the image padded by zeros, and its flip.
extern "C" __global__ void __launch_bounds__(256)
crop_bases(const ImageDesc* __restrict__ descs, const ViewParams* __restrict__ params, Shape shape,
           const u32* __restrict__ sources, u32* __restrict__ bases) {
    int view = blockIdx.x, image = view / shape.N, w = descs[image].w, h = descs[image].h;
    const ViewParams& p = params[view];
    if (w == 0 || p.kind != PADDED_CHAINS) return;
    sources += (size_t)image * shape.area;
    bases += (size_t)view * shape.area;
    for (int y = blockIdx.y * warp_count() + warp_id(); y < h; y += gridDim.y * warp_count()) {
        for (int x = lane_id(); x < w; x += 32) {
            int column = p.left + (p.mirror ? w - 1 - x : x), row = p.top + y;
            bool inside = (u32)column < w && (u32)row < h;
            bases[y * w + x] = inside ? sources[row * w + column] : 0;
        }
    }
}

// Grid: (S·N·L) of CHAIN_THREADS, which take a chain through its steps. A program that this launch has no room for ends it.
extern "C" __global__ void __launch_bounds__(CHAIN_THREADS, 1)
make_chains(const ImageDesc* __restrict__ descs, const ViewParams* __restrict__ params, Shape shape,
            const u32* bases, u32* layers, u8* __restrict__ levels, Line* lines, End* __restrict__ ends) {
    __shared__ Levels is;
    __shared__ Move move;
    int item = blockIdx.x;
    Chain chain(descs, params, shape, item);
    if (!chain.exists) return;
    if (chain.params->chains != shape.L || chain.depth > STEPS / shape.L) __trap();
    End end = {};
    bool are_counted = false;
    for (u32 k = 0; k < chain.depth; ++k) {
        const Step step = chain.steps[k];
        if (step.operation > IDENTITY) __trap();
        const u32* from = picture(bases, layers, item, shape, end.times);
        if (Chain::changes_levels(step.operation)) {
            if (!end.has_levels) begin_levels(is);
            if (step.operation <= EQUALIZE && !are_counted) {
                count_levels(from, chain.w * chain.h, is);
                are_counted = true;
            }
            change_levels(step, from, chain.w * chain.h, is);
            end.has_levels = true;
        }
        if (!chain.changes_pixels(step)) continue;
        if (threadIdx.x == 0) plan_move(move, chain, step);
        if (end.has_levels) {
            u32* to = picture(layers, item, shape, ++end.times);
            put_levels(from, chain.w * chain.h, is.table, to);
            from = to;
        }
        __syncthreads();
        u32* to = picture(layers, item, shape, end.times + 1);
        change_pixels({from, chain.w, chain.h}, move, lines + (size_t)item * shape.lines, to);
        __syncthreads();
        end = {end.times + 1, 0};
        are_counted = false;
    }
    if (threadIdx.x == 0) ends[item] = end;
    if (!end.has_levels) return;
    for (int i = threadIdx.x; i < 768; i += blockDim.x) levels[(size_t)item * 768 + i] = is.table[0][i];
}
