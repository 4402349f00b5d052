//! Versions of CUDA: what a driver of one loads, and which of NVRTC's wheels fits it.

use std::fmt;

/// Major and minor, such as 12.4.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CudaVersion {
    pub major: u32,
    pub minor: u32,
}

impl CudaVersion {
    /// The NVRTC that most of the testing is done with: where no GPU says which one fits, it is as good as any.
    pub const TESTED: CudaVersion = CudaVersion { major: 13, minor: 0 };

    /// As the driver and the headers number it: 12040.
    pub fn from_number(number: i32) -> CudaVersion {
        let number = number.max(0) as u32;
        CudaVersion { major: number / 1000, minor: number % 1000 / 10 }
    }

    /// The newest PTX that its tools write and its driver reads: each toolkit since 11.0 brought the next one, but for 12.6.
    pub fn ptx(self) -> CudaVersion {
        let minor = if self.major == 12 && self.minor >= 6 { self.minor - 1 } else { self.minor };
        CudaVersion { major: self.major.saturating_sub(4), minor }
    }

    /// What pip calls the newest NVRTC whose cubins and PTX both load on a driver of this version. Not every driver's version has a
    /// toolkit: there is no 12.7.
    pub fn wheel(self) -> String {
        let suffix = if self.major < 13 { format!("-cu{}", self.major) } else { String::new() };
        format!("nvidia-cuda-nvrtc{suffix}<{}.{}", self.major, self.minor + 1)
    }
}

impl fmt::Display for CudaVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// PTX that says it is of a version which a driver of CUDA `driver` knows. What is newer than that in it the driver's own compiler
/// still refuses by name: the line is what it checks each instruction against, and changes the meaning of none.
pub(super) fn lowered(ptx: &[u8], driver: CudaVersion) -> Vec<u8> {
    const DIRECTIVE: &str = ".version ";
    let text = String::from_utf8_lossy(ptx);
    let newest = driver.ptx();
    let lower = |line: &str| -> Option<String> {
        let (major, minor) = line.strip_prefix(DIRECTIVE)?.trim().split_once('.')?;
        let version = CudaVersion { major: major.parse().ok()?, minor: minor.parse().ok()? };
        (version > newest).then(|| format!("{DIRECTIVE}{newest}"))
    };
    let line = text.lines().find(|line| line.starts_with(DIRECTIVE));
    match line.and_then(|line| Some((line, lower(line)?))) {
        Some((line, lower)) => text.replacen(line, &lower, 1).into_bytes(),
        None => ptx.to_vec(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(major: u32, minor: u32) -> CudaVersion {
        CudaVersion { major, minor }
    }

    #[test]
    fn a_version_has_its_ptx_and_its_wheel() {
        for (number, ptx, wheel) in [
            (12_040, "8.4", "nvidia-cuda-nvrtc-cu12<12.5"),
            (12_070, "8.6", "nvidia-cuda-nvrtc-cu12<12.8"),
            (12_090, "8.8", "nvidia-cuda-nvrtc-cu12<12.10"),
            (13_000, "9.0", "nvidia-cuda-nvrtc<13.1"),
            (13_040, "9.4", "nvidia-cuda-nvrtc<13.5"),
        ] {
            let version = CudaVersion::from_number(number);
            assert_eq!((version.ptx().to_string(), version.wheel()), (ptx.to_string(), wheel.to_string()));
        }
        assert_eq!(CudaVersion::from_number(12_050).ptx(), version(8, 5));
        assert_eq!(CudaVersion::from_number(12_060).ptx(), version(8, 5));
    }

    #[test]
    fn only_ptx_that_is_too_new_is_lowered() {
        let ptx =
            |version: &str| format!("// .version 9.9 in a comment\n.version {version}\n.target sm_90a\n");
        let at = |driver, version: &str| String::from_utf8(lowered(ptx(version).as_bytes(), driver)).unwrap();
        assert_eq!(at(version(12, 4), "9.0"), ptx("8.4"));
        assert_eq!(at(version(12, 4), "8.4"), ptx("8.4"));
        assert_eq!(at(version(13, 0), "8.4"), ptx("8.4"));
        assert_eq!(at(version(13, 4), "9.10"), ptx("9.4"));
        assert_eq!(lowered(b"not PTX", version(12, 4)), b"not PTX");
    }
}
