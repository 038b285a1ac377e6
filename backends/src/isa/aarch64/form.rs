//! What an instruction form is: its text, its bit layout, and the step from field values to a word.
//!
//! A form is data. `text` is the assembly with placeholders, `layout` the 32 bits from the most significant down as
//! the manual draws them: `0` and `1` are fixed, a letter belongs to the field of that name. A field's bits go from
//! left to right; where the manual splits one so that its low part stands left, the low bits are in upper case.
//!
//! Placeholders: `{d}` a plain number; `{i:sN}` a signed multiple of N; `{i:uN}` an unsigned multiple of N; `{i:rN}` a
//! right shift, stored as N - i.
//!
//! **Invariant:** `encode` agrees with an outside assembler for every form: `golden.txt`, test `golden_bytes`.

/// One instruction form.
#[derive(Clone, Copy, Debug)]
pub(super) struct Form {
    pub text: &'static str,
    pub layout: &'static str,
}

/// How the number in the text relates to the bits of the field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unit {
    Plain,
    Signed(i64),
    Unsigned(i64),
    RightShift(i64),
}

impl Form {
    /// The word with `fields` filled in, values as the text shows them. Panics on a value the field cannot hold:
    /// only this crate's own tables and kernels choose values.
    pub fn encode(&self, fields: &[(&str, i64)]) -> u32 {
        fields.iter().fold(self.fixed(), |word, &(name, value)| word | self.place(name, value))
    }

    /// The fixed bits.
    pub fn fixed(&self) -> u32 {
        self.bits().filter(|&(_, c)| c == '1').fold(0, |word, (bit, _)| word | 1 << bit)
    }

    /// Field bits of `value`, range checked, in position.
    fn place(&self, name: &str, value: i64) -> u32 {
        let positions = self.positions(name);
        let width = positions.len() as u32;
        let (raw, low, high) = match self.unit(name) {
            Unit::Plain => (Some(value), 0, (1 << width) - 1),
            Unit::Unsigned(n) => (exact(value, n), 0, (1 << width) - 1),
            Unit::Signed(n) => (exact(value, n), -(1 << (width - 1)), (1 << (width - 1)) - 1),
            Unit::RightShift(n) => (Some(n - value), 0, (1 << width) - 1),
        };
        let raw = raw.filter(|raw| (low..=high).contains(raw));
        let raw = raw.unwrap_or_else(|| panic!("field '{name}' of '{}' cannot hold {value}", self.text));
        positions.iter().rev().enumerate().fold(0, |word, (i, &bit)| word | ((raw >> i & 1) as u32) << bit)
    }

    /// Bit numbers of a field, most significant first.
    fn positions(&self, name: &str) -> Vec<u32> {
        let letter = name.chars().next().expect("field names are one letter");
        let of = |wanted: char| self.bits().filter(move |&(_, c)| c == wanted).map(|(bit, _)| bit);
        let positions: Vec<_> = of(letter).chain(of(letter.to_ascii_uppercase())).collect();
        assert!(!positions.is_empty(), "'{}' has no field '{name}'", self.text);
        positions
    }

    /// Bit numbers and letters of the layout, from bit 31 down.
    fn bits(&self) -> impl Iterator<Item = (u32, char)> {
        (0..32).rev().zip(self.layout.chars().filter(|c| *c != ' '))
    }

    fn unit(&self, name: &str) -> Unit {
        let Some((_, rest)) = self.text.split_once(&format!("{{{name}:")) else { return Unit::Plain };
        let (spec, _) = rest.split_once('}').expect("placeholders are closed");
        let number = spec[1..].parse().expect("a unit is a letter and a number");
        match &spec[..1] {
            "s" => Unit::Signed(number),
            "u" => Unit::Unsigned(number),
            "r" => Unit::RightShift(number),
            _ => panic!("unit '{spec}' in '{}'", self.text),
        }
    }
}

/// `value / unit` if that is a whole number.
fn exact(value: i64, unit: i64) -> Option<i64> {
    (value % unit == 0).then_some(value / unit)
}

#[cfg(test)]
impl Form {
    /// Bits that are fixed.
    fn mask(&self) -> u32 {
        self.bits().filter(|&(_, c)| c == '0' || c == '1').fold(0, |word, (bit, _)| word | 1 << bit)
    }

    /// True if `word` is an instance of this form.
    pub fn matches(&self, word: u32) -> bool {
        word & self.mask() == self.fixed()
    }

    /// Number of letters and digits in the layout; 32 in a well-formed table.
    pub fn layout_bits(&self) -> usize {
        self.layout.chars().filter(|c| *c != ' ').count()
    }

    /// Field values read from `line`, if it is an instance of the text.
    pub fn parse(&self, line: &str) -> Option<Vec<(&'static str, i64)>> {
        let mut fields: Vec<(&'static str, i64)> = Vec::new();
        let (mut text, mut line) = (self.text, line);
        // A brace before a space is a register list, not a placeholder.
        let placeholder_at =
            |text: &str| text.match_indices('{').map(|(at, _)| at).find(|at| !text[at + 1..].starts_with(' '));
        while let Some(at) = placeholder_at(text) {
            line = line.strip_prefix(&text[..at])?;
            let after = &text[at + 1..];
            let (placeholder, rest) = after.split_once('}')?;
            let end = line[1..].find(|c: char| !c.is_ascii_digit()).map_or(line.len(), |end| end + 1);
            let value = line[..end].parse().ok()?;
            let name = &placeholder[..1];
            if fields.iter().any(|&(known, other)| known == name && other != value) {
                return None;
            }
            fields.push((name, value));
            (text, line) = (rest, &line[end..]);
        }
        (text == line).then_some(fields)
    }
}
