//! Whether a request leaves through a proxy, by the environment's variables as curl reads them.
//!
//! Knows no request. Invariants: an address on this machine is reached directly; a proxy is named
//! without its password.

use std::net::IpAddr;

use ureq::http::Uri;

/// A way through a proxy.
#[derive(Debug, Clone)]
pub(super) struct ProxyRoute {
    pub(super) proxy: ureq::Proxy,
    /// Its address and the variable that names it: "http://10.0.0.1:3128 (https_proxy)".
    pub(super) name: String,
}

/// The proxy for an address, by variables that `var` reads.
///
/// # Errors
/// A variable that applies and names no proxy.
pub(super) fn route(
    address: &Uri,
    var: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<ProxyRoute>, String> {
    let set = |name: &&str| {
        var(name)
            .map(|value| value.trim().to_owned())
            .filter(|value| !value.is_empty())
    };
    let host = address.host().unwrap_or_default();
    let https = address.scheme_str() == Some("https");
    let port = address.port_u16().unwrap_or(if https { 443 } else { 80 });
    let exempt = ["no_proxy", "NO_PROXY"]
        .iter()
        .find_map(set)
        .is_some_and(|list| is_listed(host, port, &list));
    if is_this_machine(host) || exempt {
        return Ok(None);
    }
    // HTTP_PROXY in capitals is left alone, as curl does: a web server sets it from a header of a
    // request.
    let own: &[&str] = if https {
        &["https_proxy", "HTTPS_PROXY"]
    } else {
        &["http_proxy"]
    };
    let found = own
        .iter()
        .chain(&["all_proxy", "ALL_PROXY"])
        .find_map(|name| Some((*name, set(name)?)));
    let Some((variable, value)) = found else {
        return Ok(None);
    };
    let proxy = ureq::Proxy::new(&value).map_err(|_| {
        format!("the variable {variable} holds no address of a proxy: give it one such as http://host:3128")
    })?;
    let scheme = proxy.uri().scheme_str().unwrap_or("http");
    let name = format!("{scheme}://{}:{} ({variable})", proxy.host(), proxy.port());
    Ok(Some(ProxyRoute { proxy, name }))
}

fn bare(host: &str) -> &str {
    host.trim_start_matches('[')
        .trim_end_matches(']')
        .trim_end_matches('.')
}

/// Whether a host is this machine.
fn is_this_machine(host: &str) -> bool {
    let host = bare(host).to_ascii_lowercase();
    host == "localhost"
        || host.ends_with(".localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|ip| ip.to_canonical().is_loopback() || ip.is_unspecified())
}

/// Whether a host is on a list of those that need no proxy: names with all below them, addresses,
/// ranges (10.0.0.0/8), each perhaps with a port; * is everything.
fn is_listed(host: &str, port: u16, list: &str) -> bool {
    let host = bare(host).to_ascii_lowercase();
    let ip = host.parse::<IpAddr>().ok().map(|ip| ip.to_canonical());
    let matches = |entry: &str| {
        let entry = entry.to_ascii_lowercase();
        if entry == "*" {
            return true;
        }
        let (name, wanted) = split_port(&entry);
        if wanted.is_some_and(|wanted| wanted != port) {
            return false;
        }
        match (ip, range(name)) {
            (Some(ip), Some((network, bits))) => is_within(ip, network, bits),
            (None, None) => {
                let name = name.trim_start_matches("*.").trim_matches('.');
                !name.is_empty()
                    && host
                        .strip_suffix(name)
                        .is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
            }
            _ => false,
        }
    };
    list.split([',', ' ', '\t'])
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
        .any(matches)
}

/// An entry's name and port, as in `host:80`, `[::1]:80` and `::1`.
fn split_port(entry: &str) -> (&str, Option<u16>) {
    let split = entry
        .rsplit_once(':')
        .filter(|(name, _)| !name.contains(':') || name.ends_with(']'));
    match split.and_then(|(name, port)| Some((name, port.parse().ok()?))) {
        Some((name, port)) => (name, Some(port)),
        None => (entry, None),
    }
}

/// A range of addresses, of one address where no bits are given.
fn range(text: &str) -> Option<(IpAddr, u32)> {
    let (network, bits) = text
        .split_once('/')
        .map_or((text, None), |(network, bits)| (network, Some(bits)));
    let network: IpAddr = bare(network).parse().ok()?;
    let most = if network.is_ipv4() { 32 } else { 128 };
    let bits = bits.map_or(Some(most), |bits| bits.parse().ok().filter(|&b| b <= most))?;
    Some((network, bits))
}

fn is_within(ip: IpAddr, network: IpAddr, bits: u32) -> bool {
    let number = |ip: IpAddr| match ip {
        IpAddr::V4(ip) => u128::from(u32::from(ip)) << 96,
        IpAddr::V6(ip) => u128::from(ip),
    };
    let differing = number(ip) ^ number(network);
    ip.is_ipv4() == network.is_ipv4() && differing.leading_zeros() >= bits
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(address: &str, variables: &[(&str, &str)]) -> Option<String> {
        let var = |name: &str| {
            variables
                .iter()
                .find(|v| v.0 == name)
                .map(|v| v.1.to_owned())
        };
        route(&address.parse().unwrap(), &var)
            .unwrap()
            .map(|route| route.name)
    }

    #[test]
    fn a_proxy_is_that_of_the_scheme_and_never_for_this_machine() {
        let all = [
            ("https_proxy", "http://s:1"),
            ("http_proxy", "http://p:2"),
            ("ALL_PROXY", "http://a:3"),
        ];
        assert_eq!(
            name("https://x/v1", &all).as_deref(),
            Some("http://s:1 (https_proxy)")
        );
        assert_eq!(
            name("http://x/v1", &all).as_deref(),
            Some("http://p:2 (http_proxy)")
        );
        assert_eq!(
            name("http://x/v1", &all[..1]),
            None,
            "https_proxy is not for http"
        );
        assert_eq!(
            name("http://x/v1", &all[2..]).as_deref(),
            Some("http://a:3 (ALL_PROXY)")
        );
        assert_eq!(name("http://x/v1", &[("HTTP_PROXY", "http://p:2")]), None);
        assert_eq!(
            name("http://x/v1", &[("http_proxy", ""), ("all_proxy", "p")]).as_deref(),
            Some("http://p:80 (all_proxy)")
        );
        for local in [
            "127.0.0.1:8080",
            "127.3.2.1",
            "localhost:1",
            "LOCALHOST",
            "a.localhost",
            "[::1]:80",
            "0.0.0.0:1",
            "[::ffff:127.0.0.1]",
        ] {
            for scheme in ["http", "https"] {
                assert_eq!(
                    name(&format!("{scheme}://{local}/v1"), &all),
                    None,
                    "{local}"
                );
            }
        }
        let secret = name("https://x", &[("https_proxy", "http://me:sk-secret@p:1")]).unwrap();
        assert_eq!(secret, "http://p:1 (https_proxy)");
        let var =
            |name: &str| (name == "https_proxy").then(|| "gopher://me:sk-secret@x".to_owned());
        let problem = route(&"https://x".parse().unwrap(), &var).unwrap_err();
        assert!(
            problem.contains("https_proxy") && !problem.contains("secret"),
            "{problem}"
        );
    }

    #[test]
    fn what_needs_no_proxy_is_listed_by_name_address_range_and_port() {
        let listed = |host: &str, list: &str| {
            let proxied = name(
                &format!("https://{host}/v1"),
                &[("https_proxy", "http://p:1"), ("no_proxy", list)],
            );
            proxied.is_none()
        };
        for (host, list) in [
            ("a.example", "*"),
            ("a.example", "b.example, a.example"),
            ("a.example", "b.example a.example"),
            ("x.a.example", "a.example"),
            ("x.a.example", ".a.example"),
            ("x.a.example", "*.a.example"),
            ("a.example", ".a.example"),
            ("A.Example.", "a.EXAMPLE"),
            ("a.example:8443", "a.example:8443"),
            ("a.example", "a.example:443"),
            ("10.1.2.3", "10.0.0.0/8"),
            ("10.1.2.3", "10.1.2.3"),
            ("10.1.2.3:8443", "10.0.0.0/8:8443"),
            ("192.168.1.9", "192.168.1.0/25,10.0.0.0/8"),
            ("10.1.2.3", "0.0.0.0/0"),
            ("[fd00::1]", "fd00::/8"),
            ("[fd00::1]:8443", "[fd00::1]:8443"),
            ("[fd00::1]", "fd00::1"),
            ("[::ffff:10.1.2.3]", "10.0.0.0/8"),
        ] {
            assert!(listed(host, list), "{host} on {list}");
        }
        for (host, list) in [
            ("a.example", ""),
            ("ba.example", "a.example"),
            ("a.example.com", "a.example"),
            ("a.example", "a.example:8443"),
            ("11.1.2.3", "10.0.0.0/8"),
            ("192.168.1.200", "192.168.1.0/25"),
            ("10.1.2.3", "10.0.0.0/33"),
            ("10.1.2.30", "10.1.2.3"),
            ("[fe00::1]", "fd00::/8"),
            ("[fd00::1]", "0.0.0.0/0"),
            ("a.example", "10.0.0.0/8"),
            ("a.example", ",. ,"),
        ] {
            assert!(!listed(host, list), "{host} on {list}");
        }
        assert!(name("https://a", &[("https_proxy", "p"), ("NO_PROXY", "a")]).is_none());
    }
}
