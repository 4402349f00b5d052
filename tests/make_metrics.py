"""What others' libraries say of 1,000 drawn cases: tests/fixtures/metrics.safetensors, for src/metrics/tests.rs.

The cases themselves are not stored: both sides draw them, by SplitMix64 from the case's number (`Draws` here and there).

numpy 2.4.6, scipy 1.17.1, scikit-learn 1.9.1, statsmodels 0.15.0, torch 2.15.0, torchmetrics 1.9.0, safetensors.
Where a library has no answer (no images, one class only) the value is NaN.
"""

import os
import warnings

import numpy as np
import torch
from safetensors.numpy import save_file
from scipy import special, stats
from sklearn import calibration, metrics
from statsmodels.stats import contingency_tables, proportion
from torchmetrics.functional.classification import binary_calibration_error

CASES = 1000
BINS = 15
MASK = (1 << 64) - 1
EDGES = torch.linspace(0, 1, BINS + 1, dtype=torch.float32).numpy()
BELOW_ONE = np.nextafter(np.float32(1), np.float32(0))


class Draws:
    def __init__(self, seed):
        self.state = seed

    def next(self):
        self.state = (self.state + 0x9E3779B97F4A7C15) & MASK
        x = self.state
        x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
        return x ^ (x >> 31)

    def below(self, n):
        return (self.next() >> 11) % n

    def confidence(self, kind):
        kind = self.below(5) if kind == 5 else kind
        if kind == 0:
            return self.below(1 << 24) / (1 << 24)
        if kind == 1:
            return self.below(9) / 8
        if kind == 2:
            return float(EDGES[self.below(BINS + 1)])
        if kind == 3:
            return 1 - 0.5 ** (1 + self.below(24))
        return float(self.below(2))

    def right(self, kind, confidence):
        chance = [0, 100, 100 * confidence, 60][kind]
        return self.below(100) < chance


def answers(case):
    """Confidences, whether two answers are right, labels, answers, confidences of images of no class."""
    draws = Draws(case)
    images = draws.below(4) if case % 10 == 0 else draws.below(120)
    classes = 1 + draws.below(12)
    kind, kind_right = draws.below(6), draws.below(4)
    rows = []
    for _ in range(images):
        confidence = draws.confidence(kind)
        first, second = draws.right(kind_right, confidence), draws.right(3, confidence)
        label = draws.below(classes)
        answer = label if first else (label + 1) % classes
        rows.append((confidence, answer == label, second, label, answer))
    outside = np.array([draws.confidence(kind) for _ in range(draws.below(60))])
    confidence, first, second, label, answer = (np.array(column) for column in zip(*rows)) if rows else [np.array([])] * 5
    return confidence, first.astype(bool), second.astype(bool), label.astype(int), answer.astype(int), outside


def wilson(right):
    return proportion.proportion_confint(int(right.sum()), len(right), method="wilson") if len(right) else (np.nan, np.nan)


def mcnemar(first, second):
    table = [[(first & second).sum(), (first & ~second).sum()], [(~first & second).sum(), (~first & ~second).sum()]]
    if table[0][1] + table[1][0] == 0:
        return 1.0
    return contingency_tables.mcnemar(np.array(table), exact=True).pvalue


def equal_width(confidence, right):
    """torchmetrics', where 1 is in the last of 15 bins as what is next below it; it has a 16th for it."""
    if not len(confidence):
        return np.nan
    preds = torch.from_numpy(np.minimum(confidence.astype(np.float32), BELOW_ONE))
    # The answer's confidence as a probability, and whether it is right as the class.
    return float(binary_calibration_error(preds, torch.from_numpy(right.astype(int)), n_bins=BINS, norm="l1"))


def equal_mass(confidence, right):
    if not len(confidence):
        return np.nan
    edges = np.percentile(confidence, np.linspace(0, 1, BINS + 1) * 100)
    places = np.searchsorted(edges[1:-1], confidence)
    counts = np.bincount(places, minlength=BINS)
    counts = counts[counts > 0]
    if 0 < right.sum() < len(right):
        true, pred = calibration.calibration_curve(right, confidence, n_bins=BINS, strategy="quantile")
    else:  # it wants both kinds
        true, pred = np.full(len(counts), right.mean()), np.array([confidence[places == p].mean() for p in np.unique(places)])
    return float((np.abs(true - pred) * counts).sum() / len(confidence))


