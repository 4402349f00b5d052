// An image of a batch, and what happens to it on the way to one view: `ImageDesc` and `ViewParams` of src/ops/view.rs.

#pragma once

// w = 0: an empty slot, whose views are zeros.
struct ImageDesc {
    u64 offset;  // of its (h, w, 3) u8 in the batch's pixels, bytes
    u64 index;   // its number, which keys the random numbers
    u32 w, h;
};

enum Jitter { BRIGHTNESS, CONTRAST, SATURATION, HUE };

// How a view is made: a crop of its image, jittered and resized; as the image is predicted; a resized crop that goes through
// chains of operations; the padded image, cropped to its own size, that goes through them, and then as it is predicted.
enum Kind { CROP, ORIGINAL, RESIZED_CHAINS, PADDED_CHAINS };

// Of a chain, on 8-bit pixels. The first six change each level by itself, those up to `COLOR` each pixel.
enum Operation {
    AUTOCONTRAST, EQUALIZE, POSTERIZE, SOLARIZE, BRIGHTNESS_OF, CONTRAST_OF,
    COLOR, SHARPNESS, ROTATE, SHEAR_X, SHEAR_Y, TRANSLATE_X, TRANSLATE_Y, IDENTITY
};

// Bits, threshold, factor, degrees or share of a side, as the operation has it.
struct Step { u32 operation; float argument; };

const int STEPS = 9;

struct ViewParams {
    u32 kind;
    u32 hflip, vflip;
    float angle;         // degrees, anticlockwise, within 180
    u8 jitter_order[4];  // a permutation of Jitter
    float brightness, contrast, saturation, hue;
    int top, left, height, width;
    u32 mirror;          // of the resized crop
    // The chains' results under their weights, and what they began with, under `unchanged`.
    u32 chains;          // 1 or 3
    u32 depths[3];       // steps of each, STEPS / chains at most
    float weights[3], unchanged;
    u32 is_bilinear;     // how pixels are moved, else nearest
    u32 fill;            // where none is moved to: red, green and blue from the lowest byte
    Step steps[STEPS];   // STEPS / chains of each chain
};
