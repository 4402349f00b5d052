//! Cases as files, to take one to any GPU by itself: `FORM.ptx`, and `FORM.json` with its launch, its inputs and
//! what it must write.
//!
//! `VCUDA_ISA_OUT=DIR` writes every case that passes; `VCUDA_ISA_FILES=DIR` runs those in a folder, by this
//! process or the driver that `VCUDA_ISA_DRIVER` names. What a file expects is what the test's reference
//! accepts, never what was found where that leaves a choice.

use std::cell::Cell;
use std::path::Path;

use serde_json::{Value, json};

use crate::device::{Map, Setup, Shape, VALUE, run_with};

/// What a buffer must hold after the launch: elements of a type, each between two bounds, `low` and `high`, in the
/// order of numbers (of floats: -0 before +0, NaNs outside of the infinities). Where both bounds of a float are
/// one NaN, any NaN is right.
pub struct Expected {
    pub ty: &'static str,
    pub low: Vec<u8>,
    pub high: Vec<u8>,
}

impl Expected {
    /// These bytes and no others.
    pub fn exactly(bytes: &[u8]) -> Expected {
        Expected { ty: "u8", low: bytes.to_vec(), high: bytes.to_vec() }
    }

    /// Elements of a type by the bounds of their bits.
    pub fn between(ty: &'static str, bounds: impl Iterator<Item = (u64, u64)>) -> Expected {
        let (mut low, mut high) = (Vec::new(), Vec::new());
        for (l, h) in bounds {
            low.extend(&l.to_le_bytes()[..size_bytes(ty)]);
            high.extend(&h.to_le_bytes()[..size_bytes(ty)]);
        }
        Expected { ty, low, high }
    }
}

const TYPES: [&str; 16] = [
    "u8", "s8", "b8", "u16", "s16", "b16", "u32", "s32", "b32", "u64", "s64", "b64", "f16", "bf16", "f32",
    "f64",
];

fn size_bytes(ty: &str) -> usize {
    ty.trim_start_matches(char::is_alphabetic).parse::<usize>().expect("a type's name ends in its bits") / 8
}

/// Whether a type's bits compare as unsigned integers do, as signed ones, or as floats.
enum Order {
    Unsigned,
    Signed,
    Float,
}

fn order_of(ty: &str) -> Order {
    match ty.as_bytes() {
        [b's', ..] => Order::Signed,
        [b'f', ..] | [b'b', b'f', ..] => Order::Float,
        _ => Order::Unsigned,
    }
}

/// The bounds of an element that may hold anything.
pub fn anything(ty: &str) -> (u64, u64) {
    (unorder(ty, 0), unorder(ty, u64::MAX >> (64 - 8 * size_bytes(ty))))
}

/// A type's bits as numbers that compare as its values do.
fn order(ty: &str, bits: u64) -> u64 {
    let sign = 1 << (8 * size_bytes(ty) - 1);
    match order_of(ty) {
        Order::Unsigned => bits,
        Order::Signed => bits ^ sign,
        Order::Float if bits & sign != 0 => !bits & (sign | (sign - 1)),
        Order::Float => bits | sign,
    }
}

/// The bits that compare as `number`.
fn unorder(ty: &str, number: u64) -> u64 {
    let sign = 1 << (8 * size_bytes(ty) - 1);
    match order_of(ty) {
        Order::Unsigned => number,
        Order::Signed => number ^ sign,
        Order::Float if number & sign != 0 => number ^ sign,
        Order::Float => !number & (sign | (sign - 1)),
    }
}

fn is_nan(ty: &str, bits: u64) -> bool {
    let infinity = match ty {
        "f16" => 0x7c00,
        "bf16" => 0x7f80,
        "f32" => 0x7f80_0000,
        "f64" => 0x7ff0_0000_0000_0000,
        _ => return false,
    };
    bits & !(1 << (8 * size_bytes(ty) - 1)) > infinity
}

