//! Addresses that are not public: the keys of resolved issuers are not fetched from there.

use std::net::{IpAddr, Ipv4Addr};

use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use url::{Host, Url};

/// From which addresses keys may be fetched.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum AddressPolicy {
    /// From any: the URL is part of the configuration.
    Any,
    /// From public addresses only: an attacker may have registered the issuer.
    PublicOnly,
}

/// Resolves names with the resolver of the system, and drops private addresses.
pub(super) struct PublicAddressResolver;

impl Resolve for PublicAddressResolver {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let public: Vec<_> = found.filter(|address| !is_private(address.ip())).collect();
            if public.is_empty() {
                Err("the name has no public address".into())
            } else {
                Ok(Box::new(public.into_iter()) as Addrs)
            }
        })
    }
}

/// Whether a URL may lead to a public address, as far as the URL itself shows. This covers what
/// [`PublicAddressResolver`] does not see: an IP address in a URL is not resolved, and an
/// application's own client uses another resolver, but `localhost` is known without one. Plain
/// `http` is only for servers in the same network.
pub(super) fn is_public(url: &Url) -> bool {
    url.scheme() == "https"
        && match url.host() {
            Some(Host::Ipv4(address)) => !is_private(address.into()),
            Some(Host::Ipv6(address)) => !is_private(address.into()),
            Some(Host::Domain(name)) => {
                let name = name.trim_end_matches('.');
                name != "localhost" && !name.ends_with(".localhost")
            }
            None => false,
        }
}

