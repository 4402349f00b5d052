//! Who answers: the one list of predictors, which records, tables and reports go by.

use super::choice::Choice;
use super::{Answer, Record};

/// In the order in which people read of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Predictor {
    /// CLIP as it was loaded, on the image itself.
    ZeroShot,
    /// The views' average prediction.
    ViewAverage,
    /// The confident views' average prediction.
    ConfidentAverage,
    /// What most of the confident views predict.
    Vote,
    /// CLIP after steps on all views, by a learning rate, by its place among the run's.
    Memo { rate: usize },
    /// CLIP after steps on the confident views.
    MemoConfident { rate: usize },
}

impl Predictor {
    /// Its name in a record, and wherever scripts read it.
    pub fn field(self) -> &'static str {
        match self {
            Predictor::ZeroShot => "zero_shot",
            Predictor::ViewAverage => "view_average",
            Predictor::ConfidentAverage => "confident_average",
            Predictor::Vote => "vote",
            Predictor::Memo { .. } => "memo",
            Predictor::MemoConfident { .. } => "memo_confident",
        }
    }

    /// What people call it.
    ///
    /// * `rates`: the run's learning rates; where there is one, nobody need be told which.
    pub fn title(self, rates: &[f32]) -> String {
        let name = match self {
            Predictor::ZeroShot => "zero-shot",
            Predictor::ViewAverage => "view average",
            Predictor::ConfidentAverage => "confident average",
            Predictor::Vote => "vote",
            Predictor::Memo { .. } => "MEMO",
            Predictor::MemoConfident { .. } => "MEMO confident",
        };
        match self.rate().and_then(|rate| rates.get(rate)) {
            Some(rate) if rates.len() > 1 => format!("{name} {rate:e}"),
            _ => name.to_string(),
        }
    }

    /// Of one that takes steps, the place of its learning rate.
    pub fn rate(self) -> Option<usize> {
        match self {
            Predictor::Memo { rate } | Predictor::MemoConfident { rate } => Some(rate),
            _ => None,
        }
    }
}

impl Record {
    /// What each predictor of the run answers, in their order; none where its step has led to no number.
    pub fn answers(&self) -> impl Iterator<Item = (Predictor, Option<&Choice>)> {
        let stepless = [
            (Predictor::ZeroShot, &self.zero_shot),
            (Predictor::ViewAverage, &self.view_average),
            (Predictor::ConfidentAverage, &self.confident_average),
            (Predictor::Vote, &self.vote),
        ];
        fn by_rate(
            answers: &[Answer],
            of: impl Fn(usize) -> Predictor,
        ) -> impl Iterator<Item = (Predictor, Option<&Choice>)> {
            answers.iter().enumerate().map(move |(rate, answer)| (of(rate), answer.choice()))
        }
        let stepless = stepless.into_iter().map(|(predictor, choice)| (predictor, Some(choice)));
        let all = by_rate(&self.memo, |rate| Predictor::Memo { rate });
        let confident = by_rate(&self.memo_confident, |rate| Predictor::MemoConfident { rate });
        stepless.chain(all).chain(confident)
    }
}
