//! `memo bench`: how long MEMO takes on a checkpoint, and where the time goes.

use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Args;
use serde_json::json;

use super::options::{AdaptOptions, Batch, ModelOptions};
use super::{print, session};
use crate::data::Rgb8;
use crate::engine::{Item, Memo, Views};
use crate::gpu::human_bytes;
use crate::gpu::trace::Profiler;
use crate::report::decimal;

#[derive(Args)]
pub struct Bench {
    #[command(flatten)]
    model: ModelOptions,
    #[command(flatten)]
    adapt: AdaptOptions,
    /// Images at once
    #[arg(long, default_value = "auto", value_name = "auto|S")]
    batch: Batch,
    /// Images to time, in whole batches, after one batch that is not counted
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100_000), allow_negative_numbers = true)]
    images: u32,
    /// Classes
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=100_000), allow_negative_numbers = true)]
    classes: u32,
    /// Also wait around each stage and print its share (costs overlap on a GPU)
    #[arg(long)]
    stages: bool,
    /// Do not run the uncounted first batch
    #[arg(long)]
    no_warm_up: bool,
    /// A JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Bench {
    pub fn run(self) -> Result<()> {
        let start = Instant::now();
        let checkpoint = session::open_checkpoint(&self.model)?;
        let stream = session::open_device(self.model.device)?;
        let labels: Vec<String> = (0..self.classes).map(|i| format!("class {i}")).collect();
        let count = self.images as usize;
        let mut memo = session::classifier(&stream, &checkpoint, &labels, &self.adapt, self.batch, count)?;
        let ready_s = start.elapsed().as_secs_f64();

        let adapt = |memo: &mut Memo, first: usize, batch: usize| -> Result<()> {
            let images: Vec<Rgb8> = (first..first + batch).map(|index| noise(index as u64)).collect();
            let items: Vec<Item> =
                images.iter().zip(first as u64..).map(|(image, index)| Item { image, index }).collect();
            for outcome in memo.adapt(&items, &Views::Drawn)? {
                ensure!(outcome?.entropy.iter().all(|h| h.is_finite()), "timing: the entropy is not finite");
            }
            Ok(())
        };
        if !self.no_warm_up {
            let batch = memo.batch();
            adapt(&mut memo, 0, batch)?;
        }
        if self.stages {
            memo.keep_stage_times();
        }
        let batch = memo.batch(); // fewer, where memory has run out
        let profiler = Profiler::start(&stream)?;
        let (mut times_s, launched, recorded) = (Vec::new(), stream.launches(), stream.graphs());
        for number in 1..=count.div_ceil(batch) {
            let start = Instant::now();
            adapt(&mut memo, number * batch, batch)?;
            times_s.push(start.elapsed().as_secs_f64() / batch as f64);
        }
        drop(profiler);
        let batches = times_s.len();
        let (launches, graphs) =
            ((stream.launches() - launched) / batches, (stream.graphs() - recorded) / batches);
        times_s.sort_by(f64::total_cmp);
        let (least, median, most) = (times_s[0], times_s[times_s.len() / 2], times_s[times_s.len() - 1]);
        let total: f64 = times_s.iter().sum::<f64>() * batch as f64;
        let stages = memo.stage_times();

        if self.json {
            let settings = self.adapt.settings()?;
            let stages: serde_json::Map<_, _> = stages
                .iter()
                .map(|(name, time)| (name.to_string(), json!(time.as_secs_f64() / total)))
                .collect();
            let object = json!({
                "device": stream.gpu().name()?, "images": times_s.len() * batch, "batch": batch, "launches": launches, "graphs": graphs, "views": self.adapt.views, "steps": self.adapt.steps,
                "lr": settings.learning_rates.iter().map(|&lr| decimal(lr)).collect::<Vec<f64>>(), "optimizer": settings.optimizer, "update": settings.update, "precision": settings.precision,
                "classes": self.classes, "ready_s": ready_s, "min_s": least, "median_s": median, "max_s": most,
                "images_per_s": 1.0 / median, "peak_host_bytes": peak_host_bytes(), "stage_shares": stages,
            });
            return print(&format!("{object}\n"));
        }
        let mut text = format!(
            "{}, {batch} image{} at once, {} views, {} step{}\nready in {ready_s:.2} s (checkpoint, kernels, text features)\n\
             per image   median {median:.4} s   min {least:.4} s   max {most:.4} s   {:.3} images/s\n\
             {launches} launches a batch, {graphs} graph{}   peak host memory {}\n",
            stream.gpu().name()?,
            if batch == 1 { "" } else { "s" },
            self.adapt.views,
            self.adapt.steps,
            if self.adapt.steps == 1 { "" } else { "s" },
            1.0 / median,
            if graphs == 1 { "" } else { "s" },
            human_bytes(peak_host_bytes())
        );
        for (name, time) in stages {
            text += &format!("  {name:<10} {:5.1} %\n", 100.0 * time.as_secs_f64() / total);
        }
        print(&text)
    }
}

/// A 32×32 image of noise, as large as CIFAR's.
fn noise(seed: u64) -> Rgb8 {
    let mut state = seed;
    let pixels = (0..32 * 32 * 3)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    Rgb8 { width: 32, height: 32, pixels }
}

/// The most memory this process has held, as the kernel counts it.
fn peak_host_bytes() -> usize {
    // SAFETY: rusage is plain data, and getrusage fills it.
    unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &mut usage);
        usage.ru_maxrss as usize * 1024
    }
}
