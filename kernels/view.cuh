// An image of a batch, and what happens to it on the way to one view: `ImageDesc` and `ViewParams` of src/ops/draw.rs.

#pragma once

// w = 0: an empty slot, whose views are zeros.
struct ImageDesc {
    u64 offset;  // of its (h, w, 3) u8 in the batch's pixels, bytes
    u64 index;   // its number, which keys the random numbers
    u32 w, h;
};

enum Jitter { BRIGHTNESS, CONTRAST, SATURATION, HUE };

// How a view is made: by what follows, or as its image is predicted.
enum Kind { CROP, ORIGINAL };

struct ViewParams {
    u32 kind;
    u32 hflip, vflip;
    float angle;         // degrees, anticlockwise, within 180
    u8 jitter_order[4];  // a permutation of Jitter
    float brightness, contrast, saturation, hue;
    int top, left, height, width;
    u32 mirror;  // of the resized crop
};
