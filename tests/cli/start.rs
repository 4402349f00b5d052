//! What is there, and what is made at the start.

use crate::*;

/// Each file of a kernel cache: its name, its length, when it was written.
fn entries(cache: &Path) -> BTreeSet<(OsString, u64, SystemTime)> {
    let facts = |entry: DirEntry, file: Metadata| (entry.file_name(), file.len(), file.modified().unwrap());
    let entry = |entry: DirEntry| entry.metadata().map(|file| facts(entry, file)).unwrap();
    fs::read_dir(cache).unwrap().map(|each| entry(each.unwrap())).collect()
}

#[test]
fn kernels_are_compiled_once() {
    let place = Place::new();
    let cache = place.file("cache");
    let cached = |more: &[&str]| {
        let output = place.predict(&place.model, more).env("MEMO_CACHE", &cache).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        entries(&cache)
    };
    let cold = cached(&[]);
    assert!(!cold.is_empty());
    assert_eq!(cached(&[]), cold, "a second start compiles nothing");
    // Nor do other images and other numbers of views.
    let other = place.write("other.png", fs::read(&place.image).unwrap());
    assert_eq!(cached(&["--views", "3", "--seed", "1", text(&place.image), text(&other)]), cold);
}

#[test]
fn inspect_and_doctor_tell_what_is_there() {
    let model = fixtures().join("models/tiny");
    let summary: Value = serde_json::from_str(&stdout(&["inspect", "--json", text(&model)])).unwrap();
    assert_eq!(summary["naming"], "hugging_face");
    assert_eq!(summary["config"]["vision"]["layers"], 2);
    let doctor: Value = serde_json::from_str(&stdout(&["doctor", "--json"])).unwrap();
    for check in ["nvrtc", "device", "kernels"] {
        assert_eq!(doctor[check]["ok"], true, "{doctor}");
    }
    for flag in ["--model=m", "--batch=3", "--classes=3", "--activation=gelu", "--views=50", "--policy=mild"]
    {
        refused(memo(&["doctor", flag]), 2, &["required", "--plan"]);
    }
    refused(memo(&["doctor", "--plan"]), 2, &["required", "--model"]);
}
