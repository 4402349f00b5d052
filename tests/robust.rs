//! The built program where something is missing: a kernel that does not work, memory.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use memo::check::fixtures;
use memo::gpu::Cache;
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The program, on the virtual device with these of its variables.
fn memo(args: &[&str], variables: &[(&str, &str)]) -> Output {
    let program = std::env::var_os("MEMO_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_memo").into());
    let mut command = Command::new(program);
    command.args(args).args(["--device", "virtual"]).envs(variables.iter().copied());
    command.output().expect("the program starts")
}

#[track_caller]
fn succeeded(output: &Output) -> (String, String) {
    let [stdout, stderr] =
        [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    assert!(output.status.success(), "{stderr}");
    (stdout, stderr)
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

fn picture(seed: u32) -> image::RgbImage {
    image::RgbImage::from_fn(40, 33, |x, y| {
        image::Rgb([(x * 6 + seed * 31) as u8, (y * 7 + seed * 17) as u8, (x * y + seed) as u8])
    })
}

/// Beside the plan: constants of some fifty kernels, a page each; pictures, what views of them are made in, where the steps'
/// operands lie.
const SLACK: usize = 2_200_000;

/// What becomes of a kernel's PTX.
type Spoil = fn(&str) -> String;

/// A small model's arguments, and files for them.
struct Place {
    folder: TempDir,
    model: PathBuf,
}

impl Place {
    fn new() -> Place {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("labels.txt"), "cat\ndog\naquarium_fish\n").unwrap();
        picture(3).save(folder.path().join("image.png")).unwrap();
        Place { model: fixtures().join("models/tiny"), folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The folder `data`, four pictures a class.
    fn pictures(&self, classes: [&str; 2]) {
        for (class, first) in classes.into_iter().zip([0, 10]) {
            let folder = self.file("data").join(class);
            fs::create_dir_all(&folder).unwrap();
            (0..4).for_each(|i| picture(first + i).save(folder.join(format!("{i}.png"))).unwrap());
        }
    }

    /// The bytes that the plan for so many images says: its buffers, and weights and labels.
    fn plan(&self, views: &str, batch: usize) -> [usize; 2] {
        let (model, batch) = (text(&self.model), batch.to_string());
        let args = ["doctor", "--plan", "--json", "--model", model, "--classes", "2", "--views", views];
        let (plan, _) = succeeded(&memo(&[&args[..], &["--batch", &batch]].concat(), &[]));
        let plan: Value = serde_json::from_str(&plan).unwrap();
        let bytes = |name: &str| plan[name].as_u64().expect("bytes") as usize;
        let tensors = plan["tensors"].as_array().unwrap().iter();
        let sum = tensors.map(|tensor| tensor["bytes"].as_u64().unwrap() * tensor["times"].as_u64().unwrap());
        let sum = sum.sum::<u64>() as usize;
        assert!(sum <= bytes("buffer_bytes") && bytes("buffer_bytes") < sum + sum / 20, "{plan}");
        let beside = bytes("weight_bytes") + bytes("label_bytes");
        let all = bytes("buffer_bytes") + beside + bytes("overflow_bytes") + bytes("view_bytes");
        assert_eq!(bytes("total_bytes"), all, "{plan}");
        [bytes("buffer_bytes"), beside]
    }

    /// A run on the folder `data`, on a device of so many bytes.
    fn eval(&self, out: &str, views: &str, more: &[&str], bytes: Option<usize>) -> Output {
        let data = self.file("data");
        let out = self.file(out);
        let args = ["eval", "--model", text(&self.model), "--views", views, "--data"];
        let args = [&args[..], &[text(&data), "--out", text(&out)], more].concat();
        let bytes = bytes.map(|bytes| bytes.to_string());
        memo(&args, &bytes.iter().map(|bytes| ("VCUDA_MEMORY_BYTES", &bytes[..])).collect::<Vec<_>>())
    }

    fn predict(&self, variables: &[(&str, &str)]) -> Output {
        let (labels, image) = (self.file("labels.txt"), self.file("image.png"));
        let args =
            ["predict", "--json", "--views", "2", "--model", text(&self.model), "--labels", text(&labels)];
        memo(&[&args[..], &[text(&image)]].concat(), variables)
    }

    /// Like the kernel cache in use, but for the entries of a source.
    fn cache(&self, name: &str, spoilt: &[(&str, Spoil)]) -> PathBuf {
        let (cache, folder) = (Cache::from_environment(), self.file(name));
        fs::create_dir(&folder).unwrap();
        for entry in fs::read_dir(cache.folder().expect("a cache")).unwrap() {
            let path = entry.unwrap().path();
            let (name, copy) = (path.file_name().unwrap(), folder.join(path.file_name().unwrap()));
            let is_of = |stem: &str| name.to_string_lossy().starts_with(&format!("{stem}-"));
            let Some((_, spoil)) = spoilt.iter().find(|(stem, _)| is_of(stem)) else {
                symlink(&path, copy).unwrap();
                continue;
            };
            let Ok(entry) = fs::read_to_string(&path) else { continue }; // of a GPU
            let payload = spoil(&entry[65..]);
            let digest: String = Sha256::digest(&payload).iter().map(|byte| format!("{byte:02x}")).collect();
            fs::write(copy, format!("{digest}\n{payload}")).unwrap();
        }
        folder
    }
}

/// Parts of the sums are subtracted.
fn negated_wgmma(ptx: &str) -> String {
    ptx.replacen(" p, 1, 1, ", " p, -1, 1, ", 1)
}

/// Some of the operands are taken for others.
fn wrong_mma(ptx: &str) -> String {
    ptx.replacen("m8n8.x4.shared", "m8n8.x4.trans.shared", 1)
}

fn unreadable(_: &str) -> String {
    "not PTX".to_string()
}

fn misaligned(ptx: &str) -> String {
    ptx.replace(" + 0];", " + 1];")
}

#[test]
fn a_backend_that_does_not_work_is_replaced() {
    let place = Place::new();
    let on = |architecture: &str, cache: Option<&Path>| {
        let mut variables = vec![("VCUDA_ARCH", architecture)];
        variables.extend(cache.map(|cache| ("MEMO_CACHE", text(cache))));
        place.predict(&variables)
    };
    // To the small model the first two prompts are one, since it has no words for them.
    let names = "note: 3 classes, in the order of the file: cat, dog, aquarium_fish\n\
        note: \"cat\" and \"dog\" have equal text features, so the first is always preferred: other prompts may tell them apart\n";
    let (_, said) = succeeded(&on("sm_90a", None));
    assert_eq!(said, names);
    let (by_mma, said) = succeeded(&on("sm_80", None));
    assert_eq!(said, names);

    for (name, spoil) in [("wgmma wrong", negated_wgmma as Spoil), ("wgmma", unreadable)] {
        let cache = place.cache(name, &[("linear_wgmma", spoil)]);
        let (replaced, said) = succeeded(&on("sm_90a", Some(&cache)));
        let notes = said.lines().filter(|line| line.starts_with("note: linear_wgmma does not work")).count();
        assert_eq!((notes, said.matches("linear_mma serves").count()), (1, 1), "{said}");
        assert_eq!(replaced, by_mma, "{name}");
    }

    let cache = place.cache("mma wrong", &[("linear_mma", wrong_mma)]);
    let (by_simt, said) = succeeded(&on("sm_80", Some(&cache)));
    assert!(said.contains("linear_mma does not work") && said.contains("linear_simt serves"), "{said}");
    let cache = place.cache("both", &[("linear_mma", unreadable), ("linear_wgmma", unreadable)]);
    let (replaced, said) = succeeded(&on("sm_90a", Some(&cache)));
    let notes = said.lines().filter(|line| line.starts_with("note: linear_")).count();
    assert_eq!((notes, said.matches("linear_simt serves").count()), (2, 2), "{said}");
    assert_eq!(replaced, by_simt);

    // Of attention there is no other in float16.
    let cache = place.cache("attention", &[("attention_mma", wrong_mma)]);
    let wrong = on("sm_90a", Some(&cache));
    let said = String::from_utf8_lossy(&wrong.stderr);
    assert_eq!(wrong.status.code(), Some(1), "{said}");
    assert!(said.contains("error: attention_mma does not work on this device (sm_90a): out["), "{said}");
    assert!(said.contains("--precision fp32 does without it"), "{said}");

    let cache = place.cache("fault", &[("linear_mma", misaligned)]);
    let faulty = on("sm_80", Some(&cache));
    let said = String::from_utf8_lossy(&faulty.stderr);
    assert_eq!(faulty.status.code(), Some(1), "{said}");
    assert!(said.contains("error: trying linear_mma, which --precision fp32 does without"), "{said}");
    assert!(said.contains("misaligned address (by any kernel queued so far, not just by"), "{said}");
}

#[test]
fn where_memory_runs_out_fewer_images_at_once_go_on() {
    let place = Place::new();
    // So many that an image needs more memory than the labels do.
    const VIEWS: &str = "48";
    let [[one, beside], [two, _], [four, _]] = [1, 2, 4].map(|batch| place.plan(VIEWS, batch));
    place.pictures(["cat", "dog"]);
    let read = |name: &str| fs::read_to_string(place.file(name)).unwrap();

    succeeded(&place.eval("whole", VIEWS, &[], None));
    let whole = read("whole");
    assert_eq!(whole.lines().count(), 8);
    let (_, said) = succeeded(&place.eval("little", VIEWS, &["--batch", "8"], Some(beside + two + SLACK)));
    let halves = |said: &str, from: usize| {
        let note =
            format!("note: the device has too little memory for {from} images at once; it goes on with");
        said.matches(&format!("{note} {}", from / 2)).count()
    };
    assert_eq!([8, 4, 2].map(|from| halves(&said, from)), [1, 1, 0], "{said}");
    assert_eq!(read("little"), whole);

    // In the middle: a larger picture, whose views take more memory to be made in, is in the second batch.
    image::imageops::resize(&picture(5), 300, 400, image::imageops::FilterType::Nearest)
        .save(place.file("data").join("dog/2.png"))
        .unwrap();
    succeeded(&place.eval("whole larger", VIEWS, &[], None));
    let little = place.eval("little larger", VIEWS, &["--batch", "4"], Some(beside + four + SLACK));
    let (_, said) = succeeded(&little);
    assert_eq!([4, 2].map(|from| halves(&said, from)), [1, 0], "{said}");
    assert_eq!(read("little larger"), read("whole larger"));

    let none = place.eval("none", VIEWS, &["--batch", "2"], Some(beside + one / 50 * 49));
    let said = String::from_utf8_lossy(&none.stderr);
    assert_eq!((none.status.code(), halves(&said, 2)), (Some(1), 1), "{said}");
    for words in ["one image of 48 views", "--views", "allocating", "free"] {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn what_is_before_an_image_that_fails_is_kept() {
    let place = Place::new();
    place.pictures(["apple", "chimpanzee"]);
    let [two, beside] = place.plan("32", 2);
    // So large that gradients of the second image leave float16, for which there is no memory in float32.
    let more = ["--loss-scale", "1048576", "--logit-scale", "100", "--seed", "1", "--batch", "2"];
    succeeded(&place.eval("whole", "32", &more, None));
    let whole = fs::read_to_string(place.file("whole")).unwrap();
    let overflows: Vec<bool> = whole.lines().map(|line| line.contains("overflow")).collect();
    assert_eq!(overflows[..2], [false, true], "{whole}");

    let little = place.eval("little", "32", &more, Some(beside + two + SLACK));
    let said = String::from_utf8_lossy(&little.stderr);
    assert_eq!(little.status.code(), Some(1), "{said}");
    assert!(
        said.contains("error: adapting to image 1 (apple/1.png): ") && said.contains("one image of 32 views"),
        "{said}"
    );
    let kept = fs::read_to_string(place.file("little")).unwrap();
    assert_eq!(kept, whole.split_inclusive('\n').next().unwrap());
}
