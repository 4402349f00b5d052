//! Damaged and lying checkpoints: whatever they say, an error or a model, in no more memory than they could fill.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

use memo::check::{Rng, fixtures};
use memo::clip::Checkpoint;
use safetensors::Dtype;
use serde_json::{Value, json};

use crate::models::{self, Folder, file, open_clip_config};

/// The system's allocator, which remembers each thread's largest request.
struct Watched;

thread_local! {
    static LARGEST_BYTES: Cell<usize> = const { Cell::new(0) };
}

fn note(bytes: usize) {
    // A thread that ends may have lost its cell.
    let _ = LARGEST_BYTES.try_with(|largest| largest.set(largest.get().max(bytes)));
}

// SAFETY: every call goes to the system's allocator unchanged.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        note(layout.size());
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        note(size);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(at, layout, size) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Watched = Watched;

/// Flips, cuts or repeats.
fn damage(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let at = rng.below(bytes.len());
    match rng.below(4) {
        0 => bytes.truncate(at),
        1 => bytes[at] = rng.below(256) as u8,
        2 => bytes[at] ^= 1 << rng.below(8),
        _ => {
            let end = (at + rng.below(64)).min(bytes.len());
            let part = bytes[at..end].to_vec();
            bytes.splice(at..at, part);
        }
    }
}

/// Puts a value that no config should have in some field.
fn lie(json: &mut Value, rng: &mut Rng) {
    let lies = [
        json!(0),
        json!(1),
        json!(-1),
        json!(3),
        json!(1u64 << 40),
        json!(u64::MAX),
        json!(1e300),
        json!(0.5),
        json!(null),
        json!(true),
        json!("x"),
        json!([]),
        json!({}),
        json!([[[]]]),
        json!(255),
        json!(16384),
    ];
    match json {
        Value::Object(fields) if !fields.is_empty() && rng.below(8) > 0 => {
            let name = rng.pick(&fields.keys().cloned().collect::<Vec<_>>());
            match rng.below(12) {
                0 => drop(fields.remove(&name)),
                _ => lie(&mut fields[&name], rng),
            }
        }
        Value::Array(values) if !values.is_empty() && rng.below(8) > 0 => {
            let i = rng.below(values.len());
            lie(&mut values[i], rng);
        }
        value => *value = rng.pick(&lies),
    }
}

/// A safetensors file whose header lies: in shapes, dtypes, offsets or names.
fn damage_header(bytes: &mut Vec<u8>, rng: &mut Rng) {
    let end = 8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let mut json: Value = serde_json::from_slice(&bytes[8..end]).unwrap();
    let tensors = json.as_object_mut().unwrap();
    let names: Vec<String> = tensors.keys().cloned().collect();
    let (one, other) = (rng.pick(&names), rng.pick(&names));
    let mut twin = None;
    match rng.below(8) {
        0 => {
            let length = rng.pick(&[1u64 << 62, u64::MAX, 0, 7, 99_999_999, end as u64]);
            return bytes[..8].copy_from_slice(&length.to_le_bytes());
        }
        1 => {
            let mut head = bytes[..end].to_vec();
            damage(&mut head, rng);
            return drop(bytes.splice(..end, head));
        }
        2 => {
            let offsets = tensors[&one]["data_offsets"].take();
            tensors[&one]["data_offsets"] = std::mem::replace(&mut tensors[&other]["data_offsets"], offsets);
        }
        3 => tensors[&one]["shape"].as_array_mut().unwrap().reverse(),
        4 => {
            let tensor = tensors.remove(&one).unwrap();
            let suffix = ["", ".99999999999999999999.x", ".18446744073709551615.ln_1.bias", ".200.x"];
            let prefix = ["visual.transformer.resblocks", "transformer.resblocks", "vision_model", &other];
            tensors.insert(format!("{}{}", rng.pick(&prefix), rng.pick(&suffix)), tensor);
        }
        5 => {
            // Twice the same name: one of them lies.
            let mut tensor = tensors[&one].clone();
            lie(&mut tensor, rng);
            twin = Some(format!(",\"{one}\":{tensor}}}"));
        }
        6 => {
            // As many values in another shape.
            let shape = tensors[&one]["shape"].as_array().unwrap();
            let len: u64 = shape.iter().filter_map(Value::as_u64).product();
            let shapes =
                [json!([len]), json!([1, 1, 1, len]), json!([len, 1]), json!([1u64 << 32, 1u64 << 32])];
            tensors[&one]["shape"] = rng.pick(&shapes);
        }
        _ => lie(&mut json, rng),
    }
    let mut header = json.to_string();
    if let Some(twin) = twin {
        header.pop();
        header.push_str(&twin);
    }
    bytes.splice(..end, (header.len() as u64).to_le_bytes().into_iter().chain(header.bytes()));
}

