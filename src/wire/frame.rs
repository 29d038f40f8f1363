//! Frame headers: one tag byte and a length that counts itself. Looks, never takes; must not read past a header.

/// Tags of messages that clients send.
pub mod front {
    #![allow(missing_docs)]
    pub const QUERY: u8 = b'Q';
    pub const PARSE: u8 = b'P';
    pub const BIND: u8 = b'B';
    pub const DESCRIBE: u8 = b'D';
    pub const EXECUTE: u8 = b'E';
    pub const CLOSE: u8 = b'C';
    pub const FLUSH: u8 = b'H';
    pub const SYNC: u8 = b'S';
    pub const TERMINATE: u8 = b'X';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const COPY_FAIL: u8 = b'f';
    pub const FUNCTION_CALL: u8 = b'F';
    pub const PASSWORD: u8 = b'p';
}

/// Tags of messages that servers send.
pub mod back {
    #![allow(missing_docs)]
    pub const AUTHENTICATION: u8 = b'R';
    pub const PARAMETER_STATUS: u8 = b'S';
    pub const KEY_DATA: u8 = b'K';
    pub const READY: u8 = b'Z';
    pub const ERROR: u8 = b'E';
    pub const NOTICE: u8 = b'N';
    pub const NOTIFICATION: u8 = b'A';
    pub const ROW_DESCRIPTION: u8 = b'T';
    pub const DATA_ROW: u8 = b'D';
    pub const COMPLETE: u8 = b'C';
    pub const EMPTY_QUERY: u8 = b'I';
    pub const PARSE_COMPLETE: u8 = b'1';
    pub const BIND_COMPLETE: u8 = b'2';
    pub const CLOSE_COMPLETE: u8 = b'3';
    pub const PARAMETER_DESCRIPTION: u8 = b't';
    pub const NO_DATA: u8 = b'n';
    pub const PORTAL_SUSPENDED: u8 = b's';
    pub const COPY_IN: u8 = b'G';
    pub const COPY_OUT: u8 = b'H';
    pub const COPY_BOTH: u8 = b'W';
    pub const COPY_DATA: u8 = b'd';
    pub const COPY_DONE: u8 = b'c';
    pub const FUNCTION_RESULT: u8 = b'V';
    pub const NEGOTIATE: u8 = b'v';
}

/// Who sent a frame; decides which tags exist and how long they may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// A client that has logged in.
    Client,
    /// A server.
    Server,
}

/// PostgreSQL's `PQ_LARGE_MESSAGE_LIMIT`: one byte less than the largest allocation.
const LARGE: u32 = 0x3fff_ffff - 1;
/// PostgreSQL's `PQ_SMALL_MESSAGE_LIMIT`, for messages that carry a name at most.
const SMALL: u32 = 10_000;

/// A frame's first five bytes, checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// The message's kind.
    pub tag: u8,
    /// Bytes of the whole frame, tag and length field included; at least 5.
    pub size: usize,
}

impl Header {
    /// Bytes behind the header.
    pub fn body(self) -> usize {
        self.size - 5
    }
}

/// Why a header is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The tag is none of that side's.
    #[error("invalid message type {0}")]
    Tag(u8),
    /// The length is below 4 or above the limit of its kind.
    #[error("invalid length {length} of message \"{}\"", tag.escape_ascii())]
    Length {
        /// The message's kind.
        tag: u8,
        /// The length field as it was sent.
        length: i32,
    },
}

/// Reads the header at the start of `bytes`: `None` while fewer than 5 bytes are there.
///
/// # Errors
/// An unknown tag, or a length outside the limits of its kind.
pub fn peek(bytes: &[u8], side: Side) -> Result<Option<Header>, Fault> {
    let Some((&tag, rest)) = bytes.split_first() else { return Ok(None) };
    let limit = LIMITS[side as usize][tag as usize];
    if limit == 0 {
        return Err(Fault::Tag(tag));
    }
    let Some(field) = rest.first_chunk::<4>() else { return Ok(None) };
    let length = u32::from_be_bytes(*field);
    // A negative length is above every limit.
    if length < 4 || length > limit {
        return Err(Fault::Length { tag, length: length.cast_signed() });
    }
    Ok(Some(Header { tag, size: length as usize + 1 }))
}

/// As [`peek`] for bytes whose frames were checked before.
pub fn peek_unlimited(bytes: &[u8]) -> Option<Header> {
    let head = bytes.first_chunk::<5>()?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]);
    Some(Header { tag: head[0], size: length as usize + 1 })
}

/// The largest length of each kind, by side and tag; 0: there is no such kind.
static LIMITS: [[u32; 256]; 2] = {
    let mut limits = [[0; 256]; 2];
    let mut tag = 0_u8;
    loop {
        limits[Side::Client as usize][tag as usize] = limit(tag, Side::Client);
        limits[Side::Server as usize][tag as usize] = limit(tag, Side::Server);
        if tag == u8::MAX {
            break limits;
        }
        tag += 1;
    }
};

const fn limit(tag: u8, side: Side) -> u32 {
    match side {
        Side::Client => match tag {
            front::QUERY | front::PARSE | front::BIND | front::COPY_DATA | front::FUNCTION_CALL => LARGE,
            front::DESCRIBE | front::EXECUTE | front::CLOSE | front::FLUSH | front::SYNC | front::TERMINATE => SMALL,
            front::COPY_DONE | front::COPY_FAIL | front::PASSWORD => SMALL,
            _ => 0,
        },
        Side::Server => match tag {
            back::DATA_ROW | back::COPY_DATA | back::FUNCTION_RESULT => 0x7fff_ffff,
            back::ERROR | back::NOTICE | back::NOTIFICATION | back::ROW_DESCRIPTION | back::PARAMETER_DESCRIPTION => {
                LARGE
            }
            back::AUTHENTICATION | back::PARAMETER_STATUS | back::KEY_DATA | back::READY | back::COMPLETE => LARGE,
            back::EMPTY_QUERY | back::PARSE_COMPLETE | back::BIND_COMPLETE | back::CLOSE_COMPLETE => 4,
            back::NO_DATA | back::PORTAL_SUSPENDED | back::COPY_DONE => 4,
            back::COPY_IN | back::COPY_OUT | back::COPY_BOTH | back::NEGOTIATE => LARGE,
            _ => 0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(tag: u8, length: i32) -> Vec<u8> {
        let mut bytes = vec![tag];
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes
    }

    #[test]
    fn lengths_below_four_and_above_the_limit_are_refused() {
        for length in [i32::MIN, -1, 0, 3] {
            assert_eq!(peek(&head(b'Q', length), Side::Client), Err(Fault::Length { tag: b'Q', length }));
        }
        assert!(peek(&head(b'Q', i32::MAX), Side::Client).is_err());
        assert!(peek(&head(b'S', 10_001), Side::Client).is_err());
        assert_eq!(peek(&head(b'S', 4), Side::Client), Ok(Some(Header { tag: b'S', size: 5 })));
        assert_eq!(peek(&head(b'D', i32::MAX), Side::Server).map(|h| h.map(|h| h.size)), Ok(Some(0x8000_0000)));
    }

    #[test]
    fn a_tag_is_refused_before_its_length_has_arrived() {
        assert_eq!(peek(b"\x16", Side::Client), Err(Fault::Tag(0x16)));
        assert_eq!(peek(b"Q\0\0", Side::Client), Ok(None));
        assert_eq!(peek(b"", Side::Server), Ok(None));
    }
}
