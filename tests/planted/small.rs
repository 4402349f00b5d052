//! The kernels in the `.cu` files beside this one. A file says how it is launched, and what is broken where `BUG`
//! is 1, 2, …:
//!
//!     // launch: grid=3 block=128 inp=300 out=3
//!     // bug 1 race: nothing between filling the tile and the first halving
//!
//! A kernel whose instructions an older NVRTC does not write names the first that does: `nvrtc=1203` is 12.3.
//!
//! `kernel(inp, out, n)` gets `n = inp` numbers and writes `out`, which `reference` defines in plain loops.

use memo::gpu::Nvrtc;

use crate::device::{ALL, Arg, Device, Run, Step};
use crate::{Bug, Planted};

macro_rules! files {
    ($($name:literal)*) => { [$(($name, include_str!(concat!($name, ".cu")))),*] };
}

pub fn all(device: &Device) -> Vec<Planted> {
    let files = files!("approximate" "copies" "fragments" "handed" "histogram" "last_block" "long_sum" "map" "peers" "pipeline" "product" "ring"
        "scan" "scheduler" "store" "sum" "transpose" "vectors" "warpgroup");
    files.iter().filter_map(|(name, text)| planted(name, text, device)).collect()
}

/// A file's kernel and its bugs; none where this NVRTC is too old.
fn planted(name: &str, text: &str, device: &Device) -> Option<Planted> {
    let launch = text.lines().find_map(|line| line.strip_prefix("// launch: ")).expect("a launch");
    let number = |key: &str| {
        let value = launch.split(' ').find_map(|word| word.strip_prefix(key)?.strip_prefix('='));
        value.map(|value| value.parse::<u32>().expect("a number"))
    };
    let version = Nvrtc::any().expect("NVRTC").version();
    let least = number("nvrtc").unwrap_or(0);
    if 100 * version.major + version.minor < least {
        println!("{name}: not run, NVRTC {version} does not write its PTX");
        return None;
    }
    let (inp, out) = (number("inp").expect("a length"), number("out").expect("a length") as usize * 4);
    let values: Vec<i32> = (0..inp).map(|i| (i.wrapping_mul(2_654_435_761) >> 9 & 0xffff) as i32).collect();
    let out = if launch.ends_with(" zeroed") { Arg::Bytes(vec![0; out]) } else { Arg::Fresh(out) };
    let args = vec![Arg::ints(&values), out, Arg::int(inp as i32)];
    let run = |bug: u32, step: Step| Run {
        name: name.to_string(),
        source: format!("#define BUG {bug}\n{text}"),
        steps: vec![step],
        out: 1,
    };
    let step = Step {
        kernel: "kernel",
        grid: [number("grid").expect("a grid"), 1, 1],
        cluster: number("cluster").unwrap_or(1),
        block: number("block").expect("a block"),
        shared_bytes: 0,
        args,
    };
    let reference = Step { kernel: "reference", grid: [1; 3], cluster: 1, block: 1, ..step.clone() };
    let [want] = device.run(&run(0, reference), ALL, [0]);
    let want = want.unwrap_or_else(|fault| panic!("{name}: {fault}"));
    let bug = |line: &str| {
        let (head, what) = line.strip_prefix("// bug ")?.split_once(": ")?;
        let (number, check) = head.split_once(' ')?;
        Some(Bug {
            name: format!("{name} {number}"),
            check: check.to_string(),
            what: what.to_string(),
            run: run(number.parse().expect("a number"), step.clone()),
        })
    };
    let bugs = text.lines().filter_map(bug).collect();
    Some(Planted { twin: run(0, step.clone()), want: Some(want), bugs, name: name.to_string() })
}
