//! Stream capture: what streams are asked for becomes a graph, and what would escape it is an error.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::ThreadId;

use super::graph::live as live_graph;
use super::work::{GraphHandle, NodeHandle, Work};
use crate::api::error::{Outcome, Status};
use crate::api::lock;
use crate::api::objects::context;
use crate::api::objects::handles::StreamHandle;
use crate::api::objects::stream::{self, is_blocking, is_legacy};

/// `CUstreamCaptureMode`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Global,
    ThreadLocal,
    Relaxed,
}

/// One capture: from a stream's beginning of it to its end there.
struct Capture {
    number: u64,
    mode: Mode,
    thread: ThreadId,
    /// The stream that began it.
    origin: usize,
    /// Its streams, and the nodes that each one's next work comes after.
    tips: BTreeMap<usize, Vec<NodeHandle>>,
    graph: GraphHandle,
    /// The graph is the capture's own, not the client's.
    owned: bool,
    /// Broke a rule: nothing but its end is possible.
    broken: bool,
}

// SAFETY: handles of the client's; the graph is touched under the lock alone.
unsafe impl Send for Capture {}

static CAPTURES: Mutex<Vec<Capture>> = Mutex::new(Vec::new());
/// How many there are, so that a launch without any takes no lock.
static COUNT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MODE: Cell<Mode> = const { Cell::new(Mode::Global) };
}

impl Mode {
    /// # Errors
    /// No such mode.
    pub fn new(value: u32) -> Result<Mode, Status> {
        Ok(*[Mode::Global, Mode::ThreadLocal, Mode::Relaxed]
            .get(value as usize)
            .ok_or(Status::InvalidValue)?)
    }
}

impl Capture {
    /// Notes that a rule is broken.
    fn fail<T>(&mut self, status: Status) -> Result<T, Status> {
        self.broken = true;
        Err(status)
    }

    fn intact(&mut self) -> Result<&mut Capture, Status> {
        if self.broken { Err(Status::StreamCaptureInvalidated) } else { Ok(self) }
    }

    fn holds_up_legacy(&self) -> bool {
        self.tips.keys().any(|&stream| is_blocking(stream as StreamHandle))
    }
}

fn of(captures: &mut [Capture], stream: StreamHandle) -> Option<&mut Capture> {
    captures.iter_mut().find(|capture| capture.tips.contains_key(&(stream as usize)))
}

/// Whether anything is being captured.
pub fn any() -> bool {
    COUNT.load(Ordering::Relaxed) > 0
}

/// Refuses the legacy stream's work where it would wait for a captured stream.
fn legacy(captures: &mut [Capture]) -> Outcome {
    match captures.iter_mut().find(|capture| capture.holds_up_legacy()) {
        Some(capture) => capture.fail(Status::StreamCaptureImplicit),
        None => Ok(()),
    }
}

/// Keeps a stream's work in its capture; false where it has none.
///
/// # Errors
/// The capture is broken, or this breaks it.
pub fn keep(stream: StreamHandle, work: &Work) -> Result<bool, Status> {
    let mut captures = lock(&CAPTURES);
    if is_legacy(stream) {
        return legacy(&mut captures).map(|()| false);
    }
    let Some(capture) = of(&mut captures, stream) else { return Ok(false) };
    let capture = capture.intact()?;
    // SAFETY: the capture's graph, under its lock.
    let graph = unsafe { &mut *capture.graph };
    let node = graph.add(work.clone(), &capture.tips[&(stream as usize)])?;
    capture.tips.insert(stream as usize, vec![node]);
    Ok(true)
}

/// Whether a stream's work goes into a graph.
///
/// # Errors
/// It is the default stream's, which would wait for a captured one.
pub fn holds(stream: StreamHandle) -> Result<bool, Status> {
    stream::check(stream)?;
    if !any() {
        return Ok(false);
    }
    let mut captures = lock(&CAPTURES);
    if is_legacy(stream) {
        return legacy(&mut captures).map(|()| false);
    }
    Ok(of(&mut captures, stream).is_some())
}

/// Refuses calls that might wait for a capture, as the thread's mode and the captures' say.
///
/// # Errors
/// Unsupported; it breaks the capture.
pub fn forbid() -> Outcome {
    if !any() {
        return Ok(());
    }
    let (mode, thread) = (MODE.get(), std::thread::current().id());
    let mut captures = lock(&CAPTURES);
    let harmed = captures.iter_mut().find(|capture| match mode {
        Mode::Relaxed => false,
        _ if capture.thread == thread => capture.mode != Mode::Relaxed,
        Mode::ThreadLocal => false,
        Mode::Global => capture.mode == Mode::Global,
    });
    match harmed {
        Some(capture) => capture.fail(Status::StreamCaptureUnsupported),
        None => Ok(()),
    }
}

