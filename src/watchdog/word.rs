//! What members tell each other beside the engine's messages, on behalf of clients and operators, and its form on the wire: a mark that no
//! message begins with, then JSON within bounds. By TCP alone, so that nothing comes twice. Values only; must not believe a length.

use serde::{Deserialize, Serialize};

use super::seal::TAG;
use crate::cluster::Errand;

/// What such a text begins with; a message begins with `{`.
const MARK: u8 = b'!';
/// The longest form of a word, in bytes.
pub const MAX_WORD: usize = 16 * 1024;
/// The longest text for people in one, in bytes; longer ones are cut.
const MAX_TEXT: usize = 2 * 1024;

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Word {
    /// A client wants to cancel what this session of the receiver does, and knows its secret: [`Seal::proof`](super::seal::Seal::proof).
    /// Nobody is answered.
    Cancel {
        /// The session's number.
        session: i32,
        /// That the secret is known.
        proof: [u8; TAG],
    },
    /// Do this, for that person.
    Ask {
        /// Comes back in the answers; of this process of the sender, and of nobody else's.
        number: u64,
        /// What.
        errand: Errand,
        /// Who wants it.
        who: String,
    },
    /// It is under way.
    Still {
        /// As in the question.
        number: u64,
        /// How far, for people.
        how: String,
    },
    /// How the sender sees the group, for people.
    Report(Report),
    /// It is over.
    Told {
        /// As in the question.
        number: u64,
        /// What came of it.
        answer: Result<String, String>,
    },
}

/// How a member sees the group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The sender's wall clock, in milliseconds since 1970.
    pub wall: i64,
    /// The same of the receiver's newest report, and how many milliseconds ago it came.
    pub echo: Option<(i64, u32)>,
    /// Who leads, confirmed by a majority, as far as the sender knows.
    pub leader: Option<String>,
    /// The number of its term.
    pub term: u64,
    /// The epoch under which the sender writes.
    pub epoch: u64,
    /// The virtual address is with the sender.
    pub holds_ip: bool,
}

impl Word {
    /// Is this the form of one? It need not be a good one.
    pub fn is_one(text: &[u8]) -> bool {
        text.first() == Some(&MARK)
    }

    /// Texts for people are short, and hold nothing that a terminal or a log takes for more than text.
    fn tame(&mut self) {
        match self {
            Self::Cancel { .. } | Self::Report(Report { leader: None, .. }) => {}
            Self::Ask { who: text, .. }
            | Self::Still { how: text, .. }
            | Self::Report(Report { leader: Some(text), .. })
            | Self::Told { answer: Ok(text) | Err(text), .. } => {
                cut(text);
                if text.contains(char::is_control) {
                    *text = text.replace(char::is_control, " ");
                }
            }
        }
    }

    /// Its form on the wire; texts are cut to what fits.
    pub fn encode(mut self) -> Vec<u8> {
        self.tame();
        let mut bytes = vec![MARK];
        serde_json::to_writer(&mut bytes, &self).expect("it has no maps with strange keys, and memory does not fail");
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// It is none, or longer than [`MAX_WORD`]; for people.
    pub fn decode(text: &[u8]) -> Result<Self, String> {
        if text.len() > MAX_WORD {
            return Err(format!("{} bytes are too many", text.len()));
        }
        let body = text.strip_prefix(&[MARK]).ok_or("not a word")?;
        let mut word: Self = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        word.tame();
        Ok(word)
    }
}

fn cut(text: &mut String) {
    let mut end = text.len().min(MAX_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::super::message::Message;
    use super::*;

    #[test]
    fn words_come_out_as_they_went_in_and_are_no_messages() {
        for word in [
            Word::Cancel { session: i32::MAX, proof: [255; TAG] },
            Word::Ask { number: u64::MAX, errand: Errand::SwitchOver(None), who: "pcp user ü".into() },
            Word::Still { number: 1, how: String::new() },
            Word::Report(Report {
                wall: i64::MIN,
                echo: None,
                leader: Some("a".into()),
                term: 1,
                epoch: 2,
                holds_ip: true,
            }),
            Word::Told { number: 7, answer: Err("no".into()) },
        ] {
            let bytes = word.clone().encode();
            assert!(Word::is_one(&bytes) && bytes.len() <= MAX_WORD, "{word:?}");
            assert!(Message::decode(&bytes).is_err());
            assert_eq!(Word::decode(&bytes), Ok(word));
        }
    }

    #[test]
    fn a_long_text_is_cut_between_characters_and_fits_whatever_it_holds() {
        for text in ["ü".repeat(MAX_TEXT), "\u{1}".repeat(MAX_TEXT * 2), "x".repeat(100_000)] {
            let bytes = Word::Told { number: 1, answer: Ok(format!("x{text}")) }.encode();
            assert!(bytes.len() <= MAX_WORD, "{}", bytes.len());
            assert!(Word::decode(&bytes).is_ok());
        }
    }

    #[test]
    fn no_cut_and_no_changed_byte_makes_a_panic() {
        let word = Word::Ask { number: 77, errand: Errand::SwitchOver(Some(2)), who: "pcp user x".into() };
        let bytes = word.encode();
        for at in 0..bytes.len() {
            let _ = Word::decode(&bytes[..at]);
            for byte in [0, b'{', b'"', b'\\', 0x80, 0xFF] {
                let mut changed = bytes.clone();
                changed[at] = byte;
                if let Ok(word) = Word::decode(&changed) {
                    assert!(Word::decode(&word.encode()).is_ok());
                }
            }
        }
    }

    #[test]
    fn what_people_read_is_text_whoever_wrote_it() {
        let evil = b"!{\"Ask\":{\"number\":1,\"errand\":\"Reload\",\"who\":\"a\\n\\u001b[2Jb\"}}";
        let tame = Word::Ask { number: 1, errand: Errand::Reload, who: "a  [2Jb".into() };
        assert_eq!(Word::decode(evil), Ok(tame));
    }

    #[test]
    fn hostile_texts_are_refused() {
        let long = [&[MARK][..], &vec![b' '; MAX_WORD]].concat();
        let deep = format!("!{}", "[".repeat(5_000));
        for text in [&b""[..], b"!", b"!{}", b"{\"Cancel\":{}}", b"!{\"Cancel\":{\"session\":1,\"proof\":[1]}}", &long]
        {
            assert!(Word::decode(text).is_err(), "{text:?}");
        }
        assert!(Word::decode(deep.as_bytes()).is_err());
    }
}
