//! Folders of images, and tensors of them, through the library's front door.

use std::fs;
use std::path::Path;

use image::Rgb;
use memo::check::fixtures;
use memo::data::{Cifar, DataSource, Dataset};
use safetensors::{Dtype, tensor::TensorView};

/// The error of `result`, which names every one of `parts`.
fn refused<T>(result: anyhow::Result<T>, parts: &[&str]) {
    let error = format!("{:#}", result.err().unwrap_or_else(|| panic!("accepted: {parts:?}")));
    assert!(parts.iter().all(|part| error.contains(part)), "{error}: {parts:?}");
}

fn source(path: &Path) -> DataSource {
    DataSource { path: path.to_path_buf(), ..DataSource::default() }
}

fn open(path: &Path) -> anyhow::Result<Dataset> {
    Dataset::open(&source(path))
}

fn rgb(width: u32, height: u32) -> image::RgbImage {
    image::RgbImage::from_fn(width, height, |x, y| Rgb([x * 20, y * 30, (x * y * 7) % 256].map(|v| v as u8)))
}

/// What `make_data.py` made.
fn fixture() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = fs::File::open(fixtures().join("data.tar.gz")).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(file)).unpack(folder.path()).unwrap();
    folder
}

fn widths(set: &Dataset) -> Vec<(u32, usize)> {
    (0..set.len()).map(|i| set.get(i).unwrap()).map(|sample| (sample.image.width, sample.label)).collect()
}

#[test]
fn folders_are_torchvisions() {
    let top = fixture();
    let want = fs::read_to_string(top.path().join("images.json")).unwrap();
    let want: Vec<(u32, usize)> = serde_json::from_str(&want).unwrap();
    let folder = top.path().join("folders");
    let set = open(&folder).unwrap();
    assert_eq!(widths(&set), want);
    let classes =
        ["10", "9", "Ant", "a", "a-b", "a_b", "ant", "dotted.name", "linked class", "zebra", "élan"];
    assert_eq!(set.labels(), classes);
    let notices = set.notices().join("\n");
    assert!(
        notices.contains("1 images beside")
            && notices.contains("and 2 more")
            && notices.contains("--extensions"),
        "{notices}"
    );

    // What torchvision would take or wait for.
    for hidden in ["zebra/._b.png", ".ipynb_checkpoints/b-checkpoint.png", "__MACOSX/zebra/._b.png"] {
        fs::create_dir_all(folder.join(hidden).parent().unwrap()).unwrap();
        rgb(99, 1).save(folder.join(hidden)).unwrap();
    }
    std::os::unix::fs::symlink(&folder, folder.join("zebra/circle")).unwrap();
    assert!(
        std::process::Command::new("mkfifo").arg(folder.join("zebra/pipe.png")).status().unwrap().success()
    );
    let set = open(&folder).unwrap();
    assert_eq!(widths(&set), want);
    let notices = set.notices().join("\n");
    for left in [".ipynb_checkpoints and 2 more: hidden", "pipe.png: no plain file", "circle: a link"] {
        assert!(notices.contains(left), "{notices}");
    }
    // A link that leads nowhere is an image that is missing.
    std::os::unix::fs::symlink("nowhere", folder.join("ant/z.png")).unwrap();
    assert_eq!(open(&folder).unwrap().len(), want.len() + 1);

    let more = DataSource { extensions: vec!["GIF".into(), ".jfif".into()], ..source(&folder) };
    assert_eq!(Dataset::open(&more).unwrap().len(), want.len() + 3);
}

#[test]
fn pickles_of_every_protocol_are_the_same() {
    let top = fixture();
    let samples = |name: &str| {
        let set = open(&top.path().join(name)).unwrap();
        assert_eq!((set.len(), set.labels()[99].as_str()), (2, "class_99"));
        [set.get(0).unwrap(), set.get(1).unwrap()]
    };
    let want = samples("cifar-2");
    assert_eq!((want[0].label, want[1].label), (3, 99));
    // The array counts by seven; a pixel's planes are 1024 apart.
    let at = |place: usize| (place * 7 % 251) as u8;
    assert_eq!(want[1].image.pixels[3..6], [at(3073), at(3073 + 1024), at(3073 + 2048)]);
    for name in ["cifar-0", "cifar-1", "cifar-3", "cifar-4", "cifar-5", "cifar-columns", "cifar-columns-2"] {
        assert_eq!(samples(name), want, "{name}");
    }
    for protocol in 0..6 {
        let whole = fs::read(top.path().join(format!("cifar-{protocol}/cifar-100-python/test"))).unwrap();
        let path = top.path().join("cifar-2/cifar-100-python/test");
        for len in (0..whole.len()).step_by(1 + whole.len() / 60) {
            fs::write(&path, &whole[..len]).unwrap();
            refused(open(&top.path().join("cifar-2")), &["test: not a whole pickle", "at byte"]);
        }
        for at in (0..whole.len()).step_by(1 + whole.len() / 60) {
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, damaged).unwrap();
            let _ = open(&top.path().join("cifar-2")); // it may be a picture's byte; nothing panics
        }
    }
}

