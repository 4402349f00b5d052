//! The same images from every format that datasets come in, as the formats' own libraries write them: `make_sources.py` has, and what
//! torchvision reads of its own data sets. And every format's faults.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use memo::check::fixtures;
use memo::data::{Cifar, Classes, DataSource, Dataset};
use sha2::{Digest, Sha256};

fn fixture() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = fs::File::open(fixtures().join("sources.tar.gz")).unwrap();
    tar::Archive::new(flate2::read::GzDecoder::new(file)).unpack(folder.path()).unwrap();
    folder
}

/// `PATH --split NAME --corruptions A,B --severity 1,2 --dataset cifar-10`
fn source(top: &Path, text: &str) -> DataSource {
    let mut words = text.split(' ');
    let mut source = DataSource { path: top.join(words.next().unwrap()), ..DataSource::default() };
    while let (Some(flag), Some(value)) = (words.next(), words.next()) {
        match flag {
            "--split" => source.split = Some(value.to_string()),
            "--corruptions" => source.corruptions = value.split(',').map(str::to_string).collect(),
            "--severity" => source.severities = value.split(',').map(|one| one.parse().unwrap()).collect(),
            "--dataset" => source.cifar = Some(Cifar::Cifar10),
            "--extensions" => source.extensions = vec![value.to_string()],
            other => panic!("{other}"),
        }
    }
    source
}

fn open(top: &Path, text: &str) -> anyhow::Result<Dataset> {
    Dataset::open(&source(top, text))
}

/// Names and pixels of all images.
fn samples(set: &Dataset) -> Vec<(String, Vec<u8>)> {
    let sample = |index: usize| {
        let sample = set.get(index).unwrap();
        assert_eq!(set.digest(index).unwrap(), sample.digest);
        assert_eq!(set.label(index), sample.label);
        (set.labels()[sample.label].clone(), sample.image.pixels)
    };
    (0..set.len()).map(sample).collect()
}

fn refused<T>(result: anyhow::Result<T>, parts: &[&str]) {
    let error = format!("{:#}", result.err().unwrap_or_else(|| panic!("accepted: {parts:?}")));
    assert!(parts.iter().all(|part| error.contains(part)), "{error}: {parts:?}");
}

#[test]
fn every_format_has_the_same_images() {
    let top = fixture();
    let top = top.path();
    let folder = open(top, "folder").unwrap();
    let want = samples(&folder);
    assert_eq!(want.len(), 5);
    for text in [
        "folder.zip",
        "stored.zip",
        "around.zip",
        "splits.zip --split val",
        "arrays --dataset cifar-10",
        "arrays/images.npy --dataset cifar-10",
        "wide --dataset cifar-10",
        "cifar10.npz",
        "cifar10-compressed.npz",
        "cifar10-splits.npz --split test",
        "CIFAR-10.1 --split v6",
        "CIFAR-10.1/cifar10.1_v6_data.npy",
        "webdataset",
        "webdataset --split test",
        "webdataset/test",
        "parquet --split test",
        "parquet/data --split test",
        "plain.parquet",
        "cifar10.csv --dataset cifar-10",
        "named.tsv --split test",
    ] {
        let set = open(top, text).unwrap_or_else(|error| panic!("{text}: {error:#}"));
        assert_eq!(samples(&set), want, "{text}");
        assert!(!set.format().is_empty(), "{text}");
    }
    // Labels that are numbers alone are their own names.
    let numbers = open(top, "arrays").unwrap();
    assert_eq!((numbers.classes(), numbers.labels().len()), (Classes::Unnamed, 10));
    assert_eq!(samples(&numbers)[4].0, "9");
    let grey = open(top, "grey").unwrap();
    assert!(
        grey.get(0).unwrap().image.pixels.chunks(3).zip(want[0].1.chunks(3)).all(|(g, w)| g == [w[0]; 3])
    );
    // An image's digest is its file's, wherever that lies.
    for text in
        ["folder.zip", "webdataset", "parquet --split test", "plain.parquet", "named.tsv --split test"]
    {
        let set = open(top, text).unwrap();
        let same = (0..5).all(|index| set.digest(index).unwrap() == folder.digest(index).unwrap());
        assert!(same, "{text}");
    }
    let names = |text: &str| -> Vec<Option<String>> {
        let set = open(top, text).unwrap();
        (0..set.len()).map(|index| set.file(index)).collect()
    };
    assert_eq!(names("folder.zip"), names("folder"));
    assert_eq!(names("splits.zip --split val"), names("folder"));
    assert_eq!(names("webdataset")[3].as_deref(), Some("1.tar/s0000003.png"));
    let tsv = open(top, "named.tsv --split test").unwrap();
    assert_eq!([0, 1, 2, 3, 4].map(|index| tsv.group(index).unwrap()), ["a", "a", "b", "b", "a"]);
    assert!(tsv.notices()[0].contains("not read: size"), "{:?}", tsv.notices());
}

