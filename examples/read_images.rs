//! How fast a dataset opens, and how fast its images are read by so many threads, as `memo eval` reads them: thread r of R has every
//! R-th. `tests/sources_speed.sh` runs it.
//!
//!     cargo run --release --example read_images -- PATH [IMAGES] [THREADS]

use std::path::PathBuf;
use std::time::Instant;

use anyhow::{Context, Result};
use memo::data::{DataSource, Dataset};

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let path = arguments.first().context("read_images PATH [IMAGES] [THREADS]")?;
    let number = |at: usize, otherwise: usize| arguments.get(at).map_or(Ok(otherwise), |text| text.parse());
    let (most, threads) = (number(1, usize::MAX)?, number(2, 2)?);
    let corruptions = if path.ends_with("-C") { vec!["all".to_string()] } else { Vec::new() };
    let start = Instant::now();
    let dataset =
        Dataset::open(&DataSource { path: PathBuf::from(path), corruptions, ..DataSource::default() })?;
    let opened = start.elapsed().as_secs_f64();
    let images = dataset.len().min(most);
    let start = Instant::now();
    let dataset = &dataset;
    let read = move |thread: usize| {
        (thread..images).step_by(threads).try_for_each(|index| dataset.get(index).map(drop))
    };
    std::thread::scope(|scope| {
        let readers: Vec<_> = (0..threads).map(|thread| scope.spawn(move || read(thread))).collect();
        readers.into_iter().try_for_each(|reader| reader.join().expect("a reader never panics"))
    })?;
    let rate = images as f64 / start.elapsed().as_secs_f64();
    println!(
        "{path}: {} images open in {opened:.2} s, {images} read by {threads} threads at {rate:.0} a second",
        dataset.len()
    );
    Ok(())
}
