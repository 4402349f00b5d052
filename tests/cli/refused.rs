//! How the program refuses.

use crate::*;

#[test]
fn bad_models_are_refused() {
    let place = Place::new();
    let weights = fs::read(place.model.join("model.safetensors")).unwrap();
    let config = fs::read_to_string(place.model.join("config.json")).unwrap();
    let mut lying = weights.clone();
    lying[..8].copy_from_slice(&(1u64 << 62).to_le_bytes());
    let mut infinite = weights.clone();
    let len = infinite.len();
    infinite[len - 2..].copy_from_slice(&0x7c00u16.to_le_bytes());
    let (whole, file) = (&weights[..], "model.safetensors");
    for (name, bytes) in
        [("empty", &whole[..0]), ("cut", &whole[..len / 2]), ("lying", &lying), ("short", &whole[..5])]
    {
        let model = place.model_with(name, file, bytes);
        refused(place.predict(&model, &[]), 1, &[name, file]);
    }
    let model = place.model_with("infinite", file, &infinite);
    refused(place.predict(&model, &[]), 1, &["infinite", "element", "inf"]);
    infinite[len - 2..].copy_from_slice(&0x7e00u16.to_le_bytes());
    let model = place.model_with("no_number", file, &infinite);
    refused(place.predict(&model, &[]), 1, &["no_number", "element", "NaN"]);
    let vision = |from: &str, to: &str| {
        let at = config.find("\"vision_config\"").unwrap();
        format!("{}{}", &config[..at], config[at..].replacen(from, to, 1))
    };
    let configs = [
        ("heads", vision("\"num_attention_heads\": 4", "\"num_attention_heads\": 0"), "heads is 0"),
        ("patch", vision("\"patch_size\": 8", "\"patch_size\": 0"), "patch size is 0"),
        ("layers", vision("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 99"), "layers.2."),
        ("fewer", vision("\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1"), "the config says 1 layers"),
        ("width", vision("\"hidden_size\": 64", "\"hidden_size\": 1099511627776"), "width is 1099511627776"),
        ("shape", vision("\"hidden_size\": 64", "\"hidden_size\": 128"), "has shape [64]"),
        ("json", "{".to_string(), "not JSON"),
    ];
    for (name, config, want) in configs {
        let model = place.model_with(name, "config.json", config.as_bytes());
        refused(place.predict(&model, &[]), 1, &[name, want]);
    }
    refused(place.predict(&place.file("absent"), &[]), 1, &["absent", "No such file"]);
    let folder = place.folder.path().to_path_buf();
    refused(place.predict(&folder, &[]), 1, &["model.safetensors"]);
    let pickle = place.write("model.bin", b"PK\x03\x04rest");
    refused(place.predict(&pickle, &[]), 1, &["model.bin", "save_file"]);
}

