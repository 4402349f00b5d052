//! Whether confidences tell images of the classes from images of none.

/// The chance that an image of the classes has a higher confidence than one of none, equal ones counting half: scikit-learn's
/// `roc_auc_score`.
///
/// * `inside`: confidences of images of the classes; `outside`: of images of none.
pub fn auroc(inside: &[f64], outside: &[f64]) -> Option<f64> {
    let mut wins = 0.0;
    let mut outside_above = 0;
    for (of_inside, of_outside) in groups(inside, outside) {
        outside_above += of_outside;
        let below = (outside.len() - outside_above) as f64;
        wins += of_inside as f64 * (below + of_outside as f64 / 2.0);
    }
    let pairs = inside.len() as f64 * outside.len() as f64;
    (pairs > 0.0).then(|| wins / pairs)
}

/// The fraction of images of none that are taken for images of the classes, at the highest threshold that takes at least this
/// fraction of those (FPR95 for 0.95). A threshold takes all that are equal to it: scikit-learn's `roc_curve`, at the first such point.
pub fn false_positives_at(fraction: f64, inside: &[f64], outside: &[f64]) -> Option<f64> {
    let (mut taken, mut taken_wrongly) = (0, 0);
    for (of_inside, of_outside) in groups(inside, outside) {
        taken += of_inside;
        taken_wrongly += of_outside;
        if taken as f64 / inside.len() as f64 >= fraction {
            return (!outside.is_empty()).then(|| taken_wrongly as f64 / outside.len() as f64);
        }
    }
    None
}

/// How many of each have one confidence, the highest first.
fn groups(inside: &[f64], outside: &[f64]) -> Vec<(usize, usize)> {
    let labelled = |all: &[f64], is_inside| all.iter().map(move |&x| (x, is_inside)).collect::<Vec<_>>();
    let mut all = [labelled(inside, true), labelled(outside, false)].concat();
    all.sort_unstable_by(|a, b| b.0.total_cmp(&a.0));
    all.chunk_by(|a, b| a.0 == b.0)
        .map(|alike| {
            let of_inside = alike.iter().filter(|(_, is_inside)| *is_inside).count();
            (of_inside, alike.len() - of_inside)
        })
        .collect()
}