#[test]
fn images_are_read_in_any_order_by_many_threads() {
    let top = fixture();
    let set = open(top.path(), "plain.parquet").unwrap();
    let want = samples(&set);
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let (set, want) = (&set, &want);
            scope.spawn(move || {
                for step in 0..40usize {
                    let index = (step * 3 + thread) % 5;
                    assert_eq!(set.get(index).unwrap().image.pixels, want[index].1);
                }
            });
        }
    });
}

#[test]
fn torchvisions_data_sets_are_torchvisions() {
    let top = fixture();
    let top = top.path();
    let truth = fs::read_to_string(top.join("torchvision.json")).unwrap();
    let truth: HashMap<String, Vec<(String, String)>> = serde_json::from_str(&truth).unwrap();
    assert_eq!(truth.len(), 10);
    for (text, want) in &truth {
        let set =
            open(top, &format!("torchvision/{text}")).unwrap_or_else(|error| panic!("{text}: {error:#}"));
        let hash = |pixels: &[u8]| {
            Sha256::digest(pixels).iter().map(|byte| format!("{byte:02x}")).collect::<String>()
        };
        let got: Vec<(String, String)> =
            samples(&set).into_iter().map(|(name, pixels)| (name, hash(&pixels))).collect();
        assert_eq!(got, *want, "{text}");
    }
    let clip = |text: &str, at: usize| open(top, text).unwrap().names().unwrap().0[at].clone();
    assert_eq!(clip("torchvision/sat", 9), "lake or sea");
    assert_eq!(clip("torchvision/food", 0), "apple pie");
    for text in
        ["torchvision/stl10/stl10_binary", "torchvision/svhn/test_32x32.mat", "torchvision/dtd/dtd/dtd"]
    {
        assert!(open(top, text).is_ok(), "{text}");
    }
    refused(
        open(top, "torchvision/pets --split val"),
        &["--split val: no such split; there are test, trainval"],
    );
}