def area(confidence, right):
    """The mean over all orders of equal confidences, of which each has its group's mean error."""
    if not len(confidence):
        return np.nan
    levels, group = np.unique(-confidence, return_inverse=True)
    error = (np.bincount(group, weights=~right) / np.bincount(group))[np.sort(group)]
    return (np.cumsum(error) / np.arange(1, len(error) + 1)).mean()


def detection(inside, outside):
    if not len(inside) or not len(outside):
        return np.nan, np.nan
    true, scores = np.repeat([1, 0], [len(inside), len(outside)]), np.concatenate([inside, outside])
    fpr, tpr, _ = metrics.roc_curve(true, scores, drop_intermediate=False)
    return metrics.roc_auc_score(true, scores), fpr[np.argmax(tpr >= 0.95)]


def bootstrap(first, second):
    """Between which differences the percentiles of 10,000 resamples lie: the exact distribution's, five deviations away."""
    images = len(first)
    if not images:
        return [np.nan] * 4
    steps = np.array([(first & ~second).mean(), (first == second).mean(), (~first & second).mean()])
    total = np.array([1.0])
    for _ in range(images):
        total = np.convolve(total, steps)
    cumulative = np.cumsum(total)
    far = 5 * np.sqrt(0.025 * 0.975 / 10_000)
    at = lambda q: (np.searchsorted(cumulative, q) - images) / images
    return [at(0.025 - far), at(0.025 + far), at(0.975 - far), at(0.975 + far)]


def logits(case):
    draws = Draws(case + (1 << 32))
    images, classes = draws.below(3) if case % 10 == 0 else draws.below(25), 2 + draws.below(11)
    step = [0.25, 0.0625, 40.0][draws.below(3)]
    rows = [[step * (draws.below(101) - 50) for _ in range(classes)] for _ in range(images)]
    return np.array(rows).reshape(images, classes), np.array([draws.below(classes) for _ in range(images)], dtype=int)


def scores(case):
    """top-1, top-5, NLL, Brier."""
    x, label = logits(case)
    images, classes = x.shape
    if not images:
        return [np.nan] * 4
    log = special.log_softmax(x, axis=1)
    p = np.exp(log)
    # scikit-learn takes the later of equal scores first, so classes are given from the last on.
    backward = (classes - 1 - label, x[:, ::-1])
    top = [1.0 if k >= classes else metrics.top_k_accuracy_score(backward[0], backward[1], k=k, labels=range(classes)) for k in (1, 5)] \
        if classes > 2 else [(np.argmax(x, axis=1) == label).mean(), 1.0]
    nll = -log[np.arange(images), label].mean()
    if p[np.arange(images), label].min() > 1e-12:
        assert abs(nll - metrics.log_loss(label, p, labels=range(classes))) < 1e-9
    brier = metrics.brier_score_loss(label, p, labels=range(classes), scale_by_half=False)
    return [*top, nll, brier]


def main():
    warnings.simplefilter("ignore")
    of_answers, of_scores = [], []
    for case in range(CASES):
        confidence, first, second, label, answer, outside = answers(case)
        balanced = metrics.balanced_accuracy_score(label, answer) if len(label) else np.nan
        if case % 20 == 1 and len(first) > 1 and (first != second).any():
            # The distribution is that which scipy's bootstrap draws from.
            difference = second.astype(float) - first
            drawn = stats.bootstrap((difference,), np.mean, method="percentile", n_resamples=10_000, rng=case)
            low, low_end, high, high_end = bootstrap(first, second)
            interval, slack = drawn.confidence_interval, 1e-9
            assert low - slack <= interval.low <= low_end + slack and high - slack <= interval.high <= high_end + slack, case
        of_answers.append([
            *wilson(first), mcnemar(first, second), balanced, equal_width(confidence, first), equal_mass(confidence, first),
            area(confidence, first), *detection(confidence, outside), *bootstrap(first, second),
        ])
        of_scores.append(scores(case))
    # McNemar's test of many.
    many = [[600_000, 599_000], [500_000, 499_900], [50, 1_000_000], [100_000, 99_000]]
    p = [stats.binomtest(a, a + b).pvalue for a, b in many]
    path = os.path.join(os.path.dirname(__file__), "fixtures", "metrics.safetensors")
    save_file(
        {"answers": np.array(of_answers), "scores": np.array(of_scores), "edges": EDGES, "many": np.array(many), "many_p": np.array(p)},
        path,
    )
    print(os.path.getsize(path), "bytes")


main()
