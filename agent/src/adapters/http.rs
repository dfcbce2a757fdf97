//! One HTTP GET, bounded in time and size. Follows no redirect, speaks no TLS (yet), keeps no
//! connection.

use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::{HOST, LOCATION, USER_AGENT};
use hyper::{Request, Uri};
use hyper_util::rt::TokioIo;
use std::io;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

/// The largest body that is read: 64 KiB. A health report is far below it.
pub const BODY_BYTES_MAX: usize = 64 * 1024;

/// The largest head of an answer, and how many headers it may have.
const HEAD_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// The address is not one that can be asked. Never repeats it: it may hold a password.
    #[error("the health address is not usable: {0}")]
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
    host: String,
    port: u16,
    authority: String,
    path_and_query: String,
}

impl HttpAddress {
    /// Reads `http://host[:port]/path`.
    ///
    /// Fails for every other scheme, `https` with a sentence of its own, and for a user name or
    /// password in the address.
    pub fn parse(url: &str) -> Result<Self, HttpError> {
        let uri: Uri = url
            .parse()
            .map_err(|_| HttpError::Address("it is not a URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => {
                return Err(HttpError::Address(
                    "https is not supported yet; use http on a loopback address",
                ));
            }
            Some(_) | None => return Err(HttpError::Address("it must begin with http://")),
        }
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
            None => 80,
        };
        let path_and_query = uri
            .path_and_query()
            .map_or("/", |path| path.as_str())
            .to_owned();
        Ok(Self {
            host,
            port,
            authority: authority.as_str().to_owned(),
            path_and_query,
        })
    }
}

/// Asks once. `limit` bounds everything: name, connection, head and body.
pub async fn get(address: &HttpAddress, limit: Duration) -> Result<HttpAnswer, HttpError> {
    timeout(limit, exchange(address))
        .await
        .map_err(|_| HttpError::TimedOut(limit))?
}

async fn exchange(address: &HttpAddress) -> Result<HttpAnswer, HttpError> {
    let stream = TcpStream::connect((address.host.as_str(), address.port))
        .await
        .map_err(|source| HttpError::Connect {
            authority: address.authority.clone(),
            source,
        })?;
    let (mut sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(HttpError::Protocol)?;
    // Ends with this call, so that a time-out leaves no connection behind.
    let _connection = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = Request::get(&address.path_and_query)
        .header(HOST, &address.authority)
        .header(USER_AGENT, "cbagent")
        .body(Empty::<Bytes>::new())
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
    fn addresses_are_checked_before_they_are_used() {
        let parse = |url| HttpAddress::parse(url).map_err(|error| error.to_string());
        let address = parse("http://127.0.0.1:8080/health?full=1").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("127.0.0.1", 8080));
        assert_eq!(address.path_and_query, "/health?full=1");
        let address = parse("http://[::1]/health").unwrap();
        assert_eq!((address.host.as_str(), address.port), ("::1", 80));
        assert_eq!(parse("http://till-3").unwrap().path_and_query, "/");
        for (bad, words) in [
            ("https://host/health", "https is not supported yet"),
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
