//! Which base URLs an origin may have: `https` to a public host, so that nobody reads private networks through this Worker.
//!
//! Names are not resolved: a public name may point to a private address, and the platform's own network refuses to go there.
//! Hosts are read as the WHATWG URL standard does (§3.5), because the platform's `fetch` will: `0x7f.1` is 127.0.0.1.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::target::Target;

/// Why a base URL is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not an absolute URL, or with user information, query or fragment.
    #[error("Must be an absolute URL without user information, query or fragment.")]
    Malformed,
    /// Neither `https` nor, where that is allowed, loopback.
    #[error("Must begin with `https://`.")]
    NotHttps,
    /// A private, local or reserved address, or a name of such a network.
    #[error("Must name a public host.")]
    NotPublic,
}

/// Longest base URL, in bytes.
pub const BASE_URL_BYTES_MAX: usize = 1024;

/// Names that end like this are of private networks (RFC 6761, RFC 6762 §3, RFC 8375, ICANN's `internal`), or name a cloud's metadata.
const PRIVATE_SUFFIXES: [&str; 9] =
    ["localhost", "local", "localdomain", "internal", "intranet", "lan", "corp", "home", "home.arpa"];

/// Whether an origin may be at `base_url`.
///
/// # Errors
/// [`Refused`] says why not.
pub fn check(base_url: &str, allow_loopback: bool) -> Result<(), Refused> {
    let has_more = base_url.contains(['#', '?', '\\']) || base_url.len() > BASE_URL_BYTES_MAX;
    let target = Target::parse(base_url).filter(|_| !has_more).ok_or(Refused::Malformed)?;
    let host = host(target.authority()).ok_or(Refused::Malformed)?;
    if allow_loopback && host.is_loopback() {
        return Ok(());
    }
    if !host.is_public() {
        return Err(Refused::NotPublic);
    }
    if target.scheme() == "https" { Ok(()) } else { Err(Refused::NotHttps) }
}

#[derive(Debug)]
enum Host {
    Address(IpAddr),
    Name(String),
}

/// The host of an authority in lower case; nothing for what is neither a name nor an address.
fn host(authority: &str) -> Option<Host> {
    if let Some(rest) = authority.strip_prefix('[') {
        let (address, port) = rest.split_once(']')?;
        is_port(port).then_some(())?;
        return address.parse::<Ipv6Addr>().ok().map(|address| Host::Address(IpAddr::V6(address)));
    }
    let (name, port) = authority.find(':').map_or((authority, ""), |at| authority.split_at(at));
    is_port(port).then_some(())?;
    let name = name.strip_suffix('.').unwrap_or(name);
    // Percent-encoding and other scripts could turn into digits or dots: such names come as punycode.
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'.' || byte == b'_';
    // `0x` alone is zero to one parser and a name to another.
    let is_whole = |label: &str| (1..=63).contains(&label.len()) && !label.eq_ignore_ascii_case("0x");
    let labels_are_whole = name.split('.').all(is_whole);
    if !labels_are_whole || name.len() > 253 || !name.bytes().all(allowed) {
        return None;
    }
    let last = name.rsplit('.').next().unwrap_or_default();
    if last.bytes().all(|byte| byte.is_ascii_digit()) || number(last).is_some() {
        return ipv4(name).map(|address| Host::Address(IpAddr::V4(address)));
    }
    Some(Host::Name(name.to_owned()))
}

fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|digits| digits.parse::<u16>().is_ok_and(|port| port > 0))
}

/// WHATWG URL §3.5, "IPv4 parser": one to four numbers, decimal, octal or hexadecimal; the last fills what is left.
fn ipv4(name: &str) -> Option<Ipv4Addr> {
    let numbers: Vec<u64> = name.split('.').map(number).collect::<Option<_>>()?;
    let (last, first) = numbers.split_last()?;
    if first.len() > 3 || first.iter().any(|part| *part > 255) {
        return None;
    }
    let mut shift = 24_u32;
    let mut bits = 0_u64;
    for part in first {
        bits |= part << shift;
        shift = shift.saturating_sub(8);
    }
    let room = 1_u64 << (32 - 8 * u32::try_from(first.len()).ok()?);
    (*last < room).then_some(())?;
    u32::try_from(bits | last).ok().map(Ipv4Addr::from_bits)
}

fn number(part: &str) -> Option<u64> {
    let lower = part.to_ascii_lowercase();
    let (digits, radix) = match lower.strip_prefix("0x") {
        Some(hex) => (hex, 16),
        None if lower.len() > 1 && lower.starts_with('0') => (lower.trim_start_matches('0'), 8),
        None => (lower.as_str(), 10),
    };
    if lower.is_empty() || digits.starts_with(['+', '-']) {
        return None;
    }
    if digits.is_empty() { Some(0) } else { u64::from_str_radix(digits, radix).ok() }
}

impl Host {
    fn is_loopback(&self) -> bool {
        match self {
            Self::Address(address) => address.is_loopback(),
            Self::Name(name) => name == "localhost",
        }
    }

    fn is_public(&self) -> bool {
        match self {
            Self::Address(IpAddr::V4(address)) => is_public_v4(*address),
            Self::Address(IpAddr::V6(address)) => is_public_v6(*address),
            Self::Name(name) => {
                let private = |suffix: &&str| {
                    name.strip_suffix(*suffix).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
                };
                name.contains('.') && !PRIVATE_SUFFIXES.iter().any(private)
            }
        }
    }
}

