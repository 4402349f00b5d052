//! How work and memory go with the number of images: by counts, whatever the clock says.

mod common;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::thread;

use anyhow::Result;
use clap::Parser;
use common::{Case, in_child, is_child};
use half::f16;
use memo::check::{fixtures, random, test_stream};
use memo::cli::{self, Cli};
use memo::clip::ClipConfig;
use memo::data::Rgb8;
use memo::device_test;
use memo::engine::{Item, Memo, Precision, Update, Views, Vision};
use memo::gpu::Stream;
use memo::ops::{Element, Optimizer};

/// Steps taken in every way.
const WAYS: [(Update, usize); 3] = [(Update::Implicit, 1), (Update::InPlace, 1), (Update::InPlace, 3)];

/// Launches of batches of several sizes are as many.
fn launches<E: Element>(stream: &Stream, precision: Precision) -> Result<()> {
    let case = Case::open("tiny");
    let image = Rgb8 { width: 32, height: 32, pixels: vec![9; 3 * 32 * 32] };
    for (update, steps) in WAYS {
        let batch = case.batch::<E>(stream, 18, &case.settings(precision, update, 2, steps))?;
        let mut counts = Vec::new();
        // From the second batch of a size on they are a graph's.
        for images in [1, 2, 5, 18, 18, 1] {
            let before = stream.launches();
            batch.adapt(&vec![Item { image: &image, index: 0 }; images], &Views::Drawn)?;
            counts.push(stream.launches() - before);
        }
        assert!(counts.iter().all(|&count| count == counts[0]), "{precision:?}, {update:?}: {counts:?}");
    }
    Ok(())
}

device_test!(a_batch_takes_as_many_launches_as_one_image, |stream| {
    launches::<f32>(&stream, Precision::Fp32)?;
    launches::<f16>(&stream, Precision::Fp16)?;
});

/// Batches of many sizes and of many steps; the memory that the first has left is left by all. Says how much is used.
fn batches_in_what_there_is() -> Result<()> {
    let (stream, case) = (test_stream(), Case::open("tiny"));
    let image = Rgb8 { width: 32, height: 32, pixels: vec![9; 3 * 32 * 32] };
    let adamw = Optimizer::AdamW { weight_decay: 0.01 };
    for (update, steps, optimizer) in [
        (Update::Implicit, 1, Optimizer::PLAIN),
        (Update::InPlace, 1, Optimizer::PLAIN),
        (Update::InPlace, 6, adamw),
    ] {
        let settings = case.optimized(case.settings(Precision::Fp16, update, 1, steps), optimizer);
        let batch = case.batch::<f16>(&stream, 4, &settings)?;
        let adapt = |images| -> Result<(usize, usize)> {
            batch.adapt(&vec![Item { image: &image, index: 0 }; images], &Views::Drawn)?;
            stream.gpu().memory_bytes()
        };
        let (free, all) = adapt(4)?;
        println!("used {}", all - free);
        for images in [4, 3, 2, 2, 1, 1, 4] {
            assert_eq!(adapt(images)?.0, free, "{images} images, {settings:?}");
        }
    }
    Ok(())
}

#[test]
fn no_memory_is_taken_once_batches_run() {
    const TEST: &str = "no_memory_is_taken_once_batches_run";
    if is_child() {
        return batches_in_what_there_is().unwrap();
    }
    let used = |settings: &[(&str, &str)]| {
        let output = in_child(TEST, settings);
        let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
        assert!(output.status.success(), "{}", said.concat());
        let used = said[0].lines().filter_map(|line| line.split_once("used ")?.1.parse::<usize>().ok());
        used.max().expect("a line that says so")
    };
    let most = used(&[]);
    assert_eq!(used(&[("VCUDA_MEMORY_BYTES", &most.to_string())]), most);
}

