//! Evaluation of many samples: batches on one device, one computed while the next is prepared; several devices side by side.

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};

use super::session::MOST_IMAGES;
use crate::data::{Dataset, Sample};
use crate::engine::{Item, Memo, Outcome, Queued, Views};
use crate::gpu::Stream;
use crate::gpu::trace::Profiler;
use crate::records::Record;

/// What is evaluated, and what becomes of it.
pub trait Run {
    /// Begins, once the model is on all devices; the samples.
    ///
    /// # Errors
    /// Any, which end the run.
    fn begin(&mut self) -> Result<Vec<usize>>;

    /// Takes the next sample's record.
    ///
    /// # Errors
    /// Any, which end the run.
    fn keep(&mut self, record: Record) -> Result<()>;
}

/// MEMO by a worker a device, each with a classifier of its own that `build` makes; `run` gets every image's record, in order. No
/// record depends on the number of devices, if they are of one kind. Returns the seconds that it took once all were ready.
///
/// # Errors
/// `build`'s and `run`'s; an image that cannot be read or adapted to, once all before it are kept.
pub fn evaluate_on(
    streams: &[Stream],
    build: impl Fn(&Stream) -> Result<Memo> + Sync,
    dataset: &Dataset,
    run: &mut impl Run,
) -> Result<f64> {
    if let [stream] = streams {
        let mut memo = build(stream)?;
        let (indices, start) = (run.begin()?, Instant::now());
        evaluate(&mut memo, dataset, &indices, Some(stream), &mut |record| run.keep(record))?;
        return Ok(start.elapsed().as_secs_f64());
    }
    let build = &build;
    thread::scope(|scope| {
        let workers: Vec<Worker> = streams
            .iter()
            .enumerate()
            .map(|(number, stream)| {
                let ((give, work), (send, records)) = (mpsc::channel(), mpsc::sync_channel(2 * MOST_IMAGES));
                let stream = stream.clone();
                scope.spawn(move || {
                    let pass_on = |record| send.send(Ok(record)).map_err(|_| anyhow!("the run has ended"));
                    let evaluate_own = || {
                        let mut memo = build(&stream)?;
                        pass_on(None)?;
                        let indices: Vec<usize> = work.recv()?;
                        let profiled = Some(&stream).filter(|_| number == 0);
                        evaluate(&mut memo, dataset, &indices, profiled, &mut |record| pass_on(Some(record)))
                    };
                    let gpu = stream.gpu();
                    let device = || format!("device {}, {}", gpu.ordinal(), gpu.name().unwrap_or_default());
                    if let Err(error) = caught(device, evaluate_own) {
                        let _ = send.send(Err(error)); // nobody listens where the run has ended
                    }
                });
                Worker { give, records }
            })
            .collect();
        for worker in &workers {
            worker.next()?;
        }
        let (indices, start) = (run.begin()?, Instant::now());
        // Blocks of images go around the devices.
        let block = indices.len().div_ceil(workers.len()).clamp(1, MOST_IMAGES);
        let worker_of = |place: usize| place / block % workers.len();
        for (number, worker) in workers.iter().enumerate() {
            let own = (0..indices.len()).filter(|&place| worker_of(place) == number);
            let own = own.map(|place| indices[place]).collect();
            let _ = worker.give.send(own); // one that has died says so below, behind the records before its first
        }
        for place in 0..indices.len() {
            let record = workers[worker_of(place)].next()?.context("a worker that is ready twice")?;
            ensure!(record.index == indices[place], "a worker's records are out of order");
            run.keep(record)?;
        }
        Ok(start.elapsed().as_secs_f64())
    })
}

/// A device's thread: it says that it is ready, is given its samples, and sends their records.
struct Worker {
    give: Sender<Vec<usize>>,
    records: Receiver<Result<Option<Record>>>,
}

impl Worker {
    fn next(&self) -> Result<Option<Record>> {
        self.records.recv().context("a device's worker has ended")?
    }
}

