//! JSON documents that remember which keys they repeat.
//!
//! A published `config.json` repeats `quantization_config`; readers in the field let the last one win. So do we, but
//! the repetition is reported.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// A parsed document and the paths (`rope_scaling.factor`) of keys that occur more than once in one object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Document {
    pub value: Value,
    pub duplicates: Vec<String>,
}

/// Parses `text`; of equal keys the last one wins.
pub(crate) fn parse(text: &[u8]) -> Result<Document, serde_json::Error> {
    let duplicates = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Node { path: String::new(), duplicates: &duplicates }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(Document { value, duplicates: duplicates.into_inner() })
}

/// One value of the document at `path`.
struct Node<'d> {
    path: String,
    duplicates: &'d RefCell<Vec<String>>,
}

impl Node<'_> {
    fn child(&self, key: &str) -> Self {
        let path = if self.path.is_empty() { key.to_owned() } else { format!("{}.{key}", self.path) };
        Node { path, duplicates: self.duplicates }
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, v: bool) -> Result<Value, E> {
        Ok(Value::Bool(v))
    }

    fn visit_i64<E>(self, v: i64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_u64<E>(self, v: u64) -> Result<Value, E> {
        Ok(Value::Number(v.into()))
    }

    fn visit_f64<E>(self, v: f64) -> Result<Value, E> {
        Ok(Number::from_f64(v).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, v: &str) -> Result<Value, E> {
        Ok(Value::String(v.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self.child(&items.len().to_string()))? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let child = self.child(&key);
            let path = child.path.clone();
            let value = map.next_value_seed(child)?;
            if object.insert(key, value).is_some() {
                self.duplicates.borrow_mut().push(path);
            }
        }
        Ok(Value::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_of_equal_keys_wins_and_is_reported_with_its_path() {
        let document = parse(br#"{"a": 1, "b": [{"c": 1, "c": null}], "a": {"d": 2.5}}"#).expect("valid JSON");
        assert_eq!(document.value, json!({"a": {"d": 2.5}, "b": [{"c": null}]}));
        assert_eq!(document.duplicates, ["b.0.c", "a"]);
    }

    #[test]
    fn text_after_the_document_is_an_error() {
        assert!(parse(b"{} {}").is_err());
        assert!(parse(b"{").is_err());
        assert!(parse("[".repeat(100_000).as_bytes()).is_err(), "deep nesting ends in an error, not in an overflow");
    }
}