/// Source: IANA IPv4 Special-Purpose Address Registry (RFC 6890).
const fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !matches!(
        (a, b, c),
        (0 | 10 | 127 | 224.., _, _)
            | (100, 64..=127, _)
            | (169, 254, _)
            | (172, 16..=31, _)
            | (192, 0, 0 | 2)
            | (192, 88, 99)
            | (192, 168, _)
            | (198, 18 | 19, _)
            | (198, 51, 100)
            | (203, 0, 113)
    )
}

/// Global unicast (`2000::/3`) without what carries IPv4 or is reserved. Source: IANA IPv6 Special-Purpose Address Registry.
const fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    first & 0xe000 == 0x2000
        && first != 0x2002
        && first != 0x3fff
        && !(first == 0x2001 && (second < 0x200 || second == 0xdb8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(hosts: &[&str], expected: Refused) {
        for host in hosts {
            assert_eq!(check(&format!("https://{host}/"), false), Err(expected), "{host}");
            assert_eq!(check(&format!("https://{host}:8443/base"), false), Err(expected), "{host} with a port");
        }
    }

    #[test]
    fn public_hosts_by_https_are_taken() {
        for url in [
            "https://example.com",
            "https://a-b.example.co.uk:8443/base/",
            "https://8.8.8.8/",
            "https://[2606:4700::1111]/",
            "https://xn--bcher-kva.example/",
            "https://example.com./",
            "https://172.15.0.1/",
            "https://100.63.0.1/",
        ] {
            assert_eq!(check(url, false), Ok(()), "{url}");
        }
        assert_eq!(check("http://example.com/", false), Err(Refused::NotHttps));
        assert_eq!(check("http://example.com/", true), Err(Refused::NotHttps));
    }

    #[test]
    fn private_addresses_are_refused_however_they_are_written() {
        refused(
            &[
                "127.0.0.1",
                "127.1",
                "2130706433",
                "0x7f000001",
                "0x7f.0.0.1",
                "0177.0.0.1",
                "017700000001",
                "127.0.0.1.",
                "0",
                "0x0",
                "0.0.0.0",
                "10.0.0.1",
                "10.1",
                "0xa.1",
                "012.0.0.1",
                "172.16.0.1",
                "172.31.255.255",
                "192.168.1.1",
                "0xc0a80101",
                "3232235777",
                "169.254.169.254",
                "0xa9fea9fe",
                "2852039166",
                "0251.0376.0251.0376",
                "100.64.0.1",
                "198.18.0.1",
                "192.0.2.1",
                "224.0.0.1",
                "255.255.255.255",
            ],
            Refused::NotPublic,
        );
        refused(
            &[
                "[::1]",
                "[::]",
                "[::ffff:127.0.0.1]",
                "[::ffff:7f00:1]",
                "[::ffff:a9fe:a9fe]",
                "[::127.0.0.1]",
                "[64:ff9b::7f00:1]",
                "[2002:7f00:1::]",
                "[fc00::1]",
                "[fd00:ec2::254]",
                "[fe80::1]",
                "[ff02::1]",
                "[2001:db8::1]",
                "[2001:0:7f00:1::]",
                "[100::1]",
            ],
            Refused::NotPublic,
        );
    }

    #[test]
    fn names_of_private_networks_are_refused() {
        refused(
            &[
                "localhost",
                "localhost.",
                "LOCALHOST",
                "a.localhost",
                "printer",
                "printer.local",
                "metadata.google.internal",
                "x.internal.",
                "host.docker.internal",
                "a.lan",
                "router.home.arpa",
                "db.corp",
                "x.intranet",
            ],
            Refused::NotPublic,
        );
    }

    #[test]
    fn what_two_parsers_may_read_differently_is_malformed() {
        refused(
            &[
                "256.1.1.1",
                "1.2.3.4.5",
                "1.2.3.0x",
                "a..b",
                "%31%32%37.0.0.1",
                "１２７.0.0.1",
                "ⓛocalhost",
                "[fe80::1%25eth0]",
                "[::1",
                "a b",
                "08.1.1.1",
            ],
            Refused::Malformed,
        );
        for url in [
            "https://u@example.com/",
            "https://u:p@127.0.0.1/",
            "https://example.com/?x",
            "https://example.com/#x",
            "ftp://example.com/",
            "example.com",
            "https://",
            "https://example.com:0/",
            "https://example.com:99999/",
            "https://example.com\\@127.0.0.1/",
        ] {
            assert_eq!(check(url, false), Err(Refused::Malformed), "{url}");
        }
    }

    #[test]
    fn loopback_and_nothing_else_is_for_development() {
        for url in
            ["http://127.0.0.1:9000", "http://localhost:9000/", "https://[::1]/", "http://127.1/", "http://localhost./"]
        {
            assert_eq!(check(url, true), Ok(()), "{url}");
        }
        for url in ["http://10.0.0.1/", "http://169.254.169.254/", "http://a.localhost/", "http://[::ffff:127.0.0.1]/"]
        {
            assert_eq!(check(url, true), Err(Refused::NotPublic), "{url}");
        }
    }
}
