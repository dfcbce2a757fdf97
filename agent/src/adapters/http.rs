//! One HTTP request, a GET as a rule, bounded in time and size; over TLS where it is said whom to believe. Keeps no
//! connection. A redirect is followed on the same host only, and never away from TLS.

use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{CONTENT_TYPE, HOST, LOCATION, USER_AGENT};
use hyper::{Method, Request, Uri};
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// The largest body that is read: 64 KiB. A health report is far below it.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The largest head of an answer, and how many headers it may have.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// How many redirects are followed.
const REDIRECTS_MAX: usize = 3;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is not one that can be asked. Never repeats it: it may hold a password.
    #[error("the address is not usable: {0}")]
    Address(&'static str),
    /// Nobody listens, or the way is blocked.
    #[error("cannot connect to {authority}")]
    Connect {
        /// Host and port.
        authority: String,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
    /// What answers does not speak TLS, or shows a certificate that is not the right one.
    #[error("no TLS with the right certificate")]
    Tls(#[source] io::Error),
    /// What answers does not speak HTTP, or more of it than is bearable.
    #[error("the answer is not valid HTTP")]
    Protocol(#[source] hyper::Error),
    /// The body is larger than [`BODY_BYTES_MAX`].
    #[error("the answer is larger than {} KiB", BODY_BYTES_MAX / 1024)]
    TooLarge,
    /// The body broke off.
    #[error("the answer broke off: {0}")]
    Body(String),
    /// Everything together took too long.
    #[error("no complete answer within {} ms", .0.as_millis())]
    TimedOut(Duration),
}

/// An answer, whatever its status code says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAnswer {
    /// The status code.
    pub code: u16,
    /// The `Location` header, where a redirect points to.
    pub location: Option<String>,
    /// The body, with anything that is not UTF-8 replaced.
    pub body: String,
}

/// An address that can be asked, checked once when the configuration is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpAddress {
    secure: bool,
    host: String,
    port: u16,
    authority: String,
    path_and_query: String,
}

impl HttpAddress {
    /// Reads `http://host[:port]/path`, or the same with `https`.
    ///
    /// Fails for every other scheme, and for a user name or password in the address.
    pub fn parse(url: &str) -> Result<Self, HttpError> {
        let uri: Uri = url
            .parse()
            .map_err(|_| HttpError::Address("it is not a URL"))?;
        let secure = match uri.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            Some(_) | None => {
                return Err(HttpError::Address("it must begin with http:// or https://"));
            }
        };
        let authority = uri
            .authority()
            .ok_or(HttpError::Address("it names no host"))?;
        if authority.as_str().contains('@') {
            return Err(HttpError::Address(
                "it must not hold a user name or password",
            ));
        }
        // The brackets of an IPv6 address belong to the URL, not to the address.
        let host = authority
            .host()
            .trim_start_matches('[')
            .trim_end_matches(']')
            .to_owned();
        if host.is_empty() {
            return Err(HttpError::Address("it names no host"));
        }
        let port = match authority.port() {
            Some(port) if port.as_u16() == 0 => {
                return Err(HttpError::Address("port 0 cannot be asked"));
            }
            Some(port) => port.as_u16(),
            // `host:` and `host:99999` parse as an authority without a port.
            None if !authority.as_str().ends_with(authority.host()) => {
                return Err(HttpError::Address("the port must be between 1 and 65535"));
            }
            None if secure => 443,
            None => 80,
        };
        let path_and_query = uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        Ok(Self {
            secure,
            host,
            port,
            authority: authority.as_str().to_owned(),
            path_and_query,
        })
    }

    /// Where an answer sends whoever asked, if that is to be followed: to the same host, by name, and
    /// not from TLS to none.
    fn redirected(&self, answer: &HttpAnswer, has_tls: bool) -> Option<Self> {
        if ![301, 302, 303, 307, 308].contains(&answer.code) {
            return None;
        }
        let location = answer.location.as_deref()?;
        // `//host/path` begins with a slash and names a host.
        if location.starts_with('/') && !location.starts_with("//") {
            let path: Uri = location.parse().ok()?;
            let path_and_query = path.path_and_query()?.as_str().to_owned();
            return Some(Self {
                path_and_query,
                ..self.clone()
            });
        }
        let next = Self::parse(location).ok()?;
        let same_host = next.host.eq_ignore_ascii_case(&self.host);
        let may = if next.secure { has_tls } else { !self.secure };
        (same_host && may).then_some(next)
    }
}

/// An address, and whom it is believed where it is asked over TLS.
#[derive(Clone)]
pub struct HttpTarget {
    /// Where to ask.
    pub address: HttpAddress,
    /// What knows which certificate is right; without it nothing is asked over TLS.
    pub tls: Option<TlsConnector>,
}

/// Asks, and follows up to three redirects on the same host. `limit` bounds everything: name, connection, head and body.
pub async fn get(target: &HttpTarget, limit: Duration) -> Result<HttpAnswer, HttpError> {
    timeout(limit, get_and_follow(target))
        .await
        .map_err(|_| HttpError::TimedOut(limit))?
}

/// Puts a JSON document there; nothing is followed, and nothing sent over TLS.
pub async fn put(
    address: &HttpAddress,
    json: String,
    limit: Duration,
) -> Result<HttpAnswer, HttpError> {
    let asked = exchange(address, None, Method::PUT, json);
    let asked = timeout(limit, asked).await;
    asked.map_err(|_| HttpError::TimedOut(limit))?
}