/// The least and the greatest value that `accepts` takes together with all from there to `found`, which it takes.
pub fn bounds(ty: &str, found: u64, accepts: impl Fn(u64) -> bool) -> (u64, u64) {
    let bits = 8 * size_bytes(ty) as u32;
    let last = u64::MAX >> (64 - bits);
    if is_nan(ty, found) {
        assert!(!accepts(0), "what takes NaN and zero takes anything");
        return (found, found);
    }
    let reach = |step_to: &dyn Fn(u64, u64) -> Option<u64>| {
        let takes = |from, step| step_to(from, step).filter(|&number| accepts(unorder(ty, number)));
        let (mut at, mut step) = (order(ty, found), 1u64);
        while let Some(next) = takes(at, step) {
            (at, step) = (next, step.saturating_mul(2));
        }
        while step > 1 {
            step /= 2;
            at = takes(at, step).unwrap_or(at);
        }
        unorder(ty, at)
    };
    let low = reach(&|at, step| at.checked_sub(step));
    (low, reach(&|at, step| at.checked_add(step).filter(|&next| next <= last)))
}

/// What a run leaves to be kept once its outcome has been found right, where `VCUDA_ISA_OUT` asks for that.
#[derive(Debug)]
pub struct Ran(pub Option<Case>);

/// A kernel, its launch, and what its buffers hold before.
#[derive(Debug)]
pub struct Case {
    pub ptx: String,
    pub kernel: String,
    pub shape: Shape,
    pub setup: Setup,
    pub buffers: Vec<Vec<u8>>,
}

impl Ran {
    pub fn is_kept(&self) -> bool {
        self.0.is_some()
    }

    /// Keeps the case; each buffer that is to be compared comes with its number.
    pub fn keep(self, expected: &[(usize, Expected)]) {
        thread_local!(static COUNT: Cell<usize> = const { Cell::new(0) });
        let (Some(case), Ok(folder)) = (self.0, std::env::var("VCUDA_ISA_OUT")) else { return };
        let number = COUNT.replace(COUNT.get() + 1);
        let thread = std::thread::current();
        let test = thread.name().unwrap_or("case").replace("::", ".");
        case.write(Path::new(&folder), &format!("{test}.{number:03}"), expected)
            .unwrap_or_else(|error| panic!("VCUDA_ISA_OUT={folder}: {error}"));
    }

    /// As [`Ran::keep`], of buffers that were found just as they must be.
    pub fn keep_exactly(self, buffers: &[(usize, &[u8])]) {
        let expected: Vec<_> = buffers.iter().map(|&(i, bytes)| (i, Expected::exactly(bytes))).collect();
        self.keep(&expected);
    }
}

