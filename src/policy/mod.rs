//! View policies: what may happen to an image, and how much, under a name with parameters.

mod augmix;
mod crops;
mod randaugment;
mod step;

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use anyhow::{Error, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};

pub use augmix::{AugMix, Before};
pub use crops::{Crop, Crops};
pub use randaugment::RandAugment;
pub use step::{Operation, Step};

/// How views are drawn: a family of transforms, and the ranges of what it draws.
///
/// Written `NAME[:key=value,...]`, such as `mild:rotation=10,scale=0.5..1`; that is also how it is
/// printed and serialised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Policy {
    name: String,
    pub family: Family,
}

/// What happens to an image on the way to a view, a file each.
#[derive(Clone, Debug, PartialEq)]
pub enum Family {
    /// Nothing: each view is the original, as it is predicted.
    Original,
    Crops(Crops),
    AugMix(AugMix),
    RandAugment(RandAugment),
}

/// A key of the written form with its value and the range that it may be set in.
type Setting<'a> = (&'static str, Value<'a>, RangeInclusive<f32>);

impl Family {
    fn settings(&mut self) -> Vec<Setting<'_>> {
        match self {
            Family::Original => Vec::new(),
            Family::Crops(crops) => crops.settings(),
            Family::AugMix(augmix) => augmix.settings(),
            Family::RandAugment(randaugment) => randaugment.settings(),
        }
    }
}

impl Policy {
    /// Every name, with what it stands for.
    fn all() -> [(&'static str, Family); 7] {
        [
            ("notebook", Family::Crops(Crops::notebook())),
            ("mild", Family::Crops(Crops::mild())),
            ("tpt", Family::Crops(Crops::tpt())),
            ("augmix", Family::AugMix(AugMix::imagenet())),
            ("augmix-cifar", Family::AugMix(AugMix::cifar())),
            ("randaugment", Family::RandAugment(RandAugment::default())),
            ("none", Family::Original),
        ]
    }

    /// See [`Crops::notebook`].
    pub fn notebook() -> Policy {
        Policy { name: "notebook".to_string(), family: Family::Crops(Crops::notebook()) }
    }

    /// See [`Crops::mild`].
    pub fn mild() -> Policy {
        Policy { name: "mild".to_string(), family: Family::Crops(Crops::mild()) }
    }

    fn named(name: &str) -> Result<Policy> {
        let all = Policy::all();
        let names = all.each_ref().map(|(name, _)| *name).join(", ");
        all.into_iter()
            .find(|(known, _)| *known == name)
            .map(|(name, family)| Policy { name: name.to_string(), family })
            .ok_or_else(|| anyhow!("policy `{name}`: no such name; there are {names}"))
    }

    fn set(&mut self, setting: &str) -> Result<()> {
        let (key, text) =
            setting.split_once('=').ok_or_else(|| anyhow!("`{setting}`: expected key=value"))?;
        let name = &self.name;
        let mut settings = self.family.settings();
        let keys = settings.iter().map(|(key, ..)| *key).collect::<Vec<_>>().join(", ");
        ensure!(!keys.is_empty(), "`{key}`: {name} has no keys");
        let Some((_, value, legal)) = settings.iter_mut().find(|(name, ..)| *name == key) else {
            bail!("`{key}`: no such key; the keys are {keys}");
        };
        let (low, high) = (*legal.start(), *legal.end());
        let number = |text: &str| text.parse().ok().filter(|number| legal.contains(number));
        match value {
            Value::One(one) => {
                **one = number(text)
                    .ok_or_else(|| anyhow!("{key}={text}: expected a number from {low} to {high}"))?;
            }
            Value::Count(count) => {
                **count =
                    text.parse().ok().filter(|&count: &u32| legal.contains(&(count as f32))).ok_or_else(
                        || anyhow!("{key}={text}: expected a whole number from {low} to {high}"),
                    )?;
            }
            Value::Range(range) => {
                **range = text
                    .split_once("..")
                    .and_then(|(low, high)| Some((number(low)?, number(high)?)))
                    .filter(|(low, high)| low <= high)
                    .ok_or_else(|| {
                        anyhow!("{key}={text}: expected LOW..HIGH, two numbers from {low} to {high}")
                    })?;
            }
        }
        Ok(())
    }
}

/// A parameter of a policy: a number, a whole one, or the ends of a range.
enum Value<'a> {
    One(&'a mut f32),
    Count(&'a mut u32),
    Range(&'a mut (f32, f32)),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::One(one) => write!(f, "{one}"),
            Value::Count(count) => write!(f, "{count}"),
            Value::Range(range) => write!(f, "{}..{}", range.0, range.1),
        }
    }
}

impl Default for Policy {
    fn default() -> Policy {
        Policy::notebook()
    }
}

impl FromStr for Policy {
    type Err = Error;

