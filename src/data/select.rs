//! Which of a dataset's images are evaluated.

use std::collections::HashMap;

use super::Dataset;

/// A part of a dataset. An image keeps its own index in each, and so its views.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Selection {
    All,
    /// The first so many.
    First(usize),
    /// So many of all classes, in proportion to their sizes: each class has its share, to within two, and classes of one
    /// size have equally many, to within one; of data in groups, each class of each group. The seed says which; a smaller sample of the same seed is a part of a larger one.
    Sample {
        count: usize,
        seed: u64,
    },
}

impl Selection {
    /// Indices of images, increasing.
    pub fn indices(self, dataset: &Dataset) -> Vec<usize> {
        match self {
            Selection::All => (0..dataset.len()).collect(),
            Selection::First(count) => (0..dataset.len().min(count)).collect(),
            Selection::Sample { count, seed } => {
                let classes = strata(dataset);
                let kinds = classes.iter().max().map_or(0, |most| most + 1);
                sample(&classes, kinds, count, seed)
            }
        }
    }
}

/// Each image's class; where there are groups, a class of each group is one by itself.
pub(super) fn strata(dataset: &Dataset) -> Vec<usize> {
    let mut groups = HashMap::new();
    let stratum = |index: usize| {
        let count = groups.len();
        let group = dataset.group(index).map_or(0, |group| *groups.entry(group).or_insert(count));
        group * dataset.labels().len() + dataset.label(index)
    };
    (0..dataset.len()).map(stratum).collect()
}

/// Each class's images are shuffled and set on a line at even distances, from a place that is drawn; the line is
/// cut where there are `count`.
fn sample(classes: &[usize], class_count: usize, count: usize, seed: u64) -> Vec<usize> {
    let mut members = vec![Vec::new(); class_count];
    classes.iter().enumerate().for_each(|(index, &class)| members[class].push(index));
    let mut line: Vec<(f64, usize)> = Vec::with_capacity(classes.len());
    for (class, mut members) in members.into_iter().enumerate() {
        members.sort_by_key(|&index| mix(seed ^ mix(index as u64)));
        let start = (mix(!seed ^ mix(class as u64)) >> 11) as f64 / (1u64 << 53) as f64;
        let distance = 1.0 / members.len().max(1) as f64;
        line.extend(
            members
                .into_iter()
                .zip(0u32..)
                .map(|(index, place)| ((f64::from(place) + start) * distance, index)),
        );
    }
    line.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let mut indices: Vec<usize> = line.into_iter().take(count).map(|(_, index)| index).collect();
    indices.sort_unstable();
    indices
}

/// SplitMix64's output function: a bijection that leaves no pattern.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_has_each_class_in_proportion() {
        // Classes of 10, 20 and 70, not sorted.
        let classes: Vec<usize> = (0..100).map(|i| [0, 1, 1, 2, 2, 2, 2, 2, 2, 2][i * 7 % 10]).collect();
        for (count, seed) in (0..=110).flat_map(|count| (0..5).map(move |seed| (count, seed))) {
            let indices = sample(&classes, 3, count, seed);
            assert_eq!(indices.len(), count.min(100));
            assert!(indices.windows(2).all(|pair| pair[0] < pair[1]));
            for (class, size) in [10, 20, 70].into_iter().enumerate() {
                let of_class = indices.iter().filter(|&&index| classes[index] == class).count() as f64;
                let share = size as f64 * count.min(100) as f64 / 100.0;
                assert!((of_class - share).abs() < 2.0, "{of_class} of {count}, not {share}");
            }
            let more = sample(&classes, 3, count + 1, seed);
            assert!(indices.iter().all(|index| more.contains(index)), "{count} are a part of more");
        }
        assert_ne!(sample(&classes, 3, 20, 0), sample(&classes, 3, 20, 1));
    }

    #[test]
    fn equal_classes_have_equal_parts() {
        let classes: Vec<usize> = (0..1000).map(|i| i / 20).collect();
        let chosen: Vec<Vec<usize>> = (0..40).map(|seed| sample(&classes, 50, 100, seed)).collect();
        for indices in &chosen {
            assert!(
                (0..50).all(|class| indices.iter().filter(|&&index| classes[index] == class).count() == 2)
            );
        }
        // No image is much likelier than another: 4 of 40 on average.
        let times = |index: usize| chosen.iter().filter(|indices| indices.contains(&index)).count();
        assert!((0..1000).all(|index| times(index) < 16));
    }

    #[test]
    fn a_seed_is_for_ever() {
        let classes: Vec<usize> = (0..30).map(|i| i / 10).collect();
        assert_eq!(sample(&classes, 3, 6, 0), [1, 8, 10, 19, 25, 29]);
    }
}
