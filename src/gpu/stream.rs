//! Streams, which do what is queued on them in order, and events, which mark places in them.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, ensure};
use bytemuck::Pod;
use cudarc::driver::sys::{self, CUevent, CUevent_flags, CUresult, CUstream};
use cudarc::driver::{CudaStream, result};

use super::error::CudaError;
use super::rehearsal::Notes;
use super::tensor::{Shape, Tensor};
use super::timeline::{Kind, Queued};
use super::{Gpu, Plan, arena, lock};

/// A queue of one device's work. Cheap to clone.
///
/// A call's effects are seen by every later call on the stream; results are complete on the host after
/// [`Stream::read`] or [`Stream::synchronize`].
#[derive(Clone)]
pub struct Stream(Arc<Inner>);

struct Inner {
    gpu: Gpu,
    stream: Arc<CudaStream>,
    /// The kernel launched last: an asynchronous error is its own or of one before it.
    last: Mutex<Option<&'static str>>,
    launches: AtomicUsize,
    graphs: AtomicUsize,
    uploaded_bytes: AtomicUsize,
    /// What is queued, between events, where a timeline is kept.
    spans: Mutex<Option<Vec<Queued>>>,
    /// Of a rehearsal.
    notes: Option<Notes>,
}

impl Gpu {
    /// A new queue, which waits for no other by itself.
    ///
    /// # Errors
    /// The driver's.
    pub fn stream(&self) -> Result<Stream> {
        self.new_stream(None)
    }

    pub(super) fn new_stream(&self, notes: Option<Notes>) -> Result<Stream> {
        let stream = self.context().new_stream().map_err(CudaError::from).context("making a stream")?;
        Ok(Stream(Arc::new(Inner {
            gpu: self.clone(),
            stream,
            last: Mutex::default(),
            launches: AtomicUsize::new(0),
            graphs: AtomicUsize::new(0),
            uploaded_bytes: AtomicUsize::new(0),
            spans: Mutex::default(),
            notes,
        })))
    }
}

impl Stream {
    /// The device it belongs to.
    pub fn gpu(&self) -> &Gpu {
        &self.0.gpu
    }

    /// Not initialised, in an allocation of its own.
    ///
    /// # Errors
    /// Out of memory, naming what was asked for and what is free.
    pub fn alloc<T: Pod>(&self, shape: impl Into<Shape>) -> Result<Tensor<T>> {
        let shape = shape.into();
        self.arena(|plan| plan.tensor("a tensor", shape))
    }

    /// Allocates what `plan` needs, at once, and gives its tensors their places; `plan` is called twice.
    ///
    /// # Errors
    /// Those of `plan`; out of memory, naming what was asked for and what is free.
    pub fn arena<P>(&self, plan: impl Fn(&mut Plan) -> Result<P>) -> Result<P> {
        match self.is_rehearsal() {
            true => arena::nowhere(plan),
            false => self.gpu().arena(plan),
        }
    }

    pub(super) fn notes(&self) -> Option<&Notes> {
        self.0.notes.as_ref()
    }

    /// Kernels launched, by graphs and in a rehearsal too.
    pub fn launches(&self) -> usize {
        self.0.launches.load(Ordering::Relaxed)
    }

    /// Graphs launched.
    pub fn graphs(&self) -> usize {
        self.0.graphs.load(Ordering::Relaxed)
    }

    /// Written by [`Stream::write`], as by [`Stream::upload`].
    pub fn uploaded_bytes(&self) -> usize {
        self.0.uploaded_bytes.load(Ordering::Relaxed)
    }

    /// All bits zero.
    pub fn zeros<T: Pod>(&self, shape: impl Into<Shape>) -> Result<Tensor<T>> {
        let tensor = self.alloc(shape)?;
        self.fill_bytes(&tensor, 0)?;
        Ok(tensor)
    }

    /// A copy of host data on the device, which has as many elements as the shape.
    pub fn upload<T: Pod>(&self, shape: impl Into<Shape>, data: &[T]) -> Result<Tensor<T>> {
        let tensor = self.alloc(shape)?;
        self.write(&tensor, data)?;
        Ok(tensor)
    }

    /// A copy of host data on the device, of one dimension.
    pub fn vector<T: Pod>(&self, data: &[T]) -> Result<Tensor<T>> {
        self.upload(data.len(), data)
    }

