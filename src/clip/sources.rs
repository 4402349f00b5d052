//! Which tensors of a checkpoint make up a parameter buffer.

use std::ops::Range;

use super::config::{ClipConfig, TowerConfig};
use super::layout::BlockLayout;
use super::names::Naming;

/// A tensor and the place of its values in the buffer.
#[derive(Clone, Debug)]
pub struct Source {
    pub name: String,
    /// As stored; there may be further ones in front of it, as in `(1, T, C)`.
    pub shape: Vec<usize>,
    /// In the buffer.
    pub range: Range<usize>,
    /// Stored `(columns, rows)` of what the buffer has.
    pub transposed: bool,
    /// Zeros behind each row in the buffer.
    pub padding: usize,
}

impl Source {
    /// Elements of the tensor.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// What a buffer of the tower's layout has of it, row by row of the buffer, without the zeros behind them.
    pub fn values(&self, buffer: &[f32]) -> Vec<f32> {
        let rows = buffer[self.range.clone()].chunks_exact(self.pitch());
        rows.flat_map(|row| &row[..row.len() - self.padding]).copied().collect()
    }

    /// The reverse.
    pub fn write(&self, buffer: &mut [f32], values: &[f32]) {
        self.spread(&mut buffer[self.range.clone()], values);
    }

    /// The same into its own part of a buffer.
    pub(super) fn spread(&self, out: &mut [f32], values: &[f32]) {
        let pitch = self.pitch();
        for (out, row) in out.chunks_exact_mut(pitch).zip(values.chunks_exact(pitch - self.padding)) {
            out[..row.len()].copy_from_slice(row);
        }
    }

    /// Elements of the buffer from one row to the next.
    fn pitch(&self) -> usize {
        self.range.len() / self.shape[0]
    }
}

/// Collects a tower's sources.
struct Sources(Vec<Source>);

impl Sources {
    fn add(&mut self, name: impl Into<String>, shape: &[usize], range: Range<usize>) {
        self.padded(name, shape, range, 0);
    }

    fn padded(&mut self, name: impl Into<String>, shape: &[usize], range: Range<usize>, padding: usize) {
        self.0.push(Source { name: name.into(), shape: shape.to_vec(), range, transposed: false, padding });
    }

    /// The parts of one range, one after another.
    fn split(&mut self, names: &[String], shape: &[usize], range: &Range<usize>) {
        let len = range.len() / names.len();
        for (i, name) in names.iter().enumerate() {
            let start = range.start + i * len;
            self.add(name.clone(), shape, start..start + len);
        }
    }

    fn norm(&mut self, name: &str, c: usize, range: &Range<usize>) {
        self.split(&[format!("{name}.weight"), format!("{name}.bias")], &[c], range);
    }

    fn linear(
        &mut self,
        name: &str,
        [rows, columns]: [usize; 2],
        weight: &Range<usize>,
        bias: &Range<usize>,
    ) {
        self.add(format!("{name}.weight"), &[rows, columns], weight.clone());
        self.add(format!("{name}.bias"), &[rows], bias.clone());
    }

    fn projection(&mut self, name: &str, naming: Naming, d: usize, c: usize, range: &Range<usize>) {
        let transposed = naming == Naming::OpenAi;
        let shape = if transposed { vec![c, d] } else { vec![d, c] };
        let (name, range) = (name.to_string(), range.clone());
        self.0.push(Source { name, shape, range, transposed, padding: 0 });
    }

    fn blocks(&mut self, naming: Naming, prefix: &str, config: &TowerConfig, blocks: &[BlockLayout]) {
        let (c, m) = (config.width, config.mlp);
        for (i, block) in blocks.iter().enumerate() {
            let at = format!("{prefix}.{i}");
            match naming {
                Naming::HuggingFace => {
                    let parts = |end: &str| ["q", "k", "v"].map(|p| format!("{at}.self_attn.{p}_proj.{end}"));
                    self.norm(&format!("{at}.layer_norm1"), c, &block.ln1);
                    self.split(&parts("weight"), &[c, c], &block.qkv_w);
                    self.split(&parts("bias"), &[c], &block.qkv_b);
                    self.linear(&format!("{at}.self_attn.out_proj"), [c, c], &block.out_w, &block.out_b);
                    self.norm(&format!("{at}.layer_norm2"), c, &block.ln2);
                    self.linear(&format!("{at}.mlp.fc1"), [m, c], &block.fc1_w, &block.fc1_b);
                    self.linear(&format!("{at}.mlp.fc2"), [c, m], &block.fc2_w, &block.fc2_b);
                }
                Naming::OpenAi => {
                    self.norm(&format!("{at}.ln_1"), c, &block.ln1);
                    self.add(format!("{at}.attn.in_proj_weight"), &[3 * c, c], block.qkv_w.clone());
                    self.add(format!("{at}.attn.in_proj_bias"), &[3 * c], block.qkv_b.clone());
                    self.linear(&format!("{at}.attn.out_proj"), [c, c], &block.out_w, &block.out_b);
                    self.norm(&format!("{at}.ln_2"), c, &block.ln2);
                    self.linear(&format!("{at}.mlp.c_fc"), [m, c], &block.fc1_w, &block.fc1_b);
                    self.linear(&format!("{at}.mlp.c_proj"), [c, m], &block.fc2_w, &block.fc2_b);
                }
            }
        }
    }
}

impl ClipConfig {
    /// The tensors of the vision tower, for a buffer of [`ClipConfig::vision_layout`].
    pub fn vision_sources(&self, naming: Naming) -> Vec<Source> {
        let (c, p, t, d) = (self.vision.width, self.patch_size, self.tokens(), self.embed_dim);
        let (layout, names) = (self.vision_layout(), naming.vision());
        let mut sources = Sources(Vec::new());
        sources.add(names.class, &[c], layout.class_embedding);
        let padding = self.patch_pitch() - self.patch_len();
        sources.padded(names.patch, &[c, 3, p, p], layout.patch_embedding, padding);
        sources.add(names.position, &[t, c], layout.position_embedding);
        sources.norm(names.pre_ln, c, &layout.pre_ln);
        sources.blocks(naming, names.blocks, &self.vision, &layout.blocks);
        sources.norm(names.post_ln, c, &layout.post_ln);
        sources.projection(names.projection, naming, d, c, &layout.projection);
        sources.0
    }

    /// The tensors of the text tower, for a buffer of [`ClipConfig::text_layout`]; none without one.
    pub fn text_sources(&self, naming: Naming) -> Vec<Source> {
        let Some(text) = &self.text else { return Vec::new() };
        let (c, d) = (text.tower.width, self.embed_dim);
        let (layout, names) = (self.text_layout(), naming.text());
        let mut sources = Sources(Vec::new());
        sources.add(names.token, &[text.vocab_size, c], layout.token_embedding);
        sources.add(names.position, &[text.context_length, c], layout.position_embedding);
        sources.blocks(naming, names.blocks, &text.tower, &layout.blocks);
        sources.norm(names.final_ln, c, &layout.final_ln);
        sources.projection(names.projection, naming, d, c, &layout.projection);
        sources.0
    }
}