/// Refuses to wait for a captured stream.
///
/// # Errors
/// Unsupported or implicit; it breaks the capture.
pub fn wait_for(stream: StreamHandle) -> Outcome {
    stream::check(stream)?;
    if !any() {
        return Ok(());
    }
    let mut captures = lock(&CAPTURES);
    if is_legacy(stream) {
        return legacy(&mut captures);
    }
    match of(&mut captures, stream) {
        Some(capture) => capture.fail(Status::StreamCaptureUnsupported),
        None => Ok(()),
    }
}

/// Where a captured stream is: the capture's number, and the nodes that come before.
///
/// # Errors
/// The capture is broken.
pub fn place(stream: StreamHandle) -> Result<Option<(u64, Vec<NodeHandle>)>, Status> {
    stream::check(stream)?;
    if !any() {
        return Ok(None);
    }
    let mut captures = lock(&CAPTURES);
    let Some(capture) = of(&mut captures, stream) else { return Ok(None) };
    let capture = capture.intact()?;
    Ok(Some((capture.number, capture.tips[&(stream as usize)].clone())))
}

/// A stream waits for an event of a capture, and so becomes part of it.
///
/// # Errors
/// Two captures would be one, or the default stream would be captured.
pub fn join(stream: StreamHandle, number: u64, nodes: &[NodeHandle]) -> Outcome {
    let mut captures = lock(&CAPTURES);
    // An event of a capture that is over has nothing to wait for.
    if !captures.iter().any(|capture| capture.number == number) {
        return Ok(());
    }
    if let Some(own) = of(&mut captures, stream)
        && own.number != number
    {
        own.broken = true;
        let mut others = captures.iter_mut().filter(|capture| capture.number == number);
        return others.try_for_each(|capture| capture.fail(Status::StreamCaptureMerge));
    }
    let Some(capture) = captures.iter_mut().find(|capture| capture.number == number) else { return Ok(()) };
    let capture = capture.intact()?;
    if is_legacy(stream) {
        return capture.fail(Status::StreamCaptureImplicit);
    }
    let tips = capture.tips.entry(stream as usize).or_default();
    tips.extend(nodes);
    tips.sort();
    tips.dedup();
    Ok(())
}

/// A stream waits for an event that no capture has recorded.
///
/// # Errors
/// The stream is captured.
pub fn isolated(stream: StreamHandle) -> Outcome {
    if !any() {
        return Ok(());
    }
    match of(&mut lock(&CAPTURES), stream) {
        Some(capture) => capture.fail(Status::StreamCaptureIsolation),
        None => Ok(()),
    }
}

/// The host waits for an event of a capture.
///
/// # Errors
/// It is not over, and broken now.
pub fn captured_event(number: u64) -> Outcome {
    match lock(&CAPTURES).iter_mut().find(|capture| capture.number == number) {
        Some(capture) => capture.fail(Status::CapturedEvent),
        None => Ok(()),
    }
}

/// A stream is destroyed, and its capture with it.
pub fn abandon(stream: StreamHandle) {
    let mut captures = lock(&CAPTURES);
    let Some(at) = captures.iter().position(|capture| capture.tips.contains_key(&(stream as usize))) else {
        return;
    };
    if captures[at].origin == stream as usize {
        finish(&mut captures, at, true);
    } else {
        captures[at].broken = true;
        captures[at].tips.remove(&(stream as usize));
    }
}

/// Ends a capture, and drops its graph if nobody is to have it.
fn finish(captures: &mut Vec<Capture>, at: usize, discard: bool) -> GraphHandle {
    let capture = captures.remove(at);
    COUNT.store(captures.len(), Ordering::Relaxed);
    if discard && capture.owned {
        // SAFETY: made by `begin`, and nobody else's.
        drop(unsafe { Box::from_raw(capture.graph) });
    }
    capture.graph
}