#[test]
fn corruptions_are_groups() {
    let top = fixture();
    let top = top.path();
    let all = open(top, "CIFAR-10-C --corruptions all").unwrap();
    assert_eq!((all.len(), all.labels()[9].as_str()), (50, "truck"));
    let groups: Vec<&str> = (0..10).map(|part| all.group(part * 5).unwrap()).collect();
    let want: Vec<String> = ["gaussian_noise", "fog"]
        .iter()
        .flat_map(|one| (1..6).map(move |severity| format!("{one}/{severity}")))
        .collect();
    assert_eq!(groups, want);
    let all = samples(&all);
    for (text, from, count) in [
        ("CIFAR-10-C --corruptions fog --severity 3", 35, 5),
        ("CIFAR-10-C --corruptions fog,gaussian_noise --severity 1,2,3,4,5", 0, 50),
        ("CIFAR-10-C --corruptions gaussian_noise", 0, 25),
        ("CIFAR-10-C/fog.npy --severity 2", 30, 5),
        ("CIFAR-10-C/fog.npy", 25, 25),
    ] {
        assert_eq!(samples(&open(top, text).unwrap()), all[from..from + count], "{text}");
    }
    let severe = open(top, "CIFAR-10-C --severity 5").unwrap();
    assert_eq!(
        [0, 4, 5, 9].map(|at| severe.group(at).unwrap()),
        ["gaussian_noise/5", "gaussian_noise/5", "fog/5", "fog/5"]
    );
    refused(open(top, "CIFAR-10-C"), &["2 corruptions: fog, gaussian_noise; say --corruptions fog"]);
    refused(
        open(top, "CIFAR-10-C --corruptions snow"),
        &["--corruptions snow: there is none; there are fog"],
    );
    refused(open(top, "folder --severity 3"), &["--severity: what is there has no corruptions"]);

    // ImageNet-C's tree, of the same pictures.
    let tree = top.join("ImageNet-C");
    for (at, place) in
        ["noise/gaussian_noise/1", "noise/gaussian_noise/2", "fog/1", "fog/2"].iter().enumerate()
    {
        for (class, file) in [("n01440764", "cat/1.png"), ("n01443537", "cat/2.png")] {
            fs::create_dir_all(tree.join(place).join(class)).unwrap();
            fs::copy(top.join("folder").join(file), tree.join(place).join(class).join(format!("{at}.png")))
                .unwrap();
        }
    }
    let mut set = open(top, "ImageNet-C --corruptions all --severity 1,2").unwrap();
    let groups = |set: &Dataset| -> Vec<String> {
        (0..set.len()).map(|at| set.group(at).unwrap().to_string()).collect()
    };
    let want = ["gaussian_noise/1", "gaussian_noise/2", "fog/1", "fog/2"].map(|group| [group; 2]).concat();
    assert_eq!(groups(&set), want);
    assert_eq!(set.file(2).unwrap(), "noise/gaussian_noise/2/n01440764/1.png");
    assert_eq!(open(top, "ImageNet-C/fog --severity 2").unwrap().group(1), Some("fog/2"));
    // A file that is gone keeps its place, in its group.
    set.restore(4, "fog/1/n01440764/0.png", 0);
    assert_eq!(
        (groups(&set)[3].as_str(), groups(&set)[4].as_str(), groups(&set)[6].as_str()),
        ("gaussian_noise/2", "fog/1", "fog/1")
    );
    refused(open(top, "ImageNet-C --corruptions fog"), &["fog/3", "No such file"]);
    refused(open(top, "ImageNet-C"), &["are corruptions", "--corruptions all"]);
    fs::rename(tree.join("fog/2/n01440764"), tree.join("fog/2/n01484850")).unwrap();
    refused(
        open(top, "ImageNet-C --severity 1,2"),
        &["fog/2", "classes are not those of", "gaussian_noise/1"],
    );
}

#[test]
fn imagenets_kin_have_its_names() {
    let top = tempfile::tempdir().unwrap();
    let folder = top.path().join("imagenetv2-matched-frequency-format-val");
    for class in 0..1000 {
        fs::create_dir_all(folder.join(class.to_string())).unwrap();
        fs::write(folder.join(class.to_string()).join("a.jpeg"), "").unwrap();
    }
    let set = open(top.path(), "imagenetv2-matched-frequency-format-val").unwrap();
    // By number, not in the order of the folders, whose third is 10.
    assert_eq!((set.labels()[2].as_str(), set.names().unwrap().0[2].as_str()), ("10", "brambling"));
    fs::remove_dir_all(folder.join("999")).unwrap();
    assert!(open(top.path(), "imagenetv2-matched-frequency-format-val").unwrap().names().is_none());
}

