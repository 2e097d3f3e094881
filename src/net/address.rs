//! What kind of place an IP address is. Pure.
//!
//! IPv6 forms that carry an IPv4 address are judged by it: they reach the same machine.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Kinds of addresses, from harmless to never allowed. The order counts: of several embedded addresses the worst wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AddressKind {
    /// The internet.
    Public,
    /// A network of our own: RFC 1918, shared address space, unique local, site local, benchmarking.
    Private,
    /// This machine.
    Loopback,
    /// Never a place for HTTP: documentation, discard, reserved for later, translators whose target cannot be seen.
    Reserved,
    /// `0.0.0.0/8` and `::`: systems take them for themselves.
    Unspecified,
    /// Multicast and broadcast.
    Multicast,
    /// Link-local: machines on the same cable, and the metadata services of clouds.
    LinkLocal,
    /// Services that hand a machine its credentials.
    Metadata,
}

impl AddressKind {
    /// The kind of an address.
    pub fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(ip) => of_v4(ip),
            IpAddr::V6(ip) => of_v6(ip),
        }
    }

    /// In words, for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Public => "a public address",
            Self::Private => "a private address",
            Self::Loopback => "this machine itself",
            Self::Reserved => "a reserved address",
            Self::Unspecified => "an unspecified address",
            Self::Multicast => "a multicast address",
            Self::LinkLocal => "a link-local address",
            Self::Metadata => "a cloud metadata service",
        }
    }
}

/// Alibaba Cloud and Oracle Cloud keep theirs outside of the link-local range.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(169, 254, 169, 254), Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(192, 0, 0, 192)];
/// AWS and Google Cloud.
const METADATA_V6: [Ipv6Addr; 2] =
    [Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254), Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)];

/// IANA IPv4 special-purpose address registry.
fn of_v4(ip: Ipv4Addr) -> AddressKind {
    use AddressKind::{LinkLocal, Loopback, Metadata, Multicast, Private, Public, Reserved, Unspecified};
    if METADATA_V4.contains(&ip) {
        return Metadata;
    }
    match ip.octets() {
        [0, ..] => Unspecified,
        [127, ..] => Loopback,
        [169, 254, ..] => LinkLocal,
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [198, 18 | 19, ..] => Private,
        [192, 0, 0 | 2, _] | [192, 88, 99, _] | [198, 51, 100, _] | [203, 0, 113, _] => Reserved,
        [224..=239, ..] | [255, 255, 255, 255] => Multicast,
        [240..=255, ..] => Reserved,
        _ => Public,
    }
}

/// IANA IPv6 special-purpose address registry.
fn of_v6(ip: Ipv6Addr) -> AddressKind {
    use AddressKind::{LinkLocal, Loopback, Metadata, Multicast, Private, Public, Reserved, Unspecified};
    if METADATA_V6.contains(&ip) {
        return Metadata;
    }
    let segments = ip.segments();
    let v4_at = |index: usize| v4(segments[index], segments[index + 1]);
    let kind = match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Unspecified,
        [0, 0, 0, 0, 0, 0, 0, 1] => Loopback,
        // Compatible, mapped, translated (RFC 4291 2.5.5, RFC 2765) and NAT64 (RFC 6052).
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0, 0, 0, 0, ..] => {
            of_v4(v4_at(6))
        }
        // 6to4 (RFC 3056).
        [0x2002, ..] => of_v4(v4_at(1)),
        // Teredo (RFC 4380): the server, and the client with its bits turned over.
        [0x2001, 0, ..] => of_v4(v4_at(2)).max(of_v4(v4(!segments[6], !segments[7]))),
        [0xfe80..=0xfebf, ..] => LinkLocal,
        [0xfec0..=0xfeff | 0xfc00..=0xfdff, ..] => Private,
        [0xff00..=0xffff, ..] => Multicast,
        // Special uses (RFC 2928), documentation (RFC 3849, 9637).
        [0x2001, 1..=0x1ff | 0xdb8, ..] | [0x3fff, 0..=0xfff, ..] => Reserved,
        [0x2000..=0x3fff, ..] => Public,
        // Everything that is not given out, with discard (RFC 6666) and local translators (RFC 8215).
        _ => Reserved,
    };
    match segments {
        // ISATAP (RFC 5214): an interface id with an IPv4 address in it.
        [_, _, _, _, 0 | 0x200, 0x5efe, ..] => kind.max(of_v4(v4_at(6))),
        _ => kind,
    }
}

