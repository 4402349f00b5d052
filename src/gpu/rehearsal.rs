//! Rehearsals: going through work without doing it, to find out what it needs.

use std::collections::BTreeSet;
use std::mem::take;
use std::sync::Mutex;

use anyhow::Result;

use super::{Defines, Gpu, Launch, ModuleKey, Stream, lock, trace};

/// What work needs, by a rehearsal of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rehearsed {
    /// The sources of its kernels.
    pub modules: BTreeSet<ModuleKey>,
    pub launches: Vec<Launched>,
}

/// A launch that work needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Launched {
    pub module: ModuleKey,
    pub kernel: &'static str,
    pub launch: Launch,
    /// Of a matrix product: how many at once, M, N and K.
    pub product: Option<[usize; 4]>,
    /// Multiplications and additions of matrix products and of attention, each product counted once, however many terms its
    /// operands are in.
    pub flops: u64,
    /// Of the tensors among its arguments, of a product those parts that it takes: the least that it can read and write.
    pub bytes: u64,
}

impl Rehearsed {
    /// Of all launches.
    pub fn flops(&self) -> u64 {
        self.launches.iter().map(|launched| launched.flops).sum()
    }

    /// Of all launches.
    pub fn bytes(&self) -> u64 {
        self.launches.iter().map(|launched| launched.bytes).sum()
    }
}

/// What a stream notes in the place of work.
#[derive(Default)]
pub(super) struct Notes {
    /// What kernels are chosen and compiled for: another device's, where the work is to be done there.
    pub architecture: String,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    rehearsed: Rehearsed,
    /// Of the launch that comes next.
    product: Option<[usize; 4]>,
    flops: u64,
    bytes: u64,
}

impl Gpu {
    /// Goes through `work` without doing it: on its stream memory has addresses but no place, reads give zeros, and kernels are
    /// neither compiled nor launched. Their sources can then be compiled at once, by [`Gpu::load`], before they are needed.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn rehearse<R>(&self, work: impl FnOnce(&Stream) -> Result<R>) -> Result<Rehearsed> {
        self.rehearse_for(self.architecture(), work)
    }

    /// The same as if this device were of another architecture, such as `120`, and the same in all else.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn rehearse_for<R>(
        &self,
        architecture: &str,
        work: impl FnOnce(&Stream) -> Result<R>,
    ) -> Result<Rehearsed> {
        let _range = trace::range("rehearsal");
        let stream =
            self.new_stream(Some(Notes { architecture: architecture.to_string(), ..Notes::default() }))?;
        work(&stream)?;
        Ok(stream.rehearsed())
    }
}

impl Stream {
    /// Whether nothing is done: see [`Gpu::rehearse`].
    pub fn is_rehearsal(&self) -> bool {
        self.notes().is_some()
    }

    /// What kernels are chosen and compiled for, such as `90a`.
    pub fn architecture(&self) -> &str {
        self.notes().map_or_else(|| self.gpu().architecture(), |notes| &notes.architecture)
    }

    /// What a rehearsal has come across up to now; nothing on other streams.
    pub fn rehearsed(&self) -> Rehearsed {
        self.notes().map(|notes| lock(&notes.noted).rehearsed.clone()).unwrap_or_default()
    }

