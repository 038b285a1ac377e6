//! What a checkpoint says about text: its tokenizer, its special tokens and its chat template.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::checkpoint::read_json;
use super::error::LoadError;

/// Where text becomes tokens, and how a conversation becomes text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Text {
    /// `tokenizer.json`, if there is one.
    pub tokenizer: Option<PathBuf>,
    /// Jinja template of a conversation: `chat_template.jinja`, or the key in `tokenizer_config.json`.
    pub chat_template: Option<String>,
    pub bos_token: Option<String>,
    pub eos_token: Option<String>,
    /// Whether the tokenizer begins a text with `bos_token`, where the files say so.
    pub add_bos_token: Option<bool>,
}

/// Reads the files of `folder` that concern text; all of them are optional.
pub(crate) fn read(folder: &Path, warnings: &mut Vec<String>) -> Result<Text, LoadError> {
    let tokenizer = Some(folder.join("tokenizer.json")).filter(|file| file.is_file());
    let mut text = Text { tokenizer, ..Text::default() };
    let file = folder.join("tokenizer_config.json");
    if file.is_file() {
        let document = read_json(&file)?;
        for key in document.duplicates {
            warnings.push(format!("'{}': key '{key}' occurs more than once; the last one counts", file.display()));
        }
        let config = document.value;
        text.chat_template = template(&config["chat_template"]);
        text.bos_token = token(&config["bos_token"]);
        text.eos_token = token(&config["eos_token"]);
        text.add_bos_token = config["add_bos_token"].as_bool();
    }
    let file = folder.join("chat_template.jinja");
    if file.is_file() {
        let source = std::fs::read_to_string(&file).map_err(|source| LoadError::Io { file, source })?;
        text.chat_template = Some(source);
    }
    Ok(text)
}

/// A template is a string, or a list of named ones of which `default` counts.
fn template(value: &Value) -> Option<String> {
    let named =
        |items: &Vec<Value>| items.iter().find(|item| item["name"] == "default").map(|item| item["template"].clone());
    let value = value.as_array().map_or_else(|| Some(value.clone()), named)?;
    value.as_str().map(str::to_owned)
}

/// A special token is a string, or an object with its content.
fn token(value: &Value) -> Option<String> {
    value.as_str().or_else(|| value["content"].as_str()).map(str::to_owned)
}