/// What `work` returns; if it panics, which stderr has heard of, an error that says in what.
fn caught<T>(what: impl FnOnce() -> String, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        bail!("{}: a fault of this program: {text}", what())
    })
}

/// MEMO on these samples, a batch at a time; `keep` gets every image's record, in order, while the device has the next batch.
///
/// * `profiled`: what profilers are to look at once the first batch's results are there.
///
/// # Errors
/// An image that cannot be read or adapted to, once all before it are kept.
pub fn evaluate(
    memo: &mut Memo,
    dataset: &Dataset,
    indices: &[usize],
    profiled: Option<&Stream>,
    keep: &mut impl FnMut(Record) -> Result<()>,
) -> Result<()> {
    let adapting = |samples: &[(usize, Sample)]| match samples {
        [(first, _), ..] => format!("adapting to images from {first} on"),
        [] => String::new(),
    };
    let mut finish = |memo: &mut Memo, samples: &[(usize, Sample)], queued: Queued| -> Result<()> {
        let outcomes =
            memo.finish(queued, &items(samples), &Views::Drawn).with_context(|| adapting(samples))?;
        for ((index, sample), outcome) in samples.iter().zip(outcomes) {
            let Outcome { zero_shot, memo, entropy, overflow } =
                outcome.with_context(|| format!("adapting to image {index}"))?;
            let (zero_shot, memo) = ((&zero_shot).into(), memo.iter().map(Into::into).collect());
            keep(Record { index: *index, label: sample.label, zero_shot, memo, entropy, overflow })?;
        }
        Ok(())
    };
    let mut profiler = None;
    let mut under_way: Option<(Vec<(usize, Sample)>, Queued)> = None;
    let done = in_batches(dataset, indices, memo.batch(), |samples| {
        let queued = memo.queue(&items(&samples), &Views::Drawn).with_context(|| adapting(&samples))?;
        let waits = queued.waits();
        let mut next = under_way.replace((samples, queued));
        // What waits for memory has nothing to overlap with.
        while let Some((samples, queued)) = next.take() {
            if let Err(error) = finish(memo, &samples, queued) {
                under_way = None; // what lies behind an image that failed is not kept
                return Err(error);
            }
            if let (None, Some(stream)) = (&profiler, profiled) {
                profiler = Some(Profiler::start(stream)?);
            }
            next = under_way.take_if(|_| waits);
        }
        Ok(memo.batch())
    });
    // Also where a later image ends the run.
    if let Some((samples, queued)) = under_way {
        finish(memo, &samples, queued)?;
    }
    done
}

fn items(samples: &[(usize, Sample)]) -> Vec<Item<'_>> {
    samples.iter().map(|(index, sample)| Item { image: &sample.image, index: *index as u64 }).collect()
}