#[test]
fn of_two_cifars_one_is_chosen() {
    let top = fixture();
    let root = top.path().join("cifar-2");
    let ten = root.join("cifar-10-batches-bin");
    fs::create_dir(&ten).unwrap();
    let names = "airplane automobile bird cat deer dog frog horse ship truck".replace(' ', "\n");
    fs::write(ten.join("batches.meta.txt"), names).unwrap();
    fs::write(ten.join("test_batch.bin"), vec![1; 3073]).unwrap();
    let both = open(&root).unwrap();
    assert_eq!(both.labels().len(), 100);
    assert!(both.notices()[0].contains("CIFAR-100 and CIFAR-10: CIFAR-100 is taken"), "{:?}", both.notices());
    let of = |cifar, path: &Path| Dataset::open(&DataSource { cifar: Some(cifar), ..source(path) });
    let chosen = of(Cifar::Cifar10, &root).unwrap();
    assert_eq!((chosen.labels().len(), chosen.notices().len()), (10, 0));
    refused(
        of(Cifar::Cifar10, &root.join("cifar-100-python")),
        &["no files of CIFAR-10", "only CIFAR-100's"],
    );
    refused(of(Cifar::Cifar10, &top.path().join("folders")), &["no files of CIFAR-10"]);
}

#[test]
fn a_root_of_splits_is_no_dataset() {
    let tree = |files: &[&str]| {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            rgb(1, 1).save(path).unwrap();
        }
        folder
    };
    let classes = |roots: &[&str]| -> Vec<String> {
        roots.iter().flat_map(|root| ["cat", "dog"].map(|class| format!("{root}/{class}/1.png"))).collect()
    };
    for (roots, want) in [
        (&["train", "val"][..], "--split val "),
        (&["train", "test", "annotations"], "--split test "),
        (&["1", "2", "3", "4", "5"], "--split 1 "),
        (&["gaussian_noise/1", "gaussian_noise/2", "fog/1", "fog/2"], "--split fog/1 "),
        (&["art_painting", "photo", "sketch"], "--split art_painting "),
        (&["images/train", "images/val"], "--split images "),
    ] {
        let files = classes(roots);
        let folder = tree(&files.iter().map(String::as_str).collect::<Vec<_>>());
        if want.contains("images") {
            // One class with folders is a class.
            assert_eq!(open(folder.path()).unwrap().len(), 4);
            continue;
        }
        refused(open(folder.path()), &["no classes", want]);
        let split = want.split(' ').nth(1).unwrap();
        let chosen =
            Dataset::open(&DataSource { split: Some(split.into()), ..source(folder.path()) }).unwrap();
        assert_eq!(chosen.labels(), ["cat", "dog"]);
        let whole = Dataset::open(&DataSource { split: Some(".".into()), ..source(folder.path()) }).unwrap();
        assert_eq!(whole.len(), files.len());
        let none = DataSource { split: Some("valid".into()), ..source(folder.path()) };
        refused(Dataset::open(&none), &["--split valid: no such folder; there are"]);
    }
    for classes in [
        &["bus/1.png", "car/1.png", "train/1.png"][..],
        &["fog/1.png", "frost/1.png", "snow/1.png"],
        &["1/1.png", "2/1.png", "3/1.png"],
        &["n01440764/images/1.png", "n01443537/images/1.png"],
        &["dog/day/1.png", "dog/night/1.png", "cat/day/1.png", "cat/indoors/1.png"],
        &["dog/day/1.png", "dog/night/1.png", "cat/day/1.png", "cat/night/1.png", "cat/1.png"],
    ] {
        assert_eq!(open(tree(classes).path()).unwrap().len(), classes.len(), "{classes:?}");
    }
}