    /// Overwrites `dst` with host data of the same length.
    pub fn write<T: Pod>(&self, dst: &Tensor<T>, data: &[T]) -> Result<()> {
        same_length("writing device memory", dst.len(), data.len())?;
        if data.is_empty() || self.is_rehearsal() {
            return Ok(());
        }
        // SAFETY: dst is a live allocation of at least data's bytes; the stream is synchronised before data's borrow ends.
        unsafe { result::memcpy_htod_async(dst.address(), data, self.raw()?) }
            .map_err(CudaError::from)
            .context("copying to the device")?;
        self.0.uploaded_bytes.fetch_add(size_of_val(data), Ordering::Relaxed);
        self.synchronize()
    }

    /// A copy of device data on the host, complete.
    pub fn read<T: Pod>(&self, src: &Tensor<T>) -> Result<Vec<T>> {
        let mut data = vec![T::zeroed(); src.len()];
        if !data.is_empty() && !self.is_rehearsal() {
            // SAFETY: src is a live allocation of data's length; the stream is synchronised before data is looked at.
            unsafe { result::memcpy_dtoh_async(&mut data, src.address(), self.raw()?) }
                .map_err(CudaError::from)
                .with_context(|| self.blame("copying from the device"))?;
        }
        self.synchronize()?;
        Ok(data)
    }

    /// Device to device, between tensors of one length.
    pub fn copy<T: Pod>(&self, dst: &Tensor<T>, src: &Tensor<T>) -> Result<()> {
        same_length("copying device memory", dst.len(), src.len())?;
        if src.is_empty() || self.is_rehearsal() {
            return Ok(());
        }
        self.span("copy on the device", Kind::Copy, || {
            // SAFETY: both are live allocations of src's length; freeing device memory waits for the work queued before.
            unsafe {
                let bytes = src.len() * size_of::<T>();
                result::memcpy_dtod_async(dst.address(), src.address(), bytes, self.raw()?)
            }
            .map_err(CudaError::from)
            .context("copying on the device")
        })
    }

    /// Every byte of `dst` becomes `value`.
    pub fn fill_bytes<T: Pod>(&self, dst: &Tensor<T>, value: u8) -> Result<()> {
        if dst.is_empty() || self.is_rehearsal() {
            return Ok(());
        }
        self.span("fill", Kind::Copy, || {
            // SAFETY: dst is a live allocation of that many bytes.
            unsafe {
                let bytes = dst.len() * size_of::<T>();
                result::memset_d8_async(dst.address(), value, bytes, self.raw()?)
            }
            .map_err(CudaError::from)
            .context("filling device memory")
        })
    }

    /// Waits for all queued work and reports its errors.
    pub fn synchronize(&self) -> Result<()> {
        let waited = self.0.stream.synchronize().map_err(CudaError::from);
        waited.with_context(|| self.blame("waiting for the device"))
    }

    /// What is queued from now on waits until the event's place is reached.
    ///
    /// # Errors
    /// The driver's.
    pub fn wait(&self, event: &Event) -> Result<()> {
        use cudarc::driver::sys::CUevent_wait_flags::CU_EVENT_WAIT_DEFAULT;
        // SAFETY: both are live; the driver keeps what it needs of the event.
        unsafe { result::stream::wait_event(self.raw()?, event.event, CU_EVENT_WAIT_DEFAULT) }
            .map_err(CudaError::from)
            .context("making a stream wait for an event")
    }

    /// From now on, spans are kept.
    pub(super) fn keep_spans(&self) {
        *lock(&self.0.spans) = Some(Vec::new());
    }

    /// Those that were kept; from now on none is, until they are given back.
    pub(super) fn take_spans(&self) -> Option<Vec<Queued>> {
        lock(&self.0.spans).take()
    }

    /// What [`Stream::take_spans`] took.
    pub(super) fn give_back_spans(&self, spans: Option<Vec<Queued>>) {
        *lock(&self.0.spans) = spans;
    }

    /// Queues work of this name: between two events where a timeline is kept.
    ///
    /// # Errors
    /// Those of `queue`; the driver's.
    pub fn span<T>(&self, name: &'static str, kind: Kind, queue: impl FnOnce() -> Result<T>) -> Result<T> {
        if lock(&self.0.spans).is_none() {
            return queue();
        }
        let [start, end] = [Event::new(self.gpu())?, Event::new(self.gpu())?];
        start.record(self)?;
        let queued = queue()?;
        end.record(self)?;
        if let Some(spans) = &mut *lock(&self.0.spans) {
            spans.push(Queued { name, kind, start, end });
        }
        Ok(queued)
    }

    /// The driver's handle, its context bound to this thread.
    pub(super) fn raw(&self) -> Result<CUstream> {
        self.gpu().bind()?;
        Ok(self.0.stream.cu_stream())
    }

    pub(super) fn launched(&self, kernel: &'static str) {
        *lock(&self.0.last) = Some(kernel);
        self.count_launch();
    }