/// Deletes what is there; nothing is followed, and nothing sent over TLS.
pub async fn delete(address: &HttpAddress, limit: Duration) -> Result<HttpAnswer, HttpError> {
    let asked = exchange(address, None, Method::DELETE, String::new());
    let asked = timeout(limit, asked).await;
    asked.map_err(|_| HttpError::TimedOut(limit))?
}

async fn get_and_follow(target: &HttpTarget) -> Result<HttpAnswer, HttpError> {
    let mut address = target.address.clone();
    for _ in 0..REDIRECTS_MAX {
        let answer = exchange(&address, target.tls.as_ref(), Method::GET, String::new()).await?;
        match address.redirected(&answer, target.tls.is_some()) {
            Some(next) => address = next,
            None => return Ok(answer),
        }
    }
    exchange(&address, target.tls.as_ref(), Method::GET, String::new()).await
}

async fn exchange(
    address: &HttpAddress,
    tls: Option<&TlsConnector>,
    method: Method,
    body: String,
) -> Result<HttpAnswer, HttpError> {
    let stream = TcpStream::connect((address.host.as_str(), address.port))
        .await
        .map_err(|source| HttpError::Connect {
            authority: address.authority.clone(),
            source,
        })?;
    if !address.secure {
        return exchange_over(address, stream, method, body).await;
    }
    let tls = tls.ok_or(HttpError::Address(
        "it begins with https:// and nothing says whom to believe",
    ))?;
    let name = ServerName::try_from(address.host.clone())
        .map_err(|_| HttpError::Address("its host cannot be named in TLS"))?;
    let stream = tls.connect(name, stream).await.map_err(HttpError::Tls)?;
    exchange_over(address, stream, method, body).await
}

async fn exchange_over(
    address: &HttpAddress,
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    method: Method,
    body: String,
) -> Result<HttpAnswer, HttpError> {
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(HttpError::Protocol)?;
    // Ends with this call, so that a time-out leaves no connection behind.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let mut request = Request::builder()
        .method(method)
        .uri(&address.path_and_query)
        .header(HOST, &address.authority)
        .header(USER_AGENT, "cbagent");
    if !body.is_empty() {
        request = request.header(CONTENT_TYPE, "application/json");
    }
    let request = request
        .body(Full::new(Bytes::from(body)))
        .map_err(|_| HttpError::Address("its path cannot be sent"))?;
    let answer = sender
        .send_request(request)
        .await
        .map_err(HttpError::Protocol)?;
    let code = answer.status().as_u16();
    let location = answer
        .headers()
        .get(LOCATION)
        .and_then(|value| value.to_str().ok())
        .map(str::to_owned);
    let body = Limited::new(answer.into_body(), BODY_BYTES_MAX)
        .collect()
        .await
        .map_err(|error| {
            if error.is::<LengthLimitError>() {
                HttpError::TooLarge
            } else {
                HttpError::Body(error.to_string())
            }
        })?;
    let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
    Ok(HttpAnswer {
        code,
        location,
        body,
    })
}

#[cfg(test)]
mod tests {
    use super::HttpAddress;

    #[test]
    fn only_redirects_on_the_same_host_are_followed() {
        let from = |url| HttpAddress::parse(url).unwrap();
        let (plain, secure) = (
            from("http://till-3:80/health"),
            from("https://till-3/health"),
        );
        let answer = |code: u16, location: &str| super::HttpAnswer {
            code,
            location: Some(location.to_owned()),
            body: String::new(),
        };
        for (address, has_tls, code, location, next) in [
            (
                &plain,
                false,
                302,
                "/ready?a=1",
                Some("http://till-3:80/ready?a=1"),
            ),
            (
                &plain,
                false,
                308,
                "http://TILL-3:81/x",
                Some("http://TILL-3:81/x"),
            ),
            (
                &plain,
                true,
                307,
                "https://till-3/x",
                Some("https://till-3/x"),
            ),
            (&secure, true, 301, "/y", Some("https://till-3/y")),
            (&plain, false, 307, "https://till-3/x", None),
            (&secure, true, 307, "http://till-3/x", None),
            (&plain, true, 307, "http://till-4/x", None),
            (&plain, true, 307, "//till-4/x", None),
            (&plain, true, 307, "http://till-3@till-4/x", None),
            (&plain, true, 307, "ftp://till-3/x", None),
            (&plain, true, 200, "/x", None),
        ] {
            let found = address.redirected(&answer(code, location), has_tls);
            assert_eq!(found, next.map(from), "{location}");
        }
    }

    #[test]
    fn addresses_are_checked_before_they_are_used() {
        let parse = |url| HttpAddress::parse(url).map_err(|error| error.to_string());
        let address = parse("http://127.0.0.1:8080/health?full=1").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("127.0.0.1", 8080));
        assert_eq!(address.path_and_query, "/health?full=1");
        let address = parse("http://[::1]/health").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("::1", 80));
        assert_eq!(parse("http://till-3").unwrap().path_and_query, "/");
        for (bad, words) in [
            ("ftp://host/", "must begin with http://"),
            ("/health", "must begin with http://"),
            ("host:80", "http://"),
            ("", "not a URL"),
            ("http://", "not a URL"),
            ("http://user:secret@host/", "user name or password"),
            ("http://host:0/", "port 0"),
            ("http://host:99999/", "between 1 and 65535"),
            ("http://ho st/", "not a URL"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.contains(words), "{bad:?}: {error}");
            assert!(!error.contains("secret"));
        }
    }
}
