//! Tokens of the text form, with the position each begins at. `;` starts a comment that ends with the line.

use std::fmt;

/// Where a token begins; both count from 1, columns in characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// One token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A keyword or an op, attribute or type name.
    Word(String),
    /// `%name`, without the percent sign.
    Value(String),
    /// A number as written; what it may be depends on where it stands.
    Number(String),
    /// A quoted string, escapes resolved.
    Text(String),
    /// One of `{ } [ ] , : = @`.
    Punct(char),
    /// A character that begins no token, or a string that does not end on its line or has an unknown escape.
    Invalid(String),
    End,
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Token::Word(word) => write!(f, "'{word}'"),
            Token::Value(name) => write!(f, "%{name}"),
            Token::Number(digits) => write!(f, "number {digits}"),
            Token::Text(text) => write!(f, "string {text:?}"),
            Token::Punct(c) => write!(f, "'{c}'"),
            Token::Invalid(what) => f.write_str(what),
            Token::End => f.write_str("the end of the text"),
        }
    }
}

/// Reads tokens one at a time.
#[derive(Clone)]
pub struct Lexer<'a> {
    rest: &'a str,
    at: Position,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Lexer { rest: text, at: Position { line: 1, column: 1 } }
    }

    /// The next token and where it begins; [`Token::End`] for ever after the last.
    pub fn next_token(&mut self) -> (Token, Position) {
        self.skip_blanks();
        let at = self.at;
        let Some(c) = self.peek() else { return (Token::End, at) };
        let token = match c {
            '{' | '}' | '[' | ']' | ',' | ':' | '=' | '@' => {
                self.bump();
                Token::Punct(c)
            }
            '%' => {
                self.bump();
                Token::Value(self.take_while(is_word))
            }
            '"' => self.string(),
            c if c.is_ascii_digit() || c == '-' => self.number(),
            c if is_word(c) => Token::Word(self.take_while(is_word)),
            c => {
                self.bump();
                Token::Invalid(format!("character {c:?}"))
            }
        };
        (token, at)
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    fn bump(&mut self) -> Option<char> {
        let c = self.peek()?;
        self.rest = &self.rest[c.len_utf8()..];
        if c == '\n' {
            self.at = Position { line: self.at.line + 1, column: 1 };
        } else {
            self.at.column += 1;
        }
        Some(c)
    }

    fn take_while(&mut self, keep: fn(char) -> bool) -> String {
        let mut taken = String::new();
        while let Some(c) = self.peek().filter(|c| keep(*c)) {
            taken.push(c);
            self.bump();
        }
        taken
    }

    fn skip_blanks(&mut self) {
        while let Some(c) = self.peek() {
            if c == ';' {
                while self.peek().is_some_and(|c| c != '\n') {
                    self.bump();
                }
            } else if c.is_whitespace() {
                self.bump();
            } else {
                return;
            }
        }
    }

    /// Digits, letters and dots; a sign only at the front and behind an exponent's `e`.
    fn number(&mut self) -> Token {
        let mut digits = String::new();
        while let Some(c) = self.peek() {
            let is_signed_exponent = c == '-' && (digits.is_empty() || digits.ends_with('e'));
            if !(is_word(c) || is_signed_exponent) {
                break;
            }
            digits.push(c);
            self.bump();
        }
        Token::Number(digits)
    }

    fn string(&mut self) -> Token {
        self.bump();
        let mut text = String::new();
        loop {
            match self.bump() {
                Some('"') => return Token::Text(text),
                Some('\\') => match self.escape() {
                    Some(c) => text.push(c),
                    None => return Token::Invalid("a string with an unknown escape".into()),
                },
                Some('\n') | None => return Token::Invalid("a string that does not end on its line".into()),
                Some(c) => text.push(c),
            }
        }
    }

    /// The character of `\"`, `\\` or `\u{hex}`, behind the backslash.
    fn escape(&mut self) -> Option<char> {
        match self.bump()? {
            c @ ('"' | '\\') => Some(c),
            'u' => {
                self.bump().filter(|c| *c == '{')?;
                let digits = self.take_while(|c| c.is_ascii_hexdigit());
                self.bump().filter(|c| *c == '}')?;
                char::from_u32(u32::from_str_radix(&digits, 16).ok()?)
            }
            _ => None,
        }
    }
}

/// Writes `text` as a quoted string that [`Lexer`] reads back.
pub fn quote(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// True for the characters of words and value names.
fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '.'
}

/// True if `name` can stand as a word, without quotes.
pub fn is_plain(name: &str) -> bool {
    name.chars().all(is_word) && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
}
