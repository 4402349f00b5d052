//! How fast a dataset opens, and how fast its images are read by so many threads, as `memo eval` reads them: thread r of R has every
//! R-th. `tests/sources_speed.sh` runs it; `tests/real_formats.py` compares its sums.
//!
//!     cargo run --release --example read_images -- PATH [--split NAME] [--images N] [--threads R] [--sum]

use std::path::PathBuf;
use std::time::Instant;

use anyhow::Result;
use clap::Parser;
use memo::data::{Cifar, DataSource, Dataset};
use sha2::{Digest, Sha256};

#[derive(Parser)]
struct Arguments {
    path: PathBuf,
    #[arg(long)]
    split: Option<String>,
    #[arg(long)]
    dataset: Option<Cifar>,
    #[arg(long, value_delimiter = ',')]
    corruptions: Vec<String>,
    #[arg(long, value_delimiter = ',')]
    severity: Vec<usize>,
    /// The first so many, instead of all
    #[arg(long)]
    images: Option<usize>,
    #[arg(long, default_value_t = 2)]
    threads: usize,
    /// Tell SHA-256 over that of each image's `LABEL WIDTH HEIGHT`, newline and pixels, in order
    #[arg(long)]
    sum: bool,
}

fn main() -> Result<()> {
    let Arguments { path, split, dataset: cifar, corruptions, severity: severities, images, threads, sum } =
        Arguments::parse();
    let start = Instant::now();
    let source = DataSource { path, split, cifar, corruptions, severities, ..DataSource::default() };
    let dataset = Dataset::open(&source)?;
    let opened = start.elapsed().as_secs_f64();
    let images = dataset.len().min(images.unwrap_or(usize::MAX));
    let start = Instant::now();
    let dataset = &dataset;
    let read = move |thread: usize| -> Result<Vec<[u8; 32]>> {
        let mut sums = Vec::new();
        for index in (thread..images).step_by(threads) {
            let sample = dataset.get(index)?;
            if sum {
                let head = format!("{} {} {}\n", sample.label, sample.image.width, sample.image.height);
                sums.push(
                    Sha256::new().chain_update(head).chain_update(&sample.image.pixels).finalize().into(),
                );
            }
        }
        Ok(sums)
    };
    let sums: Vec<Vec<[u8; 32]>> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || read(thread))).collect();
        readers.into_iter().map(|reader| reader.join().expect("a reader never panics")).collect::<Result<_>>()
    })?;
    let rate = images as f64 / start.elapsed().as_secs_f64();
    println!(
        "{}: {} images open in {opened:.2} s, {images} read by {threads} threads at {rate:.0} a second",
        source.path.display(),
        dataset.len()
    );
    if sum {
        let all = (0..images).fold(Sha256::new(), |all, i| all.chain_update(sums[i % threads][i / threads]));
        println!("{}", all.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    }
    Ok(())
}
