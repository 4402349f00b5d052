//! The estimate of a thread's registers against what `ptxas` gives: the project's kernels, and those of `kernels.cu`,
//! as NVRTC 13.0 compiles them, by `ptxas` 13.5 (`make_table.py` wrote `table.txt`).

use std::collections::BTreeMap;

use memo::gpu::{Form, Nvrtc, SOURCES, Target};
use vcuda::exec::{Checks, Module};
use vcuda::memory::Memory;

/// Source, kernel, architecture, registers.
const TABLE: &str = include_str!("table.txt");

/// What is not among the project's own sources, and the lines before it.
const OTHERS: [(&str, &str, &str); 4] = [
    ("hopper_gemm", include_str!("../hopper/gemm.cu"), "#define TA 0\n#define TB 0\n"),
    ("hopper_attention", include_str!("../hopper/attention.cu"), "#define TOKENS 50\n"),
    ("benches_gemm", include_str!("../../vcuda/benches/gemm.cu"), ""),
    ("registers", include_str!("kernels.cu"), ""),
];

/// A kernel's estimate and its bound, by source, kernel and architecture.
type Estimates<'a> = BTreeMap<(&'a str, String, &'a str), (u32, u32)>;

fn estimates<'a>(stem: &'a str, architecture: &'a str, out: &mut Estimates<'a>) {
    let other = OTHERS.iter().find(|(name, ..)| *name == stem);
    let own = SOURCES.iter().find(|(name, _)| *name == stem).map(|(_, source)| source.to_string());
    let source = other.map(|(_, source, before)| format!("{before}{source}")).or(own).expect("a source");
    let target = Target { form: Form::Ptx, architecture };
    let ptx = Nvrtc::any().and_then(|nvrtc| nvrtc.compile(stem, &source, target));
    let text = String::from_utf8(ptx.unwrap_or_else(|error| panic!("{error:#}"))).expect("PTX is text");
    let tree = vcuda::ptx::parse(&text).unwrap_or_else(|error| panic!("{stem}: {error}"));
    let memory = Memory::new(1 << 24);
    let module =
        Module::load(&tree, &memory, Checks::default()).unwrap_or_else(|error| panic!("{stem}: {error}"));
    for function in tree.functions.iter().filter(|function| function.is_kernel) {
        let directives = &function.directives;
        let threads: u32 = directives.req_ntid.or(directives.max_ntid).unwrap_or([1; 3]).iter().product();
        let ctas = directives.min_ctas_per_sm.unwrap_or(1);
        let bound = (65_536 / (threads.next_multiple_of(32) * ctas)).min(255);
        let kernel = module.kernel(&function.name).expect("a kernel of this name");
        out.insert((stem, function.name.clone(), architecture), (kernel.registers_estimate, bound));
    }
}

#[test]
fn estimates_are_near_what_ptxas_gives() {
    let rows: Vec<Vec<&str>> = TABLE.lines().map(|line| line.split_whitespace().collect()).collect();
    let mut found = Estimates::new();
    for row in &rows {
        if !found.keys().any(|(stem, _, architecture)| (*stem, *architecture) == (row[0], row[2])) {
            estimates(row[0], row[2], &mut found);
        }
    }
    let mut ratios = Vec::new();
    for row in &rows {
        let given: u32 = row[3].parse().expect("a number of registers");
        let (estimate, bound) = found[&(row[0], row[1].to_string(), row[2])];
        assert!(estimate <= bound, "{row:?}: {estimate} registers break the bound of {bound}");
        let ratio = f64::from(estimate) / f64::from(given);
        if !(0.75..=1.25).contains(&ratio) {
            println!("{} {} sm_{}: {estimate} for {given}", row[0], row[1], row[2]);
        }
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    let near = ratios.iter().filter(|ratio| (0.75..=1.25).contains(*ratio)).count();
    let (median, last) = (ratios[ratios.len() / 2], ratios.len() - 1);
    println!(
        "{near} of {} within a quarter; ratios {:.2} to {:.2}, median {median:.2}",
        ratios.len(),
        ratios[0],
        ratios[last]
    );
    assert!(ratios.len() >= 150 && near * 10 >= ratios.len() * 9, "{near} of {}", ratios.len());
    assert!((0.95..=1.05).contains(&median), "{median}");
}