#[test]
fn bad_files_and_flags_are_refused() {
    let place = Place::new();
    let model = place.model.clone();
    let empty = place.write("empty.txt", "");
    refused(place.predict(&model, &["--labels", text(&empty)]), 1, &["empty.txt", "no labels"]);
    let binary = place.write("binary.txt", b"cat\n\xff\xfe\n");
    refused(place.predict(&model, &["--labels", text(&binary)]), 1, &["binary.txt", "UTF-8"]);
    let png = fs::read(&place.image).unwrap();
    let cut = place.write("cut.png", &png[..png.len() / 2]);
    refused(place.predict(&model, &[text(&cut)]), 1, &["cut.png"]);
    refused(place.predict(&model, &[&format!("{}/", text(place.folder.path()))]), 1, &["folder"]);

    for (flag, value) in [
        ("--views", "0"),
        ("--views", "-1"),
        ("--lr", "nan"),
        ("--lr", "-1"),
        ("--lr", "-1e-5,1e-4"),
        ("--steps", "0"),
        ("--seed", "-1"),
        ("--prompt", "no place"),
        ("--precision", "bf16"),
        ("--loss-scale", "3"),
        ("--loss-scale", "0"),
        ("--optimizer", "adam"),
        ("--momentum", "1"),
        ("--momentum", "-0.1"),
        ("--momentum", "nan"),
        ("--weight-decay", "-0.1"),
        ("--weight-decay", "inf"),
    ] {
        refused(place.predict(&model, &[flag, value]), 2, &["invalid value", flag]);
    }
    let both = |flags: &str, want: &str| {
        let flags: Vec<&str> = flags.split(' ').collect();
        refused(place.predict(&model, &flags), 2, &[flags.join(" ").as_str(), want]);
    };
    both("--update implicit --steps 2", "in-place");
    both("--update implicit --weight-decay 0.1", "in-place");
    both("--update implicit --optimizer adamw", "in-place");
    both("--momentum 0.9 --optimizer adamw", "--optimizer sgd");
    refused(place.predict(&model, &["--lr", "1e-5,1e30"]), 1, &["learning rate 1e30"]);
    // A GPU need not be the machine's first.
    let has_gpu = std::env::var("MEMO_TEST_DEVICE").as_deref() == Ok("gpu");
    if !has_gpu && !Path::new("/dev/nvidia0").exists() {
        refused(place.predict(&model, &["--device", "gpu"]), 1, &["GPU 0", "--device virtual"]);
    }

    let pixels = vec![0f32; 2 * 3 * 32 * 32];
    let file = |name: &str, tensor: &str, shape: Vec<usize>, data: &[f32]| {
        let view = TensorView::new(Dtype::F32, shape, bytemuck::cast_slice(data)).unwrap();
        place.write(name, safetensors::serialize([(tensor, view)], None).unwrap())
    };
    let mut nan = pixels.clone();
    nan[7] = f32::NAN;
    let views = [
        (file("name", "images", vec![2, 3, 32, 32], &pixels), "no tensor named `views`"),
        (file("shape", "views", vec![2, 3, 16, 64], &pixels), "(N, 3, 32, 32)"),
        (file("nan", "views", vec![2, 3, 32, 32], &nan), "element 7"),
    ];
    for (path, want) in views {
        refused(place.predict(&model, &["--views-in", text(&path)]), 1, &[text(&path), want]);
    }
    for drawn in [["--views", "3"], ["--seed", "1"], ["--policy", "mild"]] {
        let [flag, value] = drawn;
        refused(place.predict(&model, &["--views-in", "views", flag, value]), 2, &["--views-in", flag]);
    }

    let mut command = place.predict(&model, &[]);
    command.env("MEMO_NVRTC", "/nonexistent/libnvrtc.so");
    refused(command, 1, &["MEMO_NVRTC"]);
    if std::env::var("MEMO_TEST_DEVICE").as_deref() != Ok("gpu") {
        let mut command = place.predict(&model, &[]);
        command.env("VCUDA_MEMORY_BYTES", "1000000");
        refused(command, 1, &["memory", "free"]);
    }
}

#[test]
fn bad_datasets_and_outputs_are_refused() {
    let place = Place::new();
    let data = place.dataset();
    let eval = |data: &Path, more: &[&str]| {
        let mut args = vec!["eval", "--model", text(&place.model), "--data", text(data), "--views", "2"];
        args.extend(more);
        memo(&args)
    };
    let cifar = place.file("cifar");
    fs::create_dir(&cifar).unwrap();
    let names: String = (0..100).map(|i| format!("class_{i}\n")).collect();
    fs::write(cifar.join("fine_label_names.txt"), names).unwrap();
    fs::write(cifar.join("test.bin"), vec![0; 3074 + 100]).unwrap();
    refused(eval(&cifar, &[]), 1, &["test.bin", "inside record 1"]);
    let mut record = vec![0; 3074];
    record[1] = 200;
    fs::write(cifar.join("test.bin"), record).unwrap();
    refused(eval(&cifar, &[]), 1, &["record 0 has label 200"]);
    refused(eval(&place.file("nothing"), &[]), 1, &["nothing"]);
    let hollow = place.file("hollow");
    fs::create_dir(&hollow).unwrap();
    refused(eval(&hollow, &[]), 1, &["hollow"]);

    let unwritable = place.file("no/run.jsonl");
    refused(eval(&data, &["--out", text(&unwritable)]), 1, &["run.jsonl"]);
    refused(eval(&data, &["--out", "/dev/full"]), 1, &["/dev/full"]);
    refused(eval(&data, &["--resume"]), 2, &["--resume", "--out"]);
    let out = place.write("precious.jsonl", "something\n");
    refused(eval(&data, &["--out", text(&out)]), 1, &["precious.jsonl", "--resume"]);
    assert_eq!(fs::read_to_string(out).unwrap(), "something\n");
    let grid = place.file("no/grid.png");
    refused(
        memo(&["augment", text(&place.image), "--views", "2", "--size", "16", "--grid", text(&grid)]),
        1,
        &["grid.png"],
    );
    refused(memo(&["augment", text(&place.image)]), 2, &["--grid"]);
    refused(memo(&["augment", text(&place.image), "--grid", "sheet.jpg"]), 2, &["sheet.jpg", ".png"]);
    refused(eval(Path::new("absent.safetensors#images"), &[]), 1, &["the images absent.safetensors"]);
    if std::env::var("MEMO_TEST_DEVICE").as_deref() != Ok("gpu") {
        let out = place.file("early.jsonl");
        let mut command = eval(&data, &["--out", text(&out)]);
        command.env("VCUDA_MEMORY_BYTES", "1000000");
        refused(command, 1, &["memory", "free"]);
        assert!(!out.exists(), "nothing is begun before the model is on the device");
    }
}
