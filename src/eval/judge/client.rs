//! One call over HTTP: directly or through a proxy, and in the form of request that the endpoint
//! accepts, which is found out once.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use base64::Engine;
use base64::prelude::BASE64_STANDARD as STANDARD;
use serde_json::{Value, json};
use ureq::http::{HeaderMap, Uri};

use super::reply::{self, Failure};
use super::{Answer, Endpoint, Question, forward, proxy};

/// The most bytes that are read of a reply.
const MOST_BYTES: u64 = 4 << 20;
/// The longest pause in seconds, whatever an endpoint asks for.
const LONGEST_WAIT: f64 = 120.0;
/// The most requests of one call: the form is adapted after each refusal.
const FORMS: usize = 6;

pub(super) struct HttpClient {
    agent: ureq::Agent,
    endpoint: Endpoint,
    /// The proxy, where there is one; or why the endpoint cannot be reached.
    proxy_hop: Result<Option<ProxyHop>, String>,
    form: Mutex<RequestForm>,
    /// Whether the first call has ended: those after it need not wait for the form that it finds.
    form_settled: AtomicBool,
    first: Mutex<()>,
}

struct ProxyHop {
    name: String,
    authorization: Option<String>,
}

/// The form of request that this endpoint accepts.
#[derive(Debug, Clone, PartialEq)]
struct RequestForm {
    url: String,
    /// The limit is called `max_completion_tokens`.
    completion_limit: bool,
    temperature: TemperatureRule,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum TemperatureRule {
    AsRequested,
    /// The one that the endpoint named.
    Fixed(f64),
    Omitted,
}

impl HttpClient {
    pub(super) fn new(endpoint: &Endpoint) -> Self {
        Self::in_environment(endpoint, &|name| std::env::var(name).ok())
    }

    pub(super) fn in_environment(
        endpoint: &Endpoint,
        var: &dyn Fn(&str) -> Option<String>,
    ) -> Self {
        let most = Duration::from_secs(3600);
        let timeout = Duration::try_from_secs_f64(endpoint.timeout).unwrap_or(most);
        let config = |proxy: Option<ureq::Proxy>| {
            ureq::Agent::config_builder()
                .timeout_global(Some(timeout.clamp(Duration::from_millis(10), most)))
                .http_status_as_error(false)
                // A redirect would send the question and the key to another server.
                .max_redirects(0)
                .max_redirects_will_error(false)
                .proxy(proxy)
                .build()
        };
        let address: Uri = endpoint.url.parse().unwrap_or_default();
        let route = proxy::route(&address, var);
        let (agent, proxy_hop) = match route {
            Err(problem) => (ureq::Agent::new_with_config(config(None)), Err(problem)),
            Ok(None) => (ureq::Agent::new_with_config(config(None)), Ok(None)),
            Ok(Some(route)) => {
                let forwarded = address.scheme_str() == Some("http")
                    && route.proxy.protocol() == ureq::ProxyProtocol::Http;
                let authorization = forwarded.then(|| basic(&route.proxy)).flatten();
                let agent = match forwarded {
                    true => forward::agent(config(None), route.proxy.uri(), origin(&address)),
                    false => ureq::Agent::new_with_config(config(Some(route.proxy))),
                };
                (
                    agent,
                    Ok(Some(ProxyHop {
                        name: route.name,
                        authorization,
                    })),
                )
            }
        };
        let url = format!("{}/chat/completions", endpoint.url);
        let form = Mutex::new(RequestForm {
            url,
            completion_limit: false,
            temperature: TemperatureRule::AsRequested,
        });
        Self {
            agent,
            endpoint: endpoint.clone(),
            proxy_hop,
            form,
            form_settled: AtomicBool::new(false),
            first: Mutex::new(()),
        }
    }

    pub(super) fn ask(&self, question: &Question) -> Result<Answer, Failure> {
        // The others wait for the first call, so that a form that is refused is refused once and
        // not to each of them.
        let first_call = self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = if self.form_settled.load(Ordering::Acquire) {
            drop(first_call);
            self.ask_adapting_form(question)
        } else {
            let answer = self.ask_adapting_form(question);
            self.form_settled.store(true, Ordering::Release);
            drop(first_call);
            answer
        };
        let name = self
            .proxy_hop
            .as_ref()
            .ok()
            .and_then(Option::as_ref)
            .map(|proxy_hop| proxy_hop.name.as_str());
        answer.map_err(|failure| {
            // What is wrong with a question or an answer has nothing to do with the proxy.
            let proxy =
                name.filter(|_| !matches!(failure, Failure::Rejected(_) | Failure::Cut(..)));
            failure.map(|why| {
                let why = reply::one_line(&self.without_key(&why));
                proxy.map_or_else(
                    || why.clone(),
                    |proxy| format!("{why}, through the proxy {proxy}"),
                )
            })
        })
    }

