//! The pre-norm transformer that both of CLIP's towers are made of: forward, and backward for vision.
//!
//! ```text
//! x ── ln_1 ── qkv ── attention ── out_proj ── + ── ln_2 ── fc1 ── act ── fc2 ── + ──
//!  └───────────────────────────────────────────┘ └──────────────────────────────┘
//! ```

use std::ops::Range;

use anyhow::Result;

use super::config::TowerConfig;
use super::layout::BlockLayout;
use crate::gpu::{Stream, Tensor};
use crate::ops::attention::{self, attention_backward, attention_forward};
use crate::ops::layernorm::{self, Normed, layernorm_backward, layernorm_forward};
use crate::ops::linear::Linear;
use crate::ops::reduce::{self, columns_forward};

/// What one block leaves behind for its gradient.
struct BlockActivations {
    ln1: Normed,          // (B, T, C)
    qkv: Tensor<f32>,     // (B, T, 3C)
    lse: Tensor<f32>,     // (B, NH, T)
    att: Tensor<f32>,     // (B, T, C)
    mid: Tensor<f32>,     // (B, T, C) after the attention's residual
    ln2: Normed,          // (B, T, C)
    fc1_pre: Tensor<f32>, // (B, T, M) before the activation
    fc1: Tensor<f32>,     // (B, T, M)
    out: Tensor<f32>,     // (B, T, C)
}

impl BlockActivations {
    fn new(stream: &Stream, config: &TowerConfig, b: usize, t: usize) -> Result<BlockActivations> {
        let (n, c, m) = (b * t, config.width, config.mlp);
        Ok(BlockActivations {
            ln1: Normed::new(stream, n, c)?,
            qkv: stream.alloc(n * 3 * c)?,
            lse: stream.alloc(b * config.heads * t)?,
            att: stream.alloc(n * c)?,
            mid: stream.alloc(n * c)?,
            ln2: Normed::new(stream, n, c)?,
            fc1_pre: stream.alloc(n * m)?,
            fc1: stream.alloc(n * m)?,
            out: stream.alloc(n * c)?,
        })
    }

    /// The part that belongs to the first `b` samples.
    fn batch(&self, config: &TowerConfig, b: usize, t: usize) -> BlockActivations {
        let (n, c, m) = (b * t, config.width, config.mlp);
        BlockActivations {
            ln1: self.ln1.rows(n, c),
            qkv: self.qkv.slice(0..n * 3 * c),
            lse: self.lse.slice(0..b * config.heads * t),
            att: self.att.slice(0..n * c),
            mid: self.mid.slice(0..n * c),
            ln2: self.ln2.rows(n, c),
            fc1_pre: self.fc1_pre.slice(0..n * m),
            fc1: self.fc1.slice(0..n * m),
            out: self.out.slice(0..n * c),
        }
    }
}

/// Gradients on their way down, and room for the reductions; every block uses the same.
struct Gradients {
    dbranch: Tensor<f32>, // (B, T, C)
    dqkv: Tensor<f32>,    // (B, T, 3C)
    dfc1: Tensor<f32>,    // (B, T, M)
    scratch: Tensor<f32>, // of the reductions over rows
}

/// A transformer's buffers for batches of up to `B`.
pub struct Tower {
    config: TowerConfig,
    t: usize,
    causal: bool,
    blocks: Vec<BlockActivations>,
    gradients: Option<Gradients>,
}

