//! Evaluation of many images: on one device, or on several side by side.

use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};

use super::pipeline::{adapt_each, caught};
use super::session::MOST_IMAGES;
use crate::data::{Evaluated, Sample};
use crate::engine::{Memo, Prediction, Views};
use crate::gpu::Stream;
use crate::interrupt;
use crate::records::{Answer, Choice, Failure, Record, Row};

/// What is evaluated, and what becomes of it.
pub trait Run {
    /// Begins, once the model is on all devices; the samples.
    ///
    /// # Errors
    /// Any, which end the run.
    fn begin(&mut self) -> Result<Vec<usize>>;

    /// Takes the next sample's row.
    ///
    /// # Errors
    /// Any, which end the run.
    fn keep(&mut self, row: Row) -> Result<()>;
}

/// MEMO by a worker a device, each with a classifier of its own that `build` makes; `run` gets every image's row, in order. No
/// row depends on the number of devices, if they are of one kind. Ends early,
/// with what is under way, where [`interrupt::asked`] says so.
///
/// # Errors
/// `build`'s and `run`'s; an image that cannot be adapted to, once all before it are kept.
pub fn evaluate_on(
    streams: &[Stream],
    build: impl Fn(&Stream) -> Result<Memo> + Sync,
    dataset: &Evaluated,
    run: &mut impl Run,
) -> Result<()> {
    if let [stream] = streams {
        let mut memo = build(stream)?;
        let indices = run.begin()?;
        return evaluate(&mut memo, dataset, &indices, Some(stream), &mut |row| run.keep(row));
    }
    let build = &build;
    thread::scope(|scope| {
        let workers: Vec<Worker> = streams
            .iter()
            .enumerate()
            .map(|(number, stream)| {
                let ((give, work), (send, rows)) = (mpsc::channel(), mpsc::sync_channel(2 * MOST_IMAGES));
                let stream = stream.clone();
                let work = move || {
                    let pass_on = |row| send.send(Ok(row)).map_err(|_| anyhow!("the run has ended"));
                    let evaluate_own = || {
                        let mut memo = build(&stream)?;
                        pass_on(None)?;
                        let indices: Vec<usize> = work.recv()?;
                        let profiled = Some(&stream).filter(|_| number == 0);
                        evaluate(&mut memo, dataset, &indices, profiled, &mut |row| pass_on(Some(row)))
                    };
                    let gpu = stream.gpu();
                    let device = || format!("device {}, {}", gpu.ordinal(), gpu.name().unwrap_or_default());
                    if let Err(error) = caught(device, evaluate_own) {
                        let _ = send.send(Err(error)); // nobody listens where the run has ended
                    }
                };
                thread::Builder::new().spawn_scoped(scope, work).context("starting a thread")?;
                Ok(Worker { give, rows })
            })
            .collect::<Result<_>>()?;
        for worker in &workers {
            worker.rows.recv().context("a device's worker has ended")??;
        }
        let indices = run.begin()?;
        // Blocks of images go around the devices.
        let block = indices.len().div_ceil(workers.len()).clamp(1, MOST_IMAGES);
        let worker_of = |place: usize| place / block % workers.len();
        for (number, worker) in workers.iter().enumerate() {
            let own = (0..indices.len()).filter(|&place| worker_of(place) == number);
            let own = own.map(|place| indices[place]).collect();
            let _ = worker.give.send(own); // one that has died says so below, behind the rows before its first
        }
        for place in 0..indices.len() {
            let row = match workers[worker_of(place)].rows.recv() {
                Err(_) if interrupt::asked().is_some() => break, // what others have behind it has no place in order
                row => {
                    row.context("a device's worker has ended")??.context("a worker that is ready twice")?
                }
            };
            ensure!(row.index() == indices[place], "a worker's rows are out of order");
            run.keep(row)?;
        }
        Ok(())
    })
}

/// A device's thread: it says that it is ready, is given its samples, and sends their rows.
struct Worker {
    give: Sender<Vec<usize>>,
    rows: Receiver<Result<Option<Row>>>,
}

/// MEMO on these images, on one device: see [`adapt_each`]; `keep` gets a row for each.
///
/// # Errors
/// Its own.
pub fn evaluate(
    memo: &mut Memo,
    dataset: &Evaluated,
    indices: &[usize],
    profiled: Option<&Stream>,
    keep: &mut impl FnMut(Row) -> Result<()>,
) -> Result<()> {
    adapt_each(memo, &Views::Drawn, dataset, indices, profiled, &mut |index, adapted| {
        let (file, group) = (dataset.file(index), dataset.group(index).map(str::to_string));
        keep(match adapted {
            Ok((Sample { digest, .. }, outcome)) => {
                let label = dataset.label(index);
                let choice = |prediction: &Prediction| Choice::of(prediction, label);
                let answers = |all: &[Result<Prediction, String>]| {
                    all.iter().map(|answer| Answer::of(answer, label)).collect()
                };
                Row::Record(Record {
                    index,
                    file,
                    group,
                    digest,
                    label,
                    zero_shot: choice(&outcome.zero_shot),
                    view_average: choice(&outcome.view_average),
                    confident_average: choice(&outcome.confident_average),
                    vote: choice(&outcome.vote),
                    memo: answers(&outcome.memo),
                    entropy: outcome.entropy,
                    memo_confident: answers(&outcome.memo_confident),
                    confident_entropy: outcome.confident_entropy,
                    overflow: outcome.overflow,
                })
            }
            Err(error) => {
                ensure!(index < dataset.len(), "reading image {index}: {error:#}");
                let (label, error) = (dataset.label(index), format!("{error:#}"));
                Row::Failure(Failure { index, file, group, label, error })
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{fixtures, random};
    use crate::cli::options::{AdaptOptions, Batch};
    use crate::cli::session;
    use crate::clip::Checkpoint;
    use crate::data::{DataSource, Dataset};
    use crate::device_test;

    /// Five images of noise, their folder, and a model for them.
    struct Place {
        _folder: tempfile::TempDir,
        dataset: Evaluated,
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
                dataset: Evaluated::from(Dataset::open(&DataSource {
                    path: folder.path().to_path_buf(),
                    ..DataSource::default()
                })?),
                checkpoint: Checkpoint::open(&fixtures().join("models/tiny"), None)?,
                adapt,
                _folder: folder,
            })
        }

        fn memo(&self, stream: &Stream, at_once: usize) -> Result<Memo> {
            let (labels, batch) = (self.dataset.data().labels(), Batch::Images(at_once));
            session::classifier(stream, &self.checkpoint, labels, &self.adapt, batch, self.dataset.len())
        }
    }

    device_test!(nothing_behind_an_error_is_kept, |stream| {
        let place = Place::new()?;
        for at_once in [1, 2] {
            let mut memo = place.memo(&stream, at_once)?;
            let mut kept = Vec::new();
            let mut keep = |row: Row| {
                kept.push(row.index());
                ensure!(row.index() != 1, "a full disk");
                Ok(())
            };
            let error = evaluate(&mut memo, &place.dataset, &[0, 1, 2, 3, 4], None, &mut keep).unwrap_err();
            assert_eq!((error.to_string().as_str(), &kept[..]), ("a full disk", &[0, 1][..]));
        }
    });

    /// Samples to go through, and those whose rows there are.
    struct Kept(Vec<usize>, Vec<usize>);

    impl Run for Kept {
        fn begin(&mut self) -> Result<Vec<usize>> {
            Ok(self.0.clone())
        }

        fn keep(&mut self, row: Row) -> Result<()> {
            self.1.push(row.index());
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
