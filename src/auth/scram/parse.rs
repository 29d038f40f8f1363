//! Attributes of SCRAM messages, taken off the front one by one. Every byte is accounted for.

use super::{MAX_MESSAGE, ScramError};
use crate::auth::base64;

/// The unread rest of one message.
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// Over one message; NUL bytes and excess length are refused at once.
    pub(super) fn new(message: &'a [u8]) -> Result<Self, ScramError> {
        if message.len() > MAX_MESSAGE {
            return Err(ScramError::Limit(format!("message of {} bytes", message.len())));
        }
        if message.contains(&0) {
            return Err(ScramError::Malformed("NUL byte"));
        }
        Ok(Self(message))
    }

    /// The value of the next attribute, which must be `name`, up to the comma behind it or the end.
    pub(super) fn take(&mut self, name: u8, missing: &'static str) -> Result<&'a [u8], ScramError> {
        match self.next()? {
            Some((found, value)) if found == name => Ok(value),
            _ => Err(ScramError::Malformed(missing)),
        }
    }

    /// The next attribute, whatever its name; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<(u8, &'a [u8])>, ScramError> {
        if self.0.is_empty() {
            return Ok(None);
        }
        let end = self.0.iter().position(|&byte| byte == b',').unwrap_or(self.0.len());
        let (attribute, rest) = self.0.split_at(end);
        self.0 = match rest {
            [] => rest,
            // A comma announces another attribute.
            [_] => return Err(ScramError::Malformed("attribute expected after comma")),
            [_, rest @ ..] => rest,
        };
        match attribute {
            [name, b'=', value @ ..] if name.is_ascii_alphabetic() => Ok(Some((*name, value))),
            _ => Err(ScramError::Malformed("attribute expected")),
        }
    }

    /// What has not been read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

/// RFC 5802 `printable`: no control character, no comma, no space.
pub(super) fn printable(value: &[u8]) -> bool {
    !value.is_empty() && value.iter().all(|&byte| matches!(byte, 0x21..=0x7E) && byte != b',')
}

/// Exactly 32 bytes in base64.
pub(super) fn key(value: &[u8], what: &'static str) -> Result<super::Key, ScramError> {
    base64::decode(value).and_then(|bytes| bytes.try_into().ok()).ok_or(ScramError::Malformed(what))
}
