//! Who is reached without a proxy: the entries of `NO_PROXY`.

use std::net::IpAddr;

/// An entry of `NO_PROXY`.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Exception {
    All,
    /// Addresses that have the same first bits.
    Network(IpAddr, u8),
    /// A name and everything below it, at one port or all.
    Domain(String, Option<u16>),
}

impl Exception {
    pub(super) fn parse(word: &str) -> Self {
        if word == "*" {
            return Self::All;
        }
        let network =
            word.split_once('/').and_then(|(ip, bits)| Some((ip.parse().ok()?, bits.parse().ok()?)));
        if let Some((ip, bits)) = network {
            return Self::Network(ip, bits);
        }
        let bare = word.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = bare.parse::<IpAddr>() {
            return Self::Network(ip, if ip.is_ipv4() { 32 } else { 128 });
        }
        let (name, port) = match word.rsplit_once(':') {
            Some((name, port)) if port.parse::<u16>().is_ok() => (name, port.parse().ok()),
            _ => (word, None),
        };
        // Some programs write the dot or the star, and some do not; all of them mean the domain.
        let name = name.trim_start_matches('*').trim_start_matches('.');
        Self::Domain(name.trim_start_matches('[').trim_end_matches(']').to_lowercase(), port)
    }

    pub(super) fn covers_host(&self, host: &str, port: u16) -> bool {
        match self {
            Self::All => true,
            Self::Network(network, bits) => {
                host.parse().is_ok_and(|ip: IpAddr| shares_bits(ip, *network, *bits))
            }
            Self::Domain(name, only) => {
                let host = host.to_lowercase();
                let below = host.strip_suffix(name.as_str());
                only.is_none_or(|only| only == port)
                    && !name.is_empty()
                    && below.is_some_and(|below| below.is_empty() || below.ends_with('.'))
            }
        }
    }
}

/// Whether the first bits of two addresses of one family are the same.
fn shares_bits(one: IpAddr, other: IpAddr, bits: u8) -> bool {
    let differ = match (one, other) {
        (IpAddr::V4(one), IpAddr::V4(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        (IpAddr::V6(one), IpAddr::V6(other)) => (one.to_bits() ^ other.to_bits()).leading_zeros(),
        _ => return false,
    };
    differ >= u32::from(bits)
}
