//! Plain http through an http proxy: the request goes to the proxy with the whole address in its
//! first line, as curl sends it. (ureq would ask the proxy for a tunnel, which many grant for https
//! alone.)

use std::fmt;

use ureq::Error;
use ureq::config::Config;
use ureq::http::Uri;
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{
    Buffers, ConnectionDetails, Connector, NextTimeout, TcpConnector, Transport,
};

/// An agent whose requests all go to `proxy`, and say that they are for `origin`
/// ("http://host:port").
pub(super) fn agent(config: Config, proxy: &Uri, origin: String) -> ureq::Agent {
    let connector = ().chain(TcpConnector::default()).chain(Forward { origin });
    ureq::Agent::with_parts(
        config,
        connector,
        ProxyAlone {
            proxy: proxy.clone(),
            usual: DefaultResolver::default(),
        },
    )
}

/// Finds the proxy, whatever is asked for.
struct ProxyAlone {
    proxy: Uri,
    usual: DefaultResolver,
}

impl fmt::Debug for ProxyAlone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The address may hold a password.
        f.write_str("ProxyAlone")
    }
}

impl Resolver for ProxyAlone {
    fn resolve(
        &self,
        _: &Uri,
        config: &Config,
        timeout: NextTimeout,
    ) -> Result<ResolvedSocketAddrs, Error> {
        self.usual.resolve(&self.proxy, config, timeout)
    }
}

#[derive(Debug)]
struct Forward {
    origin: String,
}

impl<In: Transport> Connector<In> for Forward {
    type Out = Forwarding<In>;

    fn connect(
        &self,
        _: &ConnectionDetails<'_>,
        chained: Option<In>,
    ) -> Result<Option<Self::Out>, Error> {
        Ok(chained.map(|inner| Forwarding {
            inner,
            origin: self.origin.clone().into_bytes(),
        }))
    }
}

#[derive(Debug)]
struct Forwarding<T> {
    inner: T,
    origin: Vec<u8>,
}

/// How a request begins before it is changed; no body of ours does.
const BEGINNING: &[u8] = b"POST /";

impl<T: Transport> Transport for Forwarding<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), Error> {
        let output = self.inner.buffers().output();
        let (at, longer) = (BEGINNING.len() - 1, self.origin.len());
        if !output[..amount].starts_with(BEGINNING) {
            return self.inner.transmit_output(amount, timeout);
        }
        if amount + longer > output.len() {
            return Err(Error::Io(std::io::Error::other(
                "the head of a request is too long for a proxy",
            )));
        }
        output.copy_within(at..amount, at + longer);
        output[at..at + longer].copy_from_slice(&self.origin);
        self.inner.transmit_output(amount + longer, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, Error> {
        self.inner.await_input(timeout)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }
}
