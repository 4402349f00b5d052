//! CIFAR-10-C's arrays and ImageNet-C's tree.

use std::fs;

use memo::data::Dataset;

use super::{fixture, open, refused, samples};

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
