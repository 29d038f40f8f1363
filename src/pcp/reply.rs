//! Answers as bytes, in the layouts of pgpool-II's versions. Bytes only; must not know where the facts come from.

use super::frame::{push, push_texts};

/// The first text of the last message of an answer.
const COMPLETE: &str = "CommandComplete";

/// How bad a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Severity {
    /// The request failed; the connection goes on.
    Error,
    /// The connection ends.
    Fatal,
}

/// An error.
pub(super) fn error(severity: Severity, message: &str, detail: &str) -> Vec<u8> {
    let severity = match severity {
        Severity::Error => "SERROR",
        Severity::Fatal => "SFATAL",
    };
    let message = format!("M{}", lower(message));
    let detail = format!("D{detail}");
    let mut fields = vec![severity, "CXX000", &message];
    if detail.len() > 1 {
        fields.push(&detail);
    }
    // The zero behind the last field.
    fields.push("");
    let mut out = Vec::new();
    push_texts(&mut out, b'E', &fields);
    out
}

/// The stock client takes a message that begins with S, M or D for another field.
fn lower(text: &str) -> String {
    match text.chars().next() {
        Some(first @ ('S' | 'M' | 'D')) => format!("{}{}", first.to_ascii_lowercase(), &text[1..]),
        _ => text.to_owned(),
    }
}

/// A remark before an answer; the stock client shows it with `-d` only.
pub(super) fn notice(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    push_texts(&mut out, b'N', &["SNOTICE", "C00000", &format!("M{}", lower(text)), ""]);
    out
}

/// An answer of one message.
pub(super) fn complete(kind: u8, values: &[&str]) -> Vec<u8> {
    let texts: Vec<&str> = [COMPLETE].iter().chain(values).copied().collect();
    let mut out = Vec::new();
    push_texts(&mut out, kind, &texts);
    out
}

/// An answer of several messages: how many, each with its name, the end.
pub(super) fn list(kind: u8, name: &str, rows: &[Vec<String>]) -> Vec<u8> {
    let mut out = Vec::new();
    push_texts(&mut out, kind, &["ArraySize", &rows.len().to_string()]);
    for row in rows {
        let texts: Vec<&str> = [name].into_iter().chain(row.iter().map(String::as_str)).collect();
        push_texts(&mut out, kind, &texts);
    }
    push_texts(&mut out, kind, &[COMPLETE]);
    out
}

/// The answer to pool_status, whose count is four bytes and not a text.
pub(super) fn settings(rows: &[[&str; 3]]) -> Vec<u8> {
    let mut out = Vec::new();
    let count = i32::try_from(rows.len()).unwrap_or(i32::MAX);
    push(&mut out, b'b', &[&b"ArraySize\0"[..], &count.to_be_bytes()].concat());
    for [name, value, description] in rows {
        push_texts(&mut out, b'b', &["ProcessConfig", name, value, description]);
    }
    push_texts(&mut out, b'b', &[COMPLETE]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes were taken from a conversation with pgpool-II 4.3.5.
    #[test]
    fn answers_have_pgpools_bytes() {
        assert_eq!(complete(b'l', &["2"]), b"l\0\0\0\x16CommandComplete\x002\0");
        let rows = [["item", "value", "what"]];
        let told = settings(&rows);
        assert_eq!(told[..19], *b"b\0\0\0\x12ArraySize\0\0\0\0\x01");
        assert_eq!(told[19..24 + 30], *b"b\0\0\0\x22ProcessConfig\0item\0value\0what\0");
        assert_eq!(told[24 + 30 - 1..], *b"\0b\0\0\0\x14CommandComplete\0");
        let told = list(b'i', "NodeInfo", &[vec!["a".to_owned(), String::new()]]);
        assert_eq!(told[..17], *b"i\0\0\0\x10ArraySize\x001\0");
        assert_eq!(told[17..], *b"i\0\0\0\x10NodeInfo\0a\0\0i\0\0\0\x14CommandComplete\0");
    }

    #[test]
    fn errors_are_those_that_the_stock_client_can_read() {
        let told = error(Severity::Fatal, "Sudden\0 end", "");
        assert_eq!(told, b"E\0\0\0\x1fSFATAL\0CXX000\0Msudden end\0\0".as_slice());
        let told = error(Severity::Error, "no", "because");
        assert_eq!(told[5..], *b"SERROR\0CXX000\0Mno\0Dbecause\0\0");
    }
}
