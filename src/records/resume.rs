//! Whether records that are there already are those that a run would write now.

use std::num::NonZero;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::{Context, Result, ensure};

use super::{Choice, Record, Row, Truth, name_of};
use crate::data::Evaluated;
use crate::engine::Loss;
use crate::notice;
use crate::threads::together;

/// What a run is asked for, as far as records show it.
pub struct Asked<'a> {
    /// Increasing.
    pub indices: &'a [usize],
    /// Class names.
    pub classes: usize,
    /// Learning rates.
    pub rates: usize,
    pub steps: usize,
    pub losses: &'a [Loss],
}

/// Refuses records that were not asked for, that no such run writes, or whose image is now another. Images that have failed
/// may be any: they are tried again.
///
/// # Errors
/// The first such line by its number, with the file.
pub fn expect(rows: &[Row], asked: &Asked, dataset: &Evaluated) -> Result<()> {
    for (row, number) in rows.iter().zip(1..) {
        let expect = || -> Result<()> {
            in_range(row, asked)?;
            if let Row::Record(record) = row {
                same_place(record, dataset)?;
            }
            ensure!(
                asked.indices.binary_search(&row.index()).is_ok(),
                "{} is not among the {} images that are asked for now; ask for all that are there, or choose another name",
                name_of(row.index(), row.file()),
                asked.indices.len()
            );
            Ok(())
        };
        expect().with_context(|| format!("line {number}"))?;
    }
    same_images(rows, dataset)
}

/// What sums of a thousand float32 are off by at most.
const ROUNDING: f64 = 1e-3;

/// Refuses what no run over so many classes, by so many losses, rates and steps, writes.
///
/// # Errors
/// The field that it does not write so.
pub fn in_range(row: &Row, asked: &Asked) -> Result<()> {
    if let Some(label) = row.label() {
        ensure!(label < asked.classes, "label {label} of {} classes", asked.classes);
    }
    let Row::Record(record) = row else { return Ok(()) };
    let index = record.index;
    for (loss, memo, entropy) in [
        (Loss::All, &record.memo, &record.entropy),
        (Loss::Confident, &record.memo_confident, &record.confident_entropy),
    ] {
        let of_loss = if asked.losses.contains(&loss) { 1 } else { 0 };
        let (there, rates) = (memo.len(), of_loss * asked.rates);
        ensure!(there == rates, "image {index} was adapted to by {there} of {rates} learning rates");
        let (there, steps) = (entropy.len(), of_loss * asked.steps);
        ensure!(there == steps, "image {index} has {there} entropies of {steps} steps");
    }
    // The largest of K probabilities is at least 1/K, and their entropy at most ln K.
    let classes = asked.classes as f64;
    for Choice { pred, confidence, truth, .. } in record.answers().filter_map(|(_, choice)| choice) {
        ensure!(*pred < asked.classes, "image {index} was taken for class {pred} of {}", asked.classes);
        ensure!(
            (1.0 / classes - ROUNDING..=1.0 + ROUNDING).contains(confidence),
            "image {index} has a confidence of {confidence} among {classes} classes"
        );
        let Some(Truth { nll, rank, brier }) = truth else { continue };
        ensure!(
            *rank < asked.classes && (*rank == 0) == (record.label == Some(*pred)),
            "image {index}, taken for class {pred}, has the right one at rank {rank} of {classes}"
        );
        ensure!(nll.is_none_or(|nll| nll >= 0.0), "image {index} has a negative log-likelihood of {nll:?}");
        ensure!((0.0..=2.0 + ROUNDING).contains(brier), "image {index} has a Brier score of {brier}");
    }
    for (step, &entropy) in
        [&record.entropy, &record.confident_entropy].into_iter().flat_map(|of| of.iter().enumerate())
    {
        ensure!(
            (step > 0 && entropy.is_nan()) || (-ROUNDING..=classes.ln() + ROUNDING).contains(&entropy.into()),
            "image {index} has an entropy of {entropy} among {classes} classes"
        );
    }
    Ok(())
}

/// Whether the data has this image where it was, and in its class.
fn same_place(Record { index, file, group, label, .. }: &Record, dataset: &Evaluated) -> Result<()> {
    let (image, now) = (name_of(*index, file.as_deref()), dataset.file(*index));
    ensure!(*index < dataset.len(), "the data, of {} images, ends before {image}", dataset.len());
    ensure!(
        now == *file,
        "{image}: {} is in its place now",
        now.as_deref().unwrap_or("an image without a file")
    );
    ensure!(dataset.group(*index) == group.as_deref(), "{image} was of another group than it is of now");
    ensure!(dataset.label(*index) == *label, "{image} was of another class than it is of now");
    Ok(())
}

/// So many images are read again in no time, even from a slow disk.
const FEW: usize = 1000;

/// Reads all images that there are results for, on all cores.
fn same_images(rows: &[Row], dataset: &Evaluated) -> Result<()> {
    if rows.len() > FEW {
        notice!("note: comparing the {} images that there are results for with what they were", rows.len());
    }
    let same = |(number, row): (usize, &Row)| -> Result<()> {
        let Row::Record(Record { index, file, digest, .. }) = row else { return Ok(()) };
        let image = || format!("line {number}: {}", name_of(*index, file.as_deref()));
        let now = dataset.digest(*index).with_context(image)?;
        ensure!(now == *digest, "{} has changed since: another image, another result", image());
        Ok(())
    };
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let rows = Mutex::new((1..).zip(rows));
    let next = || rows.lock().unwrap_or_else(PoisonError::into_inner).next();
    let first_other = || std::iter::from_fn(next).find_map(|line| Some((line.0, same(line).err()?)));
    let found = together(cores, first_other).into_iter().flatten().min_by_key(|(number, _)| *number);
    found.map_or(Ok(()), |(_, error)| Err(error))
}
