//! `memo doctor --plan`: the device memory that adapting takes, tensor by tensor.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use serde_json::{Value, json};

use super::options::{AdaptOptions, Batch, DeviceOptions, ModelOptions};
use super::session::{self, MOST_IMAGES};
use crate::clip::Activation;
use crate::engine::{Needs, Vision};
use crate::gpu::{Entry, Gpu, human_bytes};
use crate::report::counted;

#[derive(Args)]
#[command(next_help_heading = PlanOptions::HEADING)]
pub struct PlanOptions {
    /// The CLIP model: a Hugging Face or open_clip folder, or a safetensors file in either naming
    #[arg(long, short, value_name = "PATH")]
    model: Option<PathBuf>,
    /// Images at once
    #[arg(long, default_value = "auto", value_name = "auto|S")]
    batch: Batch,
    /// Classes
    #[arg(long, default_value_t = 100, value_name = "K", value_parser = clap::value_parser!(u32).range(1..=100_000), allow_negative_numbers = true)]
    classes: u32,
    /// The activation, for a safetensors file without a config, which does not say its own
    #[arg(long, value_enum)]
    activation: Option<Activation>,
    #[command(flatten)]
    adapt: AdaptOptions,
}

impl PlanOptions {
    /// What they stand under in the help.
    pub const HEADING: &str = "With --plan";

    /// What is printed.
    ///
    /// # Errors
    /// Anything about the model or the device.
    pub fn run(&self, device: DeviceOptions, as_json: bool) -> Result<String> {
        let model = self.model.clone().context("--plan: of which model? --model says that")?;
        let checkpoint = session::open_checkpoint(&ModelOptions {
            model,
            activation: self.activation,
            logit_scale: None,
            device,
        })?;
        let (config, settings) = (checkpoint.config(), self.adapt.settings()?);
        let layout = config.vision_layout();
        let weights = checkpoint.vision_params(&layout)?;
        let vision = Vision { config: config.clone(), layout };
        let classes = self.classes as usize;
        let needs = Needs::new(&vision, &weights, classes, &settings)?;

        let gpu = Gpu::open(device.device)?;
        let (name, (free, whole), room) = (gpu.name()?, gpu.memory_bytes()?, session::room(&gpu, 0)?);
        let auto = needs.images_in(room, MOST_IMAGES).max(1);
        let largest = needs.images_in(free, 65_536);
        let batch = match self.batch {
            Batch::Images(batch) => batch,
            Batch::Auto => auto,
        };
        let (buffers, entries) = needs.buffers(batch)?;
        let (groups, total) = (grouped(&entries), needs.total(batch)?);
        if as_json {
            let object = json!({
                "device": name, "batch": batch, "views": settings.views, "classes": classes,
                "steps": settings.steps, "precision": settings.precision, "update": settings.update,
                "tensors": groups.iter().flat_map(Group::objects).collect::<Vec<Value>>(),
                "buffer_bytes": buffers, "weight_bytes": needs.weights, "label_bytes": needs.text,
                "overflow_bytes": needs.exact, "view_bytes": Needs::VIEWS, "total_bytes": total, "free_bytes": free,
                "device_bytes": whole, "auto_batch": auto, "largest_batch": largest,
            });
            return Ok(format!("{object}\n"));
        }
        let mut text: String = groups.iter().map(Group::lines).collect();
        let mut sum = |what: &str, bytes: usize| text += &format!("{what:<52} {:>10}\n", human_bytes(bytes));
        sum(&format!("buffers of {}, {} views each", counted(batch, "image"), settings.views), buffers);
        sum("weights", needs.weights);
        sum(&format!("features of {classes} labels"), needs.text);
        if needs.exact > 0 {
            sum("an image in fp32, once gradients overflow", needs.exact);
        }
        sum("to make views in, at most", Needs::VIEWS);
        sum("all", total);
        sum(&format!("free on {name}, of {}", human_bytes(whole)), free);
        text += &match largest {
            0 => "not even one image fits: fewer --views need less\n".to_string(),
            _ => format!("--batch auto takes {auto} at once; {largest} would fit\n"),
        };
        Ok(text)
    }
}

/// A part of the plan, or several blocks that have the same tensors.
struct Group<'a> {
    /// Such as `views/block 0`, and the last one's number.
    part: &'a str,
    last: Option<usize>,
    times: usize,
    /// Of one of them, each with the first tensor in whose memory it lies as well.
    tensors: Vec<(&'a Entry, Option<&'a str>)>,
}

