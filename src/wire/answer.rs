//! Answers that pgherd gives in a server's place: rows of text. Built with `pgwire`, which is not on the forwarding path.

use bytes::{BufMut, BytesMut};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};

/// `text`'s type number.
const TEXT: u32 = 25;

/// Appends RowDescription for columns of type text.
pub fn row_description(out: &mut Vec<u8>, columns: &[&str]) {
    let fields = columns.iter().map(|name| FieldDescription::new((*name).to_owned(), 0, 0, TEXT, -1, -1, 0)).collect();
    encode(out, PgWireBackendMessage::RowDescription(RowDescription::new(fields)));
}

/// Appends one DataRow.
pub fn data_row<'a>(out: &mut Vec<u8>, values: impl ExactSizeIterator<Item = Option<&'a str>>) {
    let count = i16::try_from(values.len()).expect("administrative answers have a few columns");
    let mut data = BytesMut::new();
    for value in values {
        match value {
            Some(text) => {
                data.put_i32(i32::try_from(text.len()).expect("administrative values are short"));
                data.put_slice(text.as_bytes());
            }
            None => data.put_i32(-1),
        }
    }
    encode(out, PgWireBackendMessage::DataRow(DataRow::new(data, count)));
}

fn encode(out: &mut Vec<u8>, message: PgWireBackendMessage) {
    let mut buffer = BytesMut::new();
    message.encode(&mut buffer).expect("writing to memory does not fail");
    out.extend_from_slice(&buffer);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_whole_and_hold_their_values() {
        let mut out = Vec::new();
        row_description(&mut out, &["node", "reason"]);
        let first = crate::wire::peek_unlimited(&out).expect("a header");
        assert_eq!((first.tag, first.size), (b'T', out.len()));
        out.clear();
        data_row(&mut out, [Some("a"), None].into_iter());
        assert_eq!(out, b"D\0\0\0\x0f\0\x02\0\0\0\x01a\xff\xff\xff\xff");
    }
}
