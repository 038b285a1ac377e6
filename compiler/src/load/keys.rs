//! Typed, bounded reading of configuration keys. A wrong value is an error that names file, key, value and bounds.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use super::error::LoadError;

/// An object of a JSON file and its path in it (`rope_scaling.`, empty at the top).
#[derive(Clone, Debug)]
pub struct Keys {
    file: PathBuf,
    prefix: String,
    map: Map<String, Value>,
}

impl Keys {
    pub(crate) fn new(file: &Path, value: Value) -> Result<Self, LoadError> {
        match value {
            Value::Object(map) => Ok(Keys { file: file.to_owned(), prefix: String::new(), map }),
            other => Err(LoadError::Json { file: file.to_owned(), found: format!("{other}, expected an object") }),
        }
    }

    /// No keys, for a file that need not exist.
    pub(crate) fn absent(file: &Path) -> Self {
        Keys { file: file.to_owned(), prefix: String::new(), map: Map::new() }
    }

    /// The value of `key`; null counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|v| !v.is_null())
    }

    /// The object under `key`.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Keys>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Keys { file: self.file.clone(), prefix: format!("{}{key}.", self.prefix), map: map.clone() }))
            }
            Some(other) => Err(self.wrong(key, other, "an object or null")),
        }
    }

    pub(crate) fn string(&self, key: &str) -> Result<Option<&str>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(self.wrong(key, other, "a string")),
        }
    }

    pub(crate) fn bool(&self, key: &str) -> Result<Option<bool>, LoadError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(self.wrong(key, other, "true or false")),
        }
    }

    /// A whole number inside `range`; `64.0` is read as 64.
    pub(crate) fn count(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let bad = || self.wrong(key, value, &format!("a whole number in {} to {}", range.start(), range.end()));
        whole(value).filter(|n| range.contains(n)).map(Some).ok_or_else(bad)
    }

    /// A count that must be there.
    pub(crate) fn required(&self, key: &str, range: RangeInclusive<usize>) -> Result<usize, LoadError> {
        let expected = format!("a whole number in {} to {}", range.start(), range.end());
        self.count(key, range)?.ok_or_else(|| self.absent_key(key, &expected))
    }

    /// A finite number inside `range`, an integer or not.
    pub(crate) fn number(&self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>, LoadError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let bad = || self.wrong(key, value, &format!("a number in {} to {}", range.start(), range.end()));
        value.as_f64().filter(|x| range.contains(x)).map(Some).ok_or_else(bad)
    }

    /// A number that must be there.
    pub(crate) fn required_number(&self, key: &str, range: RangeInclusive<f64>) -> Result<f64, LoadError> {
        let expected = format!("a number in {} to {}", range.start(), range.end());
        self.number(key, range)?.ok_or_else(|| self.absent_key(key, &expected))
    }

    /// `length` numbers inside `range`.
    pub(crate) fn numbers(&self, key: &str, length: usize, range: RangeInclusive<f64>) -> Result<Vec<f64>, LoadError> {
        let expected = format!("{length} numbers in {} to {}", range.start(), range.end());
        let Some(value) = self.get(key) else { return Err(self.absent_key(key, &expected)) };
        let items = value.as_array().filter(|items| items.len() == length);
        let items = items.ok_or_else(|| self.wrong(key, value, &expected))?;
        items
            .iter()
            .map(|v| v.as_f64().filter(|x| range.contains(x)).ok_or_else(|| self.wrong(key, v, &expected)))
            .collect()
    }

    /// Token ids below `vocab`: one, a list, or none.
    pub(crate) fn tokens(&self, key: &str, vocab: usize) -> Result<Vec<u32>, LoadError> {
        let token = |v: &Value| {
            let id = whole(v).filter(|id| *id < vocab).and_then(|id| u32::try_from(id).ok());
            id.ok_or_else(|| self.wrong(key, v, &format!("token ids in 0 to {}", vocab - 1)))
        };
        match self.get(key) {
            None => Ok(Vec::new()),
            Some(Value::Array(items)) => items.iter().map(token).collect(),
            Some(value) => Ok(vec![token(value)?]),
        }
    }

    /// The error for `key` holding `found`.
    pub(crate) fn wrong(&self, key: &str, found: &Value, expected: &str) -> LoadError {
        let text = found.to_string();
        // A wrong value may be a long list: the first characters are enough to recognize it.
        let short: String = text.chars().take(80).collect();
        LoadError::Config {
            file: self.file.clone(),
            key: format!("{}{key}", self.prefix),
            found: if short.len() < text.len() { format!("{short}...") } else { short },
            expected: expected.to_owned(),
        }
    }

    pub(crate) fn absent_key(&self, key: &str, expected: &str) -> LoadError {
        LoadError::Config {
            file: self.file.clone(),
            key: format!("{}{key}", self.prefix),
            found: "missing".into(),
            expected: expected.to_owned(),
        }
    }

    /// The error for a `key` whose value `found` is none of `known`.
    pub(crate) fn unknown(&self, key: &str, found: &str, known: &[&str]) -> LoadError {
        LoadError::Unknown {
            file: self.file.clone(),
            key: format!("{}{key}", self.prefix),
            found: found.to_owned(),
            known: known.iter().map(|k| (*k).to_owned()).collect(),
        }
    }
}

/// `64` and `64.0` as 64.
fn whole(value: &Value) -> Option<usize> {
    if let Some(n) = value.as_u64() {
        return usize::try_from(n).ok();
    }
    // Up to 2^53 every whole f64 is exact, so the cast loses nothing.
    value.as_f64().filter(|x| x.fract() == 0.0 && (0.0..=9e15).contains(x)).map(|x| x as usize)
}