#[test]
fn every_image_of_a_batch_takes_as_much_memory() {
    /// What a tensor's place is a multiple of.
    const ALIGN: usize = 256;
    let case = Case::open("tiny");
    for config in [case.checkpoint.config().clone(), ClipConfig::vit_b_32()] {
        let vision = Vision { layout: config.vision_layout(), config };
        for ((update, steps), precision) in
            WAYS.into_iter().flat_map(|way| [Precision::Fp32, Precision::Fp16].map(|p| (way, p)))
        {
            let settings = case.settings(precision, update, 50, steps);
            let plan = |images| Memo::plan(&vision, images, 100, &settings).unwrap();
            let (one, tensors) = plan(1);
            for images in [2, 3, 7, 18, 64, 1000] {
                let (all, _) = plan(images);
                // What is left of a tensor's last 256 bytes is shared.
                let least = images * (one - ALIGN * tensors.len());
                assert!((least..=images * one).contains(&all), "{images}, {settings:?}: {all} of {one} each");
            }
        }
    }
}

/// Bytes that are allocated in this process, by the virtual device too.
fn heap() -> usize {
    // SAFETY: it only looks.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

/// `memo eval` of so many images, one view each; what the heap has held as each record came.
fn heaps(images: usize) -> Vec<usize> {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("cifar-10-batches-bin"), folder.path().join("records"));
    let noise = |image: usize| random(3072, 128.0, image as u64).into_iter().map(|x| (x + 128.0) as u8);
    let records = (0..images).flat_map(|image| std::iter::once((image % 10) as u8).chain(noise(image)));
    fs::create_dir(&data).unwrap();
    fs::write(data.join("test_batch.bin"), records.collect::<Vec<u8>>()).unwrap();
    fs::write(data.join("batches.meta.txt"), "a\nb\nc\nd\ne\nf\ng\nh\ni\nj\n").unwrap();
    // A pipe, so that records are seen when they are written.
    let path = CString::new(out.as_os_str().as_bytes()).unwrap();
    // SAFETY: the path ends in NUL.
    assert_eq!(unsafe { libc::mkfifo(path.as_ptr(), 0o600) }, 0);

    let reader = thread::spawn({
        let out = out.clone();
        move || {
            let pipe = File::open(out).unwrap();
            // So small that the run is never more than some records ahead.
            // SAFETY: it is open.
            assert!(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, 4096) } >= 4096);
            let (mut lines, mut line) = (BufReader::with_capacity(256, pipe), String::with_capacity(4096));
            let mut heaps = Vec::with_capacity(images);
            while lines.read_line(&mut line).unwrap() > 0 {
                heaps.push(heap());
                line.clear();
            }
            heaps
        }
    });
    let device = std::env::var("MEMO_TEST_DEVICE").unwrap_or_else(|_| "virtual".to_string());
    let model = fixtures().join("models/tiny");
    let paths = [model.as_os_str(), "--data".as_ref(), data.as_os_str(), "--out".as_ref(), out.as_os_str()];
    let more = ["--views", "1", "--batch", "8", "--json", "--device", &device].map(AsRef::as_ref);
    let args = ["memo", "eval", "--model"].map(AsRef::as_ref).into_iter().chain(paths).chain(more);
    cli::run(Cli::parse_from(args)).unwrap();
    reader.join().unwrap()
}

#[test]
fn nothing_on_the_host_grows_with_the_images() {
    if is_child() {
        let heaps = heaps(1000);
        assert_eq!(heaps.len(), 1000);
        // Batches on their way come and go, 24 KB each; the dataset goes when the last is done.
        let least = |records: &[usize]| *records.iter().min().unwrap();
        let (early, late) = (least(&heaps[100..300]), least(&heaps[750..950]));
        assert!(late < early + 40 * 1024, "650 images later {early} bytes have become {late}");
        return;
    }
    let output = in_child("nothing_on_the_host_grows_with_the_images", &[]);
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(output.status.success(), "{}", said.concat());
}
