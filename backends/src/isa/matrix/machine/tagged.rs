//! Numbers with their source: `[value, "tag"]` in machine files.

use serde::{Deserialize, Serialize};

/// Where a number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tag {
    /// The vendor's documentation.
    #[serde(rename = "doc")]
    Documented,
    /// A measurement that the vendor published.
    #[serde(rename = "doc-measured")]
    Measured,
    /// The vendor's configuration or header text.
    #[serde(rename = "cfg")]
    Config,
    /// Computed from published figures.
    #[serde(rename = "der")]
    Derived,
    #[serde(rename = "asm")]
    Assumed,
    /// Given by the user for this run.
    #[serde(rename = "user")]
    User,
}

impl Tag {
    pub const ALL: [Tag; 6] = [Tag::Documented, Tag::Measured, Tag::Config, Tag::Derived, Tag::Assumed, Tag::User];

    /// The tag in a word, for reports.
    pub fn word(self) -> &'static str {
        match self {
            Tag::Documented => "documented",
            Tag::Measured => "documented measurement",
            Tag::Config => "config",
            Tag::Derived => "derived",
            Tag::Assumed => "assumed",
            Tag::User => "user",
        }
    }
}

/// A number and its source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(T, Tag)", into = "(T, Tag)")]
#[serde(bound(serialize = "T: Clone + Serialize", deserialize = "T: Deserialize<'de>"))]
pub struct Tagged<T> {
    pub value: T,
    pub tag: Tag,
}

impl<T> From<(T, Tag)> for Tagged<T> {
    fn from((value, tag): (T, Tag)) -> Self {
        Tagged { value, tag }
    }
}

impl<T> From<Tagged<T>> for (T, Tag) {
    fn from(tagged: Tagged<T>) -> Self {
        (tagged.value, tagged.tag)
    }
}

/// Cycles beside an operation's work, `[alone, back_to_back, "tag"]`: it ends at the later of (its inputs ready +
/// alone) and (the operation before it ended + back_to_back), plus its work. In MTE1 the first number counts while the
/// cube is idle, the second while it works.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "(f64, f64, Tag)", into = "(f64, f64, Tag)")]
pub struct Latency {
    pub alone: f64,
    pub back_to_back: f64,
    pub tag: Tag,
}

impl From<(f64, f64, Tag)> for Latency {
    fn from((alone, back_to_back, tag): (f64, f64, Tag)) -> Self {
        Latency { alone, back_to_back, tag }
    }
}

impl From<Latency> for (f64, f64, Tag) {
    fn from(latency: Latency) -> Self {
        (latency.alone, latency.back_to_back, latency.tag)
    }
}
