//! Many images on one device: batches, one of which is computed while the next is prepared.

use std::num::NonZero;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;
use std::thread;

use anyhow::{Context, Result, bail};

use crate::data::{Evaluated, Rgb8, Sample};
use crate::engine::{Item, Memo, Outcome, Queued, Views};
use crate::gpu::Stream;
use crate::gpu::trace::Profiler;
use crate::interrupt;

/// Where images come from.
pub trait Source: Sync {
    type Image: AsRef<Rgb8> + Send;

    /// # Errors
    /// Why it cannot be read.
    fn read(&self, index: usize) -> Result<Self::Image>;

    /// What a person calls it.
    fn name(&self, index: usize) -> String;
}

impl Source for Evaluated {
    type Image = Sample;

    fn read(&self, index: usize) -> Result<Sample> {
        self.sample(index)
    }

    fn name(&self, index: usize) -> String {
        crate::records::name_of(index, self.file(index).as_deref())
    }
}

/// Images of a batch, by their indices; some of them could not be read.
type Images<I> = Vec<(usize, Result<I>)>;

/// Adapts to these images, a batch at a time; `keep` gets what becomes of each, in order, while the device has the next batch: its
/// outcome, or why it could not be read, which no other image's outcome depends on. Ends early, with all that is under way, where
/// [`interrupt::asked`] says so.
///
/// * `profiled`: what profilers are to look at once the first batch's results are there.
///
/// # Errors
/// `keep`'s; an image that cannot be adapted to, once all before it are kept.
pub fn adapt_each<S: Source>(
    memo: &mut Memo,
    views: &Views,
    source: &S,
    indices: &[usize],
    profiled: Option<&Stream>,
    keep: &mut impl FnMut(usize, Result<(S::Image, Outcome)>) -> Result<()>,
) -> Result<()> {
    let adapting = |images: &Images<S::Image>| match &images[..] {
        [(first, _), ..] => format!("adapting to images from {first} on"),
        [] => String::new(),
    };
    let mut finish = |memo: &mut Memo, images: Images<S::Image>, queued: Option<Queued>| -> Result<()> {
        let outcomes = match queued {
            Some(queued) => memo.finish(queued, &items(&images), views).with_context(|| adapting(&images))?,
            None => Vec::new(),
        };
        let mut outcomes = outcomes.into_iter();
        for (index, image) in images {
            let adapted = match image {
                Err(error) => Err(error),
                Ok(image) => {
                    let outcome = outcomes.next().context("an image without an outcome")?;
                    Ok((image, outcome.with_context(|| format!("adapting to {}", source.name(index)))?))
                }
            };
            keep(index, adapted)?;
        }
        Ok(())
    };
    let mut profiler = None;
    let mut under_way: Option<(Images<S::Image>, Option<Queued>)> = None;
    let done = in_batches(source, indices, memo.batch(), |images| {
        let queued = match items(&images) {
            none if none.is_empty() => None,
            items => Some(memo.queue(&items, views).with_context(|| adapting(&images))?),
        };
        let waits = queued.as_ref().is_some_and(Queued::waits);
        let mut next = under_way.replace((images, queued));
        // What waits for memory has nothing to overlap with.
        while let Some((images, queued)) = next.take() {
            if let Err(error) = finish(memo, images, queued) {
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
    if let Some((images, queued)) = under_way {
        finish(memo, images, queued)?;
    }
    done
}

/// Those that could be read.
fn items<I: AsRef<Rgb8>>(images: &Images<I>) -> Vec<Item<'_>> {
    let whole = images.iter().filter_map(|(index, image)| Some((*index, image.as_ref().ok()?)));
    whole.map(|(index, image)| Item { image: image.as_ref(), index: index as u64 }).collect()
}

/// Calls `each` with up to `batch` images that could be read, and those between them that could not, in order, while all cores read
/// what comes next; it returns how many it takes from there on.
fn in_batches<S: Source>(
    source: &S,
    indices: &[usize],
    mut batch: usize,
    mut each: impl FnMut(Images<S::Image>) -> Result<usize>,
) -> Result<()> {
    let readers = thread::available_parallelism().map_or(1, NonZero::get).min(batch.max(2));
    thread::scope(|scope| {
        // Reader r of R has every R-th image, in a queue of its own, so that all come in order; a queue holds its part of
        // two batches.
        let queues: Vec<_> = (0..readers)
            .map(|reader| {
                let (send, receive) = mpsc::sync_channel((2 * batch).div_ceil(readers));
                let read = move || {
                    for &index in indices.iter().skip(reader).step_by(readers) {
                        let image = caught(|| "reading it".to_string(), || source.read(index));
                        // A closed queue means that the run has ended.
                        if send.send(image).is_err() {
                            break;
                        }
                    }
                };
                thread::Builder::new().spawn_scoped(scope, read).context("starting a thread")?;
                Ok(receive)
            })
            .collect::<Result<_>>()?;
        let mut next = 0;
        while next < indices.len() {
            let (mut images, mut whole) = (Vec::with_capacity(batch), 0);
            // Where none can be read, that is told before all have been tried.
            while next < indices.len() && whole < batch && images.len() < 2 * batch {
                let image = queues[next % readers].recv()?;
                whole += image.is_ok() as usize;
                images.push((indices[next], image));
                next += 1;
            }
            if interrupt::asked().is_some() {
                break;
            }
            batch = each(images)?;
        }
        Ok(())
    })
}

/// What `work` returns; if it panics, which stderr has heard of, an error that says in what.
pub fn caught<T>(what: impl FnOnce() -> String, work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().map(|text| (*text).to_string());
        let text = text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_default();
        bail!("{}: a fault of this program: {text}", what())
    })
}

#[cfg(test)]
mod tests {
    use anyhow::ensure;

    use super::*;
    use crate::check::{fixtures, random};
    use crate::cli::options::{AdaptOptions, Batch};
    use crate::cli::session;
    use crate::clip::Checkpoint;
    use crate::device_test;

    /// Noise; each third image, if any is to be bad, cannot be read, and each seventh makes its decoder panic.
    struct Noise {
        some_are_bad: bool,
    }

    impl Source for Noise {
        type Image = Rgb8;

        fn read(&self, index: usize) -> Result<Rgb8> {
            ensure!(!self.some_are_bad || !index.is_multiple_of(3), "it is cut");
            assert!(!self.some_are_bad || !index.is_multiple_of(7), "a decoder's fault");
            let pixels = random(3 * 64, 127.0, index as u64).iter().map(|x| (x + 128.0) as u8).collect();
            Ok(Rgb8 { width: 8, height: 8, pixels })
        }

        fn name(&self, index: usize) -> String {
            format!("noise {index}")
        }
    }

    device_test!(a_bad_image_leaves_the_others_as_they_are, |stream| {
        let checkpoint = Checkpoint::open(&fixtures().join("models/tiny"), None)?;
        let adapt = AdaptOptions::mild(2, 1e-3);
        let labels = ["a", "photo"].map(str::to_string);
        let indices: Vec<usize> = (0..18).collect();
        let all = |some_are_bad: bool, at_once: usize| -> Result<Vec<Result<Outcome, String>>> {
            let batch = Batch::Images(at_once);
            let mut memo = session::classifier(&stream, &checkpoint, &labels, &adapt, batch, indices.len())?;
            let mut outcomes = Vec::new();
            let source = Noise { some_are_bad };
            adapt_each(&mut memo, &Views::Drawn, &source, &indices, None, &mut |index, adapted| {
                assert_eq!(index, outcomes.len(), "in order");
                outcomes.push(adapted.map(|(_, outcome)| outcome).map_err(|error| format!("{error:#}")));
                Ok(())
            })?;
            Ok(outcomes)
        };
        let whole = all(false, 4)?;
        assert!(whole.iter().all(Result::is_ok));
        for at_once in [1, 2, 5] {
            for (index, (got, want)) in all(true, at_once)?.iter().zip(&whole).enumerate() {
                match (index % 3, index % 7) {
                    (0, _) => assert_eq!(got.as_ref().unwrap_err(), "it is cut"),
                    (_, 0) => assert!(got.as_ref().is_err_and(|error| error.contains("a decoder's fault"))),
                    _ => assert_eq!(got, want, "image {index}, {at_once} at once"),
                }
            }
        }
    });
}
