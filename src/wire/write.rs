//! Writers of the small messages that the data path itself says. Appends to a buffer; must not decide anything.
//!
//! What is long or rare (rows of an administrative answer, requests for authentication) is built in [`super::answer`].

use super::TxStatus;

/// Appends one frame whose body `fill` writes.
pub fn frame(out: &mut Vec<u8>, tag: u8, fill: impl FnOnce(&mut Vec<u8>)) {
    out.push(tag);
    sized(out, fill);
}

/// Appends a length field and the body behind it.
fn sized(out: &mut Vec<u8>, fill: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    fill(out);
    let length = u32::try_from(out.len() - start).expect("messages built here are far below 4 GiB");
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

/// A string and its NUL. Bytes behind a NUL of the string itself are left out.
pub fn cstr(out: &mut Vec<u8>, text: &[u8]) {
    let end = memchr::memchr(0, text).unwrap_or(text.len());
    out.extend_from_slice(&text[..end]);
    out.push(0);
}

/// ReadyForQuery.
pub fn ready(out: &mut Vec<u8>, status: TxStatus) {
    out.extend_from_slice(&[b'Z', 0, 0, 0, 5, status.byte()]);
}

/// CommandComplete.
pub fn complete(out: &mut Vec<u8>, tag: &str) {
    frame(out, b'C', |out| cstr(out, tag.as_bytes()));
}

/// A message without a body: ParseComplete, BindComplete, NoData, Sync, ….
pub fn empty(out: &mut Vec<u8>, tag: u8) {
    out.extend_from_slice(&[tag, 0, 0, 0, 4]);
}

/// ParameterStatus.
pub fn parameter_status(out: &mut Vec<u8>, name: &str, value: &str) {
    frame(out, b'S', |out| {
        cstr(out, name.as_bytes());
        cstr(out, value.as_bytes());
    });
}

/// BackendKeyData.
pub fn key_data(out: &mut Vec<u8>, pid: i32, secret: &[u8]) {
    frame(out, b'K', |out| {
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// How bad an error is for the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The statement failed.
    Error,
    /// The session ends.
    Fatal,
    /// Worth telling.
    Warning,
}

impl Severity {
    fn word(self) -> &'static [u8] {
        match self {
            Self::Error => b"ERROR",
            Self::Fatal => b"FATAL",
            Self::Warning => b"WARNING",
        }
    }
}

/// ErrorResponse with an optional hint; a warning becomes a NoticeResponse.
pub fn error(out: &mut Vec<u8>, severity: Severity, code: &str, message: &str, hint: Option<&str>) {
    let tag = if severity == Severity::Warning { b'N' } else { b'E' };
    frame(out, tag, |out| {
        for (kind, value) in [(b'S', severity.word()), (b'V', severity.word()), (b'C', code.as_bytes())] {
            out.push(kind);
            cstr(out, value);
        }
        out.push(b'M');
        cstr(out, message.as_bytes());
        if let Some(hint) = hint {
            out.push(b'H');
            cstr(out, hint.as_bytes());
        }
        out.push(0);
    });
}

/// Query.
pub fn query(out: &mut Vec<u8>, text: &[u8]) {
    frame(out, b'Q', |out| cstr(out, text));
}

/// Close of a prepared statement.
pub fn close_statement(out: &mut Vec<u8>, name: &str) {
    frame(out, b'C', |out| {
        out.push(b'S');
        cstr(out, name.as_bytes());
    });
}

/// StartupMessage of protocol 3.0.
pub fn startup<'a>(out: &mut Vec<u8>, params: impl Iterator<Item = (&'a str, &'a str)>) {
    sized(out, |out| {
        out.extend_from_slice(&super::PROTOCOL_3_0.to_be_bytes());
        for (name, value) in params {
            cstr(out, name.as_bytes());
            cstr(out, value.as_bytes());
        }
        out.push(0);
    });
}

/// SSLRequest.
pub fn ssl_request(out: &mut Vec<u8>) {
    out.extend_from_slice(&[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]);
}

/// CancelRequest.
pub fn cancel_request(out: &mut Vec<u8>, pid: i32, secret: &[u8]) {
    sized(out, |out| {
        out.extend_from_slice(&[0x04, 0xd2, 0x16, 0x2e]);
        out.extend_from_slice(&pid.to_be_bytes());
        out.extend_from_slice(secret);
    });
}

/// PasswordMessage, SASLInitialResponse or SASLResponse: one tag, the body tells them apart.
pub fn password(out: &mut Vec<u8>, body: &[u8]) {
    frame(out, b'p', |out| out.extend_from_slice(body));
}

/// Quotes `text` as an SQL literal, whatever `standard_conforming_strings` is.
pub fn literal(out: &mut Vec<u8>, text: &str) {
    literal_bytes(out, text.as_bytes());
}

/// As [`literal`] for text in an encoding whose characters hold no ASCII bytes but ASCII itself.
pub fn literal_bytes(out: &mut Vec<u8>, text: &[u8]) {
    out.extend_from_slice(if text.contains(&b'\\') { b" E'" } else { b"'" });
    for &byte in text {
        if byte == b'\'' || byte == b'\\' {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(b'\'');
}

/// Quotes `name` as an SQL identifier.
pub fn identifier(out: &mut Vec<u8>, name: &str) {
    out.push(b'"');
    for &byte in name.as_bytes() {
        if byte == b'"' {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(b'"');
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use pgwire::messages::{DecodeContext, PgWireBackendMessage, ProtocolVersion};

    fn decode(bytes: &[u8]) -> PgWireBackendMessage {
        let mut buffer = BytesMut::from(bytes);
        let mut context = DecodeContext::new(ProtocolVersion::PROTOCOL3_0);
        context.awaiting_frontend_ssl = false;
        context.awaiting_frontend_startup = false;
        PgWireBackendMessage::decode(&mut buffer, &context).expect("valid").expect("complete")
    }

    #[test]
    fn an_independent_decoder_reads_what_is_written() {
        let mut out = Vec::new();
        error(&mut out, Severity::Error, "57014", "canceling statement", Some("again"));
        let PgWireBackendMessage::ErrorResponse(message) = decode(&out) else { panic!("not an error") };
        assert!(message.fields.contains(&(b'C', "57014".to_owned())));
        assert!(message.fields.contains(&(b'H', "again".to_owned())));
        out.clear();
        ready(&mut out, TxStatus::Failed);
        assert!(matches!(decode(&out), PgWireBackendMessage::ReadyForQuery(_)));
        out.clear();
        complete(&mut out, "BEGIN");
        let PgWireBackendMessage::CommandComplete(message) = decode(&out) else { panic!("not a tag") };
        assert_eq!(message.tag, "BEGIN");
    }

    #[test]
    fn literals_survive_quotes_and_backslashes() {
        let mut out = Vec::new();
        literal(&mut out, "a'b\\c");
        assert_eq!(out, b" E'a''b\\\\c'");
        out.clear();
        literal(&mut out, "it's");
        assert_eq!(out, b"'it''s'");
    }
}
