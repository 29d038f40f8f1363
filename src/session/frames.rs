//! The bodies of the client's messages as far as they are looked into: names. A body that is not well formed is forwarded as it
//! is, and the server says what is wrong with it.

use crate::wire::{Header, Reader, front, peek_unlimited};

/// A Parse message.
#[derive(Debug, Clone, Copy)]
pub(super) struct Parse<'a> {
    pub(super) name: &'a [u8],
    /// The query text, without its NUL.
    pub(super) text: &'a [u8],
    /// Everything behind the name.
    pub(super) tail: &'a [u8],
}

/// Reads the body of a Parse message.
pub(super) fn parse(body: &[u8]) -> Option<Parse<'_>> {
    let mut reader = Reader::new(body);
    let name = reader.cstr()?;
    let tail = reader.rest();
    let text = reader.cstr()?;
    let types = usize::try_from(reader.i16()?).ok()?;
    reader.bytes(types * 4)?;
    reader.is_empty().then_some(Parse { name, text, tail })
}

/// A Bind message: the portal, the statement, and everything behind.
pub(super) fn bind(body: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let mut reader = Reader::new(body);
    let portal = reader.cstr()?;
    let statement = reader.cstr()?;
    Some((portal, statement, reader.rest()))
}

/// Is any value of a Bind message a word that date and time types take from the clock, or can that not be told? Such values mean the
/// time at which the block began (SESSIONS R12).
pub(super) fn says_now(body: &[u8]) -> bool {
    let values = || {
        let mut reader = Reader::new(bind(body)?.2);
        let formats = usize::try_from(reader.i16()?).ok()?;
        reader.bytes(formats * 2)?;
        for _ in 0..reader.i16()? {
            let length = reader.i32()?;
            if length > 0 && crate::sql::begins_now(reader.bytes(usize::try_from(length).ok()?)?) {
                return None;
            }
        }
        Some(())
    };
    values().is_none()
}

/// Describe or Close: `S` or `P`, and the name.
pub(super) fn target(body: &[u8]) -> Option<(u8, &[u8])> {
    let mut reader = Reader::new(body);
    let kind = reader.byte()?;
    let name = reader.cstr()?;
    reader.is_empty().then_some((kind, name))
}

/// The row limit of an Execute message; 0 is none.
pub(super) fn row_limit(body: &[u8]) -> Option<i32> {
    let mut reader = Reader::new(body);
    reader.cstr()?;
    reader.i32()
}

/// The text of a Query message, if its body ends as a string does. A zero byte within, which servers refuse, is one that the lexer cannot
/// read: nothing needs to look for it here.
pub(super) fn query(body: &[u8]) -> Option<&[u8]> {
    body.strip_suffix(&[0])
}

/// The frames at the front of `bytes` that are complete, with their bodies.
pub(super) fn whole(bytes: &[u8]) -> impl Iterator<Item = (Header, &[u8])> {
    let mut rest = bytes;
    std::iter::from_fn(move || {
        let header = peek_unlimited(rest)?;
        let (frame, behind) = rest.split_at_checked(header.size)?;
        rest = behind;
        Some((header, &frame[5..]))
    })
}

/// Bytes of the series at the front up to and including its Sync, if all of it is there and it holds nothing but
/// messages of the extended protocol.
pub(super) fn series(bytes: &[u8]) -> Option<usize> {
    let mut length = 0;
    for (header, _) in whole(bytes) {
        length += header.size;
        match header.tag {
            front::SYNC => return Some(length),
            front::PARSE | front::BIND | front::DESCRIBE | front::EXECUTE | front::CLOSE | front::FLUSH => {}
            _ => return None,
        }
    }
    None
}

/// Is a whole series nothing but one statement without parameters, executed once by the unnamed portal? What else it closes has no part
/// in that.
pub(super) fn lone(bytes: &[u8]) -> bool {
    let (mut statement, mut bound, mut executed) = (None, false, false);
    whole(bytes).all(|(header, body)| match header.tag {
        front::PARSE => parse(body).is_some_and(|parse| {
            parse.tail.len() == parse.text.len() + 3 && statement.replace(parse.name).is_none() && !bound
        }),
        front::DESCRIBE => match target(body) {
            Some((b'S', name)) => !executed && *statement.get_or_insert(name) == name,
            Some((_, name)) => name.is_empty() && bound && !executed,
            None => false,
        },
        front::BIND => bind(body).is_some_and(|(portal, name, rest)| {
            let first = !std::mem::replace(&mut bound, true) && *statement.get_or_insert(name) == name;
            first && portal.is_empty() && without_parameters(rest)
        }),
        front::EXECUTE => bound && !std::mem::replace(&mut executed, true) && body == [0, 0, 0, 0, 0],
        front::CLOSE => match target(body) {
            Some((b'S', name)) => executed || statement.is_none_or(|used| used != name) && !(name.is_empty() && bound),
            Some((b'P', _)) => executed,
            _ => false,
        },
        _ => true,
    })
}

/// The end of a Bind: no formats, no values, at most one format for all results.
fn without_parameters(rest: &[u8]) -> bool {
    matches!(rest, [0, 0, 0, 0, 0, 0] | [0, 0, 0, 0, 0, 1, _, _])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_cut_anywhere_are_no_panic() {
        let body = b"name\0select 1\0\0\x01\0\0\0\x17";
        assert_eq!(parse(body).map(|p| (p.name, p.text)), Some((&b"name"[..], &b"select 1"[..])));
        for end in 0..body.len() {
            assert!(parse(&body[..end]).is_none(), "{end}");
            let _ = (bind(&body[..end]), target(&body[..end]), row_limit(&body[..end]), query(&body[..end]));
        }
        assert!(parse(b"\0\0\xff\xff").is_none());
        assert_eq!((query(b"a\0"), query(b"a"), query(b"")), (Some(&b"a"[..]), None, None));
    }

    #[test]
    fn r12_values_that_mean_the_present_are_seen() {
        let message = |value: &[u8]| {
            let length = u32::try_from(value.len()).expect("short").to_be_bytes();
            [b"\0s\0\0\0\0\x02\xff\xff\xff\xff", &length[..], value, b"\0\0"].concat()
        };
        for (value, says) in [(&b"now"[..], true), (b" Yesterday", true), (b"no", false), (b"", false), (b"17", false)]
        {
            assert_eq!(says_now(&message(value)), says, "{value:?}");
        }
        assert!(says_now(b"\0s\0\0\0\0\x01\0\0\0\x09x"), "cut off");
    }

    #[test]
    fn r13_a_series_is_complete_only_up_to_its_sync() {
        let bytes = b"P\0\0\0\x08\0\0\0\0S\0\0\0\x04Q";
        assert_eq!(series(bytes), Some(14));
        assert_eq!(series(&bytes[..13]), None);
        assert_eq!(series(b"Q\0\0\0\x05\0S\0\0\0\x04"), None);
    }
}