/// Calls `each` with up to `batch` samples and their indices, in order, while all cores read what comes next; it returns how many
/// it takes from there on. An error in a sample comes once `each` has had all before it.
fn in_batches(
    dataset: &Dataset,
    indices: &[usize],
    mut batch: usize,
    mut each: impl FnMut(Vec<(usize, Sample)>) -> Result<usize>,
) -> Result<()> {
    let readers = thread::available_parallelism().map_or(1, NonZero::get).min(batch.max(2));
    thread::scope(|scope| {
        // Reader r of R has every R-th image, in a queue of its own, so that all come in order; a queue holds its part of
        // two batches.
        let queues: Vec<_> = (0..readers)
            .map(|reader| {
                let (send, receive) = mpsc::sync_channel((2 * batch).div_ceil(readers));
                scope.spawn(move || {
                    for &index in indices.iter().skip(reader).step_by(readers) {
                        let sample = caught(|| format!("reading image {index}"), || dataset.get(index));
                        // A closed queue means that the run has ended.
                        if send.send(sample).is_err() {
                            break;
                        }
                    }
                });
                receive
            })
            .collect();
        let mut next = 0;
        while next < indices.len() {
            let mut samples = Vec::with_capacity(batch);
            let mut failed = None;
            while next < indices.len() && samples.len() < batch && failed.is_none() {
                match queues[next % readers].recv()? {
                    Ok(sample) => samples.push((indices[next], sample)),
                    Err(error) => failed = Some(error),
                }
                next += 1;
            }
            if !samples.is_empty() {
                batch = each(samples)?;
            }
            if let Some(error) = failed {
                return Err(error);
            }
        }
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{fixtures, random};
    use crate::cli::options::{AdaptOptions, Batch};
    use crate::cli::session;
    use crate::clip::Checkpoint;
    use crate::device_test;

    /// Five images of noise, their folder, and a model for them.
    struct Place {
        _folder: tempfile::TempDir,
        dataset: Dataset,
        checkpoint: Checkpoint,
        adapt: AdaptOptions,
    }

    impl Place {
        fn new() -> Result<Place> {
            let folder = tempfile::tempdir()?;
            for (i, class) in ["a", "photo", "a", "photo", "a"].into_iter().enumerate() {
                let pixels = random(3 * 64, 127.0, i as u64).iter().map(|x| (x + 128.0) as u8).collect();
                let picture = image::RgbImage::from_raw(8, 8, pixels).context("64 pixels")?;
                std::fs::create_dir_all(folder.path().join(class))?;
                picture.save(folder.path().join(class).join(format!("{i}.png")))?;
            }
            let adapt = AdaptOptions::mild(2, 1e-3);
            Ok(Place {
                dataset: Dataset::open(folder.path())?,
                checkpoint: Checkpoint::open(&fixtures().join("models/tiny"), None)?,
                adapt,
                _folder: folder,
            })
        }

        fn memo(&self, stream: &Stream, at_once: usize) -> Result<Memo> {
            let (labels, batch) = (self.dataset.labels(), Batch::Images(at_once));
            session::classifier(stream, &self.checkpoint, labels, &self.adapt, batch, self.dataset.len())
        }
    }

    device_test!(nothing_behind_an_error_is_kept, |stream| {
        let place = Place::new()?;
        for at_once in [1, 2] {
            let mut memo = place.memo(&stream, at_once)?;
            let mut kept = Vec::new();
            let mut keep = |record: Record| {
                kept.push(record.index);
                ensure!(record.index != 1, "a full disk");
                Ok(())
            };
            let error = evaluate(&mut memo, &place.dataset, &[0, 1, 2, 3, 4], None, &mut keep).unwrap_err();
            assert_eq!((error.to_string().as_str(), &kept[..]), ("a full disk", &[0, 1][..]));
        }
    });

    /// Samples to go through, and those whose records there are.
    struct Kept(Vec<usize>, Vec<usize>);

    impl Run for Kept {
        fn begin(&mut self) -> Result<Vec<usize>> {
            Ok(self.0.clone())
        }

        fn keep(&mut self, record: Record) -> Result<()> {
            self.1.push(record.index);
            Ok(())
        }
    }

    device_test!(a_panic_is_an_error_that_says_where, |stream| {
        let place = Place::new()?;
        let streams = [stream.clone(), stream.gpu().stream()?];
        let mut run = Kept(vec![0, 1, 2], Vec::new());
        let panics = |_: &Stream| -> Result<Memo> { panic!("no engine {}", 1) };
        let error = evaluate_on(&streams, panics, &place.dataset, &mut run).unwrap_err();
        let device = format!("device {}, {}: ", stream.gpu().ordinal(), stream.gpu().name()?);
        assert!(error.to_string().starts_with(&device), "{error:#}");
        assert!(error.to_string().ends_with("no engine 1") && run.1.is_empty(), "{error:#}");

        // A sample that there is none of, on one device and on two.
        for streams in [&streams[..1], &streams] {
            let mut run = Kept(vec![0, 1, 2, 99, 3], Vec::new());
            let build = |stream: &Stream| place.memo(stream, 2);
            let error = evaluate_on(streams, build, &place.dataset, &mut run).unwrap_err();
            assert!(error.to_string().starts_with("reading image 99: "), "{error:#}");
            assert_eq!(run.1, [0, 1, 2]);
        }
    });
}