#[test]
fn what_is_not_read_is_called_what_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let tar = [&[0; 257][..], b"ustar\0", &[0; 249]].concat();
    // Of formats that are read, whole or not, the format's own error; and what a class folder or another's name has of it.
    let class = "class has no images";
    let files: [(&str, &[u8], &str, &str, &str); 8] = [
        ("test.npy", b"\x93NUMPY\x01\x00", "not a whole .npy file", class, "NumPy array"),
        (
            "test-00000-of-00001.parquet",
            b"PAR1\x15",
            "not a whole Parquet file",
            "not a whole Parquet file",
            "Parquet table",
        ),
        ("data.zip", b"PK\x03\x04", "not a whole ZIP archive", class, "ZIP archive"),
        ("shard.tar", &tar, "not a whole tar file", "not a whole tar file", "tar archive"),
        ("table.arrow", b"ARROW1", "Arrow table", class, "Arrow table"),
        ("photo.jpg", b"\xff\xd8\xff\xe0", "one image", class, "one image"),
        ("cifar.tar.gz", b"<html>", "web page", class, "web page"),
        ("cifar.tar.gz", b"plain", "no .tar.gz", class, ""),
    ];
    for (name, bytes, alone, in_class, kind) in files {
        let path = folder.path().join(name);
        fs::write(&path, bytes).unwrap();
        refused(open(&path), &[name, alone]);
        let class = folder.path().join("class");
        fs::create_dir(&class).unwrap();
        fs::rename(&path, class.join(name.replace("jpg", "dat"))).unwrap();
        refused(open(folder.path()), &[in_class]);
        if in_class.starts_with("class") {
            refused(open(folder.path()), &[kind]);
        }
        fs::remove_dir_all(class).unwrap();
        fs::write(folder.path().join("other.dat"), bytes).unwrap();
        if !kind.is_empty() {
            refused(open(folder.path()), &["other.dat is", kind]);
        }
        fs::remove_file(folder.path().join("other.dat")).unwrap();
    }
}

#[test]
fn folders_without_images_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    refused(open(folder.path()), &["neither a data set's files", "nor one subfolder"]);
    refused(open(&folder.path().join("none")), &["none", "No such file"]);
    let class = folder.path().join("cat");
    fs::create_dir(&class).unwrap();
    refused(open(folder.path()), &["class folder cat has no images"]);
    fs::write(class.join("a.png"), "a letter").unwrap();
    refused(open(folder.path()).unwrap().get(0), &["reading the image", "a.png"]);
}

#[test]
fn tensors_are_read_and_their_faults_named() {
    let folder = tempfile::tempdir().unwrap();
    let (path, names) = (folder.path().join("set-images.safetensors"), folder.path().join("set-labels.txt"));
    fs::write(&names, "cat\ndog\n").unwrap();
    let write = |shape: &[usize], classes: &[u8]| {
        let pixels: Vec<u8> = (0..shape.iter().product::<usize>()).map(|i| i as u8).collect();
        let tensors = [
            ("noise", TensorView::new(Dtype::U8, shape.to_vec(), &pixels).unwrap()),
            ("labels", TensorView::new(Dtype::U8, vec![classes.len()], classes).unwrap()),
        ];
        safetensors::serialize_to_file(tensors, None, &path).unwrap();
    };
    let of = |tensor: &str| open(Path::new(&format!("{}#{tensor}", path.display())));

    write(&[2, 2, 3, 3], &[1, 0]);
    let set = of("noise").unwrap();
    assert_eq!(set.labels(), ["cat", "dog"]);
    let sample = set.get(1).unwrap();
    assert_eq!((sample.image.width, sample.image.height, sample.label), (3, 2, 0));
    assert_eq!(sample.image.pixels, (18..36).collect::<Vec<u8>>());
    refused(of("blur"), &["set-images.safetensors", "tensor blur"]);

    write(&[2, 2, 3, 3], &[1, 2]);
    refused(of("noise"), &["image 1 has label 2", "2 classes"]);
    write(&[2, 2, 3, 3], &[1]);
    refused(of("noise"), &["labels has shape [1] for 2 images"]);
    write(&[2, 3, 2, 2], &[1, 0]);
    refused(of("noise"), &["(N, H, W, 3) is expected"]);
    write(&[0, 2, 3, 3], &[]);
    refused(of("noise"), &["no pixels"]);
    fs::write(&path, "cut").unwrap();
    refused(of("noise"), &["set-images.safetensors", "not a whole safetensors file"]);
}