#[test]
fn what_is_asked_for_is_obeyed_or_refused() {
    let top = fixture();
    let top = top.path();
    for (text, want) in [
        ("webdataset --split val", "--split val: no such split; there are test"),
        ("parquet", "it has the splits test, train; say --split test"),
        ("splits.zip", "it has the splits train, val; say --split val"),
        ("CIFAR-10.1", "it has the splits v4, v6; say --split v4"),
        ("cifar10-splits.npz", "it has the splits train, test; say --split test"),
        ("arrays --split test", "--split test: no such folder, and what is there has no splits"),
        ("plain.parquet --split train", "--split train: no such folder, and what is there has no splits"),
        ("webdataset --dataset cifar-10", "no files of CIFAR-10 are there"),
        ("webdataset --extensions gif", "--extensions gif: what is there are no folders"),
        (
            "parquet --corruptions fog --split test",
            "--corruptions, --severity: what is there has no corruptions",
        ),
    ] {
        refused(open(top, text), &[want]);
    }
}

/// A path below the fixture, how its contents are changed, and what the error names.
type Fault = (&'static str, fn(&Path, &Path), &'static [&'static str]);

#[test]
fn faults_are_named() {
    fn cut(path: &Path) {
        let whole = fs::read(path).unwrap();
        fs::write(path, &whole[..whole.len() - 5]).unwrap();
    }
    fn shard(path: &Path, members: &[(&str, &[u8])]) {
        let mut tar = tar::Builder::new(fs::File::create(path).unwrap());
        for (name, bytes) in members {
            let mut header = tar::Header::new_ustar();
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, name, *bytes).unwrap();
        }
        tar.finish().unwrap();
    }
    fn zip(path: &Path, folders: &[&str]) {
        let mut archive = rawzip::ZipArchiveWriter::new(fs::File::create(path).unwrap());
        for folder in folders {
            let (mut entry, config) = archive.new_file(&*format!("{folder}/1.png")).start().unwrap();
            let (_, end) = config.wrap(&mut entry).finish().unwrap();
            entry.finish(end).unwrap();
        }
        archive.finish().unwrap();
    }
    let cases: &[Fault] = &[
        ("fortran", |_, _| {}, &["fortran/images.npy", "Fortran order"]),
        ("float", |_, _| {}, &["float/images.npy", "dtype is <f8; images are uint8"]),
        ("planes", |_, _| {}, &["planes/images.npy", "channels first"]),
        ("few", |_, _| {}, &["few/labels.npy", "3 labels for 5 images"]),
        ("arrays", |_, path| cut(&path.join("images.npy")), &["arrays/images.npy", "bytes of data"]),
        ("arrays", |_, path| cut(&path.join("labels.npy")), &["arrays/labels.npy", "asks for 5"]),
        (
            "arrays/images.npy",
            |top, _| fs::remove_file(top.join("arrays/labels.npy")).unwrap(),
            &["no labels beside it", "labels.npy, images_labels.npy, images-labels.npy"],
        ),
        (
            "arrays",
            |_, path| {
                fs::copy(path.join("labels.npy"), path.join("images_labels.npy")).unwrap();
            },
            &["both", "may be its labels"],
        ),
        (
            "arrays",
            |top, path| {
                fs::copy(top.join("cifar10.csv"), path.join("labels.npy")).unwrap();
            },
            &["arrays/labels.npy", "not a whole .npy"],
        ),
        (
            "CIFAR-10-C --corruptions all",
            |_, path| {
                fs::copy(path.join("../arrays/images.npy"), path.join("fog.npy")).unwrap();
            },
            &["fog.npy", "5 images, and labels.npy has 25"],
        ),
        (
            "CIFAR-10-C --corruptions all",
            |_, path| {
                let file = path.join("labels.npy");
                let mut labels = fs::read(&file).unwrap();
                *labels.last_mut().unwrap() ^= 1;
                fs::write(&file, labels).unwrap();
            },
            &["CIFAR-10-C/labels.npy", "25 labels are not the same 5 for each of 5 severities"],
        ),
        (
            "cifar10.csv",
            |_, path| {
                let text = fs::read_to_string(path).unwrap();
                fs::write(path, text.replace(",3\n", ",3.0\n")).unwrap();
            },
            &["cifar10.csv", "row 3 has the label 3.0; a class's number is whole, such as 3"],
        ),
        (
            "severities.zip",
            |_, path| zip(path, &["1/cat", "1/dog", "2/cat", "2/dog"]),
            &["its folders 1, 2 are severities"],
        ),
        (
            "domains.zip",
            |_, path| zip(path, &["art/cat", "art/dog", "photo/cat", "photo/dog"]),
            &["art, photo are splits or domains"],
        ),
        ("cifar10.npz", |_, path| cut(path), &["cifar10.npz", "not a whole ZIP"]),
        ("bzip2.zip", |_, _| {}, &["bzip2.zip", "compressed by method 12"]),
        ("folder.zip", |_, path| fs::write(path, b"PK\x03\x04").unwrap(), &["folder.zip", "not a whole ZIP"]),
        (
            "webdataset",
            |_, path| fs::remove_file(path.join("test/0.tar")).unwrap(),
            &["nshards.txt says 2 shards, and there are 1"],
        ),
        (
            "webdataset",
            |_, path| fs::write(path.join("test/nshards.txt"), "two").unwrap(),
            &["nshards.txt", "\"two\" is no number"],
        ),
        (
            "webdataset",
            |_, path| fs::write(path.join("classnames.txt"), "cat\ndog\n").unwrap(),
            &["classnames.txt", "image 1 has label 3; there are 2 classes"],
        ),
        (
            "webdataset",
            |_, path| shard(&path.join("test/1.tar"), &[("a.png", b"x")]),
            &["1.tar", "its sample a has no label (a.cls)"],
        ),
        (
            "webdataset",
            |_, path| shard(&path.join("test/1.tar"), &[("a.cls", b"1"), ("b.png", b"x"), ("b.cls", b"1")]),
            &["its sample a has no image"],
        ),
        (
            "webdataset",
            |_, path| shard(&path.join("test/1.tar"), &[("a.png", b"x"), ("a.cls", b"cat")]),
            &["a.cls is \"cat\", not a class's number"],
        ),
        (
            "webdataset",
            |_, path| shard(&path.join("test/1.tar"), &[("a.png", b"x"), ("a.jpg", b"x"), ("a.cls", b"1")]),
            &["a has two images, the second a.jpg"],
        ),
        (
            "webdataset",
            |_, path| shard(&path.join("test/1.tar"), &[("s0000000.png", b"x"), ("s0000000.cls", b"1")]),
            &["1.tar", "its sample s0000000 is there twice"],
        ),
        (
            "webdataset",
            |_, path| shard(&path.join("test/1.tar"), &[("a.png", b"x"), ("a.cls", b"-1")]),
            &["image 3 has label -1"],
        ),
        (
            "webdataset/test/1.tar",
            |_, path| {
                let whole = fs::read(path).unwrap();
                fs::write(path, &whole[..700]).unwrap()
            },
            &["1.tar", "it is cut, or was never closed"],
        ),
        (
            "imageless.parquet",
            |_, _| {},
            &["imageless.parquet", "no column of images; its columns are label, size"],
        ),
        (
            "labelless.parquet",
            |_, _| {},
            &["labelless.parquet", "its column label, row group 0: 1 rows have no label"],
        ),
        (
            "zstd.parquet",
            |_, _| {},
            &["zstd.parquet", "its column image (row group 0) is compressed by ZSTD"],
        ),
        ("gzip.parquet", |_, _| {}, &["gzip.parquet", "is compressed by GZIP"]),
        ("plain.parquet", |_, path| cut(path), &["plain.parquet", "not a whole Parquet file"]),
        (
            "parquet --split test",
            |_, path| fs::remove_file(path.join("data/test-00001-of-00002.parquet")).unwrap(),
            &["of 2 tables of test, number 1 is missing"],
        ),
        (
            "cifar10.csv",
            |_, path| fs::write(path, "a,b\n1,2\n").unwrap(),
            &["cifar10.csv", "no column of images' paths, such as `path`; its first row is a, b"],
        ),
        (
            "cifar10.csv",
            |_, path| fs::write(path, "path,file,label\na,b,1\n").unwrap(),
            &["its columns path and file may both be meant"],
        ),
        (
            "cifar10.csv",
            |_, path| fs::write(path, "path,label\na,1\na,2\n").unwrap(),
            &["its image a is there twice, in rows 2 and 3"],
        ),
        ("cifar10.csv", |_, path| fs::write(path, "path,label\na,\n").unwrap(), &["row 2 has no label"]),
        (
            "cifar10.csv",
            |_, path| fs::write(path, "path,label\na,1,2\n").unwrap(),
            &["cifar10.csv", "3 fields"],
        ),
        ("cifar10.csv", |_, path| fs::write(path, "path,label\n").unwrap(), &["no rows below its header"]),
        (
            "torchvision/stl10",
            |_, path| cut(&path.join("stl10_binary/test_X.bin")),
            &["test_X.bin", "5 images have 138240"],
        ),
        (
            "torchvision/stl10",
            |_, path| fs::write(path.join("stl10_binary/test_y.bin"), [0; 5]).unwrap(),
            &["test_y.bin", "image 0 has label -1"],
        ),
        ("torchvision/svhn", |_, path| cut(&path.join("test_32x32.mat")), &["test_32x32.mat"]),
        (
            "torchvision/svhn --split train",
            |_, path| cut(&path.join("train_32x32.mat")),
            &["train_32x32.mat", "it is cut"],
        ),
        (
            "torchvision/svhn",
            |_, path| fs::write(path.join("test_32x32.mat"), b"\x89HDF\r\n").unwrap(),
            &["level 7.3 is HDF5"],
        ),
        (
            "torchvision/pets",
            |_, path| fs::write(path.join("oxford-iiit-pet/annotations/test.txt"), "Pug_1 1 1\n").unwrap(),
            &["test.txt: line 1", "four words"],
        ),
        (
            "torchvision/dtd",
            |_, path| fs::write(path.join("dtd/dtd/labels/test1.txt"), "plain/1.jpg\n").unwrap(),
            &["test1.txt: line 1, plain/1.jpg, is in no folder"],
        ),
        (
            "torchvision/food",
            |_, path| fs::remove_file(path.join("food-101/meta/test.txt")).unwrap(),
            &["meta/test.txt", "No such file"],
        ),
    ];
    for (text, change, parts) in cases {
        let top = fixture();
        let path = top.path().join(text.split(' ').next().unwrap());
        change(top.path(), &path);
        refused(open(top.path(), text), parts);
    }
    // An image that cannot be read is one image.
    let top = fixture();
    fs::remove_file(top.path().join("folder/cat/1.png")).unwrap();
    let set = open(top.path(), "cifar10.csv").unwrap();
    refused(set.get(1), &["reading the image", "cat/1.png", "No such file"]);
    assert!(set.get(0).is_ok());
}

#[test]
fn classes_are_those_of_all_splits() {
    let top = fixture();
    let top = top.path();
    let rows = "path,label,split\na,ant,test\nb,bee,train\nc,cat,test\n";
    fs::write(top.join("few.csv"), rows).unwrap();
    let set = open(top, "few.csv --split test").unwrap();
    assert_eq!((set.labels(), set.len(), set.label(1)), (&["ant", "bee", "cat"].map(String::from)[..], 2, 2));
    fs::write(top.join("few.csv"), rows.replace("ant", "0").replace("bee", "7").replace("cat", "3")).unwrap();
    assert_eq!(open(top, "few.csv --split test").unwrap().labels().len(), 8);
    // Rows without a label are nothing to the others.
    fs::write(top.join("few.csv"), "path,label,split\na,2,val\nb,-1,test\n").unwrap();
    assert_eq!(open(top, "few.csv --split val").unwrap().labels().len(), 3);
    refused(open(top, "few.csv --split test"), &["label -1"]);
    // The hub's own names of a split's parts.
    let parts = top.join("parquet/data");
    fs::create_dir(top.join("parts")).unwrap();
    for part in 0..2 {
        let from = parts.join(format!("test-{part:05}-of-00002.parquet"));
        fs::copy(from, top.join(format!("parts/{part:04}.parquet"))).unwrap();
    }
    assert_eq!(samples(&open(top, "parts").unwrap()), samples(&open(top, "parquet --split test").unwrap()));
}

/// Whatever is changed in a file: the same images, fewer, others where pixels lie bare, or an error; never a panic.
#[test]
fn damage_never_panics() {
    let top = fixture();
    let top = top.path();
    for (text, file) in [
        ("arrays", "arrays/images.npy"),
        ("arrays", "arrays/labels.npy"),
        ("cifar10-compressed.npz", "cifar10-compressed.npz"),
        ("folder.zip", "folder.zip"),
        ("webdataset", "webdataset/test/1.tar"),
        ("plain.parquet", "plain.parquet"),
        ("parquet --split test", "parquet/data/test-00000-of-00002.parquet"),
        ("named.tsv --split test", "named.tsv"),
        ("torchvision/svhn", "torchvision/svhn/test_32x32.mat"),
    ] {
        let path: PathBuf = top.join(file);
        let whole = fs::read(&path).unwrap();
        let want = samples(&open(top, text).unwrap());
        let images = |top: &Path| -> anyhow::Result<Vec<Vec<u8>>> {
            let set = open(top, text)?;
            (0..set.len()).map(|index| Ok(set.get(index)?.image.pixels)).collect()
        };
        for at in (0..whole.len()).step_by(1 + whole.len() / 40) {
            fs::write(&path, &whole[..at]).unwrap();
            if let Ok(images) = images(top) {
                let same = images.iter().zip(&want).all(|(got, (_, want))| got == want);
                assert!(same, "{text} cut at {at}");
            }
            let mut damaged = whole.clone();
            damaged[at] ^= 1 << (at % 8);
            fs::write(&path, damaged).unwrap();
            let _ = images(top);
        }
        // Headers and footers say what the rest is.
        for at in (0..whole.len().min(80)).chain(whole.len().saturating_sub(80)..whole.len()) {
            let mut damaged = whole.clone();
            damaged[at] = !damaged[at];
            fs::write(&path, damaged).unwrap();
            let _ = images(top);
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn memo_data_says_what_there_is() {
    let top = fixture();
    let memo = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_memo"))
            .arg("data")
            .args(arguments)
            .current_dir(top.path())
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = memo(&["webdataset", "--sheet", "sheet.png"]);
    assert_eq!(code, Some(0), "{err}");
    for part in [
        "WebDataset's tar files",
        "images     5\n",
        "classes    10, of 0 to 2 images",
        "airplane, automobile",
        "32 by 32 pixels, of the first 5",
        "zeroshot_classification_templates.txt",
    ] {
        assert!(out.contains(part), "{out}");
    }
    assert_eq!(memo::data::read_image(&top.path().join("sheet.png")).unwrap().width, 3 * 100 + 4);
    // Of several splits, each; of corruptions, all.
    let (_, out, _) = memo(&["parquet", "--json"]);
    let lines: Vec<serde_json::Value> = out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((lines.len(), &lines[0]["part"], &lines[0]["images"]), (2, &"--split test".into(), &5.into()));
    let (_, out, _) = memo(&["CIFAR-10-C"]);
    assert!(
        out.contains("CIFAR-10-C --corruptions all") && out.contains("groups     10: gaussian_noise/1"),
        "{out}"
    );
    let (code, _, err) = memo(&["fortran"]);
    assert!(code == Some(1) && err.contains("error: ") && err.contains("Fortran"), "{err}");
    assert_eq!(memo(&["folder", "--severity", "6"]).0, Some(2));
    assert_eq!(memo(&["folder", "--sheet", "sheet.jpg"]).0, Some(2));
}
