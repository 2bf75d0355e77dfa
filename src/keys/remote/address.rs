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
                || v4.is_unspecified()
                || v4.is_broadcast()
                || v4.is_multicast()
                || v4.is_documentation()
                // This network, shared (carrier-grade NAT), IETF assignments, benchmarking,
                // reserved.
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

    #[tokio::test]
    async fn a_name_with_private_addresses_only_does_not_resolve() {
        assert!(PublicAddressResolver.resolve("localhost".parse().unwrap()).await.is_err());
    }
}
