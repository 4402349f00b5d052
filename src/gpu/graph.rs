//! Graphs: a series of launches recorded once, and queued again in one call.

use anyhow::{Context, Result};
use cudarc::driver::sys::{CUgraph, CUgraphExec, CUgraphInstantiate_flags, CUstream, CUstreamCaptureMode};
use cudarc::driver::{DriverError, result};

use super::error::CudaError;
use super::timeline::Kind;
use super::{Gpu, Stream};

/// A recorded series. It reads and writes the tensors that it was recorded with, which it keeps alive.
pub struct Graph<K> {
    gpu: Gpu,
    exec: CUgraphExec,
    /// Kernels.
    launches: usize,
    _keeps: K,
}

// SAFETY: a handle of the driver, valid in every thread that has bound the context.
unsafe impl<K: Send> Send for Graph<K> {}

impl<K> Graph<K> {
    /// Records what `work` queues on the stream, without running it.
    ///
    /// * `keeps`: owns the memory that the launches use, as an arena's tensors do.
    ///
    /// Kernels must be loaded and have run once: neither loading nor allocating can be recorded.
    ///
    /// # Errors
    /// Those of `work`; what cannot be recorded.
    ///
    /// # Safety
    /// `keeps` holds all memory that the launches of `work` read and write.
    pub unsafe fn record(
        stream: &Stream,
        keeps: K,
        work: impl FnOnce(&Stream) -> Result<()>,
    ) -> Result<Graph<K>> {
        let raw = stream.raw()?;
        let mode = CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream is live, and `recording` ends on every path, that of a panic too.
        unsafe { result::stream::begin_capture(raw, mode) }
            .map_err(CudaError::from)
            .context("recording a graph")?;
        let recording = Recording(raw);
        let before = stream.launches();
        let spans = stream.take_spans(); // events of a recording have no time
        let queued = work(stream);
        stream.give_back_spans(spans);
        let recorded = recording.end();
        let launches = stream.launches() - before;
        stream.uncount_launches(launches); // none has run
        queued?;
        let recorded = recorded.map_err(CudaError::from).context("recording a graph")?;
        // SAFETY: a whole graph, which lives until the end of this function.
        let exec = unsafe { result::graph::instantiate(recorded.0, CUgraphInstantiate_flags(0)) }
            .map_err(CudaError::from)
            .context("preparing a recorded graph")?;
        Ok(Graph { gpu: stream.gpu().clone(), exec, launches, _keeps: keeps })
    }

    /// Queues all of it.
    ///
    /// # Errors
    /// The driver's.
    pub fn launch(&self, stream: &Stream) -> Result<()> {
        stream.span("graph", Kind::Graph, || {
            // SAFETY: both are live, and so is the memory, which `keeps` owns.
            let launched = unsafe { result::graph::launch(self.exec, stream.raw()?) };
            launched.map_err(CudaError::from).context("launching a graph")
        })?;
        stream.count_graph(self.launches);
        Ok(())
    }
}

impl<K> Drop for Graph<K> {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: made in `record` and destroyed only here; the driver waits for launches of it.
            let _ = unsafe { result::graph::exec_destroy(self.exec) };
        }
    }
}

/// A stream that records, until `end`, or until this is dropped.
struct Recording(CUstream);

impl Recording {
    fn end(self) -> Result<Recorded, DriverError> {
        let stream = self.0;
        std::mem::forget(self);
        // SAFETY: begun on this thread, ended only here or in `drop`.
        unsafe { result::stream::end_capture(stream) }.map(Recorded)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        // SAFETY: as in `end`. What was recorded is thrown away.
        let _ = unsafe { result::stream::end_capture(self.0) }.map(Recorded);
    }
}

struct Recorded(CUgraph);

impl Drop for Recorded {
    fn drop(&mut self) {
        // SAFETY: from the end of a recording, destroyed only here.
        let _ = unsafe { result::graph::destroy(self.0) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_test;
    use crate::gpu::Tensor;
    use crate::ops::linear::Linear;

    /// `params -= rate · grads`, `(8, 1)` each.
    fn step(
        stream: &Stream,
        params: &Tensor<f32>,
        grads: &Tensor<f32>,
        one: &Tensor<f32>,
        rate: f32,
    ) -> Result<()> {
        Linear::nt(grads, one, params).scale(-rate, 1.0).addend(params).run(stream)
    }

    fn column(stream: &Stream, value: f32) -> Result<Tensor<f32>> {
        stream.upload([8, 1], &[value; 8])
    }

    device_test!(what_is_recorded_runs_when_launched, |stream| {
        let (params, grads, one) =
            (column(&stream, 1.0)?, column(&stream, 2.0)?, stream.upload([1, 1], &[1.0])?);
        step(&stream, &params, &grads, &one, 0.0)?;
        let keeps = (params.clone(), grads.clone(), one.clone());
        let work = |stream: &Stream| step(stream, &params, &grads, &one, 0.25);
        let launches = stream.launches();
        // SAFETY: all three are kept.
        let graph = unsafe { Graph::record(&stream, keeps, work) }?;
        assert_eq!((stream.read(&params)?, stream.launches()), (vec![1.0; 8], launches));
        graph.launch(&stream)?;
        graph.launch(&stream)?;
        assert_eq!((stream.launches(), stream.graphs()), (launches + 2, 2));
        assert_eq!(stream.read(&params)?, [0.0; 8]);
        stream.write(&grads, &[-4.0; 8])?;
        graph.launch(&stream)?;
        assert_eq!(stream.blame("a wait"), "a wait (launched last: a graph)");
        assert_eq!(stream.read(&params)?, [1.0; 8]);
    });

    device_test!(a_recording_that_fails_ends, |stream| {
        let (params, one) = (column(&stream, 1.0)?, stream.upload([1, 1], &[1.0])?);
        // SAFETY: nothing is launched.
        let failed = unsafe { Graph::record(&stream, (), |_| anyhow::bail!("no work")) };
        assert_eq!(failed.err().map(|error| error.to_string()).as_deref(), Some("no work"));
        let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            // SAFETY: as above.
            unsafe { Graph::record(&stream, (), |_| panic!("no work either")) }
        }));
        assert!(panicked.is_err());
        step(&stream, &params, &column(&stream, 1.0)?, &one, 1.0)?;
        assert_eq!(stream.read(&params)?, [0.0; 8]);
    });
}
