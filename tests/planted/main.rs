//! Planted bugs: kernels that are right, and broken in one named way each. Every bug must be caught by the check
//! that it is planted for, with every seed; every kernel must pass with all checks on, with every seed.
//!
//!     cargo test --release --test planted -- --nocapture      prints the score, and what the checks cost
//!
//! [`small`] are kernels written for this, in the files beside this one; [`ours`] are the project's own; [`driver`] are
//! programs that call the driver.

mod clusters;
mod device;
#[path = "../common/driven.rs"]
mod driven;
mod driver;
mod ours;
mod small;

use std::hash::{DefaultHasher, Hash, Hasher};

use device::{ALL, Adversary, Device, PLAIN, Run};
use vcuda::exec::{Checks, TensorCore};

/// A kernel and what can be wrong with it.
struct Planted {
    name: String,
    /// The right one.
    twin: Run,
    /// What its first output must be, where that is defined elsewhere.
    want: Option<Vec<u8>>,
    bugs: Vec<Bug>,
}

/// A broken version, and the check that must catch it: `memory`, `init`, `race`, `sync` or `async`, several of them
/// where the order of the warps decides which comes first; or `result`, where no rule is broken and the numbers are
/// wrong; or `approx` or `sums`, where they are only by that adversary.
struct Bug {
    name: String,
    check: String,
    what: String,
    run: Run,
}

/// What is on while a bug is looked for: the check that must catch it alone, so that no other comes first.
fn adversary(name: &str) -> Adversary {
    let checks = match name {
        "init" => Checks { init: true, ..Checks::default() },
        "race" => Checks { race: true, ..Checks::default() },
        "async" => Checks { asynchrony: true, ..Checks::default() },
        "approx" => Checks { approx: true, ..Checks::default() },
        "memory" | "sums" => Checks::default(),
        _ => Checks::ALL,
    };
    Adversary { checks, sums: (name == "sums").then_some(TensorCore::H100) }
}

/// Those of numbers: kernels that give whole numbers give the same by all of them.
const OF_NUMBERS: [Adversary; 2] = {
    let checks = Checks { approx: true, ..Checks::ALL };
    [Adversary { checks, sums: Some(TensorCore::H100) }, Adversary { checks, sums: None }]
};

const SEEDS: [u64; 3] = [1, 2, 3];

/// Of a right kernel's result, for `tests/nvrtc_versions.sh`.
fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

/// The right kernels on the device under test, through its driver; what they must give comes from vcuda, where their result is defined
/// to the bit, else from themselves: no launch differs from another.
#[test]
fn every_right_kernel_runs_on_the_device_under_test() {
    if !driven::is_asked_for() || !driven::runs("90a") {
        return;
    }
    let planted: Vec<Planted> = small::all(&Device::new()).into_iter().chain(ours::all()).collect();
    let mut wrong = Vec::new();
    for Planted { name, twin, want, .. } in &planted {
        let first = twin.drive();
        if want.as_ref().is_some_and(|want| *want != first) {
            wrong.push(format!("{name}: other bits than are defined"));
        }
        if twin.drive() != first {
            wrong.push(format!("{name}: other bits the second time"));
        }
    }
    println!("{} right kernels", planted.len());
    assert!(wrong.is_empty() && !planted.is_empty(), "{}", wrong.join("\n"));
}

/// The same here, where vcuda's driver is the device's.
#[test]
fn every_right_kernel_runs_through_the_driver() {
    if driver::is_program() || driven::is_asked_for() {
        return;
    }
    let output = std::process::Command::new(std::env::current_exe().expect("a program has a path"))
        .args(["--exact", "every_right_kernel_runs_on_the_device_under_test", "--nocapture"])
        .env("MEMO_TEST_DEVICE", "virtual")
        .output()
        .expect("this program runs again");
    let said = String::from_utf8_lossy(&output.stdout);
    let is_done = output.status.success() && said.contains(" right kernels\n");
    assert!(is_done, "{said}{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn every_planted_bug_is_caught_and_every_twin_passes() {
    if driver::is_program() {
        return driver::run();
    }
    // Of a GPU's driver and a GPU nothing of this can be told.
    if std::env::var("MEMO_TEST_DEVICE").as_deref() == Ok("gpu") {
        return;
    }
    let device = Device::new();
    let planted: Vec<Planted> = small::all(&device).into_iter().chain(ours::all()).collect();
    let (mut caught, mut missed) = (0, Vec::new());
    let mut seconds = [0.0; 2];
    for Planted { name, twin, want, bugs } in &planted {
        let others = if want.is_some() { &OF_NUMBERS[..] } else { &[] };
        let mut want = want.clone();
        let runs = [ALL].iter().chain(others).flat_map(|&with| device.run(twin, with, SEEDS));
        for (seed, done) in SEEDS.iter().cycle().zip(runs) {
            match done {
                Ok(got) if want.get_or_insert_with(|| got.clone()) == &got => {}
                Ok(_) => missed.push(format!("{name}: the right one is wrong (seed {seed})")),
                Err(fault) => missed.push(format!("{name}: the right one fails (seed {seed}): {fault}")),
            }
        }
        if missed.is_empty() {
            let [all, plain] = [ALL, PLAIN].map(|with| device.seconds(twin, with));
            println!("cost {name}: {:.3} ms, {:.3} ms with all checks", plain * 1e3, all * 1e3);
            seconds = [seconds[0] + plain, seconds[1] + all];
        }
        println!("bits {name}: {:016x}", digest(want.as_deref().unwrap_or_default()));
        for Bug { name, check, what, run } in bugs {
            let is_of_numbers = matches!(&check[..], "approx" | "sums");
            if is_of_numbers
                && !matches!(&device.run(run, ALL, [0])[0], Ok(got) if want.as_ref() == Some(got))
            {
                missed.push(format!("{name} ({check}): {what}\n        found without the adversary"));
            }
            let found = device.run(run, adversary(check), SEEDS).map(|done| match done {
                Ok(got) if want.as_ref() == Some(&got) => (false, "nothing found".to_string()),
                Ok(_) => (check == "result" || is_of_numbers, "other numbers, and nothing found".to_string()),
                Err(fault) => (check.split('/').any(|check| fault.kind.check() == check), fault.to_string()),
            });
            match found.iter().find(|(right, _)| !right) {
                None => {
                    caught += 1;
                    println!("caught  {name} ({check}): {what}\n        {}", found[0].1);
                }
                Some((_, instead)) => missed.push(format!("{name} ({check}): {what}\n        {instead}")),
            }
        }
    }
    let programs = driver::all();
    for (name, found) in &programs {
        match found {
            Ok(text) => {
                caught += 1;
                println!("caught  {name}\n        {text}");
            }
            Err(instead) => missed.push(format!("{name}\n        {instead}")),
        }
    }
    let [plain, all] = seconds;
    println!(
        "all right kernels: {:.1} ms, {:.1} ms with all checks: {:.1} times",
        plain * 1e3,
        all * 1e3,
        all / plain
    );
    println!(
        "{caught} bugs caught, {} findings amiss, {} right kernels and {} right programs",
        missed.len(),
        planted.len(),
        programs.len()
    );
    assert!(missed.is_empty(), "\n{}", missed.join("\n"));
}
