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
    /// size have equally many, to within one. Of data in groups the same holds for the groups, and for the classes in each.
    /// The seed says which; a smaller sample of the same seed is a part of a larger one.
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
                let classes: Vec<usize> = (0..dataset.len()).map(|index| dataset.label(index)).collect();
                sample(&classes, dataset.labels().len(), &groups(dataset), count, seed)
            }
        }
    }
}

/// The number of each image's group; 0 where there are none.
fn groups(dataset: &Dataset) -> Vec<usize> {
    let mut numbers = HashMap::new();
    let number = |index: usize| {
        let next = numbers.len();
        *numbers.entry(dataset.group(index)).or_insert(next)
    };
    (0..dataset.len()).map(number).collect()
}

/// Each image's class; where there are groups, a class of each group is one by itself.
pub(super) fn strata(dataset: &Dataset) -> Vec<usize> {
    let stratum = |(index, group): (usize, usize)| group * dataset.labels().len() + dataset.label(index);
    groups(dataset).into_iter().enumerate().map(stratum).collect()
}

/// Each class's images are shuffled and then spread over the line of their group, and the groups' lines over another, which is
/// cut where there are `count`.
fn sample(classes: &[usize], kinds: usize, groups: &[usize], count: usize, seed: u64) -> Vec<usize> {
    let mut members = vec![vec![Vec::new(); kinds]; groups.iter().max().map_or(0, |most| most + 1)];
    groups
        .iter()
        .zip(classes)
        .enumerate()
        .for_each(|(index, (&group, &class))| members[group][class].push(index));
    let line = |(group, mut classes): (u64, Vec<Vec<usize>>)| {
        for members in &mut classes {
            members.sort_by_key(|&index| mix(seed ^ mix(index as u64)));
        }
        spread(classes, if group == 0 { seed } else { mix(seed ^ mix(!group)) })
    };
    let mut indices = spread((0..).zip(members).map(line).collect(), seed);
    indices.truncate(count);
    indices.sort_unstable();
    indices
}

/// Several orders in one: each is set on a line at even distances, from a place that is drawn.
fn spread(orders: Vec<Vec<usize>>, seed: u64) -> Vec<usize> {
    let mut line: Vec<(f64, usize)> = Vec::new();
    for (number, order) in orders.into_iter().enumerate() {
        let start = (mix(!seed ^ mix(number as u64)) >> 11) as f64 / (1u64 << 53) as f64;
        let distance = 1.0 / order.len().max(1) as f64;
        let placed = order.into_iter().zip(0u32..);
        line.extend(placed.map(|(index, place)| ((f64::from(place) + start) * distance, index)));
    }
    line.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    line.into_iter().map(|(_, index)| index).collect()
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
    fn sample(classes: &[usize], kinds: usize, count: usize, seed: u64) -> Vec<usize> {
        super::sample(classes, kinds, &vec![0; classes.len()], count, seed)
    }

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
    fn every_group_has_its_part_and_in_it_every_class() {
        // 95 groups of 200 images, as CIFAR-10-C has them a hundredth, of 10 classes.
        let classes: Vec<usize> = (0..19_000).map(|index| index % 10).collect();
        let groups: Vec<usize> = (0..19_000).map(|index| index / 200).collect();
        let mut before = Vec::new();
        for count in [50, 95, 100, 950, 1000, 1900] {
            let indices = super::sample(&classes, 10, &groups, count, 3);
            assert!(before.iter().all(|index| indices.contains(index)), "{count} has the smaller sample");
            for group in 0..95 {
                let own: Vec<usize> = indices.iter().copied().filter(|index| index / 200 == group).collect();
                assert!((count / 95..=count.div_ceil(95)).contains(&own.len()), "{} of {count}", own.len());
                for class in 0..10 {
                    let of_class = own.iter().filter(|&&index| classes[index] == class).count();
                    assert!((own.len() / 10..=own.len().div_ceil(10)).contains(&of_class), "{of_class}");
                }
            }
            for class in 0..10 {
                let of_class = indices.iter().filter(|&&index| classes[index] == class).count() as f64;
                assert!((of_class - count as f64 / 10.0).abs() < 20.0, "{of_class} of {count}");
            }
            before = indices;
        }
    }

    #[test]
    fn a_seed_is_for_ever() {
        let classes: Vec<usize> = (0..30).map(|i| i / 10).collect();
        assert_eq!(sample(&classes, 3, 6, 0), [1, 8, 10, 19, 25, 29]);
    }
}
