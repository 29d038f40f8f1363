//! ErrorResponse and NoticeResponse as fields. Reading only what routing, pooling and logs need.

use super::Reader;

/// SQLSTATEs that pgherd itself raises or acts on.
pub mod sqlstate {
    #![allow(missing_docs)]
    pub const PROTOCOL_VIOLATION: &str = "08P01";
    pub const CONNECTION_FAILURE: &str = "08006";
    pub const TRANSACTION_UNKNOWN: &str = "08007";
    pub const FEATURE_NOT_SUPPORTED: &str = "0A000";
    pub const SERIALIZATION_FAILURE: &str = "40001";
    pub const IN_FAILED_TRANSACTION: &str = "25P02";
    pub const INVALID_STATEMENT_NAME: &str = "26000";
    pub const DUPLICATE_STATEMENT: &str = "42P05";
    pub const TOO_MANY_CONNECTIONS: &str = "53300";
    pub const OBJECT_NOT_IN_STATE: &str = "55000";
    pub const QUERY_CANCELED: &str = "57014";
    pub const ADMIN_SHUTDOWN: &str = "57P01";
    pub const CANNOT_CONNECT_NOW: &str = "57P03";
    pub const IDLE_SESSION_TIMEOUT: &str = "57P05";
    pub const INSUFFICIENT_PRIVILEGE: &str = "42501";
    pub const SYNTAX_ERROR: &str = "42601";
}

/// The fields of an ErrorResponse's body, borrowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ErrorFields<'a> {
    /// `V`, never translated; `S` where a server before 9.6 sends no `V`.
    pub severity: &'a [u8],
    /// `C`.
    pub code: &'a [u8],
    /// `M`.
    pub message: &'a [u8],
    /// `R`: the function of the server's source that raised it.
    pub routine: &'a [u8],
}

impl<'a> ErrorFields<'a> {
    /// Reads a body. Missing or malformed fields stay empty: a server may send an error without SQLSTATE.
    pub fn parse(body: &'a [u8]) -> Self {
        let mut fields = Self::default();
        let mut reader = Reader::new(body);
        while let Some(kind) = reader.byte().filter(|&kind| kind != 0) {
            let Some(value) = reader.cstr() else { break };
            match kind {
                b'V' => fields.severity = value,
                b'S' if fields.severity.is_empty() => fields.severity = value,
                b'C' => fields.code = value,
                b'M' => fields.message = value,
                b'R' => fields.routine = value,
                _ => {}
            }
        }
        fields
    }

    /// The session ends with this error.
    pub fn is_fatal(&self) -> bool {
        matches!(self.severity, b"FATAL" | b"PANIC")
    }

    /// The SQLSTATE's class, its first two characters.
    pub fn class(&self) -> &'a [u8] {
        self.code.get(..2).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_untranslated_severity_code_and_text() {
        let fields = ErrorFields::parse(b"SFEHLER\0VERROR\0C42601\0Msyntax\0\0");
        assert_eq!((fields.severity, fields.code, fields.message), (&b"ERROR"[..], &b"42601"[..], &b"syntax"[..]));
        assert_eq!(fields.class(), b"42");
    }

    #[test]
    fn an_error_without_sqlstate_or_end_is_no_panic() {
        for body in [&b""[..], b"\0", b"M", b"Mx", b"C", b"C\0", b"C4\0\0"] {
            assert!(!ErrorFields::parse(body).is_fatal());
        }
    }
}