fn v4(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_what_the_registries_say() {
        use AddressKind::{LinkLocal, Loopback, Metadata, Multicast, Private, Public, Reserved, Unspecified};
        for (text, kind) in [
            ("0.0.0.0", Unspecified),
            ("0.1.2.3", Unspecified),
            ("1.1.1.1", Public),
            ("9.255.255.255", Public),
            ("10.0.0.0", Private),
            ("10.255.255.255", Private),
            ("11.0.0.0", Public),
            ("100.63.255.255", Public),
            ("100.64.0.0", Private),
            ("100.127.255.255", Private),
            ("100.128.0.0", Public),
            ("100.100.100.200", Metadata),
            ("126.255.255.255", Public),
            ("127.0.0.1", Loopback),
            ("127.255.255.255", Loopback),
            ("128.0.0.0", Public),
            ("169.253.255.255", Public),
            ("169.254.0.1", LinkLocal),
            ("169.254.169.254", Metadata),
            ("172.15.255.255", Public),
            ("172.16.0.0", Private),
            ("172.31.255.255", Private),
            ("172.32.0.0", Public),
            ("192.0.0.192", Metadata),
            ("192.0.0.8", Reserved),
            ("192.0.2.1", Reserved),
            ("192.167.255.255", Public),
            ("192.168.0.0", Private),
            ("192.169.0.0", Public),
            ("198.17.255.255", Public),
            ("198.18.0.1", Private),
            ("198.51.100.7", Reserved),
            ("203.0.113.7", Reserved),
            ("224.0.0.1", Multicast),
            ("239.255.255.255", Multicast),
            ("240.0.0.1", Reserved),
            ("255.255.255.255", Multicast),
            ("::", Unspecified),
            ("::1", Loopback),
            ("::2", Unspecified),
            ("::127.0.0.1", Loopback),
            ("::10.0.0.1", Private),
            ("::8.8.8.8", Public),
            ("::ffff:127.0.0.1", Loopback),
            ("::ffff:7f00:1", Loopback),
            ("::ffff:169.254.169.254", Metadata),
            ("::ffff:192.168.1.1", Private),
            ("::ffff:8.8.8.8", Public),
            ("::ffff:0:127.0.0.1", Loopback),
            ("64:ff9b::127.0.0.1", Loopback),
            ("64:ff9b::a9fe:a9fe", Metadata),
            ("64:ff9b::8.8.8.8", Public),
            ("64:ff9b:1::8.8.8.8", Reserved),
            ("100::1", Reserved),
            ("2001:0:808:808::f7f7:f7f7", Public),
            ("2001:0:7f00:1::f7f7:f7f7", Loopback),
            ("2001:0:808:808::80ff:fffe", Loopback),
            ("2001:0:808:808::5601:5601", Metadata),
            ("2001:2::1", Reserved),
            ("2001:10::1", Reserved),
            ("2001:db8::1", Reserved),
            ("3fff::1", Reserved),
            ("2001:4860:4860::8888", Public),
            ("2606:4700::1111", Public),
            ("2a00:1450::5efe:1", Public),
            ("2a00:1450::200:5efe:127.0.0.1", Loopback),
            ("2a00:1450:0:0:0:5efe:c0a8:101", Private),
            ("2002:7f00:1::", Loopback),
            ("2002:a9fe:a9fe::1", Metadata),
            ("2002:a00:1::1", Private),
            ("2002:808:808::1", Public),
            ("fe80::1", LinkLocal),
            ("febf::1", LinkLocal),
            ("fec0::1", Private),
            ("fc00::1", Private),
            ("fd12:3456::1", Private),
            ("fd00:ec2::254", Metadata),
            ("fd20:ce::254", Metadata),
            ("ff02::1", Multicast),
            ("4000::1", Reserved),
            ("5f00::1", Reserved),
        ] {
            assert_eq!(AddressKind::of(text.parse().unwrap()), kind, "{text}");
        }
    }
}