/// Whether an address leads to this machine, to its network, or nowhere (RFC 6890).
fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => {
            let [first, second, third, _] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_link_local()
                || v4.is_multicast()
                || v4.is_documentation()
                // This network and the unspecified address, shared (carrier-grade NAT), IETF
                // assignments, benchmarking, reserved and broadcast.
                || first == 0
                || (first == 100 && (64..128).contains(&second))
                || (first == 192 && second == 0 && third == 0)
                || (first == 198 && (18..20).contains(&second))
                || first >= 240
        }
        IpAddr::V6(v6) => {
            let [first, second, ..] = v6.segments();
            // An embedded IPv4 address: IPv4-mapped, NAT64 or 6to4.
            let within = match v6.segments() {
                [0, 0, 0, 0, 0, 0xffff, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
                    Some((high, low))
                }
                [0x2002, high, low, ..] => Some((high, low)),
                _ => None,
            };
            match within {
                Some((high, low)) => {
                    let [[a, b], [c, d]] = [high.to_be_bytes(), low.to_be_bytes()];
                    is_private(Ipv4Addr::new(a, b, c, d).into())
                }
                // All but global unicast; of that, IETF assignments (Teredo, benchmarking) and
                // documentation.
                None => {
                    first & 0xe000 != 0x2000
                        || (first == 0x2001 && second < 0x200)
                        || (first == 0x2001 && second == 0x0db8)
                        || (first == 0x3fff && second < 0x1000)
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn private_addresses_are_detected_in_every_notation() {
        let private = [
            "127.0.0.1",
            "127.255.255.254",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "0.1.2.3",
            "100.64.0.1",
            "192.0.0.170",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "192.0.2.1",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2002:a00:1::",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "2001:db8::1",
            "64:ff9b:1::a00:1",
            "::ffff:0:10.0.0.1",
            "2001::1",
            "100::1",
            "2001:2::1",
            "3fff::1",
            "5f00::1",
        ];
        let public = [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "100.128.0.1",
            "172.15.0.1",
            "172.32.0.1",
            "192.0.1.1",
            "198.20.0.1",
            "223.255.255.255",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::",
            "2001:4860::8888",
        ];
        for address in private {
            assert!(is_private(address.parse().unwrap()), "{address}");
        }
        for address in public {
            assert!(!is_private(address.parse().unwrap()), "{address}");
        }
    }

    #[test]
    fn each_private_range_has_its_ends() {
        struct Case {
            name: &'static str,
            ends: [&'static str; 2],
            outside: &'static [&'static str],
        }
        for Case { name, ends, outside } in [
            Case {
                name: "this network",
                ends: ["0.0.0.0", "0.255.255.255"],
                outside: &["1.0.0.0"],
            },
            Case {
                name: "private, 10/8",
                ends: ["10.0.0.0", "10.255.255.255"],
                outside: &["9.255.255.255", "11.0.0.0"],
            },
            Case {
                name: "shared",
                ends: ["100.64.0.0", "100.127.255.255"],
                outside: &["100.63.255.255", "100.128.0.0", "99.64.0.0", "101.64.0.0"],
            },
            Case {
                name: "loopback",
                ends: ["127.0.0.0", "127.255.255.255"],
                outside: &["126.255.255.255", "128.0.0.0"],
            },
            Case {
                name: "link-local",
                ends: ["169.254.0.0", "169.254.255.255"],
                outside: &["169.253.255.255", "169.255.0.0"],
            },
            Case {
                name: "private, 172.16/12",
                ends: ["172.16.0.0", "172.31.255.255"],
                outside: &["172.15.255.255", "172.32.0.0"],
            },
            Case {
                name: "IETF assignments",
                ends: ["192.0.0.0", "192.0.0.255"],
                outside: &["191.255.255.255", "192.0.1.0", "192.1.0.0", "8.0.0.8"],
            },
            Case {
                name: "documentation, 192.0.2/24",
                ends: ["192.0.2.0", "192.0.2.255"],
                outside: &["192.0.1.255", "192.0.3.0"],
            },
            Case {
                name: "private, 192.168/16",
                ends: ["192.168.0.0", "192.168.255.255"],
                outside: &["192.167.255.255", "192.169.0.0"],
            },
            Case {
                name: "benchmarking",
                ends: ["198.18.0.0", "198.19.255.255"],
                outside: &["198.17.255.255", "198.20.0.0", "197.18.0.0", "199.18.0.0"],
            },
            Case {
                name: "documentation, 198.51.100/24",
                ends: ["198.51.100.0", "198.51.100.255"],
                outside: &["198.51.99.255", "198.51.101.0"],
            },
            Case {
                name: "documentation, 203.0.113/24",
                ends: ["203.0.113.0", "203.0.113.255"],
                outside: &["203.0.112.255", "203.0.114.0"],
            },
            Case {
                name: "multicast",
                ends: ["224.0.0.0", "239.255.255.255"],
                outside: &["223.255.255.255"],
            },
            Case { name: "reserved", ends: ["240.0.0.0", "255.255.255.255"], outside: &[] },
            Case {
                name: "IPv4-mapped, 10/8",
                ends: ["::ffff:10.0.0.0", "::ffff:10.255.255.255"],
                outside: &["::ffff:9.255.255.255", "::ffff:11.0.0.0"],
            },
            Case {
                name: "NAT64, 172.16/12",
                ends: ["64:ff9b::172.16.0.0", "64:ff9b::172.31.255.255"],
                outside: &["64:ff9b::172.15.255.255", "64:ff9b::172.32.0.0"],
            },
            Case {
                name: "6to4, 192.168/16",
                ends: ["2002:c0a8::", "2002:c0a8:ffff:ffff:ffff:ffff:ffff:ffff"],
                outside: &["2002:c0a7:ffff::", "2002:c0a9::"],
            },
            Case {
                name: "below global unicast",
                ends: ["::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
                outside: &["2000::"],
            },
            Case {
                name: "IETF assignments, IPv6",
                ends: ["2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff"],
                outside: &["2000:ffff::", "2001:200::", "2003:1ff::"],
            },
            Case {
                name: "documentation, 2001:db8::/32",
                ends: ["2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff"],
                outside: &["2001:db7:ffff::", "2001:db9::", "2003:db8::"],
            },
            Case {
                name: "documentation, 3fff::/20",
                ends: ["3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff"],
                outside: &["3ffe:fff::", "3fff:1000::", "2620:fe::fe"],
            },
            Case {
                name: "above global unicast",
                ends: ["4000::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
                outside: &["3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
            },
            Case {
                name: "unique local",
                ends: ["fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"],
                outside: &[],
            },
        ] {
            for address in ends {
                assert!(is_private(address.parse().unwrap()), "{name}: {address}");
            }
            for address in outside {
                assert!(!is_private(address.parse().unwrap()), "not {name}: {address}");
            }
        }
    }

    #[test]
    fn only_https_to_a_public_host_is_public() {
        for (url, expected) in [
            ("https://issuer.example/keys", true),
            ("https://issuer.example.:8443/", true),
            ("https://localhost.example/", true),
            ("https://notlocalhost/", true),
            ("https://8.8.8.8/", true),
            ("https://100.63.255.255/", true),
            ("https://[2606:4700::1111]/", true),
            ("https://[::ffff:8.8.8.8]/", true),
            ("http://issuer.example/keys", false),
            ("http://8.8.8.8/", false),
            ("http://[2606:4700::1111]/", false),
            ("file:///etc/passwd", false),
            ("https://localhost/", false),
            ("https://LOCALHOST./", false),
            ("https://api.localhost/", false),
            ("https://127.0.0.1/", false),
            ("https://0x7f.1/", false),
            ("https://2130706433/", false),
            ("https://100.64.0.1/", false),
            ("https://172.16.0.1:8443/", false),
            ("https://198.18.0.1/", false),
            ("https://169.254.169.254/", false),
            ("https://[::1]/", false),
            ("https://[fc00::1]/", false),
            ("https://[::ffff:10.0.0.1]/", false),
            ("https://[64:ff9b::a00:1]/", false),
        ] {
            assert_eq!(is_public(&Url::parse(url).unwrap()), expected, "{url}");
        }
    }

    #[tokio::test]
    async fn a_name_with_private_addresses_only_does_not_resolve() {
        assert!(PublicAddressResolver.resolve("localhost".parse().unwrap()).await.is_err());
    }
}
