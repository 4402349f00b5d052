//! Evaluation of many samples: batches on one device, one computed while the next is prepared; several devices side by side.

use std::num::NonZero;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};

use super::session::MOST_IMAGES;
use crate::data::{Dataset, Sample};
use crate::engine::{Item, Memo, Outcome, Queued, Views};
use crate::gpu::Stream;
use crate::gpu::trace::Profiler;
use crate::records::Record;

/// MEMO on these samples by a worker a device, each with a classifier of its own that `build` makes; `keep` gets every image's
/// record, in order. No record depends on the number of devices. Returns the seconds that it took once all were ready.
///
/// # Errors
/// `build`'s and `keep`'s; an image that cannot be read or adapted to, once all before it are kept.
pub fn evaluate_on(
    streams: &[Stream],
    build: impl Fn(&Stream) -> Result<Memo> + Sync,
    dataset: &Dataset,
    indices: &[usize],
    keep: &mut impl FnMut(Record) -> Result<()>,
) -> Result<f64> {
    if indices.is_empty() {
        return Ok(0.0);
    }
    if let [stream] = streams {
        let mut memo = build(stream)?;
        let start = Instant::now();
        evaluate(&mut memo, dataset, indices, Some(stream), keep)?;
        return Ok(start.elapsed().as_secs_f64());
    }
    let build = &build;
    // Blocks of images go around the devices.
    let worker_of = |place: usize| place / MOST_IMAGES % streams.len();
    thread::scope(|scope| {
        // A worker says first that it is ready, then sends its records.
        let work = |worker: usize| -> Receiver<Result<Option<Record>>> {
            let (send, receive) = mpsc::sync_channel(2 * MOST_IMAGES);
            let places = (0..indices.len()).filter(|&place| worker_of(place) == worker);
            let own: Vec<usize> = places.map(|place| indices[place]).collect();
            let stream = streams[worker].clone();
            scope.spawn(move || {
                let pass_on = |record| send.send(Ok(record)).map_err(|_| anyhow!("the run has ended"));
                let run = || {
                    let mut memo = build(&stream)?;
                    pass_on(None)?;
                    let profiled = Some(&stream).filter(|_| worker == 0);
                    evaluate(&mut memo, dataset, &own, profiled, &mut |record| pass_on(Some(record)))
                };
                if let Err(error) = run() {
                    let _ = send.send(Err(error)); // nobody listens where the run has ended
                }
            });
            receive
        };
        let queues: Vec<_> = (0..streams.len()).map(work).collect();
        let next = |worker: usize| queues[worker].recv().context("a device's worker died")?;
        for worker in 0..streams.len() {
            next(worker)?;
        }
        let start = Instant::now();
        for place in 0..indices.len() {
            keep(next(worker_of(place))?.context("a worker that is ready twice")?)?;
        }
        Ok(start.elapsed().as_secs_f64())
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
            let (zero_shot, memo) = ((&zero_shot).into(), (&memo).into());
            keep(Record { index: *index, label: sample.label, zero_shot, memo, entropy, overflow })?;
        }
        Ok(())
    };
    let mut profiler = None;
    let mut under_way: Option<(Vec<(usize, Sample)>, Queued)> = None;
    let done = in_batches(dataset, indices, memo.batch(), |samples| {
        let queued = memo.queue(&items(&samples), &Views::Drawn).with_context(|| adapting(&samples))?;
        if let Some((samples, queued)) = under_way.replace((samples, queued)) {
            finish(memo, &samples, queued)?;
            if let (None, Some(stream)) = (&profiler, profiled) {
                profiler = Some(Profiler::start(stream)?);
            }
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
                        // A closed queue means that the run has ended.
                        if send.send(dataset.get(index)).is_err() {
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