/// A new file: one written over would wait for the disk.
fn replace(path: &Path, bytes: &[u8]) {
    fs::remove_file(path).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn damaged_checkpoints_never_panic_or_reserve_what_they_say() {
    let model = models::hugging_face();
    let (hugging_face, openai) = (Folder::of(&model), Folder::new());
    let sharded = Folder::sharded(&model);
    openai.write("model.safetensors", file(&models::openai(&model), Dtype::F16));
    let open_clip = Folder::new();
    open_clip.write("open_clip_model.safetensors", file(&models::openai(&model), Dtype::BF16));
    open_clip.write("open_clip_config.json", open_clip_config().to_string());
    let bare = openai.path().join("model.safetensors");
    let targets: [(&Path, &Path, &str); 7] = [
        (hugging_face.path(), hugging_face.path(), "model.safetensors"),
        (hugging_face.path(), hugging_face.path(), "config.json"),
        (&bare, openai.path(), "model.safetensors"),
        (open_clip.path(), open_clip.path(), "open_clip_model.safetensors"),
        (open_clip.path(), open_clip.path(), "open_clip_config.json"),
        (sharded.path(), sharded.path(), "model.safetensors.index.json"),
        (sharded.path(), sharded.path(), "model-00002-of-00002.safetensors"),
    ];
    let start = Instant::now();
    let (mut read, mut refused) = (0, 0);
    for seed in 0..5000 {
        let rng = &mut Rng(seed);
        let (path, folder, name) = targets[seed as usize % targets.len()];
        let whole = fs::read(folder.join(name)).unwrap();
        let mut bytes = whole.clone();
        if name.ends_with(".safetensors") {
            damage_header(&mut bytes, rng);
        } else if rng.below(3) > 0 {
            let mut json: Value = serde_json::from_slice(&bytes).unwrap();
            (0..=rng.below(3)).for_each(|_| lie(&mut json, rng));
            bytes = json.to_string().into_bytes();
        } else {
            damage(&mut bytes, rng);
        }
        replace(&folder.join(name), &bytes);
        let outcome = catch_unwind(AssertUnwindSafe(|| match Checkpoint::open(path, None) {
            Ok(checkpoint) => {
                let config = checkpoint.config();
                let vision = checkpoint.vision_params(&config.vision_layout());
                let _ = (checkpoint.text_params(&config.text_layout()), checkpoint.summary().to_string());
                vision.is_ok()
            }
            Err(error) => {
                assert!(!format!("{error:#}").is_empty());
                false
            }
        }));
        match outcome.unwrap_or_else(|_| panic!("seed {seed}: {name} made it panic")) {
            true => read += 1,
            false => refused += 1,
        }
        replace(&folder.join(name), &whole);
    }
    // Some damage says nothing wrong (another epsilon); most must be seen.
    assert!(read > 100 && refused > 3000, "{read} read, {refused} refused");
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    let largest = LARGEST_BYTES.get();
    assert!(largest < 2 << 20, "{largest} bytes at once, for parameters of 0.7 MB");
}

#[test]
fn a_file_that_shrinks_while_it_is_read_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors"] {
        fs::copy(fixtures().join("models/tiny").join(name), folder.path().join(name)).unwrap();
    }
    let checkpoint = Checkpoint::open(folder.path(), None).unwrap();
    let file = fs::OpenOptions::new().write(true).open(folder.path().join("model.safetensors")).unwrap();
    file.set_len(file.metadata().unwrap().len() / 2).unwrap();
    let params = checkpoint.vision_params(&checkpoint.config().vision_layout()).map(|_| ());
    for result in [params, checkpoint.fingerprint().map(|_| ())] {
        let error = format!("{:#}", result.unwrap_err());
        assert!(error.contains("model.safetensors") && error.contains("ends before byte"), "{error}");
    }
}