/// Begins a stream's capture, into a graph after some of its nodes, or into a new one.
///
/// # Errors
/// It is captured already, or the default stream.
pub fn begin(stream: StreamHandle, graph: Option<(GraphHandle, Vec<NodeHandle>)>, mode: u32) -> Outcome {
    static NUMBER: AtomicU64 = AtomicU64::new(1);
    context::require()?;
    let mode = Mode::new(mode)?;
    stream::check(stream)?;
    if is_legacy(stream) {
        return Err(Status::StreamCaptureUnsupported);
    }
    let mut captures = lock(&CAPTURES);
    if of(&mut captures, stream).is_some() {
        return Err(Status::IllegalState);
    }
    let owned = graph.is_none();
    let (graph, tip) = graph.unwrap_or_else(|| (Box::into_raw(Box::default()), Vec::new()));
    let origin = stream as usize;
    captures.push(Capture {
        number: NUMBER.fetch_add(1, Ordering::Relaxed),
        mode,
        thread: std::thread::current().id(),
        origin,
        tips: BTreeMap::from([(origin, tip)]),
        graph,
        owned,
        broken: false,
    });
    COUNT.store(captures.len(), Ordering::Relaxed);
    Ok(())
}

/// Ends a capture, where it began.
///
/// # Errors
/// It is not captured or broken, began elsewhere, or has streams that have not been joined.
pub fn end(stream: StreamHandle) -> Result<GraphHandle, Status> {
    stream::check(stream)?;
    let mut captures = lock(&CAPTURES);
    let own = |capture: &Capture| capture.tips.contains_key(&(stream as usize));
    let at = captures.iter().position(own).ok_or(Status::IllegalState)?;
    let capture = &mut captures[at];
    if capture.origin != stream as usize {
        return capture.fail(Status::StreamCaptureUnmatched);
    }
    if capture.mode != Mode::Relaxed && capture.thread != std::thread::current().id() {
        return Err(Status::StreamCaptureWrongThread);
    }
    // SAFETY: the capture's graph, under its lock.
    let before = unsafe { &*capture.graph }.before(&capture.tips[&capture.origin]);
    let joined = capture.tips.values().flatten().all(|tip| before.contains(tip));
    let broken = capture.broken;
    let graph = finish(&mut captures, at, broken || !joined);
    match (broken, joined) {
        (true, _) => Err(Status::StreamCaptureInvalidated),
        (_, false) => {
            say!("capture: work of another stream is not joined: wait for an event that it records last");
            Err(Status::StreamCaptureUnjoined)
        }
        _ => Ok(graph),
    }
}

fn status_in(captures: &mut [Capture], stream: StreamHandle) -> Result<u32, Status> {
    stream::check(stream)?;
    if is_legacy(stream) && captures.iter().any(Capture::holds_up_legacy) {
        return Err(Status::StreamCaptureImplicit);
    }
    Ok(of(captures, stream).map_or(0, |capture| 1 + u32::from(capture.broken)))
}

/// `CUstreamCaptureStatus`.
///
/// # Errors
/// It is the default stream's, which would wait for a captured one.
pub fn status(stream: StreamHandle) -> Result<u32, Status> {
    status_in(&mut lock(&CAPTURES), stream)
}

/// A capture, as clients may ask for it.
pub struct Info {
    pub number: u64,
    pub graph: GraphHandle,
    /// The nodes that the stream's next work comes after: a list that lasts until the stream's next call.
    pub tips: *const NodeHandle,
    pub tip_count: usize,
}

/// A stream's capture with its status, if it has an intact one.
///
/// # Errors
/// Those of [`status`].
pub fn info(stream: StreamHandle) -> Result<(u32, Option<Info>), Status> {
    let mut captures = lock(&CAPTURES);
    let status = status_in(&mut captures, stream)?;
    let found = of(&mut captures, stream).filter(|capture| !capture.broken).map(|capture| {
        let tips = &capture.tips[&(stream as usize)];
        Info { number: capture.number, graph: capture.graph, tips: tips.as_ptr(), tip_count: tips.len() }
    });
    Ok((status, found))
}

/// A captured stream's next work comes after these nodes; also after those before, unless they are replaced.
///
/// # Errors
/// No capture or a broken one; nodes of another graph.
pub fn set_tips(stream: StreamHandle, nodes: &[NodeHandle], replace: bool) -> Outcome {
    let mut captures = lock(&CAPTURES);
    let capture = of(&mut captures, stream).ok_or(Status::IllegalState)?.intact()?;
    live_graph(capture.graph)?.own(nodes)?;
    let tips = capture.tips.entry(stream as usize).or_default();
    if replace {
        tips.clear();
    }
    tips.extend(nodes);
    tips.sort();
    tips.dedup();
    Ok(())
}

/// The thread's mode from now on; gives the one before.
pub fn exchange_mode(mode: Mode) -> Mode {
    MODE.replace(mode)
}
