//! Drivers and compilers of several versions: played ones, since it is the choice that is looked at.

use crate::*;

/// A `libnvrtc.so` of CUDA `MAJOR.MINOR` that compiles nothing, and says what it is.
const NVRTC: &str = r#"
#include <stdio.h>
#include <string.h>
#define TEXT(x) #x
#define RELEASE(major, minor) "// Cuda compilation tools, release " TEXT(major) "." TEXT(minor) ", V" TEXT(major) "." TEXT(minor) ".1\n"
static const char *ptx = RELEASE(MAJOR, MINOR);
int nvrtcVersion(int *major, int *minor) { *major = MAJOR, *minor = MINOR; return 0; }
int nvrtcGetNumSupportedArchs(int *count) { *count = 2; return 0; }
int nvrtcGetSupportedArchs(int *all) { all[0] = 75, all[1] = 90; return 0; }
int nvrtcCreateProgram(void **program, const char *text, const char *name, int n, const void *h, const void *i) { return 0; }
int nvrtcCompileProgram(void *program, int n, const char *const *options) { return 0; }
int nvrtcDestroyProgram(void **program) { return 0; }
int nvrtcGetPTXSize(void *program, size_t *bytes) { *bytes = strlen(ptx) + 1; return 0; }
int nvrtcGetPTX(void *program, char *to) { strcpy(to, ptx); return 0; }
const char *nvrtcGetErrorString(int status) { return "played"; }
"#;

const VERSIONS: [(u32, u32); 4] = [(12, 4), (12, 9), (13, 0), (13, 4)];
const WHEELS: [&str; 4] = [
    "nvidia-cuda-nvrtc-cu12<12.5",
    "nvidia-cuda-nvrtc-cu12<12.10",
    "nvidia-cuda-nvrtc<13.1",
    // A virtual driver is as well off with what most is tested with.
    "nvidia-cuda-nvrtc<13.1",
];

/// A folder for each version, with its NVRTC.
fn played(place: &Place) -> Vec<PathBuf> {
    let folder = |version: (u32, u32)| {
        let folder = place.file(&format!("nvrtc {}.{}", version.0, version.1));
        play(place, version, &folder);
        folder
    };
    VERSIONS.into_iter().map(folder).collect()
}

/// Makes a folder with the NVRTC of a version.
pub fn play(place: &Place, (major, minor): (u32, u32), folder: &Path) {
    let source = place.write("nvrtc.c", NVRTC);
    fs::create_dir_all(folder).unwrap();
    let builtins = format!("libnvrtc-builtins.so.{major}.{minor}");
    for name in [&format!("libnvrtc.so.{major}"), &builtins] {
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-w", &format!("-DMAJOR={major}"), &format!("-DMINOR={minor}")]);
        let done = compiler.arg("-o").arg(folder.join(name)).arg(&source).status().expect("a C compiler");
        assert!(done.success());
    }
}

/// The program on a driver of a version, with the compilers in these folders.
fn with(driver: (u32, u32), folders: &[&PathBuf], args: &[&str]) -> Output {
    let paths = match folders {
        [] => OsString::from("/nonexistent"),
        _ => std::env::join_paths(folders).unwrap(),
    };
    let driver = format!("{}.{}", driver.0, driver.1);
    memo(&[args, &["--device", "virtual"]].concat())
        .env("MEMO_NVRTC", paths)
        .env("VCUDA_DRIVER_VERSION", driver)
        .output()
        .expect("the program starts")
}

#[test]
fn each_driver_gets_the_compiler_that_fits_or_is_told_which_does() {
    if std::env::var("MEMO_TEST_DEVICE").as_deref() == Ok("gpu") {
        return;
    }
    let place = Place::new();
    let folders = played(&place);
    for (driver, wheel) in VERSIONS.into_iter().zip(WHEELS) {
        for set in 0..16 {
            let there: Vec<usize> = (0..4).filter(|i| set >> i & 1 == 1).collect();
            let paths: Vec<&PathBuf> = there.iter().map(|&i| &folders[i]).collect();
            // The newest of its own major version or an older one; else the oldest of the newer ones.
            let fitting = there.iter().copied().filter(|&i| VERSIONS[i].0 <= driver.0).max();
            let chosen = fitting.or(there.first().copied());

            let doctor = with(driver, &paths, &["doctor", "--json"]);
            let said: Value = serde_json::from_slice(&doctor.stdout).expect("JSON");
            let nvrtc = said["nvrtc"]["is"].as_str().expect("text");
            let what = format!("driver {driver:?} of {there:?}: {nvrtc}");
            match chosen.map(|i| VERSIONS[i]) {
                Some((major, minor)) => assert!(nvrtc.starts_with(&format!("{major}.{minor}.1, ")), "{what}"),
                None => assert!(nvrtc.contains("MEMO_NVRTC=/nonexistent"), "{what}"),
            }
            assert_eq!(nvrtc.contains(wheel), fitting.is_none(), "{what}");
            assert_eq!(said["nvrtc"]["ok"], chosen.is_some(), "{what}");

            let asked = with(driver, &paths, &["doctor", "--wheel"]);
            let want = if fitting.is_none() { format!("{wheel}\n") } else { String::new() };
            assert_eq!(String::from_utf8_lossy(&asked.stdout), want, "{what}");
        }
    }
}

#[test]
fn kernels_run_on_every_driver() {
    if std::env::var("MEMO_TEST_DEVICE").as_deref() == Ok("gpu") {
        return;
    }
    // By whichever NVRTC there is: PTX that is too new for the driver is lowered.
    let place = Place::new();
    let on = |driver: &str| {
        let output =
            place.predict(&place.model, &["--json"]).env("VCUDA_DRIVER_VERSION", driver).output().unwrap();
        assert!(output.status.success(), "{driver}: {}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    };
    let newest = on("13.4");
    for driver in ["12.0", "12.4", "12.9", "13.0"] {
        assert!(on(driver) == newest, "{driver}: other numbers");
    }
}
