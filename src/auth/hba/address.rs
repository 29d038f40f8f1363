//! The address column: networks, masks and words. Names are refused: they would need DNS on the way in.

use std::net::IpAddr;

/// Which addresses a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// Every one; also what `local` lines have.
    All,
    /// Those of this host.
    SameHost,
    /// A network.
    Network {
        /// Address, bits behind the mask zero.
        base: IpAddr,
        /// One bits of the mask: 0 to 32 or 128.
        bits: u8,
    },
}

fn mask(bits: u8, width: u8) -> u128 {
    let ones = u128::MAX.checked_shl(u32::from(128 - bits)).unwrap_or(0);
    ones >> (128 - width)
}

fn number(ip: IpAddr) -> (u128, u8) {
    match ip {
        IpAddr::V4(ip) => (u128::from(u32::from(ip)), 32),
        IpAddr::V6(ip) => (u128::from(ip), 128),
    }
}

fn masked(ip: IpAddr, bits: u8) -> IpAddr {
    match ip {
        IpAddr::V4(ip) => IpAddr::V4((u32::from(ip) & (mask(bits, 32) as u32)).into()),
        IpAddr::V6(ip) => IpAddr::V6((u128::from(ip) & mask(bits, 128)).into()),
    }
}

impl Addresses {
    /// Is `ip` one of them? An IPv4 address inside an IPv6 one counts as IPv4.
    pub fn contain(&self, ip: IpAddr, same_host: bool) -> bool {
        match *self {
            Self::All => true,
            Self::SameHost => same_host,
            Self::Network { base, bits } => masked(ip.to_canonical(), bits) == base,
        }
    }

    /// A single column: a word, or `address/bits`. `Ok(None)`: an address alone, whose mask is the next column.
    pub(super) fn one_column(text: &str) -> Result<Option<Self>, String> {
        match text {
            "all" => return Ok(Some(Self::All)),
            "samehost" => return Ok(Some(Self::SameHost)),
            "samenet" => return Err("samenet is not supported; write the network as address/bits".into()),
            _ => {}
        }
        let Some((address, bits)) = text.split_once('/') else {
            return match text.parse::<IpAddr>() {
                Ok(_) => Ok(None),
                Err(_) => Err(format!("\"{text}\" is no address; host names are not supported, write address/bits")),
            };
        };
        let address: IpAddr = address.parse().map_err(|_| format!("invalid IP address \"{address}\""))?;
        let width = number(address).1;
        let digits = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
        match bits.parse::<u8>().ok().filter(|&bits| digits && bits <= width) {
            Some(bits) => Ok(Some(Self::Network { base: masked(address, bits), bits })),
            None => Err(format!("invalid CIDR mask in address \"{text}\"")),
        }
    }

    /// Two columns: address and mask.
    pub(super) fn two_columns(address: &str, netmask: &str) -> Result<Self, String> {
        let address: IpAddr = address.parse().map_err(|_| format!("invalid IP address \"{address}\""))?;
        let invalid = || format!("invalid IP mask \"{netmask}\"");
        let (ones, width) = number(netmask.parse().map_err(|_| invalid())?);
        if width != number(address).1 {
            return Err("IP address and mask do not match".into());
        }
        let bits = (ones << (128 - u32::from(width))).leading_ones() as u8;
        // PostgreSQL takes masks with holes; nobody means them.
        if mask(bits, width) != ones {
            return Err(format!("IP mask \"{netmask}\" has ones behind its first zero"));
        }
        Ok(Self::Network { base: masked(address, bits), bits })
    }
}