    fn ask_adapting_form(&self, question: &Question) -> Result<Answer, Failure> {
        let mut last = Failure::Final("it refuses every form of a request".to_owned());
        for _ in 0..FORMS {
            let form = self
                .form
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            let (status, body, headers) = self.send(&form, question)?;
            if let 301 | 302 | 303 | 307 | 308 = status {
                self.redirect(&form, status, &headers)?;
                last = Failure::Final(format!("it redirects again and again (status {status})"));
                continue;
            }
            if let 200..=299 = status {
                let answer = reply::read(&body, question.longest_answer(&self.endpoint))?;
                return Ok(Answer {
                    text: self.without_key(&answer.text),
                    ..answer
                });
            }
            if let 400 | 422 = status
                && self.adapt_form(&form, &body)?
            {
                continue;
            }
            return Err(reply::of_status(status, &body, wait(&headers)));
        }
        Err(last)
    }

    /// Sends a question; the key is redacted from the reply before anything is done with it.
    fn send(
        &self,
        form: &RequestForm,
        question: &Question,
    ) -> Result<(u16, String, HeaderMap), Failure> {
        let proxy_hop = self
            .proxy_hop
            .as_ref()
            .map_err(|problem| Failure::Final(problem.clone()))?;
        let mut request = self
            .agent
            .post(&form.url)
            .header("Content-Type", "application/json");
        if let Some(key) = &self.endpoint.key {
            request = request.header("Authorization", format!("Bearer {}", key.0));
        }
        if let Some(authorization) = proxy_hop.as_ref().and_then(|w| w.authorization.as_ref()) {
            request = request.header("Proxy-Authorization", authorization);
        }
        let mut response = match request.send(form.body(question, &self.endpoint).to_string()) {
            Ok(response) => response,
            Err(e @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                return Err(Failure::Final(format!(
                    "'{}' is no address ({e})",
                    self.endpoint.url
                )));
            }
            Err(ureq::Error::Timeout(_)) => {
                return Err(Failure::Passing(
                    format!("no answer within {} s", self.endpoint.timeout),
                    None,
                ));
            }
            Err(e) => return Err(Failure::Unreachable(e.to_string())),
        };
        let status = response.status().as_u16();
        let headers = response.headers().clone();
        let body = response
            .body_mut()
            .with_config()
            .limit(MOST_BYTES)
            .lossy_utf8(true)
            .read_to_string();
        let body = match (status, body) {
            (_, Ok(body)) => self.without_key(&body),
            (200..=299, Err(e)) => return Err(Failure::Passing(e.to_string(), None)),
            (_, Err(_)) => String::new(),
        };
        Ok((status, body, headers))
    }

    /// Follows a redirect to the same server that keeps the request as it is; the key is never sent
    /// to another server.
    fn redirect(
        &self,
        form: &RequestForm,
        status: u16,
        headers: &HeaderMap,
    ) -> Result<(), Failure> {
        let location = headers
            .get("location")
            .and_then(|v| v.to_str().ok())
            .unwrap_or_default();
        let from: Uri = form.url.parse().unwrap_or_default();
        let target = if location.starts_with("//") {
            format!("{}:{location}", from.scheme_str().unwrap_or("http"))
        } else if location.starts_with('/') {
            format!("{}{location}", origin(&from))
        } else {
            location.to_owned()
        };
        let to = target
            .parse::<Uri>()
            .ok()
            .filter(|to| to.scheme().is_some() && to.host().is_some());
        // What follows ? or @ may be a secret.
        let plain = target.split(['?', '#']).next().unwrap_or_default();
        let shown = if plain.contains('@') {
            "another address".to_owned()
        } else {
            reply::short(plain)
        };
        match to {
            Some(to) if matches!(status, 307 | 308) && origin(&to) == origin(&from) => {
                self.change(form, |form| form.url = target.clone());
                Ok(())
            }
            _ => Err(Failure::Final(format!(
                "it redirects to {} (status {status}), where the question and the key are not carried: give that address as \
                 --endpoint if it is meant",
                if shown.is_empty() { "nowhere" } else { &shown }
            ))),
        }
    }

