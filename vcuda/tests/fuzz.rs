//! Text that is not quite PTX: the loader refuses it or takes it, and what it takes runs to an end or a fault.
//! `examples/fuzz` makes such texts without end.

#[path = "../examples/fuzz/drive.rs"]
mod drive;
#[path = "../examples/fuzz/mutate.rs"]
mod mutate;
#[path = "../examples/fuzz/variants.rs"]
mod variants;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use drive::Device;
use mutate::{Rng, case};
use variants::variants;
use vcuda::exec::Checks;

const HEADER: &str = ".version 9.0\n.target sm_90a\n.address_size 64\n";

/// Each file of `fuzz/` once crashed or hung the loader or a launch, or might: its first line says what now comes
/// of it, an error, a fault, or that it loads and runs. `VCUDA_FUZZ_CASES` says where they are, if not here.
#[test]
fn kept_cases() {
    let device = Device::new(1 << 26, Checks::default());
    let here = || Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    let folder = std::env::var_os("VCUDA_FUZZ_CASES").map_or_else(here, PathBuf::from);
    let mut files: Vec<_> =
        folder.read_dir().expect("the folder").map(|file| file.expect("a file").path()).collect();
    files.sort();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("its text");
        let expected =
            text.lines().next().and_then(|line| line.strip_prefix("// expect: ")).expect("a first line");
        let found = match device.load(&text) {
            Err(message) => message,
            Ok(mut module) => {
                let runs = module.kernels().iter().try_for_each(|kernel| device.run(kernel, &mut Rng(0)));
                module.free_variables(&device.memory);
                runs.map_or_else(|fault| fault, |()| "loads".to_string())
            }
        };
        assert!(found.contains(expected), "{}: {found}", file.display());
        assert_eq!(device.memory.info().0, device.free_bytes, "{}: device memory is lost", file.display());
    }
}

/// Texts of about a megabyte that would take for ever if anything were quadratic in their length.
#[test]
fn large_texts() {
    let kernel =
        |body: &str| format!("{HEADER}.entry k {{ .reg .b32 %r<16000>; .reg .pred %p;\n{body}\nret; }}");
    let lines = |count: usize, line: &dyn Fn(usize) -> String| (0..count).map(line).collect::<String>();
    let cases = [
        (
            "globals and kernels",
            "loads",
            HEADER.to_string()
                + &lines(10_000, &|i| format!(".global .b32 g{i}; .shared .b32 s{i};\n"))
                + &lines(20_000, &|i| format!(".entry k{i} {{ }}\n")),
        ),
        (
            "registers live across branches",
            "too many registers live",
            kernel(
                &(lines(12_000, &|i| format!("L{i}: @%p bra L{i};\nadd.u32 %r{i}, %r{i}, 1;\n"))
                    + &lines(12_000, &|i| format!("@%p bra L{};\n", i * 7919 % 12_000))
                    + "bra L0;"),
            ),
        ),
        (
            "registers live at once",
            "too many registers live",
            kernel(
                &(String::from("L:") + &lines(16_000, &|i| format!("add.u32 %r{i}, %r{i}, 1;\n")) + "bra L;"),
            ),
        ),
        ("branches back", "loads", kernel(&lines(60_000, &|i| format!("L{i}: @%p bra L{};\n", i / 2)))),
        (
            "branches on",
            "loads",
            kernel(&(lines(60_000, &|i| format!("@%p bra L{i};\n")) + &lines(60_000, &|i| format!("L{i}:")))),
        ),
        ("constants", "too many", kernel(&lines(70_000, &|i| format!("mov.u32 %r1, {i};\n")))),
        ("a long line", "loads", kernel(&lines(60_000, &|_| "mov.u32 %r1, 1; ".to_string()))),
        ("a long name", "undefined name", kernel(&format!("mov.u32 %r1, {};", "x".repeat(1 << 20)))),
    ];
    let device = Device::new(1 << 26, Checks::default());
    for (name, expected, text) in cases {
        let start = Instant::now();
        let found = match device.load(&text) {
            Err(message) => message,
            Ok(mut module) => {
                module.free_variables(&device.memory);
                "loads".to_string()
            }
        };
        println!("{name}: {:?}", start.elapsed());
        assert!(found.contains(expected), "{name}: {}", &found[..found.len().min(200)]);
        assert!(start.elapsed() < Duration::from_secs(10), "{name}: {:?}", start.elapsed());
    }
}

#[test]
fn every_variant_of_every_instruction_form() {
    let devices = [Checks::default(), Checks::ALL].map(|checks| Device::new(1 << 26, checks));
    let mut rng = Rng(1);
    let mut loaded = 0;
    let all = variants();
    for (i, text) in all.iter().enumerate() {
        let device = &devices[i % 2];
        let Ok(mut module) = device.load(text) else { continue };
        loaded += 1;
        for kernel in module.kernels() {
            let _ = device.run(kernel, &mut rng);
        }
        module.free_variables(&device.memory);
    }
    // The others are refused: few types and operands can be exchanged.
    assert!(loaded > all.len() / 12, "{loaded} of {} load", all.len());
}

#[test]
fn mutated_texts_load_or_are_refused() {
    let device = Device::new(1 << 26, Checks::default());
    let mut loaded = 0;
    for number in 0..3000 {
        if let Ok(mut module) = device.load(&case(7, number, &[])) {
            loaded += 1;
            module.free_variables(&device.memory);
        }
    }
    assert!(loaded > 300, "{loaded} load");
    assert_eq!(device.memory.info().0, device.free_bytes, "no device memory is lost");
}
