//! Text to tokens and back, by the model's `tokenizer.json`.

use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::load::text::Text;

/// A model's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    /// Id of the token that begins a text, where the tokenizer itself does not add it.
    begin: Option<u32>,
}

impl Tokenizer {
    /// Opens the tokenizer of a model; an error if it has none.
    pub fn open(text: &Text) -> Result<Self, Error> {
        let Some(path) = &text.tokenizer else {
            return Err(Error::Text { what: "the model has no tokenizer.json; give token ids to `tcc eval`".into() });
        };
        let inner = tokenizers::Tokenizer::from_file(path).map_err(|e| failed(path, &e))?;
        let wanted = text.add_bos_token.unwrap_or(false);
        let begin = text.bos_token.as_deref().filter(|_| wanted).and_then(|token| inner.token_to_id(token));
        Ok(Tokenizer { inner, path: path.clone(), begin })
    }

    /// Token ids of `text`, special tokens included as the tokenizer adds them. Texts from a chat template have theirs.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.ids(text, true)
    }

    /// Token ids of a text in which every special token is written out.
    pub fn encode_plain(&self, text: &str) -> Result<Vec<u32>, Error> {
        self.ids(text, false)
    }

    fn ids(&self, text: &str, special: bool) -> Result<Vec<u32>, Error> {
        let encoding = self.inner.encode(text, special).map_err(|e| failed(&self.path, &e))?;
        let mut ids = encoding.get_ids().to_vec();
        if let Some(begin) = self.begin.filter(|b| special && ids.first() != Some(b)) {
            ids.insert(0, begin);
        }
        Ok(ids)
    }

    /// The bytes a token stands for; none for special tokens and ids outside the vocabulary.
    pub fn piece(&self, id: u32) -> Vec<u8> {
        let special = self.inner.get_added_tokens_decoder().get(&id).is_some_and(|t| t.special);
        match self.inner.id_to_token(id) {
            Some(token) if !special => bytes_of(&token),
            Some(_) | None => Vec::new(),
        }
    }
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Text { what: format!("'{}' cannot be used: {error}", path.display()) }
}

/// The bytes of a vocabulary entry, in the three spellings in use: byte-level BPE's printable stand-ins, SentencePiece
/// with `▁` for a space, and `<0x0A>` for single bytes.
fn bytes_of(token: &str) -> Vec<u8> {
    if let Some(byte) = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'))
        && let Ok(byte) = u8::from_str_radix(byte, 16)
    {
        return vec![byte];
    }
    match token.chars().map(byte_level).collect::<Option<Vec<u8>>>() {
        Some(bytes) => bytes,
        None => token.replace('\u{2581}', " ").into_bytes(),
    }
}

/// The byte that a character of byte-level BPE stands for (Radford et al. 2019, the GPT-2 vocabulary): printable
/// characters of Latin-1 are themselves, the other bytes follow from U+0100 on.
fn byte_level(c: char) -> Option<u8> {
    let code = u32::from(c);
    let printable = |b: u8| matches!(b, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    match u8::try_from(code) {
        Ok(byte) => printable(byte).then_some(byte),
        Err(_) => (0..=255u8).filter(|b| !printable(*b)).nth((code - 256) as usize),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_one_stand_in() {
        let mut seen: Vec<u8> = ('!'..='\u{143}').filter_map(byte_level).collect();
        seen.sort_unstable();
        assert_eq!(seen, (0..=255).collect::<Vec<u8>>());
    }

    #[test]
    fn spellings_of_vocabularies() {
        assert_eq!(bytes_of("\u{120}the"), b" the");
        assert_eq!(bytes_of("\u{10a}"), b"\n");
        assert_eq!(bytes_of("\u{2581}the"), b" the");
        assert_eq!(bytes_of("<0x0A>"), b"\n");
    }
}
