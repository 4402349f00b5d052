//! What the machine or the user limits, and what may be loaded.

use crate::*;

/// The program with so many bytes of addresses.
fn within(limit_bytes: usize, command: &Command) -> Output {
    let mut limited = Command::new("sh");
    limited.args(["-c", &format!("ulimit -v {}; exec \"$@\"", limit_bytes / 1024), "sh"]);
    limited.arg(command.get_program()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.output().expect("a shell")
}

#[test]
fn more_addresses_never_do_worse() {
    let place = Place::new();
    let cache = place.file("cache");
    let mut succeeded = Vec::new();
    for limit_mb in [60, 150, 300, 600, 1500, 3000, 9000] {
        let mut command = place.predict(&place.model, &["--device", "virtual", text(&place.image)]);
        // Kernels are compiled where that may fail, and once where it does not.
        let output = within(limit_mb << 20, command.env("MEMO_CACHE", &cache));
        let stderr = String::from_utf8_lossy(&output.stderr);
        match output.status.code() {
            Some(0) => succeeded.push(limit_mb),
            Some(1) => {
                assert!(stderr.contains("error: ") && succeeded.is_empty(), "{limit_mb} MB: {stderr}");
                assert!(!stderr.contains("finding NVRTC"), "{limit_mb} MB: {stderr}");
            }
            // The loader had no room for the program itself.
            Some(127) if limit_mb < 100 => {}
            _ => panic!("{limit_mb} MB: {:?}: {stderr}", output.status),
        }
    }
    assert!(succeeded.contains(&3000) && !succeeded.contains(&150), "{succeeded:?}");
}

#[test]
fn nothing_is_loaded_from_the_current_folder() {
    if std::env::var("MEMO_TEST_DEVICE").as_deref() == Ok("gpu") {
        return; // there may be no C compiler beside it
    }
    let place = Place::new();
    let doctor = |variables: &[(&str, &str)]| -> Value {
        let mut command = memo(&["doctor", "--json", "--device", "virtual"]);
        command.current_dir(place.folder.path()).env_remove("MEMO_NVRTC").envs(variables.iter().copied());
        serde_json::from_slice(&command.output().unwrap().stdout).expect("JSON")
    };
    let nvrtc =
        |value: &Value| value["nvrtc"]["is"].as_str().unwrap().rsplit(", ").next().unwrap().to_string();
    let found = nvrtc(&doctor(&[]));
    // A newer one than any that fits, wherever the current folder could be meant.
    for folder in [".nvrtc/nvidia/cu13/lib", "lib/python3.99/site-packages/nvidia/cu13/lib", "lib64"] {
        compilers::play(&place, (13, 9), &place.file(folder));
    }
    let newer = doctor(&[("MEMO_NVRTC", text(&place.file("lib64")))]);
    assert!(nvrtc(&newer).starts_with(text(place.folder.path())), "{newer}");
    fs::create_dir(place.file("bin")).unwrap();
    place.write("bin/python3", "");
    let search = std::env::var("PATH").unwrap();
    for variables in [
        &[][..],
        &[("MEMO_NVRTC", ""), ("MEMO_VCUDA", "")],
        &[("CUDA_HOME", ""), ("CUDA_PATH", "."), ("VIRTUAL_ENV", ""), ("CONDA_PREFIX", ".")],
        &[("PATH", &format!("bin:{search}"))],
    ] {
        assert_eq!(nvrtc(&doctor(variables)), found, "{variables:?}");
    }
}

#[test]
fn the_virtual_driver_may_be_named() {
    let place = Place::new();
    let with = |named: &Path| {
        let mut command = memo(&["doctor", "--json", "--device", "virtual"]);
        command.env("MEMO_VCUDA", named);
        serde_json::from_slice::<Value>(&command.output().unwrap().stdout).expect("JSON")
    };
    let own = memo::gpu::find_virtual_driver().unwrap().canonicalize().unwrap();
    for named in [&own, own.parent().unwrap()] {
        let found = with(named);
        assert_eq!(found["virtual_driver"]["is"], text(&own), "{found}");
        assert_eq!(found["device"]["ok"], true, "{found}");
    }
    let found = with(&place.file("none"));
    assert!(found["virtual_driver"]["is"].as_str().unwrap().contains("MEMO_VCUDA="), "{found}");
    assert_eq!(found["device"]["ok"], false, "{found}");
}
