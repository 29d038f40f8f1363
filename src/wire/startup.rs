//! What a client may say before it is logged in. Parsing only; must not decide who may come in.

use super::Reader;

/// Protocol 3.0.
pub const PROTOCOL_3_0: i32 = 3 << 16;
/// Protocol 3.2: longer cancel keys, PostgreSQL 18.
pub const PROTOCOL_3_2: i32 = (3 << 16) | 2;
/// PostgreSQL's `MAX_STARTUP_PACKET_LENGTH`, length field included.
pub const MAX_STARTUP: usize = 10_000;

const CANCEL: i32 = (1234 << 16) | 5678;
const SSL: i32 = (1234 << 16) | 5679;
const GSSENC: i32 = (1234 << 16) | 5680;

/// What identifies a session to a CancelRequest.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct CancelKey {
    /// The process id, or what stands for it.
    pub pid: i32,
    /// The secret: 4 bytes up to protocol 3.0, up to 256 in 3.2.
    pub secret: Box<[u8]>,
}

/// One packet of the startup phase.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Startup {
    /// SSLRequest.
    Ssl,
    /// GSSENCRequest.
    GssEnc,
    /// CancelRequest.
    Cancel(CancelKey),
    /// StartupMessage.
    Start {
        /// Minor protocol version asked for, of major version 3.
        minor: u16,
        /// Names and values as sent, in order; `_pq_.` options included.
        params: Vec<(String, String)>,
    },
}

/// Reads the packet at the start of `bytes` and how many bytes it took; `None` while it is incomplete.
///
/// # Errors
/// A text for the log and the client: a bad length, an unsupported version, a malformed parameter list.
pub fn parse_startup(bytes: &[u8]) -> Result<Option<(Startup, usize)>, String> {
    let Some(field) = bytes.first_chunk::<4>() else { return Ok(None) };
    let length = i32::from_be_bytes(*field);
    let length = usize::try_from(length).unwrap_or(0);
    if !(8..=MAX_STARTUP).contains(&length) {
        return Err("invalid length of startup packet".to_owned());
    }
    let Some(packet) = bytes.get(4..length) else { return Ok(None) };
    let mut reader = Reader::new(packet);
    let code = reader.i32().ok_or("invalid length of startup packet")?;
    let startup = match code {
        SSL | GSSENC if length != 8 => return Err("invalid length of startup packet".to_owned()),
        SSL => Startup::Ssl,
        GSSENC => Startup::GssEnc,
        CANCEL => Startup::Cancel(cancel_key(reader)?),
        version if version >> 16 == 3 => {
            Startup::Start { minor: u16::try_from(version & 0xffff).unwrap_or(u16::MAX), params: parameters(reader)? }
        }
        version => {
            let (major, minor) = (version >> 16, version & 0xffff);
            return Err(format!("unsupported frontend protocol {major}.{minor}: server supports 3.0 to 3.2"));
        }
    };
    Ok(Some((startup, length)))
}

fn cancel_key(mut reader: Reader<'_>) -> Result<CancelKey, String> {
    let pid = reader.i32().ok_or("invalid length of cancel request")?;
    let secret = reader.rest();
    if secret.len() < 4 || secret.len() > 256 {
        return Err("invalid length of cancel request".to_owned());
    }
    Ok(CancelKey { pid, secret: secret.into() })
}

fn parameters(mut reader: Reader<'_>) -> Result<Vec<(String, String)>, String> {
    const LAYOUT: &str = "invalid startup packet layout: expected terminator as last byte";
    let mut params = Vec::new();
    loop {
        let name = reader.cstr().ok_or(LAYOUT)?;
        if name.is_empty() {
            break;
        }
        let value = reader.cstr().ok_or(LAYOUT)?;
        params.push((text(name)?, text(value)?));
    }
    if reader.is_empty() { Ok(params) } else { Err(LAYOUT.to_owned()) }
}

/// Names and values must be UTF-8: everything that pgherd compares them with is.
fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "startup packet holds text that is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(code: i32, body: &[u8]) -> Vec<u8> {
        let mut bytes = (i32::try_from(body.len() + 8).expect("small")).to_be_bytes().to_vec();
        bytes.extend_from_slice(&code.to_be_bytes());
        bytes.extend_from_slice(body);
        bytes
    }

    #[test]
    fn start_message_gives_its_parameters_in_order() {
        let bytes = packet(PROTOCOL_3_0, b"user\0me\0database\0d\0\0");
        let (startup, used) = parse_startup(&bytes).expect("valid").expect("complete");
        assert_eq!(used, bytes.len());
        let params = vec![("user".into(), "me".into()), ("database".into(), "d".into())];
        assert_eq!(startup, Startup::Start { minor: 0, params });
    }

    #[test]
    fn every_cut_is_incomplete_and_never_wrong() {
        let bytes = packet(PROTOCOL_3_2, b"user\0me\0\0");
        for end in 0..bytes.len() {
            assert_eq!(parse_startup(&bytes[..end]), Ok(None), "{end}");
        }
    }

    #[test]
    fn hostile_packets_are_refused() {
        assert!(parse_startup(&[0, 0, 0, 0]).is_err());
        assert!(parse_startup(&[0, 0, 0, 7, 0, 0, 0]).is_err());
        assert!(parse_startup(&0x7fff_ffff_i32.to_be_bytes()).is_err());
        assert!(parse_startup(&packet(SSL, b"x")).is_err());
        assert!(parse_startup(&packet(CANCEL, b"123")).is_err());
        assert!(parse_startup(&packet(PROTOCOL_3_0, b"user\0me\0")).is_err());
        assert!(parse_startup(&packet(PROTOCOL_3_0, b"user\0")).is_err());
        assert!(parse_startup(&packet(PROTOCOL_3_0, b"user\0m\0\0x")).is_err());
        assert!(parse_startup(&packet(2 << 16, b"")).is_err());
    }
}
