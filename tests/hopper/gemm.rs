//! `gemm.cu`.

use half::f16;
use vcuda::exec::{Launch, TensorCore};

use crate::{Device, assert_close, bytes, halves, random, sum_error};

const SOURCE: &str = include_str!("gemm.cu");
const SHARED_BYTES: u32 = 65_536 + 3 * 49_152 + 48;

fn check(
    device: &Device,
    [ta, tb]: [usize; 2],
    [m, n, k]: [usize; 3],
    (seed, sums): (u64, Option<TensorCore>),
) {
    let (a, b) = (random(m * k, 1), random(n * k, 2));
    let bias: Vec<f32> = random(n, 3).iter().map(|x| x.to_f32()).collect();
    let (at, bt) = (device.upload(&bytes(&a)), device.upload(&bytes(&b)));
    let bias_bytes: Vec<u8> = bias.iter().flat_map(|x| x.to_le_bytes()).collect();
    let (bias_at, d) = (device.upload(&bias_bytes), device.alloc(2 * m * n));
    // A row-major `(rows, columns)` matrix of float16, in boxes of 64 columns.
    let map = |address: u64, rows: usize, columns: usize, box_rows: u32| {
        device.map(address, &[columns as u64, rows as u64], &[2 * columns as u64], &[64, box_rows])
    };
    let args = [
        if ta == 0 { map(at, m, k, 128) } else { map(at, k, m, 64) },
        if tb == 0 { map(bt, n, k, 256) } else { map(bt, k, n, 64) },
        map(d, m, n, 64),
        bias_at.to_le_bytes().to_vec(),
        (m as i32).to_le_bytes().to_vec(),
        (n as i32).to_le_bytes().to_vec(),
        (k as i32).to_le_bytes().to_vec(),
    ];
    let launch =
        Launch { grid: [2, 1, 1], cluster: [1; 3], block: [384, 1, 1], dynamic_shared_bytes: SHARED_BYTES };
    device.launch("gemm", launch, &args, (seed, sums));

    let element = |x: &[f16], rows: usize, columns: usize, transposed: usize, r: usize, c: usize| -> f64 {
        x[if transposed == 0 { r * columns + c } else { c * rows + r }].into()
    };
    let (mut want, mut most) = (Vec::with_capacity(m * n), Vec::with_capacity(m * n));
    for r in 0..m {
        for (c, bias) in bias.iter().enumerate() {
            let products = (0..k).map(|i| element(&a, m, k, ta, r, i) * element(&b, n, k, tb, c, i));
            let x = products.clone().sum::<f64>() + f64::from(*bias);
            let y = x / (1.0 + (-1.702 * x).exp());
            want.push(y);
            // The activation is nowhere steeper than 1.1. Its exponential is off by 2 units, and by the rounding of its
            // argument, 2.5 |x| in units of 2^-24; the sum and the quotient by a few more.
            most.push(1.1 * sum_error(products) + y.abs() * (8.0 + 4.0 * x.abs()) * 2f64.powi(-24));
        }
    }
    let what = format!("TA {ta} TB {tb}, {m} x {n} x {k}, seed {seed}, sums {sums:?}");
    assert_close(&what, &halves(&device.read(&what, d, 2 * m * n)), &want, |i| most[i]);
    [at, bt, bias_at, d].into_iter().for_each(|address| device.free(address));
}

#[test]
fn a_product_is_right_in_every_layout_whole_and_ragged() {
    if !crate::driven::runs("90a") {
        return;
    }
    const SIZES: [[usize; 3]; 5] =
        [[128, 256, 64], [8, 8, 8], [136, 264, 72], [264, 320, 328], [384, 512, 192]];
    for layout in [[0, 0], [0, 1], [1, 0], [1, 1]] {
        for (approx, sums) in [(false, None), (true, Some(TensorCore::H100))] {
            let defines = [("TA", layout[0]), ("TB", layout[1])];
            let device = Device::new("gemm", SOURCE, &defines, ("90a", approx));
            for (seed, size) in SIZES.iter().enumerate() {
                check(&device, layout, *size, (seed as u64, sums));
            }
        }
    }
}
