//! Text to tokens and back, by the model's `tokenizer.json`.

use std::path::{Path, PathBuf};

use tokenizers::DecoderWrapper;

use crate::error::Error;
use crate::load::text::Text;

/// How vocabulary entries stand for bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spelling {
    /// Byte-level BPE: one printable stand-in per byte.
    ByteLevel,
    /// SentencePiece: `▁` for a space, `<0x0A>` for single bytes.
    SentencePiece,
    /// The entry itself.
    Verbatim,
}

/// A model's tokenizer.
pub struct Tokenizer {
    inner: tokenizers::Tokenizer,
    path: PathBuf,
    spelling: Spelling,
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
        let spelling = match inner.get_decoder() {
            Some(decoder) => Spelling::of(decoder)
                .ok_or_else(|| failed(path, &"its decoder is none of byte level, metaspace and byte fallback"))?,
            None => Spelling::Verbatim,
        };
        let wanted = text.add_bos_token.unwrap_or(false);
        let begin = text.bos_token.as_deref().filter(|_| wanted).and_then(|token| inner.token_to_id(token));
        Ok(Tokenizer { inner, path: path.clone(), spelling, begin })
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
    ///
    /// Unlike the decoding of a whole text, a space that begins a piece stays: generated text continues a prompt.
    pub fn piece(&self, id: u32) -> Vec<u8> {
        match self.inner.get_added_tokens_decoder().get(&id) {
            Some(added) if added.special => Vec::new(),
            Some(added) => added.content.clone().into_bytes(),
            None => self.inner.id_to_token(id).map_or_else(Vec::new, |token| self.spelling.bytes_of(&token)),
        }
    }
}

impl Spelling {
    /// The spelling that `decoder` undoes; none if it is another kind.
    fn of(decoder: &DecoderWrapper) -> Option<Spelling> {
        match decoder {
            DecoderWrapper::ByteLevel(_) => Some(Spelling::ByteLevel),
            DecoderWrapper::Metaspace(_) | DecoderWrapper::ByteFallback(_) => Some(Spelling::SentencePiece),
            DecoderWrapper::Sequence(parts) => parts.get_decoders().iter().find_map(Spelling::of),
            _ => None,
        }
    }

    /// The bytes of a vocabulary entry.
    fn bytes_of(self, token: &str) -> Vec<u8> {
        match self {
            Spelling::ByteLevel => {
                // An entry with other characters was never spelled in stand-ins.
                let bytes = token.chars().map(byte_level).collect::<Option<Vec<u8>>>();
                bytes.unwrap_or_else(|| token.as_bytes().to_vec())
            }
            Spelling::SentencePiece => match single_byte(token) {
                Some(byte) => vec![byte],
                None => token.replace('\u{2581}', " ").into_bytes(),
            },
            Spelling::Verbatim => token.as_bytes().to_vec(),
        }
    }
}

fn failed(path: &Path, error: &dyn std::fmt::Display) -> Error {
    Error::Text { what: format!("'{}' cannot be used: {error}", path.display()) }
}

/// The byte that `<0x0A>` names.
fn single_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    u8::from_str_radix(digits, 16).ok()
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

    /// Pieces of the ids of `text`, joined; and the text as the `tokenizers` crate decodes the ids.
    fn round_trip(json: &str, text: &str) -> (Vec<u8>, String) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokenizer.json");
        std::fs::write(&path, json).expect("writable");
        let tokenizer = Tokenizer::open(&Text { tokenizer: Some(path), ..Text::default() }).expect("opens");
        let ids = tokenizer.encode(text).expect("encodes");
        let pieces = ids.iter().flat_map(|id| tokenizer.piece(*id)).collect();
        (pieces, tokenizer.inner.decode(&ids, true).expect("decodes"))
    }

    /// A tokenizer of single characters over `vocab`.
    fn json(vocab: &[&str], added: &str, normalizer: &str, pre: &str, decoder: &str) -> String {
        let ids: serde_json::Map<_, _> = vocab.iter().enumerate().map(|(id, t)| (t.to_string(), id.into())).collect();
        format!(
            r#"{{"version": "1.0", "truncation": null, "padding": null, "added_tokens": [{added}],
            "normalizer": {normalizer}, "pre_tokenizer": {pre}, "post_processor": null, "decoder": {decoder},
            "model": {{"type": "BPE", "byte_fallback": true, "vocab": {}, "merges": []}}}}"#,
            serde_json::Value::from(ids)
        )
    }

    #[test]
    fn byte_level_pieces_are_the_text() {
        let stand_ins: Vec<String> = ('!'..='\u{143}').filter(|c| byte_level(*c).is_some()).map(String::from).collect();
        let vocab: Vec<&str> = stand_ins.iter().map(String::as_str).collect();
        let level = r#"{"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true}"#;
        let added = r#"{"id": 300, "content": "\u00e9 \u00e9", "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false, "special": false}"#;
        let text = "Grüße, 你好 \n<0x0A> é é!";
        let (pieces, _) = round_trip(&json(&vocab, added, "null", level, level), text);
        assert_eq!(String::from_utf8(pieces).expect("whole characters"), text);
    }

    /// Letters of Latin-1 are themselves in SentencePiece vocabularies, not bytes.
    #[test]
    fn sentencepiece_pieces_are_the_text() {
        let vocab = ["▁", "c", "a", "f", "é", "<0xE4>", "<0xBD>", "<0xA0>"];
        let normalizer = r#"{"type": "Replace", "pattern": {"String": " "}, "content": "▁"}"#;
        let decoder = r#"{"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"}, {"type": "Fuse"}]}"#;
        let (pieces, decoded) = round_trip(&json(&vocab, "", normalizer, "null", decoder), " café 你");
        assert_eq!(String::from_utf8(pieces).expect("whole characters"), " café 你");
        assert_eq!(decoded, " café 你");
    }

    #[test]
    fn other_decoders_are_refused() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("tokenizer.json");
        let decoder = r#"{"type": "WordPiece", "prefix": "--", "cleanup": true}"#;
        std::fs::write(&path, json(&["a"], "", "null", "null", decoder)).expect("writable");
        let error = Tokenizer::open(&Text { tokenizer: Some(path), ..Text::default() }).err().expect("refused");
        assert!(error.to_string().contains("tokenizer.json' cannot be used: its decoder"), "{error}");
    }
}
