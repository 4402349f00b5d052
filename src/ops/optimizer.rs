//! Steps of parameters by their gradients, each image its own, and which images' gradients have overflowed:
//! `kernels/optimizer.cu`.

use anyhow::{Result, ensure};
use bytemuck::{Pod, Zeroable};
use half::f16;
use serde::Serialize;

use super::width::expect_aligned;
use super::{Element, Param, int};
use crate::args;
use crate::gpu::{Arg, Launch, Stream, Tensor};

/// What a step makes of a gradient, as `torch.optim` defines it.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "name", rename_all = "kebab-case")]
pub enum Optimizer {
    /// Without dampening or Nesterov's momentum.
    Sgd { momentum: f32, weight_decay: f32 },
    /// With betas of 0.9 and 0.999, and an epsilon of 1e-8.
    #[serde(rename = "adamw")]
    AdamW { weight_decay: f32 },
}

impl Optimizer {
    /// SGD without anything.
    pub const PLAIN: Optimizer = Optimizer::Sgd { momentum: 0.0, weight_decay: 0.0 };

    /// Whether so many steps are those of SGD without anything: the first one has no momentum yet.
    pub fn is_plain(self, steps: usize) -> bool {
        match self {
            Optimizer::Sgd { momentum, weight_decay } => {
                weight_decay == 0.0 && (momentum == 0.0 || steps <= 1)
            }
            Optimizer::AdamW { .. } => false,
        }
    }

    /// Numbers that it keeps of each parameter from one of so many steps to the next.
    pub fn states(self, steps: usize) -> usize {
        match self {
            _ if steps <= 1 => 0,
            Optimizer::Sgd { momentum, .. } => usize::from(momentum != 0.0),
            Optimizer::AdamW { .. } => 2,
        }
    }

    /// What of a step is another each time: the rate that the kernel takes, and what AdamW multiplies square roots by.
    ///
    /// * `number`: 0 of the first.
    pub fn pace(self, learning_rate: f32, number: usize) -> [f32; 2] {
        match self {
            Optimizer::Sgd { .. } => [learning_rate, 1.0],
            Optimizer::AdamW { .. } => {
                let correction = |beta: f64| 1.0 - beta.powf(number as f64 + 1.0);
                let rate = (f64::from(learning_rate) / correction(0.9)) as f32;
                [rate, (1.0 / correction(0.999).sqrt()) as f32]
            }
        }
    }
}

/// Elements of a piece, a CTA's.
const PIECE: usize = 1024;

/// `struct Piece` of the kernel.
#[derive(Clone, Copy, Pod, Zeroable)]
#[repr(C)]
struct Piece {
    param: u64,
    grad: u64,
    param_step: u64,
    grad_step: u64,
    column: u64,
    len: i32,
    aligned: i32,
}

/// A parameter that steps, shared by the images or each one's own, and each image's gradient.
pub struct Step {
    pub param: Param,
    pub grad: Param,
    /// Where its result begins in an image's row of results. These may be the parameter itself.
    pub column: usize,
}

/// Which parameters step, and where to. Holds all of their memory.
pub struct Steps {
    table: Tensor<u8>, // pieces
    count: usize,
    images: usize,
    /// Of an image's row of results.
    width: usize,
    held: Vec<Step>,
}

/// Bytes of the table of parameters of such lengths.
pub fn table_bytes(lens: impl Iterator<Item = usize>) -> usize {
    lens.map(|len| len.div_ceil(PIECE)).sum::<usize>() * size_of::<Piece>()
}

impl Steps {
    /// * `table`: [`table_bytes`], overwritten. What is written does not depend on the images: it is the same for any number of
    ///   them, as long as their gradients lie where they lay.
    /// * `images`, `width`: S, and the numbers of an image's row of results.
    ///
    /// # Errors
    /// Parameters of other lengths, past the row, or for another number of images; a table of another length.
    pub fn new(
        stream: &Stream,
        table: &Tensor<u8>,
        [images, width]: [usize; 2],
        steps: Vec<Step>,
    ) -> Result<Steps> {
        let mut pieces = Vec::new();
        for Step { param, grad, column } in &steps {
            let n = param.len();
            let (shared, each) = (param.images().is_none(), Some(images));
            ensure!(shared || param.images() == each, "steps: param is {param:?}, for {images} images");
            let fits = (grad.images(), grad.len()) == (each, n);
            ensure!(fits, "steps: grad is {grad:?}, not {n} for each of {images} images");
            ensure!(column + n <= width, "steps: {n} results from column {column} on, of {width}");
            for from in (0..n).step_by(PIECE) {
                let bytes = |elements: usize| (size_of::<f32>() * elements) as u64;
                let [param_at, grad_at] = [param, grad].map(|place| place.address() + bytes(from));
                let column = column + from;
                let places = param_at | grad_at | bytes(column);
                let steps = bytes(param.step()) | bytes(grad.step()) | bytes(width);
                pieces.push(Piece {
                    param: param_at,
                    grad: grad_at,
                    param_step: param.step() as u64,
                    grad_step: grad.step() as u64,
                    column: column as u64,
                    len: int(PIECE.min(n - from))?,
                    aligned: (places | steps).is_multiple_of(16).into(),
                });
            }
        }
        let bytes = bytemuck::cast_slice::<Piece, u8>(&pieces);
        table.expect("steps: table", bytes.len())?;
        stream.write(table, bytes)?;
        Ok(Steps { table: table.clone(), count: pieces.len(), images, width, held: steps })
    }

