//! The text in which LVM2 keeps its metadata: sections in braces, and `key = value`.
//!
//! Source: lvm.conf(5) "SYNTAX".

use crate::error::{Error, Result};

/// Sections inside sections; LVM2 itself uses four.
const MAX_DEPTH: usize = 8;

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A whole number.
    Number(i64),
    /// A string in quotes, or a word that is no whole number.
    Text(String),
    /// Values in brackets.
    List(Vec<Value>),
    /// Names in braces.
    Section(Section),
}

/// Names and what they stand for, in the order of the text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Section(pub Vec<(String, Value)>);

impl Section {
    /// What the name stands for; the first of several.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.0.iter().find(|(found, _)| found == name).map(|(_, value)| value)
    }

    /// A section of that name.
    pub fn section(&self, name: &str) -> Option<&Self> {
        match self.get(name)? {
            Value::Section(section) => Some(section),
            _ => None,
        }
    }

    /// A whole number of that name that is not negative.
    pub fn number(&self, name: &str) -> Option<u64> {
        match self.get(name)? {
            Value::Number(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A string of that name.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name)? {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The values of a list of that name.
    pub fn list(&self, name: &str) -> Option<&[Value]> {
        match self.get(name)? {
            Value::List(list) => Some(list),
            _ => None,
        }
    }
}

/// Parses a description. The area is padded with zeros, which end it.
pub fn parse(bytes: &[u8]) -> Result<Section> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    let mut parser = Parser { bytes: bytes.get(..end).unwrap_or_default(), at: 0 };
    let section = parser.section(0)?;
    match parser.next()? {
        None => Ok(section),
        Some(_) => Err(parser.corrupt("a brace closes nothing")),
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Token {
    Mark(u8),
    Word(String),
    Quoted(String),
}

struct Parser<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Parser<'_> {
    fn corrupt(&self, reason: &'static str) -> Error {
        Error::corrupt("LVM2 metadata text", u64::try_from(self.at).unwrap_or(u64::MAX), reason)
    }

    fn peek_byte(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn step(&mut self) {
        self.at = self.at.saturating_add(1);
    }

    fn next(&mut self) -> Result<Option<Token>> {
        loop {
            match self.peek_byte() {
                None => return Ok(None),
                Some(b'#') => {
                    while self.peek_byte().is_some_and(|byte| byte != b'\n') {
                        self.step();
                    }
                }
                Some(byte) if byte.is_ascii_whitespace() => self.step(),
                Some(mark @ (b'{' | b'}' | b'[' | b']' | b'=' | b',')) => {
                    self.step();
                    return Ok(Some(Token::Mark(mark)));
                }
                Some(b'"') => {
                    self.step();
                    return self.quoted().map(|text| Some(Token::Quoted(text)));
                }
                Some(_) => return Ok(Some(Token::Word(self.word()))),
            }
        }
    }

    fn quoted(&mut self) -> Result<String> {
        let mut text = Vec::new();
        loop {
            let byte = self.peek_byte().ok_or_else(|| self.corrupt("a string has no end"))?;
            self.step();
            match byte {
                b'"' => return Ok(String::from_utf8_lossy(&text).into_owned()),
                b'\\' => {
                    text.push(self.peek_byte().ok_or_else(|| self.corrupt("a string has no end"))?);
                    self.step();
                }
                byte => text.push(byte),
            }
        }
    }

    fn word(&mut self) -> String {
        let start = self.at;
        while self.peek_byte().is_some_and(|byte| !byte.is_ascii_whitespace() && !b"{}[]=,\"#".contains(&byte)) {
            self.step();
        }
        String::from_utf8_lossy(self.bytes.get(start..self.at).unwrap_or_default()).into_owned()
    }

    /// Reads names up to the end of the text (depth 0) or the closing brace.
    fn section(&mut self, depth: usize) -> Result<Section> {
        if depth > MAX_DEPTH {
            return Err(self.corrupt("sections lie too deep in each other"));
        }
        let mut section = Section::default();
        loop {
            let name = match self.next()? {
                None if depth == 0 => return Ok(section),
                Some(Token::Mark(b'}')) if depth > 0 => return Ok(section),
                Some(Token::Word(name) | Token::Quoted(name)) => name,
                _ => return Err(self.corrupt("a name was expected")),
            };
            let value = match self.next()? {
                Some(Token::Mark(b'{')) => Value::Section(self.section(depth.saturating_add(1))?),
                Some(Token::Mark(b'=')) => self.value()?,
                _ => return Err(self.corrupt("a name stands for nothing")),
            };
            section.0.push((name, value));
        }
    }

    fn value(&mut self) -> Result<Value> {
        match self.next()? {
            Some(Token::Mark(b'[')) => {
                let mut list = Vec::new();
                loop {
                    match self.next()? {
                        Some(Token::Mark(b']')) => return Ok(Value::List(list)),
                        Some(Token::Mark(b',')) => {}
                        Some(token) => list.push(self.scalar(token)?),
                        None => return Err(self.corrupt("a list has no end")),
                    }
                }
            }
            Some(token) => self.scalar(token),
            None => Err(self.corrupt("a value is missing")),
        }
    }

    fn scalar(&self, token: Token) -> Result<Value> {
        match token {
            Token::Quoted(text) => Ok(Value::Text(text)),
            Token::Word(word) => Ok(word.parse().map_or(Value::Text(word), Value::Number)),
            Token::Mark(_) => Err(self.corrupt("a value was expected")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_numbers_strings_and_lists_are_told_apart() {
        let section = parse(
            b"vg { # a comment \"with\" } marks\n id = \"a\\\"b\"\nseqno = 3\n status = [\"READ\", 7]\nflags = []\n inner { x = 1.5 } }\n\0rest",
        )
        .unwrap();
        let vg = section.section("vg").unwrap();
        assert_eq!(vg.text("id"), Some("a\"b"));
        assert_eq!(vg.number("seqno"), Some(3));
        assert_eq!(vg.list("status").unwrap(), [Value::Text("READ".into()), Value::Number(7)]);
        assert_eq!(vg.list("flags").unwrap(), []);
        assert_eq!(vg.section("inner").unwrap().text("x"), Some("1.5"));
        assert_eq!(vg.number("nothing"), None);
    }

    #[test]
    fn broken_text_is_an_error_and_never_an_endless_loop() {
        for text in ["a {", "a { b = }", "a = [1, 2", "a = \"x", "a = \"x\\", "}", "a", "= 1", "a = [{ }]", "a b"] {
            assert!(parse(text.as_bytes()).is_err(), "{text}");
        }
        let deep = "a {".repeat(100_000);
        assert!(parse(deep.as_bytes()).is_err());
    }
}
