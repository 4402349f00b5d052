// The numbers of Image.rotate and Image.transform: the definition is src/ops/pillow.rs.
//
// Products are not fused into sums where Pillow rounds each: compile with --fmad=false.

#pragma once

// a / b to the bit, of a constant b: a quotient and what is left by the reciprocal (Markstein). A division is a call, for which
// registers are spilled.
__device__ __forceinline__ double divided(double a, double b) {
    double reciprocal = 1.0 / b, q = a * reciprocal;
    return fma(fma(-q, b, a), reciprocal, q);
}

// Python's round(v, 15), for |v| <= 1: the product's rounding error decides what looks like a tie.
__device__ double round15(double v) {
    double product = v * 1e15, error = fma(v, 1e15, -product);
    double whole = rint(product), rest = (product - whole) + error;
    if (rest > 0.5) whole += 1.0;
    if (rest < -0.5) whole -= 1.0;
    return divided(whole, 1e15);
}

__device__ int fixed(double v) { return (int)floor(v * 65536.0 + 0.5); }

// Of 0 to 2 pi, within 2 units in the last place: by Taylor series, after taking off whole quarter turns.
__device__ void sine_cosine(double x, double* sine, double* cosine) {
    int quarters = __double2int_rn(x * 0.6366197723675814);
    x = fma(-quarters, 6.123233995736766e-17, fma(-quarters, 1.5707963267948966, x));
    double s = 1.0, c = 1.0;
#pragma unroll
    for (int n = 18; n > 0; n -= 2) {
        s = 1.0 - divided(x * x, n * (n + 1)) * s;
        c = 1.0 - divided(x * x, n * (n - 1)) * c;
    }
    s *= x;
    *sine = quarters & 1 ? c : s;
    *cosine = quarters & 1 ? s : c;
    if (quarters & 2) *sine = -*sine;
    if ((quarters + 1) & 2) *cosine = -*cosine;
}

// Of the degrees back, rounded as Image.rotate does. Its sines are the C library's, which may differ from ours in the last
// bit; rounding to 15 digits all but always drops that.
__device__ __forceinline__ void turn_back(double degrees, double* sine, double* cosine) {
    sine_cosine((degrees < 0.0 ? degrees + 360.0 : degrees) * (3.141592653589793 / 180.0), sine, cosine);
    *sine = -round15(*sine);
    *cosine = round15(*cosine);
}
