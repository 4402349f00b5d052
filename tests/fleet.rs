//! `memo eval` on several devices: the same file as on one, whatever fails where.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use memo::check::fixtures;

/// Images: three blocks of what a device takes at a time, and a short one.
const IMAGES: usize = 60;

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Two classes of noise, in a folder.
fn images(folder: &Path) -> PathBuf {
    let data = folder.join("data");
    for i in 0..IMAGES {
        let class = data.join(["photo", "a"][i % 2]);
        fs::create_dir_all(&class).expect("a folder that can be written");
        let pixel = |x: u32, y: u32| {
            let noise = (x * 7919 + y * 104_729 + 31 * i as u32).wrapping_mul(2_654_435_761).to_le_bytes();
            image::Rgb([noise[1], noise[2], noise[3]])
        };
        let picture = image::RgbImage::from_fn(8 + i as u32 % 3, 8, pixel);
        picture.save(class.join(format!("{i:02}.png"))).expect("a picture is written");
    }
    data
}

fn eval(data: &Path, out: &Path, devices: &str, device: &str, more: &[&str]) -> Output {
    let program = std::env::var_os("MEMO_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_memo").into());
    let mut command = Command::new(program);
    command.args(["eval", "--model", text(&fixtures().join("models/tiny")), "--views", "2", "--lr", "1e-3"]);
    command.args(["--data", text(data), "--out", text(out), "--device", device]);
    command.args(more);
    command.env("VCUDA_DEVICES", devices).output().expect("the program starts")
}

#[test]
fn several_devices_write_the_file_of_one() {
    if std::env::var("MEMO_TEST_DEVICE").as_deref() == Ok("gpu") {
        return;
    }
    let folder = tempfile::tempdir().expect("a folder for the test");
    let data = images(folder.path());
    let run = |name: &str, devices: &str, device: &str| -> (Output, Vec<String>) {
        let out = folder.path().join(name);
        let output = eval(&data, &out, devices, device, &[]);
        let lines = fs::read_to_string(out).unwrap_or_default().lines().map(str::to_string).collect();
        (output, lines)
    };
    let (one, want) = run("one", "1", "virtual");
    assert!(one.status.success(), "{}", String::from_utf8_lossy(&one.stderr));
    assert_eq!(want.len(), IMAGES);
    for devices in ["1", "3"] {
        let (output, got) = run(&format!("all {devices}"), devices, "virtual:all");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(got == want, "{devices} devices");
    }

    // An image that cannot be read is told of in its place, and the others are as they were, whichever device they are for.
    let class = data.join("a");
    let mut names: Vec<_> =
        fs::read_dir(&class).expect("a folder").map(|file| file.expect("a file").path()).collect();
    names.sort();
    let whole = fs::read(&names[25]).expect("a picture");
    fs::write(&names[25], "no picture").expect("a file that can be written");
    for devices in ["1", "3"] {
        let name = format!("bad {devices}");
        let (output, got) = run(&name, devices, "virtual:all");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert!(got[25].contains("\"error\":") && got[25].contains("\"file\":\"a/"), "{}", got[25]);
        assert!(
            (0..IMAGES).all(|i| i == 25 || got[i] == want[i]) && got.len() == IMAGES,
            "{devices} devices"
        );
    }
    fs::write(&names[25], whole).expect("a file that can be written");
    let resumed = eval(&data, &folder.path().join("bad 3"), "3", "virtual:all", &["--resume"]);
    assert!(resumed.status.success(), "{}", String::from_utf8_lossy(&resumed.stderr));
    let got = fs::read_to_string(folder.path().join("bad 3")).expect("a file");
    assert!(got.lines().eq(want.iter()));
}

#[test]
fn one_image_at_a_time_is_for_one_device() {
    if std::env::var("MEMO_TEST_DEVICE").as_deref() == Ok("gpu") {
        return;
    }
    let program = std::env::var_os("MEMO_PROGRAM").unwrap_or_else(|| env!("CARGO_BIN_EXE_memo").into());
    let model = fixtures().join("models/tiny");
    let mut bench = Command::new(program);
    bench.args(["bench", "--model", text(&model), "--device", "virtual:all"]).env("VCUDA_DEVICES", "2");
    let output = bench.output().expect("the program starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(2) && said.contains("2 devices"), "{said}");
}