impl Case {
    fn write(&self, folder: &Path, name: &str, expected: &[(usize, Expected)]) -> std::io::Result<()> {
        let Shape { blocks, threads, shared_bytes } = self.shape;
        let cluster = self.setup.cluster;
        let buffers: Vec<Value> = (self.buffers.iter().enumerate())
            .map(|(i, inp)| {
                let out = expected.iter().find(|(number, _)| *number == i).map(|(_, out)| match out {
                    Expected { ty, low, high } if low == high => json!({"type": ty, "bits": hex(low)}),
                    Expected { ty, low, high } => json!({"type": ty, "low": hex(low), "high": hex(high)}),
                });
                json!({"in": hex(inp), "out": out})
            })
            .collect();
        let maps: Vec<Value> = (self.setup.maps.iter())
            .map(|map| {
                json!({"buffer": map.buffer, "data_type": map.data_type, "dims": map.dims, "strides": map.strides,
                       "extents": map.extents, "steps": map.steps, "swizzle": map.swizzle, "fill": map.fill})
            })
            .collect();
        let data = json!({
            "kernel": self.kernel, "grid": blocks, "block": threads, "cluster": cluster,
            "dynamic_shared_bytes": shared_bytes, "buffers": buffers, "tensor_maps": maps, "value": hex(&VALUE),
        });
        let header = format!(
            "// {name}: kernel {}, {blocks} CTAs of {threads} threads along x, clusters of {cluster}, {shared_bytes} bytes of dynamic\n\
             // shared memory. Parameters as far as it has them: the addresses of the {} buffers of {name}.json in\n\
             // their order, {} tensor maps, \"value\". Afterwards each buffer holds its \"out\", if that is not null.\n",
            self.kernel,
            self.buffers.len(),
            self.setup.maps.len()
        );
        std::fs::create_dir_all(folder)?;
        std::fs::write(folder.join(format!("{name}.ptx")), header + &self.ptx)?;
        std::fs::write(folder.join(format!("{name}.json")), data.to_string())
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(value: &Value) -> Result<Vec<u8>, String> {
    let text = value.as_str().ok_or("bytes that are no text")?;
    let byte = |i: usize| text.get(i..i + 2).and_then(|digits| u8::from_str_radix(digits, 16).ok());
    (0..text.len()).step_by(2).map(|i| byte(i).ok_or_else(|| format!("byte {} is not hex", i / 2))).collect()
}

fn numbers<T: TryFrom<u64>>(value: &Value) -> Result<Vec<T>, String> {
    let all = value.as_array().ok_or("a list is missing")?;
    all.iter().map(|value| number(value)).collect()
}

fn number<T: TryFrom<u64>>(value: &Value) -> Result<T, String> {
    value
        .as_u64()
        .and_then(|v| T::try_from(v).ok())
        .ok_or_else(|| format!("{value} where a number is expected"))
}

/// Runs the case of one `FORM.json`.
fn run_file(data: &Path) -> Result<(), String> {
    let read = |path: &Path| std::fs::read_to_string(path).map_err(|error| error.to_string());
    let ptx = read(&data.with_extension("ptx"))?;
    let data: Value = serde_json::from_str(&read(data)?).map_err(|error| error.to_string())?;
    let list = |name: &str| data[name].as_array().ok_or_else(|| format!("no {name}"));
    let (buffers, mut setup) =
        (list("buffers")?, Setup { cluster: number(&data["cluster"])?, ..Setup::default() });
    for map in list("tensor_maps")? {
        setup.maps.push(Map {
            buffer: number(&map["buffer"])?,
            data_type: number(&map["data_type"])?,
            dims: numbers(&map["dims"])?,
            strides: numbers(&map["strides"])?,
            extents: numbers(&map["extents"])?,
            steps: numbers(&map["steps"])?,
            swizzle: number(&map["swizzle"])?,
            fill: number(&map["fill"])?,
        });
    }
    let shape = Shape {
        blocks: number(&data["grid"])?,
        threads: number(&data["block"])?,
        shared_bytes: number(&data["dynamic_shared_bytes"])?,
    };
    let mut held = buffers.iter().map(|buffer| unhex(&buffer["in"])).collect::<Result<Vec<_>, _>>()?;
    let kernel = data["kernel"].as_str().ok_or("no kernel")?;
    run_with(&ptx, kernel, shape, &setup, &mut held)?;
    for (number, (held, out)) in held.iter().zip(buffers.iter().map(|buffer| &buffer["out"])).enumerate() {
        if !out.is_null() {
            compare(held, out).map_err(|why| format!("buffer {number}, {why}"))?;
        }
    }
    Ok(())
}

fn compare(held: &[u8], out: &Value) -> Result<(), String> {
    let ty = TYPES.into_iter().find(|ty| out["type"] == *ty).ok_or("a type that is not known")?;
    let bounds = if out["bits"].is_null() { ["low", "high"] } else { ["bits"; 2] };
    let [low, high] = [unhex(&out[bounds[0]])?, unhex(&out[bounds[1]])?];
    let size = size_bytes(ty);
    let element = |bytes: &[u8]| bytes.iter().rev().fold(0, |value, &byte| value << 8 | byte as u64);
    if low.len() != high.len() || held.len() < low.len() || low.len() % size != 0 {
        return Err(format!("{} bytes, {} and {} expected", held.len(), low.len(), high.len()));
    }
    for (i, found) in held.chunks_exact(size).map(element).enumerate().take(low.len() / size) {
        let [low, high] = [&low, &high].map(|bytes| element(&bytes[i * size..][..size]));
        let any_nan = low == high && is_nan(ty, low) && is_nan(ty, found);
        let in_order = (order(ty, low)..=order(ty, high)).contains(&order(ty, found));
        if !any_nan && !in_order {
            return Err(format!("element {i} of {ty}: {found:#x} is not in {low:#x}..={high:#x}"));
        }
    }
    Ok(())
}

/// Runs every case in a folder; how many there are, and those that fail.
fn run_folder(folder: &Path) -> Result<(usize, Vec<String>), String> {
    let files = folder.read_dir().map_err(|error| format!("{}: {error}", folder.display()))?;
    let mut files: Vec<_> = files.flatten().map(|file| file.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let run = |path: &std::path::PathBuf| {
        run_file(path).err().map(|why| format!("{}: {why}", path.file_stem().unwrap_or_default().display()))
    };
    Ok((files.len(), files.iter().filter_map(run).collect()))
}

#[test]
fn a_folder_of_cases() {
    let Ok(folder) = std::env::var("VCUDA_ISA_FILES") else { return };
    let (count, failures) = run_folder(Path::new(&folder)).unwrap();
    println!("{count} cases of {folder}, {} fail", failures.len());
    assert!(count > 0, "no case in {folder}");
    assert!(failures.is_empty(), "{} of {count} cases fail:\n{}", failures.len(), failures.join("\n"));
}

/// A written case passes when it is read back, and fails with any one thing changed.
#[test]
fn written_cases_are_read_back() {
    let folder = std::env::temp_dir().join(format!("vcuda-isa-{}", std::process::id()));
    let ptx = ".version 8.6\n.target sm_90\n.address_size 64\n.visible .entry k(.param .u64 outs, .param .u64 ins) {
        .reg .b32 a, tid; .reg .b64 out, in; mov.u32 tid, %tid.x; ld.param.u64 out, [outs]; ld.param.u64 in, [ins];
        mad.wide.u32 in, tid, 4, in; mad.wide.u32 out, tid, 4, out; ld.global.f32 a, [in]; add.f32 a, a, 0f3F800000;
        st.global.f32 [out], a; ret; }\n";
    let inp: Vec<u8> = (0..32).flat_map(|i| if i == 5 { f32::NAN } else { i as f32 }.to_le_bytes()).collect();
    let case = Case {
        ptx: ptx.to_string(),
        kernel: "k".to_string(),
        shape: Shape { blocks: 1, threads: 32, shared_bytes: 0 },
        setup: Setup { cluster: 1, ..Setup::default() },
        buffers: vec![vec![0; 128], inp],
    };
    let wanted = |i: usize| if i == 5 { 0xffc0_1234 } else { u64::from((i as f32 + 1.0).to_bits()) };
    let within = |slack: u64| {
        let slack = |i: usize| if i == 5 { 0 } else { slack };
        Expected::between("f32", (0..32).map(|i| (wanted(i) - slack(i), wanted(i) + slack(i))))
    };
    case.write(&folder, "exact", &[(0, within(0))]).unwrap();
    case.write(&folder, "bounds", &[(0, within(3))]).unwrap();
    assert_eq!(run_folder(&folder), Ok((2, vec![])));

    let path = folder.join("exact.json");
    let text = std::fs::read_to_string(&path).unwrap();
    let [last_in, last_out] = [31f32, 32.0].map(|value| hex(&value.to_le_bytes()));
    for (what, changed) in [
        ("an expected bit", text.replace(&last_out, "01000042")),
        ("an input", text.replace(&last_in, "0100f841")),
        ("the launch", text.replace("\"block\":32", "\"block\":31")),
        ("no hex", text.replace(&last_out, "0000004z")),
    ] {
        assert_ne!(changed, text, "{what}");
        std::fs::write(&path, &changed).unwrap();
        let (count, failures) = run_folder(&folder).unwrap();
        assert!(
            count == 2 && failures.len() == 1 && failures[0].starts_with("exact: "),
            "{what}: {failures:?}"
        );
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn bounds_are_where_the_verdict_changes() {
    let value = |bits: u64| f32::from_bits(bits as u32);
    let bits = |v: f32| u64::from(v.to_bits());
    assert_eq!(bounds("f32", bits(1.5), |v| (-2.0..=2.0).contains(&value(v))), (bits(-2.0), bits(2.0)));
    assert_eq!(bounds("f32", bits(1.5), |v| v == bits(1.5)), (bits(1.5), bits(1.5)));
    assert_eq!(bounds("f32", bits(-0.0), |v| v == bits(-0.0)), (bits(-0.0), bits(-0.0)));
    assert_eq!(bounds("f32", 0x7fc0_0000, |v| value(v).is_nan()), (0x7fc0_0000, 0x7fc0_0000));
    assert_eq!(bounds("f32", 0, |_| true), (0xffff_ffff, 0x7fff_ffff));
    assert_eq!(bounds("s16", 0xffff, |v| (-7..=9).contains(&(v as u16 as i16))), (0xfff9, 9));
    assert_eq!(bounds("u64", 5, |v| v >= 3), (3, u64::MAX));
    assert_eq!(bounds("b16", 0xfe00, |v| v >= 0xfc00), (0xfc00, 0xffff));
}