    /// In a rehearsal, notes the kernels of work that may have to be done or not, and no launches; elsewhere does nothing.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn rehearse_maybe(&self, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let Some(notes) = self.notes() else { return Ok(()) };
        let launches = lock(&notes.noted).rehearsed.launches.len();
        work()?;
        let noted = &mut lock(&notes.noted).rehearsed.launches;
        self.uncount_launches(noted.len() - launches);
        noted.truncate(launches);
        Ok(())
    }

    /// Notes what the next launch is about to compute and touch, in a rehearsal.
    pub fn note_work(&self, flops: u64, bytes: u64) {
        if let Some(notes) = self.notes() {
            let mut noted = lock(&notes.noted);
            noted.flops += flops;
            noted.bytes += bytes;
        }
    }

    /// The same of a matrix product: so many at once, M, N and K.
    pub fn note_product(&self, [batch, m, n, k]: [usize; 4], bytes: u64) {
        self.note_work((2 * batch * m * n * k) as u64, bytes);
        if let Some(notes) = self.notes() {
            lock(&notes.noted).product = Some([batch, m, n, k]);
        }
    }

    /// Notes a kernel's source.
    pub(super) fn note(&self, stem: &'static str, defines: Defines) -> ModuleKey {
        let module = (stem, defines.to_vec());
        if let Some(notes) = self.notes() {
            lock(&notes.noted).rehearsed.modules.insert(module.clone());
        }
        module
    }

    /// Notes a launch and, as its own, the work before it.
    pub(super) fn note_launch(&self, module: &ModuleKey, kernel: &'static str, launch: Launch, bytes: u64) {
        let Some(notes) = self.notes() else { return };
        let Noted { rehearsed, product, flops, bytes: more } = &mut *lock(&notes.noted);
        let (product, flops, bytes) = (product.take(), take(flops), bytes + take(more));
        rehearsed.launches.push(Launched { module: module.clone(), kernel, launch, product, flops, bytes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_test;
    use crate::gpu::Tensor;
    use crate::ops::linear::Linear;

    device_test!(a_rehearsal_notes_kernels_and_does_nothing, |stream| {
        let a = stream.upload([4, 4], &[1f32; 16])?;
        let product = |stream: &Stream, out: &Tensor<f32>| Linear::nt(&a, &a, out).run(stream);
        let rehearsed = stream.gpu().rehearse(|stream| {
            let out = stream.zeros([4, 4])?;
            product(stream, &out)?;
            product(stream, &out)?;
            stream.alloc::<f32>(1 << 45)?; // more than there is
            assert_eq!(stream.read(&out)?, [0.0; 16]);
            product(stream, &a)?;
            assert_eq!(stream.launches(), 3);
            Ok(())
        })?;
        let stems: Vec<&str> = rehearsed.modules.iter().map(|(stem, _)| *stem).collect();
        assert_eq!(stems, ["linear_simt"]);
        assert_eq!(rehearsed.launches.len(), 3);
        // Each of two operands and a result of 4 by 4.
        for launched in &rehearsed.launches {
            assert_eq!(launched.kernel, "linear_simt");
            assert!(rehearsed.modules.contains(&launched.module));
            let Launched { product, flops, bytes, .. } = *launched;
            assert_eq!((product, flops, bytes), (Some([1, 4, 4, 4]), 2 * 64, 3 * 64));
        }
        assert_eq!((rehearsed.flops(), rehearsed.bytes()), (3 * 2 * 64, 3 * 3 * 64));
        assert_eq!(stream.read(&a)?, [1.0; 16]);
    });

    device_test!(work_that_may_not_be_done_has_kernels_and_no_launches, |stream| {
        let rehearsed = stream.gpu().rehearse(|stream| {
            let a = stream.zeros::<f32>([4, 4])?;
            Linear::nn(&a, &a, &a).run(stream)?;
            stream.rehearse_maybe(|| Linear::nt(&a, &a, &a).run(stream))?;
            assert_eq!(stream.launches(), 1);
            Ok(())
        })?;
        assert_eq!((rehearsed.modules.len(), rehearsed.launches.len(), rehearsed.flops()), (2, 1, 2 * 64));
        let a = stream.zeros::<f32>([4, 4])?;
        stream.rehearse_maybe(|| Linear::nt(&a, &a, &a).run(&stream))?;
        assert_eq!(stream.launches(), 0, "it is no rehearsal");
    });

    device_test!(a_rehearsal_may_be_of_another_architecture, |stream| {
        use half::f16;
        let products = |stream: &Stream| -> Result<()> {
            let a = stream.zeros::<f16>([64, 64])?;
            Linear::nt(&a, &a, &a).run(stream)
        };
        for (architecture, kernel) in
            [("70", "linear_simt"), ("75", "linear_mma"), ("80", "linear_mma"), ("90a", "linear_wgmma")]
        {
            let rehearsed = stream.gpu().rehearse_for(architecture, products)?;
            assert_eq!(rehearsed.launches[0].kernel, kernel);
        }
    });
}