    pub(super) fn count_launch(&self) {
        self.count_launches(1);
    }

    pub(super) fn count_launches(&self, launches: usize) {
        self.0.launches.fetch_add(launches, Ordering::Relaxed);
    }

    pub(super) fn uncount_launches(&self, launches: usize) {
        self.0.launches.fetch_sub(launches, Ordering::Relaxed);
    }

    pub(super) fn count_graph(&self, launches: usize) {
        *lock(&self.0.last) = Some("a graph");
        self.0.graphs.fetch_add(1, Ordering::Relaxed);
        self.count_launches(launches);
    }

    /// What an asynchronous error is told with: the kernel that was launched last; none behind it can have failed.
    pub fn blame(&self, what: &str) -> String {
        match *lock(&self.0.last) {
            Some(kernel) => format!("{what} (launched last: {kernel})"),
            None => what.to_string(),
        }
    }
}

fn same_length(what: &str, dst: usize, src: usize) -> Result<()> {
    ensure!(dst == src, "{what}: {src} elements for a buffer of {dst}");
    Ok(())
}

/// A place in a stream.
pub struct Event {
    gpu: Gpu,
    event: CUevent,
}

// SAFETY: a handle of the driver, valid in every thread that has bound the context.
unsafe impl Send for Event {}
// SAFETY: as above; the driver serialises calls with it.
unsafe impl Sync for Event {}

impl Event {
    /// Not yet anywhere: to wait for it is to wait for nothing.
    ///
    /// # Errors
    /// The driver's.
    pub fn new(gpu: &Gpu) -> Result<Event> {
        gpu.bind()?;
        let event = result::event::create(CUevent_flags::CU_EVENT_DEFAULT).map_err(CudaError::from)?;
        Ok(Event { gpu: gpu.clone(), event })
    }

    /// Moves to behind all that is queued on the stream.
    ///
    /// # Errors
    /// The driver's.
    pub fn record(&self, stream: &Stream) -> Result<()> {
        // SAFETY: both are live.
        let recorded = unsafe { result::event::record(self.event, stream.raw()?) };
        recorded.map_err(CudaError::from).context("recording an event")
    }

    /// Waits on the host until its place is reached.
    ///
    /// # Errors
    /// Those of the work before it.
    pub fn synchronize(&self) -> Result<()> {
        self.gpu.bind()?;
        // SAFETY: live.
        let waited = unsafe { result::event::synchronize(self.event) };
        waited.map_err(CudaError::from).context("waiting for an event")
    }

    /// Microseconds from `start`'s place to this one's, both reached.
    ///
    /// # Errors
    /// One of them not recorded or not reached.
    pub fn elapsed_us(&self, start: &Event) -> Result<f64> {
        self.gpu.bind()?;
        type Elapsed = unsafe extern "C" fn(*mut f32, CUevent, CUevent) -> CUresult;
        let mut ms = 0.0;
        // SAFETY: a live local, and both events are live. By the name that every driver has: cudarc's is of CUDA 12.8.
        let timed = unsafe {
            let elapsed = sys::culib().get::<Elapsed>(b"cuEventElapsedTime\0")?;
            elapsed(&mut ms, start.event, self.event).result()
        };
        timed.map_err(CudaError::from).context("timing between events")?;
        Ok(f64::from(ms) * 1e3)
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: made in `new`, destroyed only here; the driver waits for its place itself.
            let _ = unsafe { result::event::destroy(self.event) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device_test;

    device_test!(a_stream_waits_for_another_ones_event, |stream| {
        let other = stream.gpu().stream()?;
        let (a, b, ready) =
            (stream.alloc::<u32>(1000)?, stream.alloc::<u32>(1000)?, Event::new(stream.gpu())?);
        let start = Event::new(stream.gpu())?;
        for value in 0..20 {
            start.record(&stream)?;
            stream.fill_bytes(&a, value)?;
            ready.record(&stream)?;
            other.wait(&ready)?;
            other.copy(&b, &a)?;
            assert_eq!(other.read(&b)?, vec![u32::from_ne_bytes([value; 4]); 1000]);
            ready.synchronize()?;
            assert!(ready.elapsed_us(&start)? >= 0.0);
        }
    });

    device_test!(lengths_that_differ_are_refused, |stream| {
        let four = stream.zeros::<f32>([2, 2])?;
        assert!(stream.write(&four, &[1.0; 5]).is_err());
        assert!(stream.copy(&four, &stream.zeros(5)?).is_err());
        assert!(stream.upload([2, 3], &[1.0f32; 5]).is_err());
        assert!(stream.read(&stream.vector::<f32>(&[])?)?.is_empty());
    });
}
