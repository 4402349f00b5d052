use memo::gpu::{DeviceChoice, Gpu};
use memo::ops::{attention::*, matmul::*};
use std::time::Instant;
fn cpu() -> f64 {
    unsafe {
        let mut u: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut u);
        u.ru_utime.tv_sec as f64 + u.ru_utime.tv_usec as f64 * 1e-6
    }
}
fn main() -> anyhow::Result<()> {
    let gpu = Gpu::open(DeviceChoice::Virtual)?;
    let what = std::env::args().nth(1).unwrap_or("all".into());
    if what != "att" {
        for (m, k, n) in
            [(400, 768, 768), (450, 768, 3072), (289, 64, 192), (289, 64, 64), (289, 64, 256), (289, 256, 64)]
        {
            let (inp, w, out) =
                (gpu.zeros::<f32>(m * k)?, gpu.zeros::<f32>(n * k)?, gpu.zeros::<f32>(m * n)?);
            for layout in 0..3 {
                let go = || -> anyhow::Result<()> {
                    match layout {
                        0 => matmul_forward(&gpu, &out, &inp, &w, None, None, (m, k, n)),
                        1 => matmul_backward_input(&gpu, &inp, &out, &w, (m, k, n)),
                        _ => matmul_backward_weight(&gpu, &w, &out, &inp, (m, k, n)),
                    }
                };
                go()?;
                gpu.synchronize()?;
                let (start, t0, mut reps) = (Instant::now(), cpu(), 0);
                while start.elapsed().as_secs_f64() < 0.4 {
                    reps += 1;
                    go()?;
                    gpu.synchronize()?;
                }
                let s = (cpu() - t0) / 2.0 / reps as f64;
                println!(
                    "{m}x{k}x{n} layout {layout}: cpu/2 {:.3} ms  {:.2} GFMA/s",
                    s * 1e3,
                    (m * k * n) as f64 / s / 1e9
                );
            }
        }
    }
    for (b, t, nh, hs) in [(9, 50, 12, 64), (17, 17, 4, 16), (1, 577, 2, 64)] {
        let c = nh * hs;
        let (qkv, out, lse, s) = (
            gpu.zeros::<f32>(b * t * 3 * c)?,
            gpu.zeros::<f32>(b * t * c)?,
            gpu.zeros::<f32>(b * nh * t)?,
            gpu.zeros::<f32>(b * nh * t)?,
        );
        let d = gpu.zeros::<f32>(b * t * 3 * c)?;
        let shape = Shape { b, t, nh, hs, causal: false };
        let n = if b == 17 { 10 } else { 3 };
        attention_forward(&gpu, &out, &lse, &qkv, shape)?;
        attention_backward(&gpu, &d, &out, &out, &lse, &qkv, &s, shape)?;
        gpu.synchronize()?;
        let t0 = cpu();
        for _ in 0..n {
            attention_forward(&gpu, &out, &lse, &qkv, shape)?;
        }
        gpu.synchronize()?;
        let t1 = cpu();
        for _ in 0..n {
            attention_backward(&gpu, &d, &out, &out, &lse, &qkv, &s, shape)?;
        }
        gpu.synchronize()?;
        println!(
            "attention {b} {t} {nh} {hs}: cpu/2 forward {:.3} ms backward {:.3} ms",
            (t1 - t0) * 500. / n as f64,
            (cpu() - t1) * 500. / n as f64
        );
    }
    Ok(())
}
