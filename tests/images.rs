//! Files of every kind against Pillow's pixels, and what is refused: `tests/make_images.py`.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::panic::catch_unwind;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use memo::check::{Rng, fixtures};
use memo::data::{decode, read_image};
use serde_json::Value;
use sha2::{Digest, Sha256};

/// Each file, and what becomes of it.
fn files() -> Vec<(PathBuf, Value)> {
    let folder = fixtures().join("images");
    let answers = fs::read_to_string(folder.join("images.json")).unwrap();
    let Value::Object(answers) = serde_json::from_str(&answers).unwrap() else { panic!("no object") };
    answers.into_iter().map(|(name, answer)| (folder.join(name), answer)).collect()
}

#[test]
fn pixels_are_pillows_or_refused_by_name() {
    let mut wrong = Vec::new();
    for (path, answer) in files() {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        match (read_image(&path), answer) {
            (Ok(image), Value::Array(want)) => {
                let digest: String =
                    Sha256::digest(&image.pixels).iter().map(|byte| format!("{byte:02x}")).collect();
                let got: [Value; 3] = [image.width.into(), image.height.into(), digest.into()];
                if got != want[..] {
                    wrong.push(format!("{name} is {got:?}, not {want:?}"));
                }
            }
            (Err(error), Value::String(want)) => {
                let error = format!("{error:#}");
                if !error.contains(&want)
                    || !error.starts_with("reading the image ")
                    || !error.contains(&name)
                {
                    wrong.push(format!("{name} is refused with {error}, not {want}"));
                }
            }
            (Ok(_), _) => wrong.push(format!("{name} is read")),
            (Err(error), _) => wrong.push(format!("{name} is refused: {error:#}")),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn what_is_no_file_is_refused_and_nothing_is_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.png");
    let name = CString::new(pipe.as_os_str().as_bytes()).unwrap();
    // SAFETY: a string with a zero at its end.
    assert_eq!(unsafe { libc::mkfifo(name.as_ptr(), 0o600) }, 0);
    for (path, want) in [
        (pipe, "pipe.png: it is a pipe"),
        (folder.path().join("gone.png"), "gone.png: No such file"),
        (folder.path().to_path_buf(), "it is a folder"),
        ("/dev/zero".into(), "it is a pipe or a device"),
    ] {
        let error = format!("{:#}", read_image(&path).unwrap_err());
        assert!(error.contains(want), "{error}");
    }
}

#[test]
fn damaged_files_never_panic() {
    let start = Instant::now();
    let (mut read, mut refused) = (0, 0);
    for (i, (path, _)) in files().into_iter().enumerate() {
        let whole = fs::read(&path).unwrap();
        if whole.is_empty() {
            continue;
        }
        for round in 0..40 {
            let rng = &mut Rng(i as u64 * 1000 + round);
            let mut bytes = whole.clone();
            match round % 4 {
                0 => bytes.truncate(rng.below(whole.len())),
                // Where headers and directories are.
                1 => bytes[rng.below(whole.len().min(100))] = rng.below(256) as u8,
                2 => {
                    let at = whole.len() - 1 - rng.below(whole.len().min(300));
                    bytes[at] = rng.below(256) as u8;
                }
                _ => (0..=rng.below(4)).for_each(|_| bytes[rng.below(whole.len())] ^= 1 << rng.below(8)),
            }
            let outcome = catch_unwind(|| match decode(&bytes) {
                Ok(image) => {
                    let (w, h) = image.size();
                    assert_eq!(image.pixels.len(), 3 * w * h);
                    true
                }
                Err(error) => {
                    assert!(!error.to_string().is_empty());
                    false
                }
            });
            match outcome.unwrap_or_else(|_| panic!("{}, round {round}, makes it panic", path.display())) {
                true => read += 1,
                false => refused += 1,
            }
        }
    }
    assert!(read > 1000 && refused > 3000, "{read} read, {refused} refused");
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}
