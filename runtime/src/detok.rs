//! Streaming of text: byte pieces in, whole characters out.
//!
//! A token's bytes may end inside a character. **Invariant:** the concatenation of what is emitted equals the lossy
//! decoding (`U+FFFD` for each maximal invalid part) of the concatenation of the pieces, however they are split.

use core::str;

/// What stands for bytes that are not UTF-8.
const REPLACEMENT: &str = "\u{fffd}";

/// Holds back the bytes of an unfinished character.
#[derive(Clone, Debug, Default)]
pub struct Detokenizer {
    /// The first `len` bytes are a proper beginning of a character.
    pending: [u8; 4],
    len: usize,
}

impl Detokenizer {
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes the bytes of one token and emits what is complete.
    pub fn push(&mut self, piece: &[u8], mut emit: impl FnMut(&str)) {
        let mut rest = piece;
        while self.len > 0 {
            let Some((&byte, after)) = rest.split_first() else { return };
            if self.extend(byte, &mut emit) {
                rest = after;
            }
        }
        let mut chunks = rest.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            if !chunk.valid().is_empty() {
                emit(chunk.valid());
            }
            // Only at the end of the input may a beginning still become a character.
            if chunks.peek().is_none() && is_beginning(chunk.invalid()) {
                self.len = chunk.invalid().len();
                self.pending[..self.len].copy_from_slice(chunk.invalid());
            } else if !chunk.invalid().is_empty() {
                emit(REPLACEMENT);
            }
        }
    }

    /// Emits what is held back, as the end of the text makes it: a replacement character.
    pub fn finish(&mut self, mut emit: impl FnMut(&str)) {
        if self.len > 0 {
            emit(REPLACEMENT);
        }
        self.len = 0;
    }

    /// Adds a byte to the pending ones; false if it cannot follow them: then they are emitted as invalid.
    fn extend(&mut self, byte: u8, emit: &mut impl FnMut(&str)) -> bool {
        self.pending[self.len] = byte;
        let candidate = &self.pending[..=self.len];
        if let Ok(character) = str::from_utf8(candidate) {
            emit(character);
            self.len = 0;
            return true;
        }
        if is_beginning(candidate) {
            self.len += 1;
            return true;
        }
        emit(REPLACEMENT);
        self.len = 0;
        false
    }
}

/// True for one to three bytes that more bytes could make a character.
fn is_beginning(bytes: &[u8]) -> bool {
    str::from_utf8(bytes).is_err_and(|e| e.valid_up_to() == 0 && e.error_len().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stream(pieces: &[&[u8]]) -> String {
        let (mut text, mut detokenizer) = (String::new(), Detokenizer::new());
        for piece in pieces {
            detokenizer.push(piece, |s| text.push_str(s));
        }
        detokenizer.finish(|s| text.push_str(s));
        text
    }

    const TEXTS: [&[u8]; 7] = [
        "Grüße, мир, 你好, שלום, नमस्ते, 👩‍👩‍👧‍👦🏳️‍🌈!".as_bytes(),
        b"plain",
        b"",
        b"\xff\xfe broken \xe4\xbd",
        b"\xf0\x9f\x98 then \xf0\x9f\x98\x80 and \xc3\xc3\xa9",
        b"\xe4\xbd\xe4\xbd\xa0\xed\xa0\x80\xf4\x90\x80\x80\xc0\x80",
        b"\xf0\x9f\xf0\x9f\x9f\xf0\x9f\x98\x80\x80",
    ];

    #[test]
    fn every_split_in_two_and_three_gives_the_same_text() {
        for text in TEXTS {
            let expected = String::from_utf8_lossy(text);
            for i in 0..=text.len() {
                for j in i..=text.len() {
                    assert_eq!(stream(&[&text[..i], &text[i..j], &text[j..]]), expected, "{text:x?} at {i}, {j}");
                }
            }
        }
    }

    #[test]
    fn single_bytes_give_the_same_text() {
        for text in TEXTS {
            let bytes: Vec<&[u8]> = text.chunks(1).collect();
            assert_eq!(stream(&bytes), String::from_utf8_lossy(text));
        }
    }

    #[test]
    fn a_character_is_emitted_whole_and_at_once() {
        let mut detokenizer = Detokenizer::new();
        let mut seen = Vec::new();
        for byte in "a😀".bytes() {
            detokenizer.push(&[byte], |s| seen.push(s.to_owned()));
        }
        assert_eq!(seen, ["a", "😀"]);
    }
}
