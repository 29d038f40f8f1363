//! What a logged-in client may ask, read out of its messages. Pure; must not know what comes of it.

use super::frame::{Frame, texts};
use super::own::{OWN, Own};
use crate::cluster::NodeId;
pub use crate::cluster::StopMode;

/// One request.
#[derive(Debug, Clone, PartialEq)]
pub enum Request {
    /// `A`: a parameter of this connection; nothing here depends on one.
    SetParameter,
    /// `B`
    PoolStatus,
    /// `C`
    Attach(NodeId),
    /// `D`, `d`
    Detach {
        /// Which.
        node: NodeId,
        /// Answer when no transaction uses it any more.
        gracefully: bool,
    },
    /// `F`: nothing, and no answer.
    Nothing,
    /// `G`
    ForgetCache,
    /// `H`
    HealthChecks(NodeId),
    /// `I`; none: all.
    NodeInfo(Option<NodeId>),
    /// `J`, `j`
    Promote {
        /// Which.
        node: NodeId,
        /// Move the role of a primary that answers (HA H25).
        switchover: bool,
    },
    /// `L`
    NodeCount,
    /// `N`
    ProcessCount,
    /// `O`
    Recover(NodeId),
    /// `P`; none: all.
    ProcessInfo(Option<i32>),
    /// `T`; `t`: the whole group of partner proxies.
    Stop {
        /// How.
        mode: StopMode,
        /// All of them.
        group: bool,
    },
    /// `V`
    RotateLog,
    /// `W`
    /// −1: all members, 0: this one, n: the nth of the others.
    Watchdog(i64),
    /// `Z`
    Reload {
        /// All partner proxies, too.
        group: bool,
    },
    /// `X`
    Disconnect,
    /// What only pgherd's own client asks.
    Own(Own),
}

/// Why a message is no request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadRequest {
    /// Nobody knows the kind: the connection ends.
    Kind(u8),
    /// What it carries is wrong; the text is for people and does not begin with a capital letter.
    Body(String),
}

impl Request {
    /// Reads one.
    ///
    /// # Errors
    /// It is none.
    pub fn read(frame: &Frame) -> Result<Self, BadRequest> {
        let body = &frame.body;
        Ok(match frame.kind {
            b'A' => Self::SetParameter,
            b'B' => Self::PoolStatus,
            b'C' => Self::Attach(node(body)?),
            b'D' | b'd' => Self::Detach { node: node(body)?, gracefully: frame.kind == b'd' },
            b'F' => Self::Nothing,
            b'G' => Self::ForgetCache,
            b'H' => Self::HealthChecks(node(body)?),
            b'I' => Self::NodeInfo(if number(body)? == -1 { None } else { Some(node(body)?) }),
            b'J' | b'j' => promote(body)?,
            b'L' => Self::NodeCount,
            b'N' => Self::ProcessCount,
            b'O' => Self::Recover(node(body)?),
            b'P' => Self::ProcessInfo(process(body)?),
            b'T' | b't' => Self::Stop { mode: stop_mode(body)?, group: frame.kind == b't' },
            b'V' => Self::RotateLog,
            b'W' => Self::Watchdog(number(body)?),
            b'Z' => Self::Reload { group: body.trim_ascii_end().starts_with(b"c") },
            b'X' => Self::Disconnect,
            OWN => Self::Own(Own::read(body).map_err(BadRequest::Body)?),
            kind => return Err(BadRequest::Kind(kind)),
        })
    }
}

/// The number in the first text of a body.
fn number(body: &[u8]) -> Result<i64, BadRequest> {
    let text = texts(body)[0].trim_ascii();
    let number = std::str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    number.ok_or_else(|| BadRequest::Body(format!("invalid number : {:?}", String::from_utf8_lossy(text))))
}

fn node(body: &[u8]) -> Result<NodeId, BadRequest> {
    let number = number(body)?;
    u16::try_from(number).map(NodeId).map_err(|_| BadRequest::Body(format!("invalid node ID : {number}")))
}

