//! Versions and targets: what a form needs, what a module has, what a device runs.

/// PTX ISA version, major and minor.
pub type Version = (u32, u32);

/// A target architecture: `sm_90`, `sm_90a` (that one alone), `sm_100f` (its family).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Ten times the major version plus the minor one.
    number: u32,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Plain,
    Family,
    Alone,
}

/// All targets, by the PTX ISA version that brought them.
const TARGETS: [(Version, &str); 23] = [
    ((1, 0), "10 11"),
    ((1, 2), "12 13"),
    ((2, 0), "20"),
    ((2, 3), "21"),
    ((3, 0), "30"),
    ((3, 1), "35"),
    ((4, 0), "32 50"),
    ((4, 1), "37 52"),
    ((4, 2), "53"),
    ((5, 0), "60 61 62"),
    ((6, 0), "70"),
    ((6, 1), "72"),
    ((6, 3), "75"),
    ((7, 0), "80"),
    ((7, 1), "86"),
    ((7, 4), "87"),
    ((7, 8), "89 90"),
    ((8, 0), "90a"),
    ((8, 6), "100 100a 101 101a"),
    ((8, 7), "120 120a"),
    ((8, 8), "100f 101f 103 103a 103f 120f 121 121a 121f"),
    ((9, 0), "88 110 110a 110f"),
    ((9, 4), "107 107a 107f"),
];

impl Target {
    /// The target that is written so, `sm_90a` or `compute_90a`, and the version that brought it.
    pub fn from_name(name: &str) -> Option<(Target, Version)> {
        let name = name.strip_prefix("sm_").or_else(|| name.strip_prefix("compute_"))?;
        let (version, _) = TARGETS.iter().find(|(_, all)| all.split(' ').any(|known| known == name))?;
        Some((Target::new(name)?, *version))
    }

    /// From the digits and the letter.
    fn new(name: &str) -> Option<Target> {
        let digits = name.trim_end_matches(['a', 'f']);
        let kind = match &name[digits.len()..] {
            "" => Kind::Plain,
            "f" => Kind::Family,
            _ => Kind::Alone,
        };
        Some(Target { number: digits.parse().ok()?, kind })
    }

    /// Whether a module for this target runs on a device of compute capability `major.minor`, as PTX ISA 11.1.2 has
    /// it.
    pub fn runs_on(self, (major, minor): (i32, i32)) -> bool {
        let device = (10 * major + minor) as u32;
        match self.kind {
            Kind::Plain => self.number <= device,
            Kind::Family => self.number <= device && self.number / 10 == device / 10,
            Kind::Alone => self.number == device,
        }
    }

    /// Whether a module for this target has what `needed` has.
    fn has(self, needed: Target) -> bool {
        match needed.kind {
            Kind::Plain => self.number >= needed.number,
            Kind::Family => {
                self.kind != Kind::Plain
                    && self.number >= needed.number
                    && self.number / 10 == needed.number / 10
            }
            Kind::Alone => self == needed,
        }
    }
}

/// What a form needs of the module that has it.
#[derive(Clone, Debug)]
pub struct Needs {
    version: Version,
    targets: &'static str,
}

impl Needs {
    /// From `8.0` and, where it needs one, a target, or several of which it needs one: `8.0 sm_90a,sm_100f`.
    pub fn from_text(text: &'static str) -> Needs {
        let (version, targets) = text.split_once(' ').unwrap_or((text, ""));
        let (major, minor) = version.split_once('.').expect("a version");
        let number = |text: &str| text.parse().expect("a number");
        Needs { version: (number(major), number(minor)), targets }
    }

    /// # Errors
    /// What the module does not have.
    pub fn check(&self, version: Version, target: Target) -> Result<(), String> {
        let (major, minor) = self.version;
        if version < self.version {
            return Err(format!(
                "needs .version {major}.{minor} or later; this module's is {}.{}",
                version.0, version.1
            ));
        }
        let mut targets = self.targets.split(',').filter_map(|name| Target::new(name.strip_prefix("sm_")?));
        if self.targets.is_empty() || targets.any(|needed| target.has(needed)) {
            return Ok(());
        }
        let or_later = if self.targets.ends_with(|c: char| c.is_ascii_digit()) { " or later" } else { "" };
        Err(format!("needs .target {}{or_later}", self.targets.replace(',', " or ")))
    }
}
