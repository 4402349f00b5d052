//! What the vision tower's passes leave behind for sequences of a batch.

use std::ops::Range;

use anyhow::Result;
use bytemuck::Pod;

use super::Dims;
use crate::gpu::{Plan, Tensor};
use crate::ops::Element;

/// A layer norm's results.
pub struct Normed<E> {
    pub out: Tensor<E>,    // (rows, C)
    pub mean: Tensor<f32>, // (rows,)
    pub rstd: Tensor<f32>, // (rows,)
}

impl<E: Pod> Normed<E> {
    fn plan(plan: &mut Plan, name: &str, rows: usize, c: usize) -> Result<Normed<E>> {
        Ok(Normed {
            out: plan.tensor(&format!("{name}.out"), [rows, c])?,
            mean: plan.tensor(&format!("{name}.mean"), rows)?,
            rstd: plan.tensor(&format!("{name}.rstd"), rows)?,
        })
    }

    fn rows(&self, rows: Range<usize>) -> Normed<E> {
        let [mean, rstd] = [&self.mean, &self.rstd].map(|stats| stats.rows(rows.clone()));
        Normed { out: self.out.rows(rows), mean, rstd }
    }

    pub fn stats(&self) -> [&Tensor<f32>; 2] {
        [&self.mean, &self.rstd]
    }
}

/// Of one block, for B sequences of T tokens, of which the first Q go on behind the attention.
pub struct BlockActs<E> {
    pub ln1: Normed<E>,             // (B·T, C)
    pub qkv: Tensor<E>,             // (B·T, 3C)
    pub lse: Tensor<f32>,           // (B, NH, T)
    pub att: Tensor<E>,             // (B·Q, C)
    pub mid: Tensor<f32>,           // (B·Q, C) after the attention's residual
    pub ln2: Normed<E>,             // (B·Q, C)
    pub fc1_pre: Option<Tensor<E>>, // (B·Q, M) before the activation, for the way back
    pub fc1: Tensor<E>,             // (B·Q, M)
    pub out: Tensor<f32>,           // (B·Q, C)
    t: usize,
    q: usize,
}

impl<E: Element> BlockActs<E> {
    /// Of `b` sequences in a tower of these sizes; `keeps`: for the way back too.
    ///
    /// # Errors
    /// The plan's.
    pub fn plan(
        plan: &mut Plan,
        [b, t, q]: [usize; 3],
        [c, m, nh]: [usize; 3],
        keeps: bool,
    ) -> Result<BlockActs<E>> {
        Ok(BlockActs {
            ln1: Normed::plan(plan, "ln1", b * t, c)?,
            qkv: plan.tensor("qkv", [b * t, 3 * c])?,
            lse: plan.tensor("lse", [b, nh, t])?,
            att: plan.tensor("att", [b * q, c])?,
            mid: plan.tensor("mid", [b * q, c])?,
            ln2: Normed::plan(plan, "ln2", b * q, c)?,
            fc1_pre: if keeps { Some(plan.tensor("fc1_pre", [b * q, m])?) } else { None },
            fc1: plan.tensor("fc1", [b * q, m])?,
            out: plan.tensor("out", [b * q, c])?,
            t,
            q,
        })
    }

    /// Tokens of a sequence, and how many of them go on.
    pub fn tokens(&self) -> [usize; 2] {
        [self.t, self.q]
    }

    /// The part of these sequences.
    pub fn sequences(&self, range: &Range<usize>) -> BlockActs<E> {
        let tokens = range.start * self.t..range.end * self.t;
        let queries = range.start * self.q..range.end * self.q;
        BlockActs {
            ln1: self.ln1.rows(tokens.clone()),
            qkv: self.qkv.rows(tokens),
            lse: self.lse.rows(range.clone()),
            att: self.att.rows(queries.clone()),
            mid: self.mid.rows(queries.clone()),
            ln2: self.ln2.rows(queries.clone()),
            fc1_pre: self.fc1_pre.as_ref().map(|rows| rows.rows(queries.clone())),
            fc1: self.fc1.rows(queries.clone()),
            out: self.out.rows(queries),
            t: self.t,
            q: self.q,
        }
    }
}

/// Of the whole vision tower, for B sequences.
pub struct Acts<E> {
    pub patches: Tensor<E>,     // (B·(T - 1), P)
    pub projected: Tensor<f32>, // (B·(T - 1), C)
    pub pre_ln: Normed<f32>,    // (B·T, C): what enters the first block
    pub blocks: Vec<BlockActs<E>>,
    pub post_ln: Normed<E>,    // (B, C)
    pub features: Tensor<f32>, // (B, D)
    pub norm: Tensor<f32>,     // (B,)
    pub unit: Tensor<f32>,     // (B, D)
}

impl<E: Element> Acts<E> {
    /// Of `b` sequences, through `layers` blocks. Behind the last block's attention the class token goes on alone.
    ///
    /// * `keeps`: for the way back too; else the blocks overwrite each other's.
    ///
    /// # Errors
    /// The plan's.
    pub fn plan(plan: &mut Plan, dims: &Dims, layers: usize, b: usize, keeps: bool) -> Result<Acts<E>> {
        let &Dims { t, c, m, nh, p, d, .. } = dims;
        let patches = plan.tensor("patches", [b * (t - 1), p])?;
        let projected = plan.tensor("projected", [b * (t - 1), c])?;
        let pre_ln = Normed::plan(plan, "pre_ln", b * t, c)?;
        let mut blocks = Vec::with_capacity(layers);
        for layer in 0..layers {
            let q = if layer + 1 == layers { 1 } else { t };
            let above: Option<&BlockActs<E>> = blocks.last().filter(|_| !keeps && q == t);
            blocks.push(match above {
                Some(above) => above.sequences(&(0..b)),
                None => {
                    let name =
                        if keeps || q < t { format!("block {layer}") } else { "blocks in turn".into() };
                    plan.part(&name, |plan| BlockActs::plan(plan, [b, t, q], [c, m, nh], keeps))?
                }
            });
        }
        Ok(Acts {
            patches,
            projected,
            pre_ln,
            blocks,
            post_ln: Normed::plan(plan, "post_ln", b, c)?,
            features: plan.tensor("features", [b, d])?,
            norm: plan.tensor("norm", b)?,
            unit: plan.tensor("unit", [b, d])?,
        })
    }

    /// The part of these sequences.
    pub fn sequences(&self, range: Range<usize>) -> Acts<E> {
        let b = self.norm.len();
        let of = |rows: usize| range.start * rows / b..range.end * rows / b;
        let patches = of(self.patches.shape()[0]);
        let tokens = of(self.pre_ln.mean.len());
        Acts {
            patches: self.patches.rows(patches.clone()),
            projected: self.projected.rows(patches),
            pre_ln: self.pre_ln.rows(tokens),
            blocks: self.blocks.iter().map(|block| block.sequences(&range)).collect(),
            post_ln: self.post_ln.rows(range.clone()),
            features: self.features.rows(range.clone()),
            norm: self.norm.rows(range.clone()),
            unit: self.unit.rows(range),
        }
    }
}