    /// Adapts the form to a refusal; false where the refusal does not name a parameter.
    fn adapt_form(&self, form: &RequestForm, body: &str) -> Result<bool, Failure> {
        let lower = body.to_lowercase();
        let names = |parameter: &str| lower.contains(parameter);
        let refuses = [
            "unsupported",
            "not support",
            "only the default",
            "deprecated",
            "not permitted",
            "not allowed",
            "unknown",
            "unrecognized",
            "use 'max_completion_tokens'",
            "use max_completion_tokens",
        ];
        if !refuses.iter().any(|words| lower.contains(words)) {
            return Ok(false);
        }
        if names("max_tokens") && names("max_completion_tokens") && !form.completion_limit {
            self.change(form, |form| form.completion_limit = true);
            return Ok(true);
        }
        if !names("temperature") || form.temperature == TemperatureRule::Omitted {
            return Ok(false);
        }
        if let Some(chosen) = self.endpoint.temperature {
            return Err(Failure::Final(format!(
                "it takes no --judge-temperature {chosen}: leave it out ({})",
                reply::error_message(body)
            )));
        }
        let named = lower
            .split_once("default (")
            .and_then(|(_, rest)| rest.split(')').next()?.trim().parse().ok());
        let temperature = match (form.temperature, named) {
            (TemperatureRule::AsRequested, Some(named)) => TemperatureRule::Fixed(named),
            _ => TemperatureRule::Omitted,
        };
        if self.change(form, |form| form.temperature = temperature) {
            tracing::warn!(
                "the judge {} answers at a temperature of its own: its answers may differ from run to run",
                self.endpoint.name()
            );
        }
        Ok(true)
    }

    /// Changes the form for all calls from now on, unless another call has changed it meanwhile.
    fn change(&self, known: &RequestForm, change: impl FnOnce(&mut RequestForm)) -> bool {
        let mut form = self.form.lock().unwrap_or_else(PoisonError::into_inner);
        let same = *form == *known;
        if same {
            change(&mut form);
        }
        same
    }

    /// A reply without the key, which a server may repeat.
    fn without_key(&self, text: &str) -> String {
        self.endpoint
            .key
            .as_ref()
            .map_or_else(|| text.to_owned(), |key| key.redact(text))
    }
}

impl RequestForm {
    fn body(&self, question: &Question, endpoint: &Endpoint) -> Value {
        let mut body = question.body(endpoint);
        if let Some(object) = body.as_object_mut() {
            if self.completion_limit
                && let Some(limit) = object.remove("max_tokens")
            {
                object.insert("max_completion_tokens".to_owned(), limit);
            }
            match self.temperature {
                TemperatureRule::AsRequested => {}
                TemperatureRule::Fixed(temperature) => {
                    drop(object.insert("temperature".to_owned(), json!(temperature)))
                }
                TemperatureRule::Omitted => drop(object.remove("temperature")),
            }
        }
        body
    }
}

/// Scheme, host and port.
fn origin(address: &Uri) -> String {
    let scheme = address.scheme_str().unwrap_or("http");
    let port = address
        .port_u16()
        .unwrap_or(if scheme == "https" { 443 } else { 80 });
    format!(
        "{scheme}://{}:{port}",
        address.host().unwrap_or_default().to_ascii_lowercase()
    )
}

/// The value of the `Proxy-Authorization` header.
fn basic(proxy: &ureq::Proxy) -> Option<String> {
    let (user, password) = (proxy.username()?, proxy.password().unwrap_or_default());
    Some(format!(
        "Basic {}",
        STANDARD.encode(format!("{user}:{password}"))
    ))
}

/// The seconds that an endpoint asks to wait, given as seconds or as a date, which is compared with
/// the endpoint's own clock where the reply has one.
fn wait(headers: &HeaderMap) -> Option<f64> {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|v| v.to_str().ok())
            .map(str::trim)
    };
    let asked = header("retry-after")?;
    let seconds = asked.parse::<f64>().ok().or_else(|| {
        let until = httpdate::parse_http_date(asked).ok()?;
        let now = header("date")
            .and_then(|d| httpdate::parse_http_date(d).ok())
            .unwrap_or_else(SystemTime::now);
        Some(
            until
                .duration_since(now)
                .map_or(0.0, |left| left.as_secs_f64()),
        )
    })?;
    (seconds.is_finite() && seconds >= 0.0).then(|| seconds.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_is_seconds_or_a_date_and_bounded() {
        let wait = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            pairs
                .iter()
                .for_each(|(name, value)| drop(headers.insert(*name, value.parse().unwrap())));
            super::wait(&headers)
        };
        assert_eq!(wait(&[("retry-after", "7")]), Some(7.0));
        assert_eq!(wait(&[("retry-after", " 0.5 ")]), Some(0.5));
        assert_eq!(wait(&[("retry-after", "99999")]), Some(120.0));
        let date = ("date", "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(
            wait(&[("retry-after", "Sun, 06 Nov 1994 08:49:43 GMT"), date]),
            Some(6.0)
        );
        assert_eq!(
            wait(&[("retry-after", "Sunday, 06-Nov-94 08:49:43 GMT"), date]),
            Some(6.0)
        );
        assert_eq!(
            wait(&[("retry-after", "Sun, 06 Nov 1994 08:49:43 GMT")]),
            Some(0.0),
            "it has passed"
        );
        for odd in ["soon", "-1", "nan", "inf", ""] {
            assert_eq!(wait(&[("retry-after", odd)]), None, "{odd}");
        }
        assert_eq!(wait(&[]), None);
    }
}
