// A 45x67 matrix transposed by way of tiles of 16x16 in shared memory.
// launch: grid=15 block=256 inp=3015 out=3015
// bug 1 race: nothing between filling the tile and reading it
// bug 2 memory: the bounds of the result are those of the source
// bug 3 init: a guard on the source alone; the ragged tile's rest is read as it is
// bug 4 race: CTAs overlap by a column and write different values there
// bug 5 race: the tile is used again at once for a second pass
#define H 45
#define W 67

extern "C" __global__ void kernel(const int* inp, int* out, int n) {
    __shared__ int tile[16][17];
    int x = threadIdx.x % 16, y = threadIdx.x / 16;
    int bx = blockIdx.x % 5, by = blockIdx.x / 5;
    int step = BUG == 4 ? 15 : 16;
    for (int pass = 0; pass < (BUG == 5 ? 2 : 1); ++pass) {
        int c = bx * step + x, r = by * 16 + y;
        if (c < W && r < H) tile[y][x] = inp[r * W + c] + (BUG == 4 ? blockIdx.x : 0);
        if (BUG != 1) __syncthreads();
        c = bx * step + y, r = by * 16 + x;
        if (BUG == 2 ? r < W && c < H + 32 : BUG == 3 ? c < W + 3 && r < H && r * W + c < n : c < W && r < H)
            out[BUG == 3 ? (c * H + r) % n : c * H + r] = tile[x][y];
    }
}

extern "C" __global__ void reference(const int* inp, int* out, int n) {
    for (int r = 0; r < H; ++r)
        for (int c = 0; c < W; ++c) out[c * H + r] = inp[r * W + c];
}
