//! `--trace`: a few batches as a picture, in the format of Chrome's traces, which ui.perfetto.dev shows.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::Result;
use serde_json::{Value, json};

use super::batches::Batches;
use crate::gpu::{DeviceSpan, HostSpan, Kind, Stream, Timeline};

/// Batches as they run: a graph each, behind the first.
const AS_THEY_RUN: usize = 3;

/// Numbers of the two "processes": a trace has threads, in processes.
const HOST: u64 = 1;
const DEVICE: u64 = 2;

/// A few batches as they run, then one launch by launch, each between events.
///
/// # Errors
/// Those of the work; the driver's.
pub fn record(stream: &Stream, batches: &mut Batches) -> Result<Value> {
    let mut trace = Trace::new(&stream.gpu().name()?);
    let timeline = Timeline::begin(stream)?;
    let began = timeline.since;
    batches.run(|done| done >= AS_THEY_RUN)?;
    trace.add(began, timeline.since, timeline.end()?);
    batches.memo.keep_stage_times(); // launch by launch from now on
    let timeline = Timeline::begin(stream)?;
    batches.run(|done| done >= 1)?;
    trace.add(began, timeline.since, timeline.end()?);
    Ok(trace.object())
}

/// <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>: the "Trace Event Format".
struct Trace {
    events: Vec<Value>,
    /// Numbers of the host's threads, by their names.
    threads: BTreeMap<String, usize>,
}

impl Trace {
    fn new(device: &str) -> Trace {
        let named = |process: u64, name: &str| json!({ "ph": "M", "name": "process_name", "pid": process, "tid": 0, "args": { "name": name } });
        let stream = json!({
            "ph": "M", "name": "thread_name", "pid": DEVICE, "tid": 0, "args": { "name": "stream" },
        });
        Trace { events: vec![named(HOST, "host"), named(DEVICE, device), stream], threads: BTreeMap::new() }
    }

    /// What was kept from `since` on, in a trace that begins at `began`.
    fn add(&mut self, began: Instant, since: Instant, (host, device): (Vec<HostSpan>, Vec<DeviceSpan>)) {
        let us = |at: Instant| at.duration_since(began).as_secs_f64() * 1e6;
        for HostSpan { thread, name, start, end } in host {
            let next = self.threads.len();
            let number = *self.threads.entry(thread.clone()).or_insert(next);
            if number == next {
                self.events.push(json!({
                    "ph": "M", "name": "thread_name", "pid": HOST, "tid": number, "args": { "name": thread },
                }));
            }
            self.span((HOST, number), &name, "range", [us(start), us(end)]);
        }
        for DeviceSpan { name, kind, start_us, end_us } in device {
            let category = match kind {
                Kind::Stage => "stage",
                Kind::Kernel => "kernel",
                Kind::Copy => "copy",
                Kind::Graph => "graph",
            };
            self.span((DEVICE, 0), name, category, [us(since) + start_us, us(since) + end_us]);
        }
    }

    fn span(&mut self, (process, thread): (u64, usize), name: &str, category: &str, [start, end]: [f64; 2]) {
        self.events.push(json!({
            "ph": "X", "name": name, "cat": category, "pid": process, "tid": thread, "ts": start, "dur": end - start,
        }));
    }

    fn object(self) -> Value {
        json!({ "displayTimeUnit": "ms", "traceEvents": self.events })
    }
}