impl Group<'_> {
    fn lines(&self) -> String {
        let mut text = if self.part.is_empty() { "others".to_string() } else { self.part.to_string() };
        if let Some(last) = self.last {
            text += &format!(" to {last}, {} times", self.times);
        }
        text.push('\n');
        for (tensor, shares) in &self.tensors {
            let shape: Vec<String> = tensor.shape.iter().map(usize::to_string).collect();
            let (name, shape) = (split(&tensor.name).1, format!("({})", shape.join(", ")));
            let (element, bytes) = (tensor.element, human_bytes(tensor.bytes));
            text += &format!("  {name:<16} {shape:<22} {element:<10} {bytes:>10}");
            if let Some(shares) = shares {
                text += &format!("  in the memory of {shares}");
            }
            text.push('\n');
        }
        text
    }

    fn objects(&self) -> Vec<Value> {
        let object = |(tensor, shares): &(&Entry, Option<&str>)| {
            json!({
                "name": tensor.name, "shape": tensor.shape, "type": tensor.element,
                "bytes": tensor.bytes, "times": self.times, "shares": shares,
            })
        };
        self.tensors.iter().map(object).collect()
    }
}

/// The plan's parts in their order, equal blocks as one.
fn grouped(entries: &[Entry]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    for tensors in entries.chunk_by(|a, b| split(&a.name).0 == split(&b.name).0) {
        let part = split(&tensors[0].name).0;
        let (kind, number) = numbered(part);
        let above = groups.last_mut().filter(|above| {
            let alike = |((a, _), b): (&(&Entry, _), &Entry)| {
                split(&a.name).1 == split(&b.name).1 && a.shape == b.shape && a.element == b.element
            };
            number.is_some()
                && numbered(above.part).0 == kind
                && above.tensors.len() == tensors.len()
                && above.tensors.iter().zip(tensors).all(alike)
        });
        match above {
            Some(above) => (above.last, above.times) = (number, above.times + 1),
            None => {
                let tensors = tensors.iter().map(|tensor| (tensor, shares(tensor, entries))).collect();
                groups.push(Group { part, last: None, times: 1, tensors });
            }
        }
    }
    groups
}

/// The first tensor before this one that lies in the same memory.
fn shares<'a>(tensor: &Entry, entries: &'a [Entry]) -> Option<&'a str> {
    let end = |entry: &Entry| entry.offset_bytes + entry.bytes;
    let mut before = entries.iter().take_while(|&entry| !std::ptr::eq(entry, tensor));
    let overlaps = |other: &&Entry| other.offset_bytes < end(tensor) && tensor.offset_bytes < end(other);
    before.find(overlaps).map(|other| &other.name[..])
}

/// `views/block 3` and `qkv` of `views/block 3/qkv`.
fn split(name: &str) -> (&str, &str) {
    name.rsplit_once('/').unwrap_or(("", name))
}

/// `views/block` and 3 of `views/block 3`.
fn numbered(part: &str) -> (&str, Option<usize>) {
    match part.rsplit_once(' ').map(|(kind, number)| (kind, number.parse())) {
        Some((kind, Ok(number))) => (kind, Some(number)),
        _ => (part, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::measure;

    #[test]
    fn equal_blocks_are_one_group_and_what_shares_memory_says_so() {
        let (_, entries) = measure(|plan| {
            for (block, q) in [(0, 50), (1, 50), (2, 1)] {
                plan.part("views", |plan| {
                    plan.part(&format!("block {block}"), |plan| {
                        plan.tensor::<f32>("qkv", [50, 3])?;
                        plan.tensor::<f32>("att", [q, 1])
                    })
                })?;
            }
            plan.overlay(|plan| plan.tensor::<u8>("scratch", 1000))?;
            plan.tensor::<f32>("over it", 7)
        })
        .unwrap();
        let groups = grouped(&entries);
        let parts: Vec<_> = groups.iter().map(|group| (group.part, group.last, group.times)).collect();
        assert_eq!(parts, [("views/block 0", Some(1), 2), ("views/block 2", None, 1), ("", None, 1)]);
        let shares: Vec<_> = groups[2].tensors.iter().map(|(_, shares)| *shares).collect();
        assert_eq!(shares, [None, Some("scratch")]);
    }
}