impl Tower {
    /// Room for forward passes; one block's buffers serve all.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn for_inference(
        stream: &Stream,
        config: &TowerConfig,
        b: usize,
        t: usize,
        causal: bool,
    ) -> Result<Tower> {
        let block = BlockActivations::new(stream, config, b, t)?;
        let blocks = (0..config.layers).map(|_| block.batch(config, b, t)).collect();
        Ok(Tower { config: config.clone(), t, causal, blocks, gradients: None })
    }

    /// Room for forward and backward: every block keeps its own activations.
    ///
    /// # Errors
    /// Out of device memory.
    pub fn for_training(stream: &Stream, config: &TowerConfig, b: usize, t: usize) -> Result<Tower> {
        let (n, c, m) = (b * t, config.width, config.mlp);
        let blocks =
            (0..config.layers).map(|_| BlockActivations::new(stream, config, b, t)).collect::<Result<_>>()?;
        let attention = attention_shape(config, b, t, false);
        let scratch_len = [
            layernorm::backward_scratch_len(n, c),
            reduce::scratch_len(n, m.max(3 * c)),
            b * 3 * c + attention::backward_scratch_len::<f32>(attention),
        ];
        let gradients = Gradients {
            dbranch: stream.alloc(n * c)?,
            dqkv: stream.alloc(n * 3 * c)?,
            dfc1: stream.alloc(n * m)?,
            scratch: stream.alloc(scratch_len.into_iter().max().unwrap_or(0))?,
        };
        Ok(Tower { config: config.clone(), t, causal: false, blocks, gradients: Some(gradients) })
    }

    /// Runs every block over the first `b` samples of `x` `(B, T, C)`; returns the last block's output.
    pub fn forward(
        &self,
        stream: &Stream,
        params: &Tensor<f32>,
        layout: &[BlockLayout],
        x: &Tensor<f32>,
        b: usize,
    ) -> Result<Tensor<f32>> {
        let TowerConfig { width: c, mlp: m, eps, activation, .. } = self.config;
        let n = b * self.t;
        let shape = attention_shape(&self.config, b, self.t, self.causal);
        let w = |range: &Range<usize>| params.slice(range.clone());
        let weight = |range: &Range<usize>, outputs: usize| w(range).view([outputs, range.len() / outputs]);
        let rows = |tensor: &Tensor<f32>| tensor.view([n, tensor.len() / n]);
        let mut x = x.slice(0..n * c);
        for (acts, at) in self.blocks.iter().zip(layout) {
            let a = acts.batch(&self.config, b, self.t);
            let norm = |normed: &Normed, inp: &Tensor<f32>, params: &Range<usize>| {
                let [weight, bias] = halves(&w(params));
                layernorm_forward(stream, normed, inp, [&weight, &bias], (n, c), eps)
            };
            norm(&a.ln1, &x, &at.ln1)?;
            Linear::nt(&rows(&a.ln1.out), &weight(&at.qkv_w, 3 * c), &rows(&a.qkv))
                .bias(&w(&at.qkv_b))
                .run(stream)?;
            attention_forward(stream, &a.att, &a.lse, &a.qkv, shape, self.t)?;
            Linear::nt(&rows(&a.att), &weight(&at.out_w, c), &rows(&a.mid))
                .bias(&w(&at.out_b))
                .addend(&rows(&x))
                .run(stream)?;
            norm(&a.ln2, &a.mid, &at.ln2)?;
            Linear::nt(&rows(&a.ln2.out), &weight(&at.fc1_w, m), &rows(&a.fc1))
                .bias(&w(&at.fc1_b))
                .keeping(activation, &rows(&a.fc1_pre))
                .run(stream)?;
            Linear::nt(&rows(&a.fc1), &weight(&at.fc2_w, c), &rows(&a.out))
                .bias(&w(&at.fc2_b))
                .addend(&rows(&a.mid))
                .run(stream)?;
            x = a.out;
        }
        Ok(x)
    }

    /// Turns `dx` `(B, T, C)`, the gradient of the output, into that of the input, in place, and
    /// writes (=) the gradient of every parameter of every block. `x` is forward's input.
    #[allow(clippy::too_many_arguments)] // parameters and stream, and the gradients of both
    pub fn backward(
        &self,
        stream: &Stream,
        grads: &Tensor<f32>,
        params: &Tensor<f32>,
        layout: &[BlockLayout],
        dx: &Tensor<f32>,
        x: &Tensor<f32>,
        b: usize,
    ) -> Result<()> {
        let Some(gradients) = &self.gradients else {
            anyhow::bail!("a tower for inference has no gradients")
        };
        let TowerConfig { width: c, mlp: m, activation, .. } = self.config;
        let n = b * self.t;
        let shape = attention_shape(&self.config, b, self.t, self.causal);
        let dbranch = gradients.dbranch.slice(0..n * c);
        let dqkv = gradients.dqkv.slice(0..n * 3 * c);
        let dfc1 = gradients.dfc1.slice(0..n * m);
        let scratch = &gradients.scratch;
        let dx = dx.slice(0..n * c);
        let w = |range: &Range<usize>| params.slice(range.clone());
        let dw = |range: &Range<usize>| grads.slice(range.clone());
        let weight = |range: &Range<usize>, outputs: usize| w(range).view([outputs, range.len() / outputs]);
        let rows = |tensor: &Tensor<f32>| tensor.view([n, tensor.len() / n]);
        // Both gradients of a linear layer's parameters.
        let linear = |weight: &Range<usize>, bias: &Range<usize>, dout: &Tensor<f32>, inp: &Tensor<f32>| {
            let (dout, inp) = (rows(dout), rows(inp));
            let (n_out, k) = (dout.shape()[1], inp.shape()[1]);
            Linear::tn(&dout, &inp, &dw(weight).view([n_out, k])).run(stream)?;
            columns_forward(stream, &dw(bias), &dout, scratch, (n, n_out))
        };
        // Adds to dx what comes through a norm.
        let norm = |params: &Range<usize>, inp: &Tensor<f32>, normed: &Normed| {
            let [weight, _] = halves(&w(params));
            layernorm_backward(
                stream,
                &dx,
                &dw(params),
                &dbranch,
                inp,
                &weight,
                normed,
                scratch,
                (n, c),
                true,
            )
        };

        for (index, at) in layout.iter().enumerate().rev() {
            let a = self.blocks[index].batch(&self.config, b, self.t);
            let inp = match index {
                0 => x.slice(0..n * c),
                _ => self.blocks[index - 1].out.slice(0..n * c),
            };
            linear(&at.fc2_w, &at.fc2_b, &dx, &a.fc1)?;
            Linear::nn(&rows(&dx), &weight(&at.fc2_w, c), &rows(&dfc1))
                .backward(activation, &rows(&a.fc1_pre))
                .run(stream)?;
            linear(&at.fc1_w, &at.fc1_b, &dfc1, &a.ln2.out)?;
            Linear::nn(&rows(&dfc1), &weight(&at.fc1_w, m), &rows(&dbranch)).run(stream)?;
            norm(&at.ln2, &a.mid, &a.ln2)?;

            linear(&at.out_w, &at.out_b, &dx, &a.att)?;
            Linear::nn(&rows(&dx), &weight(&at.out_w, c), &rows(&dbranch)).run(stream)?;
            // Of no use here: the bias' gradient is summed with the weight's.
            let dbias = scratch.slice(0..b * 3 * c);
            let scratch_left = scratch.slice(b * 3 * c..scratch.len());
            attention_backward(
                stream,
                &dqkv,
                &dbias,
                &dbranch,
                &a.att,
                &a.lse,
                &a.qkv,
                &scratch_left,
                shape,
                self.t,
            )?;
            linear(&at.qkv_w, &at.qkv_b, &dqkv, &a.ln1.out)?;
            Linear::nn(&rows(&dqkv), &weight(&at.qkv_w, 3 * c), &rows(&dbranch)).run(stream)?;
            norm(&at.ln1, &inp, &a.ln1)?;
        }
        Ok(())
    }

    /// The residual stream after block `index`, first `b` samples, as the last forward left it.
    pub fn block_output(&self, index: usize, b: usize) -> Tensor<f32> {
        self.blocks[index].out.slice(0..b * self.t * self.config.width)
    }
}

/// Weight and bias of a norm, which lie one behind the other.
pub fn halves(params: &Tensor<f32>) -> [Tensor<f32>; 2] {
    let c = params.len() / 2;
    [params.slice(0..c), params.slice(c..2 * c)]
}

fn attention_shape(config: &TowerConfig, b: usize, t: usize, causal: bool) -> attention::Shape {
    attention::Shape { b, t, nh: config.heads, hs: config.width / config.heads, causal }
}
