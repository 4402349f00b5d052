//! Two halves of a dataset: one to choose settings on, one to report what was chosen on.

use super::Dataset;
use super::select::strata;

/// Whether each image is of the half that is chosen on; the others are reported on.
///
/// The images of a class, in each group, go to the halves in turn, by their indices, the first to that which is chosen on. So
/// both have each class alike, and an image's half depends on the data alone: not on a seed, a limit, a shard, the order or a batch.
/// Groups of the same pictures in one order, such as a corruption's severities, have each picture in one and the same half,
/// which a seeded shuffle would not.
pub fn chosen_on(dataset: &Dataset) -> Vec<bool> {
    in_turn(&strata(dataset))
}

fn in_turn(strata: &[usize]) -> Vec<bool> {
    let mut before = vec![0usize; strata.iter().max().map_or(0, |most| most + 1)];
    let deal = |&stratum: &usize| {
        before[stratum] += 1;
        !before[stratum].is_multiple_of(2)
    };
    strata.iter().map(deal).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_class_goes_to_the_halves_in_turn() {
        assert_eq!(
            in_turn(&[0, 1, 1, 0, 2, 1, 0, 1]),
            [true, true, false, false, true, true, true, false],
            "by hand: class 0 at 0, 3, 6; class 1 at 1, 2, 5, 7; class 2 at 4"
        );
        assert!(in_turn(&[]).is_empty());
    }
}
