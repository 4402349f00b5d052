//! View policies: what may happen to an image, and how much, under a name with parameters.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use anyhow::{Error, Result, anyhow, bail};
use serde::{Deserialize, Serialize};

/// The ranges that a view's parameters are drawn from.
///
/// Written `NAME[:key=value,...]`, such as `mild:rotation=10,scale=0.5..1`; that is also how it is
/// printed and serialised.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Policy {
    base: Base,
    /// Probability of a horizontal flip.
    pub hflip: f32,
    /// Probability of a vertical flip.
    pub vflip: f32,
    /// Degrees: the angle is uniform in ± this.
    pub rotation: f32,
    /// The factor is uniform in `[max(0, 1 − brightness), 1 + brightness]`; 0 leaves the step out.
    pub brightness: f32,
    /// As brightness.
    pub contrast: f32,
    /// As brightness.
    pub saturation: f32,
    /// Turns of the colour wheel: the shift is uniform in ± this; 0 leaves the step out.
    pub hue: f32,
    /// The crop's share of the image's area, uniform.
    pub scale: (f32, f32),
    /// The crop's width over height, log-uniform.
    pub ratio: (f32, f32),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Base {
    Notebook,
    Mild,
}

impl Base {
    const ALL: [(&str, Base); 2] = [("notebook", Base::Notebook), ("mild", Base::Mild)];

    fn name(self) -> &'static str {
        Base::ALL.iter().find(|(_, base)| *base == self).map_or("", |(name, _)| name)
    }

    fn policy(self) -> Policy {
        match self {
            Base::Notebook => Policy::notebook(),
            Base::Mild => Policy::mild(),
        }
    }
}

impl Policy {
    /// The MEMO notebook's: both flips, ±30°, all four jitters at 0.2, torchvision's default crop.
    pub fn notebook() -> Policy {
        Policy {
            base: Base::Notebook,
            hflip: 0.5,
            vflip: 0.5,
            rotation: 30.0,
            brightness: 0.2,
            contrast: 0.2,
            saturation: 0.2,
            hue: 0.2,
            scale: (0.08, 1.0),
            ratio: (3.0 / 4.0, 4.0 / 3.0),
        }
    }

    /// For images that a flip or a tight crop would make into something else, such as digits.
    pub fn mild() -> Policy {
        Policy {
            base: Base::Mild,
            hflip: 0.0,
            vflip: 0.0,
            rotation: 15.0,
            hue: 0.0,
            scale: (0.6, 1.0),
            ..Policy::notebook()
        }
    }

    /// Each key of the written form with its value and the range that it may be set in.
    fn entries(&mut self) -> [(&'static str, Value<'_>, RangeInclusive<f32>); 9] {
        use Value::{One, Range};
        [
            ("hflip", One(&mut self.hflip), 0.0..=1.0),
            ("vflip", One(&mut self.vflip), 0.0..=1.0),
            ("rotation", One(&mut self.rotation), 0.0..=180.0),
            ("brightness", One(&mut self.brightness), 0.0..=10.0),
            ("contrast", One(&mut self.contrast), 0.0..=10.0),
            ("saturation", One(&mut self.saturation), 0.0..=10.0),
            ("hue", One(&mut self.hue), 0.0..=0.5),
            ("scale", Range(&mut self.scale), 1e-6..=1.0),
            ("ratio", Range(&mut self.ratio), 0.01..=100.0),
        ]
    }

    fn set(&mut self, setting: &str) -> Result<()> {
        let (key, text) =
            setting.split_once('=').ok_or_else(|| anyhow!("`{setting}`: expected key=value"))?;
        let mut entries = self.entries();
        let keys = entries.each_ref().map(|(key, ..)| *key).join(", ");
        let Some((_, value, legal)) = entries.iter_mut().find(|(name, ..)| *name == key) else {
            bail!("`{key}`: no such key; the keys are {keys}");
        };
        let (low, high) = (*legal.start(), *legal.end());
        let number = |text: &str| text.parse().ok().filter(|number| legal.contains(number));
        match value {
            Value::One(one) => {
                **one = number(text)
                    .ok_or_else(|| anyhow!("{key}={text}: expected a number from {low} to {high}"))?;
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

/// A parameter of a policy: one number, or the ends of a range.
enum Value<'a> {
    One(&'a mut f32),
    Range(&'a mut (f32, f32)),
}

impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::One(one) => write!(f, "{one}"),
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
        let Some((_, base)) = Base::ALL.iter().find(|(known, _)| *known == name) else {
            bail!("policy `{name}`: no such name; there are {}", Base::ALL.map(|(name, _)| name).join(", "));
        };
        let mut policy = base.policy();
        for setting in settings.into_iter().flat_map(|settings| settings.split(',')) {
            policy.set(setting).map_err(|error| anyhow!("policy {error}"))?;
        }
        Ok(policy)
    }
}

impl fmt::Display for Policy {
    /// The name, and the parameters that are not the name's own.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.base.name())?;
        let (mut this, mut base) = (self.clone(), self.base.policy());
        let changed = this
            .entries()
            .into_iter()
            .zip(base.entries())
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
            ("", "policy ``: no such name; there are notebook, mild"),
            ("wild", "policy `wild`: no such name; there are notebook, mild"),
            ("mild:", "policy ``: expected key=value"),
            ("mild:rotation", "policy `rotation`: expected key=value"),
            (
                "mild:zoom=1",
                "policy `zoom`: no such key; the keys are hflip, vflip, rotation, brightness, contrast, \
                 saturation, hue, scale, ratio",
            ),
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
