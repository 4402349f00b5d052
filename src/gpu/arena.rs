//! One allocation for many tensors: a plan is walked twice, to measure it and to bind it.

use std::sync::Arc;

use anyhow::{Context, Result, anyhow, ensure};
use bytemuck::Pod;

use super::tensor::{Memory, Shape, Tensor};
use super::{Gpu, human_bytes};

/// Every tensor begins at a multiple of this, as an allocation would.
const ALIGN_BYTES: usize = 256;

/// Hands out tensors one behind the other.
pub struct Plan {
    memory: Arc<Memory>,
    at_bytes: usize,
    peak_bytes: usize,
    entries: Vec<Entry>,
    /// Names of the parts that the next tensor is in, each with a `/` behind it.
    parts: String,
}

/// A tensor of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Such as `views/block 3/qkv`.
    pub name: String,
    pub shape: Vec<usize>,
    /// Type of the elements, such as `f16`.
    pub element: &'static str,
    pub offset_bytes: usize,
    pub bytes: usize,
}

impl Plan {
    fn over(memory: Memory) -> Plan {
        Plan {
            memory: Arc::new(memory),
            at_bytes: 0,
            peak_bytes: 0,
            entries: Vec::new(),
            parts: String::new(),
        }
    }

    /// The next tensor, not initialised.
    ///
    /// # Errors
    /// More bytes than can be counted.
    pub fn tensor<T: Pod>(&mut self, name: &str, shape: impl Into<Shape>) -> Result<Tensor<T>> {
        let shape = shape.into();
        let end = || {
            let bytes = shape.len()?.checked_mul(size_of::<T>())?;
            Some((bytes, self.at_bytes.checked_add(bytes)?.checked_next_multiple_of(ALIGN_BYTES)?))
        };
        let (bytes, end) = end().ok_or_else(|| anyhow!("{name} {shape:?}: too many elements"))?;
        ensure!(
            end <= self.memory.len_bytes(),
            "{name} {shape:?}: the plan asked for less when it was measured"
        );
        let tensor = Tensor::new(self.memory.clone(), self.at_bytes, shape);
        let (name, shape) = (format!("{}{name}", self.parts), tensor.shape().to_vec());
        let element = std::any::type_name::<T>().rsplit("::").next().unwrap_or_default();
        self.entries.push(Entry { name, shape, element, offset_bytes: self.at_bytes, bytes });
        self.at_bytes = end;
        self.peak_bytes = self.peak_bytes.max(end);
        Ok(tensor)
    }

    /// A part of the plan, whose name stands before those of its tensors.
    ///
    /// # Errors
    /// Those of `part`.
    pub fn part<P>(&mut self, name: &str, part: impl FnOnce(&mut Plan) -> Result<P>) -> Result<P> {
        let outside = self.parts.len();
        self.parts += &format!("{name}/");
        let part = part(self);
        self.parts.truncate(outside);
        part
    }

    /// What `parts` plans may be overwritten by what is planned next: tensors that are not needed at the same time.
    ///
    /// # Errors
    /// Those of `parts`.
    pub fn overlay<P>(&mut self, parts: impl FnOnce(&mut Plan) -> Result<P>) -> Result<P> {
        let start = self.at_bytes;
        let parts = parts(self);
        self.at_bytes = start;
        parts
    }
}

/// Bytes that a plan needs, and its tensors.
///
/// # Errors
/// Those of `plan`.
pub fn measure<P>(plan: impl FnOnce(&mut Plan) -> Result<P>) -> Result<(usize, Vec<Entry>)> {
    let mut measured = Plan::over(Memory::nowhere());
    plan(&mut measured)?;
    Ok((measured.peak_bytes, measured.entries))
}

/// Tensors that lie nowhere, for a rehearsal.
pub(super) fn nowhere<P>(plan: impl FnOnce(&mut Plan) -> Result<P>) -> Result<P> {
    plan(&mut Plan::over(Memory::nowhere()))
}

impl Gpu {
    /// Allocates what `plan` needs, at once, and gives its tensors their places; `plan` is called twice.
    ///
    /// # Errors
    /// Those of `plan`; out of memory, naming what was asked for and what is free.
    pub fn arena<P>(&self, plan: impl Fn(&mut Plan) -> Result<P>) -> Result<P> {
        let (bytes, _) = measure(&plan)?;
        let memory = Memory::new(self.context(), bytes).with_context(|| {
            let free = self.memory_bytes().map_or(0, |(free, _)| free);
            format!("allocating {} of device memory ({} free)", human_bytes(bytes), human_bytes(free))
        })?;
        plan(&mut Plan::over(memory))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_test;

    struct Parts {
        kept: Tensor<f32>,
        scratch: Tensor<u8>,
        over: Tensor<f32>,
        behind: Tensor<f32>,
    }

    fn plan(plan: &mut Plan) -> Result<Parts> {
        Ok(Parts {
            kept: plan.part("part", |plan| plan.part("first", |plan| plan.tensor("kept", [3, 5])))?,
            scratch: plan.overlay(|plan| plan.tensor("scratch", 1000))?,
            over: plan.tensor("over it", [2, 2])?,
            behind: plan.tensor("behind", 1)?,
        })
    }

    #[test]
    fn a_plan_is_measured_before_it_is_bound() {
        let (bytes, entries) = measure(plan).unwrap();
        let offsets: Vec<_> = entries.iter().map(|entry| (entry.offset_bytes, entry.bytes)).collect();
        assert_eq!(offsets, [(0, 60), (256, 1000), (256, 16), (512, 4)]);
        assert_eq!((bytes, entries[0].shape.as_slice()), (1280, &[3, 5][..]));
        assert_eq!((&entries[0].name[..], entries[0].element), ("part/first/kept", "f32"));
        assert_eq!((&entries[1].name[..], entries[1].element), ("scratch", "u8"));
        assert!(measure(|plan| plan.tensor::<f32>("vast", [usize::MAX, 2])).is_err());
        assert!(measure(|plan| plan.tensor::<f32>("vast", usize::MAX / 2)).is_err());
    }

    device_test!(bound_tensors_hold_what_is_written, |stream| {
        let Parts { kept, scratch, over, behind } = stream.gpu().arena(plan)?;
        stream.write(&kept, &[1.5; 15])?;
        stream.write(&behind, &[7.0])?;
        stream.fill_bytes(&scratch.slice(0..256), 1)?;
        stream.write(&over, &[2.0; 4])?;
        assert_eq!((stream.read(&kept)?, stream.read(&behind)?), (vec![1.5; 15], vec![7.0]));
        assert_eq!(stream.read(&over)?, [2.0; 4]);
        let too_much = stream.gpu().arena(|plan| plan.tensor::<f32>("all", 1 << 45)).unwrap_err();
        assert!(crate::gpu::is_out_of_memory(&too_much), "{too_much:#}");
    });
}
