// What happens to the source image on the way to one view: `ViewParams` of src/ops/draw.rs.

#pragma once

enum Jitter { BRIGHTNESS, CONTRAST, SATURATION, HUE, NONE };

struct ViewParams {
    u32 hflip, vflip;
    float angle;         // degrees, anticlockwise, within 180
    u8 jitter_order[4];  // a permutation of the first four of Jitter
    float brightness, contrast, saturation, hue;
    int top, left, height, width;
};