    fn from_str(text: &str) -> Result<Policy> {
        let (name, settings) = match text.split_once(':') {
            Some((name, settings)) => (name, Some(settings)),
            None => (text, None),
        };
        let mut policy = Policy::named(name)?;
        for setting in settings.into_iter().flat_map(|settings| settings.split(',')) {
            policy.set(setting).map_err(|error| anyhow!("policy {error}"))?;
        }
        Ok(policy)
    }
}

impl fmt::Display for Policy {
    /// The name, and the parameters that are not the name's own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.name)?;
        let mut this = self.clone();
        let mut base = Policy::named(&self.name).map_err(|_| fmt::Error)?;
        let changed = this
            .family
            .settings()
            .into_iter()
            .zip(base.family.settings())
            .map(|((key, value, _), (_, own, _))| (key, value.to_string(), own.to_string()))
            .filter(|(_, value, own)| value != own);
        for (position, (key, value, _)) in changed.enumerate() {
            write!(f, "{}{key}={value}", if position == 0 { ':' } else { ',' })?;
        }
        Ok(())
    }
}

impl TryFrom<String> for Policy {
    type Error = Error;

    fn try_from(text: String) -> Result<Policy> {
        text.parse()
    }
}

impl From<Policy> for String {
    fn from(policy: Policy) -> String {
        policy.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_it_prints() -> Result<()> {
        for text in [
            "notebook",
            "mild",
            "mild:rotation=10,scale=0.5..1",
            "tpt",
            "tpt:scale=0.5..1,originals=0",
            "none",
            "augmix:severity=3,fill=0,originals=1",
            "augmix-cifar:padding=2",
            "randaugment:ops=3,magnitude=14,bilinear=1",
            "notebook:hflip=0,vflip=1,brightness=1.5,contrast=0,saturation=0.1,hue=0.5,ratio=1..1",
        ] {
            let policy: Policy = text.parse()?;
            assert_eq!(policy.to_string(), text);
            let json = serde_json::to_string(&policy)?;
            assert_eq!(json, format!("{text:?}"));
            assert_eq!(serde_json::from_str::<Policy>(&json)?, policy);
        }
        assert_eq!("notebook".parse::<Policy>()?, Policy::default());
        assert_eq!("mild:rotation=15".parse::<Policy>()?.to_string(), "mild");
        Ok(())
    }

    #[test]
    fn a_bad_policy_names_key_and_range() {
        for (text, says) in [
            (
                "",
                "policy ``: no such name; there are notebook, mild, tpt, augmix, \
                 augmix-cifar, randaugment, none",
            ),
            (
                "wild",
                "policy `wild`: no such name; there are notebook, mild, tpt, augmix, \
                 augmix-cifar, randaugment, none",
            ),
            ("mild:", "policy ``: expected key=value"),
            ("mild:rotation", "policy `rotation`: expected key=value"),
            (
                "mild:zoom=1",
                "policy `zoom`: no such key; the keys are hflip, vflip, rotation, brightness, contrast, \
                 saturation, hue, scale, ratio, mirror, originals",
            ),
            ("none:hue=0", "policy `hue`: none has no keys"),
            ("tpt:originals=0.5", "policy originals=0.5: expected a whole number from 0 to 100000"),
            ("tpt:originals=-1", "policy originals=-1: expected a whole number from 0 to 100000"),
            (
                "augmix-cifar:scale=1..1",
                "policy `scale`: no such key; the keys are severity, fill, padding, mirror, originals",
            ),
            ("randaugment:ops=10", "policy ops=10: expected a whole number from 1 to 9"),
            ("mild:hue=0.6", "policy hue=0.6: expected a number from 0 to 0.5"),
            ("mild:rotation=NaN", "policy rotation=NaN: expected a number from 0 to 180"),
            ("mild:hflip=-0.1", "policy hflip=-0.1: expected a number from 0 to 1"),
            ("mild:scale=0.5", "policy scale=0.5: expected LOW..HIGH, two numbers from 0.000001 to 1"),
            ("mild:scale=1..0.5", "policy scale=1..0.5: expected LOW..HIGH, two numbers from 0.000001 to 1"),
            ("mild:ratio=0..1", "policy ratio=0..1: expected LOW..HIGH, two numbers from 0.01 to 100"),
        ] {
            assert_eq!(text.parse::<Policy>().unwrap_err().to_string(), says);
        }
    }
}