fn process(body: &[u8]) -> Result<Option<i32>, BadRequest> {
    match number(body)? {
        0 => Ok(None),
        number => {
            let id = i32::try_from(number).ok().filter(|id| *id > 0);
            id.map(Some).ok_or_else(|| BadRequest::Body(format!("invalid process ID : {number}")))
        }
    }
}

/// The programs send `1 `, a zero, and `s` or `n`; those before 4.3 the number alone.
fn promote(body: &[u8]) -> Result<Request, BadRequest> {
    let node = node(body)?;
    match texts(body).get(1).copied().unwrap_or_default() {
        b"s" => Ok(Request::Promote { node, switchover: true }),
        b"n" | b"" => Ok(Request::Promote { node, switchover: false }),
        _ => Err(BadRequest::Body("invalid promote option".to_owned())),
    }
}

fn stop_mode(body: &[u8]) -> Result<StopMode, BadRequest> {
    match body.trim_ascii_end() {
        b"s" | b"s\0" => Ok(StopMode::Smart),
        b"f" | b"f\0" => Ok(StopMode::Fast),
        b"i" | b"i\0" => Ok(StopMode::Immediate),
        _ => Err(BadRequest::Body("invalid shutdown mode".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(kind: u8, body: &[u8]) -> Result<Request, BadRequest> {
        Request::read(&Frame { kind, body: body.to_vec() })
    }

    /// The bytes are those that the programs of 4.3.5 send.
    #[test]
    fn requests_of_the_real_programs_are_understood() {
        let one = NodeId(1);
        for (kind, body, request) in [
            (b'J', &b"1 \0n"[..], Request::Promote { node: one, switchover: false }),
            (b'J', b"12 \0s", Request::Promote { node: NodeId(12), switchover: true }),
            (b'j', b"1 \0s", Request::Promote { node: one, switchover: true }),
            (b'J', b"1\0", Request::Promote { node: one, switchover: false }),
            (b'd', b"1\0", Request::Detach { node: one, gracefully: true }),
            (b'D', b"1\0", Request::Detach { node: one, gracefully: false }),
            (b'C', b"3\0", Request::Attach(NodeId(3))),
            (b'T', b"f", Request::Stop { mode: StopMode::Fast, group: false }),
            (b't', b"i", Request::Stop { mode: StopMode::Immediate, group: true }),
            (b'T', b"s", Request::Stop { mode: StopMode::Smart, group: false }),
            (b'Z', b"l", Request::Reload { group: false }),
            (b'Z', b"c", Request::Reload { group: true }),
            (b'P', b"0\0", Request::ProcessInfo(None)),
            (b'P', b"4194305\0", Request::ProcessInfo(Some(4_194_305))),
            (b'I', b"-1\0", Request::NodeInfo(None)),
            (b'I', b"0\0", Request::NodeInfo(Some(NodeId(0)))),
            (b'H', b"2\0", Request::HealthChecks(NodeId(2))),
            (b'O', b"1\0", Request::Recover(one)),
            (b'W', b"-1\0", Request::Watchdog(-1)),
            (b'B', b"", Request::PoolStatus),
            (b'X', b"", Request::Disconnect),
        ] {
            assert_eq!(read(kind, body), Ok(request), "{} {body:?}", char::from(kind));
        }
    }

    #[test]
    fn what_is_no_request_is_refused() {
        assert_eq!(read(b'Q', b"1\0"), Err(BadRequest::Kind(b'Q')));
        for (kind, body) in [
            (b'I', &b"-2\0"[..]),
            (b'I', b"\0"),
            (b'I', b""),
            (b'C', b"65536\0"),
            (b'C', b"abc\0"),
            (b'C', b"-1\0"),
            (b'C', b"1x\0"),
            (b'C', b"\xff\0"),
            (b'C', b"99999999999999999999\0"),
            (b'P', b"-5\0"),
            (b'P', b"2147483648\0"),
            (b'J', b"1 \0x"),
            (b'J', b"s"),
            (b'T', b"x"),
            (b'T', b""),
        ] {
            let refused = read(kind, body);
            assert!(matches!(&refused, Err(BadRequest::Body(text)) if text.starts_with("invalid")), "{refused:?}");
        }
    }
}
