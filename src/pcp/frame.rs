//! Messages of PCP as bytes: a kind, a length that counts itself and the body but not the kind, and a body of texts that end with a zero.
//! Bytes only; must not believe a length.

/// The longest body of a request. pgpool-II refuses longer ones, too.
pub const MOST_REQUEST: usize = 255;
/// The longest body that pgherd's own client takes for an answer.
pub const MOST_REPLY: usize = 16 * 1024 * 1024;
/// Kind and length.
const HEADER: usize = 5;

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Its kind.
    pub kind: u8,
    /// What it carries.
    pub body: Vec<u8>,
}

/// A length that no message has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("incorrect packet length ({0})")]
pub struct BadLength(pub i32);

/// The first message of `bytes` and how many bytes it takes; none while it is incomplete.
///
/// # Errors
/// Its length is below that of an empty body, or its body would be longer than `most`.
pub fn split(bytes: &[u8], most: usize) -> Result<Option<(Frame, usize)>, BadLength> {
    let Some((&kind, rest)) = bytes.split_first() else { return Ok(None) };
    let Some(length) = rest.first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*length);
    let body = usize::try_from(length).ok().and_then(|length| length.checked_sub(4));
    let body = body.filter(|body| *body <= most).ok_or(BadLength(length))?;
    Ok(bytes.get(HEADER..HEADER + body).map(|body| (Frame { kind, body: body.to_vec() }, HEADER + body.len())))
}

/// Adds a message.
pub fn push(out: &mut Vec<u8>, kind: u8, body: &[u8]) {
    out.push(kind);
    let length = i32::try_from(body.len() + 4).expect("answers are bounded far below 2 GiB");
    out.extend(length.to_be_bytes());
    out.extend(body);
}

/// Adds a message of texts. A zero within a text would begin another one: it is left out.
pub fn push_texts(out: &mut Vec<u8>, kind: u8, texts: &[&str]) {
    let mut body = Vec::new();
    for text in texts {
        body.extend(text.bytes().filter(|byte| *byte != 0));
        body.push(0);
    }
    push(out, kind, &body);
}

/// The texts of a body, each without its zero. What stands behind the last zero counts as one more.
pub fn texts(body: &[u8]) -> Vec<&[u8]> {
    let body = body.strip_suffix(&[0]).unwrap_or(body);
    body.split(|byte| *byte == 0).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_taken_when_all_of_it_is_there() {
        let mut bytes = Vec::new();
        push_texts(&mut bytes, b'I', &["-1"]);
        push(&mut bytes, b'X', b"");
        assert_eq!(bytes, b"I\0\0\0\x07-1\0X\0\0\0\x04");
        for end in 0..8 {
            assert_eq!(split(&bytes[..end], MOST_REQUEST), Ok(None), "{end}");
        }
        let (frame, used) = split(&bytes, MOST_REQUEST).expect("fits").expect("whole");
        assert_eq!((frame.kind, frame.body.as_slice(), used), (b'I', &b"-1\0"[..], 8));
        assert_eq!(split(&bytes[8..], 0).expect("fits").expect("whole").1, 5);
    }

    #[test]
    fn lengths_are_not_believed() {
        for (length, most) in [(0, 255), (3, 255), (-1, 255), (i32::MIN, 255), (i32::MAX, 255), (260, 255), (5, 0)] {
            let bytes = [&b"I"[..], &i32::to_be_bytes(length)].concat();
            assert_eq!(split(&bytes, most), Err(BadLength(length)), "{length}");
        }
        assert_eq!(texts(b"a\0\0b\0"), [&b"a"[..], b"", b"b"]);
        assert_eq!(texts(b""), [&b""[..]]);
        let mut bytes = Vec::new();
        push_texts(&mut bytes, b'e', &["a\0b"]);
        assert_eq!(&bytes[5..], b"ab\0");
    }
}