    /// Parameters that step.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// `rest`: what the kernel takes behind its results.
    fn launch(
        &self,
        stream: &Stream,
        kernel: &'static str,
        out: &Tensor<f32>,
        flags: &Tensor<u32>,
        rest: &[Arg],
    ) -> Result<()> {
        let &Steps { images, width, .. } = self;
        out.expect("steps: out", [images, width])?;
        // Where rows are no multiples of that, no four results are written at once.
        if width.is_multiple_of(4) {
            expect_aligned("steps: out", out, 4)?;
        }
        flags.expect("steps: flags", [images])?;
        let args = [args![&self.table, flags, out], rest].concat();
        let kernel = stream.kernel("optimizer", kernel, &[])?;
        let launch = Launch::over([self.count, images, 1], 256);
        // SAFETY: the pieces are parts of tensors that are held here, of as many images; what they write is inside `out`; the
        // states, checked below, have its shape.
        unsafe { kernel.launch(stream, launch, &args) }
    }
}

/// `out[s] = param − rate · grad[s]` for all of `steps`, one rounding an element; `flags[s] |= 1` where a gradient is not finite.
///
/// * `out`: `(S, width)`. `flags`: `(S,)`. `rate`: the learning rate over the loss scale.
///
/// # Errors
/// Tensors of other shapes; the launch's own.
pub fn step_plain(
    stream: &Stream,
    steps: &Steps,
    out: &Tensor<f32>,
    flags: &Tensor<u32>,
    rate: f32,
) -> Result<()> {
    steps.launch(stream, "sgd_plain", out, flags, args![steps.width as u64, rate])
}

/// Which step is taken, and how far.
#[derive(Clone, Copy, Debug)]
pub struct Stride {
    /// 0 of the first.
    pub number: usize,
    pub learning_rate: f32,
    /// What the gradients are scaled by.
    pub loss_scale: f32,
}

/// `out[s]`: all of `steps` after a step by `grad[s] / loss_scale`; `flags[s] |= 1` where a gradient is not finite.
///
/// * `out`: `(S, width)`, and its [`Element::terms`], which are written too where they are two. `flags`: `(S,)`.
/// * `pace`: `(2,)`, [`Optimizer::pace`] of the stride: read when the step is taken.
/// * `states`: `(S, width)` each, [`Optimizer::states`] of them, or none where the first step is the only one. Of what steps, they
///   are overwritten; the first step does not read them.
///
/// # Errors
/// Tensors of other shapes, or not as many; the launch's own.
pub fn step<E: Element>(
    stream: &Stream,
    optimizer: Optimizer,
    steps: &Steps,
    (out, terms): (&Tensor<f32>, &[Tensor<E>]),
    states: &[Tensor<f32>],
    flags: &Tensor<u32>,
    (stride, pace): (Stride, &Tensor<f32>),
) -> Result<()> {
    let Stride { number, learning_rate, loss_scale } = stride;
    let fits = states.len() == optimizer.states(2) || (states.is_empty() && number == 0);
    ensure!(fits, "steps: {} states of {optimizer:?} at step {number}", states.len());
    for state in states {
        state.expect("steps: a state", out.shape())?;
        expect_aligned("steps: a state", state, 4)?;
    }
    ensure!(terms.len() < 2 || E::NAME == f16::NAME, "steps: {} terms of {}", terms.len(), E::NAME);
    for term in terms {
        term.expect("steps: a term", out.shape())?;
        expect_aligned("steps: a term", term, 4)?;
    }
    pace.expect("steps: pace", [2])?;
    let (width, inverse) = (steps.width as u64, 1.0 / loss_scale);
    let [first, second] = [states.first(), states.get(1)];
    let [first_term, second_term] = match terms {
        [first, second] => [Some(first), Some(second)],
        _ => [None, None],
    };
    let scale = 1.0 / E::SECOND_TERM;
    let is_first = i32::from(number == 0 || states.is_empty());
    match optimizer {
        Optimizer::Sgd { momentum, weight_decay } => {
            let rest = args![
                first,
                width,
                pace,
                inverse,
                momentum,
                weight_decay,
                is_first,
                first_term,
                second_term,
                scale
            ];
            steps.launch(stream, "sgd", out, flags, rest)
        }
        Optimizer::AdamW { weight_decay } => {
            let decay = learning_rate * weight_decay;
            let rest =
                args![first, second, width, pace, inverse, decay, is_first, first_term, second_term, scale];
            steps.launch(stream, "adamw", out, flags, rest)
        }
    }
}

/// The definition, in float64: a parameter after a step by each of these gradients.
pub fn step_reference(optimizer: Optimizer, learning_rate: f64, param: f64, grads: &[f64]) -> f64 {
    let mut p = param;
    match optimizer {
        Optimizer::Sgd { momentum, weight_decay } => {
            let (momentum, weight_decay) = (f64::from(momentum), f64::from(weight_decay));
            let mut b = 0.0;
            for grad in grads {
                b = momentum * b + grad + weight_decay * p;
                p -= learning_rate * b;
            }
        }
        Optimizer::AdamW { weight_decay } => {
            let (mut m, mut v) = (0.0, 0.0);
            for (grad, t) in grads.iter().zip(1..) {
                p -= learning_rate * f64::from(weight_decay) * p;
                m = 0.9 * m + 0.1 * grad;
                v = 0.999 * v + 0.001 * grad * grad;
                let (mean, square) = (m / (1.0 - 0.9f64.powi(t)), v / (1.0 - 0.999f64.powi(t)));
                p -= learning_rate * mean / (square.sqrt() + 1e-8);
            }
        }
    }
    p
}

#[cfg(test)]
mod tests;
