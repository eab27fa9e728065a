//! Questions to the hub.

use crate::{Error, Hub, cache, select};
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::http::{HeaderMap, Response, Uri};
use ureq::tls::{PemItem, RootCerts, TlsConfig};

/// The longest list of files.
const MAX_LISTING: u64 = 32 << 20;

/// How often a server may send elsewhere.
const MAX_HOPS: usize = 8;

/// An answer whose body was not read yet.
pub type Answer = Response<ureq::Body>;

/// A client of one hub.
pub struct Http {
    agent: Agent,
    endpoint: String,
    token: Option<String>,
}

/// The files of a revision.
pub struct Listing {
    pub commit: String,
    pub files: Vec<String>,
}

/// What is known of a file before it is downloaded.
#[derive(Debug, PartialEq, Eq)]
pub struct Metadata {
    /// The name of its contents: a SHA-256 for large files, git's SHA-1 for small ones.
    pub etag: String,
    pub size: Option<u64>,
}

impl Http {
    pub fn new(hub: &Hub) -> Result<Self, Error> {
        let origin = hub
            .endpoint
            .parse::<Uri>()
            .ok()
            .filter(|uri| uri.host().is_some());
        let origin = origin.ok_or_else(|| {
            Error::answer(
                &hub.endpoint,
                "an endpoint like https://huggingface.co",
                "something else",
            )
        })?;
        let is_local = is_loopback(&origin);
        let mut config = Agent::config_builder()
            .max_redirects(0)
            .max_redirects_will_error(false)
            .http_status_as_error(false)
            .timeout_connect(Some(hub.timeout))
            .timeout_recv_response(Some(hub.timeout))
            .timeout_per_read(Some(hub.timeout))
            .user_agent(concat!("vlm/", env!("CARGO_PKG_VERSION")));
        if is_local {
            config = config.proxy(None);
        }
        if let Some(roots) = own_roots()? {
            config = config.tls_config(TlsConfig::builder().root_certs(roots).build());
        }
        // a token must not go over the wire in plain text
        let may_send = is_local || origin.scheme_str() == Some("https");
        Ok(Self {
            agent: config.build().into(),
            endpoint: hub.endpoint.clone(),
            token: hub.token.clone().filter(|_| may_send),
        })
    }

    /// Where a file of a commit is.
    pub fn url(&self, id: &str, commit: &str, file: &str) -> String {
        let file = escaped(file);
        format!("{}/{id}/resolve/{commit}/{file}", self.endpoint)
    }

    /// One question without following redirects.
    fn ask(&self, head: bool, url: &str, from: u64) -> Result<Answer, Error> {
        let mut request = match head {
            true => self.agent.head(url),
            false => self.agent.get(url),
        };
        // whole bytes, or sizes and checksums would be of something else
        request = request.header("Accept-Encoding", "identity");
        if from > 0 {
            request = request.header("Range", format!("bytes={from}-"));
        }
        let at_home = url
            .strip_prefix(&self.endpoint)
            .is_some_and(|rest| rest.starts_with('/'));
        if let (true, Some(token)) = (at_home, &self.token) {
            request = request.header("Authorization", format!("Bearer {token}"));
        }
        request.call().map_err(|e| Error::Network {
            url: url.to_owned(),
            reason: e.to_string(),
        })
    }

    /// A body from some byte on, wherever the server sends for it.
    pub fn get(&self, url: &str, from: u64) -> Result<Answer, Error> {
        let mut url = url.to_owned();
        for _ in 0..=MAX_HOPS {
            let answer = self.ask(false, &url, from)?;
            match redirect(&url, &answer)? {
                Some(next) => url = next,
                None => {
                    let encoding = header(answer.headers(), "content-encoding");
                    if encoding.as_deref().is_some_and(|e| e != "identity") {
                        let found = format!("{encoding:?}");
                        return Err(Error::answer(&url, "a body without encoding", found));
                    }
                    return Ok(answer);
                }
            }
        }
        Err(too_many_hops(&url))
    }

    /// Checksum and size of a file, which the hub gives before it sends elsewhere for the contents.
    pub fn metadata(&self, url: &str) -> Result<Metadata, Error> {
        let first = url;
        let mut url = url.to_owned();
        let (mut etag, mut size) = (None, None);
        for _ in 0..=MAX_HOPS {
            let answer = self.ask(true, &url, 0)?;
            let headers = answer.headers();
            etag = etag.or_else(|| header(headers, "x-linked-etag"));
            size = size.or_else(|| header(headers, "x-linked-size"));
            let next = redirect(&url, &answer)?;
            if next.is_none() {
                refuse_errors(&url, &answer)?;
                size = size.or_else(|| header(headers, "content-length"));
            }
            if next.is_none() || etag.is_some() {
                etag = etag.or_else(|| header(headers, "etag"));
                break;
            }
            url = next.unwrap_or(url);
        }
        let etag = etag.unwrap_or_default();
        let etag = etag.trim_start_matches("W/").trim_matches('"').to_owned();
        let known = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
        if etag.is_empty() || etag.len() > 200 || !etag.bytes().all(known) {
            let found = format!("{:?}", etag.chars().take(200).collect::<String>());
            return Err(Error::answer(
                first,
                "an ETag that names the contents",
                found,
            ));
        }
        let size = match size {
            None => None,
            Some(size) => Some(
                size.parse()
                    .map_err(|_| Error::answer(first, "a size in bytes", format!("{size:?}")))?,
            ),
        };
        Ok(Metadata { etag, size })
    }

    /// The files of a branch, tag or commit.
    pub fn listing(&self, id: &str, revision: &str) -> Result<Listing, Error> {
        #[derive(serde::Deserialize)]
        struct Json {
            sha: String,
            siblings: Vec<Sibling>,
        }
        #[derive(serde::Deserialize)]
        struct Sibling {
            rfilename: String,
        }
        let revision = revision.replace('/', "%2F");
        let url = format!("{}/api/models/{id}/revision/{revision}", self.endpoint);
        let answer = self.get(&url, 0)?;
        refuse_errors(&url, &answer)?;
        let mut text = Vec::new();
        let body = answer.into_body().into_reader();
        let read = body.take(MAX_LISTING + 1).read_to_end(&mut text);
        read.map_err(|e| Error::Network {
            url: url.clone(),
            reason: e.to_string(),
        })?;
        if text.len() as u64 > MAX_LISTING {
            return Err(Error::TooLarge {
                file: url,
                limit: MAX_LISTING,
                found: text.len() as u64,
            });
        }
        let expected = "a list of files, as the hub sends it";
        let json: Json = serde_json::from_slice(&text)
            .map_err(|e| Error::answer(&url, expected, e.to_string()))?;
        if !cache::is_commit(&json.sha) {
            return Err(Error::answer(&url, "a commit", format!("{:?}", json.sha)));
        }
        let files: Vec<String> = json.siblings.into_iter().map(|s| s.rfilename).collect();
        match files.iter().find(|file| !select::is_safe(file)) {
            Some(bad) => Err(Error::answer(&url, "names of files", format!("{bad:?}"))),
            None => Ok(Listing {
                commit: json.sha,
                files,
            }),
        }
    }
}

/// An answer that is an error.
pub fn refuse_errors(url: &str, answer: &Answer) -> Result<(), Error> {
    let detail = header(answer.headers(), "x-error-code");
    let url = url.to_owned();
    match answer.status().as_u16() {
        200 | 206 => Ok(()),
        status @ (401 | 403) => Err(Error::Refused {
            url,
            status,
            detail,
        }),
        404 => Err(Error::NotFound { url, detail }),
        status => Err(Error::answer(&url, "HTTP status 200", status.to_string())),
    }
}

pub fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

fn too_many_hops(url: &str) -> Error {
    Error::answer(url, &format!("at most {MAX_HOPS} redirects"), "more")
}

/// Where an answer sends for its contents.
fn redirect(url: &str, answer: &Answer) -> Result<Option<String>, Error> {
    if !matches!(answer.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let to = header(answer.headers(), "location").unwrap_or_default();
    let (Ok(from), Ok(target)) = (url.parse::<Uri>(), to.parse::<Uri>()) else {
        return Err(Error::answer(url, "a place to go on at", format!("{to:?}")));
    };
    let (scheme, host) = (from.scheme_str().unwrap_or_default(), from.authority());
    let next = match (target.scheme_str(), host) {
        (Some(_), _) => to,
        (None, Some(host)) if to.starts_with('/') && !to.starts_with("//") => {
            format!("{scheme}://{host}{to}")
        }
        _ => {
            return Err(Error::answer(
                url,
                "a whole URL or a path",
                format!("{to:?}"),
            ));
        }
    };
    let secure = |scheme: Option<&str>| scheme == Some("https");
    let known = matches!(target.scheme_str(), None | Some("http" | "https"));
    if !known
        || (secure(from.scheme_str()) && target.scheme().is_some() && !secure(target.scheme_str()))
    {
        return Err(Error::answer(url, "a redirect that stays encrypted", next));
    }
    Ok(Some(next))
}

fn is_loopback(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default();
    host == "localhost" || host == "[::1]" || host.starts_with("127.")
}

/// A path with what URLs give a meaning to written out.
fn escaped(path: &str) -> String {
    let mut url = String::new();
    for byte in path.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' | b'/' => {
                url.push(byte.into());
            }
            other => url.push_str(&format!("%{other:02X}")),
        }
    }
    url
}

/// The certificates of `SSL_CERT_FILE`, for networks with their own authority.
fn own_roots() -> Result<Option<RootCerts>, Error> {
    let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|p| !p.is_empty()) else {
        return Ok(None);
    };
    let path = std::path::PathBuf::from(path);
    let pem = std::fs::read(&path).map_err(Error::io(&path))?;
    let certificates: Vec<_> = ureq::tls::parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        let place = path.display().to_string();
        return Err(Error::answer(
            &place,
            "certificates (SSL_CERT_FILE)",
            "none",
        ));
    }
    Ok(Some(RootCerts::Specific(Arc::new(certificates))))
}

/// The pause before an attempt, given how many brought nothing in a row.
pub fn pause(first: Duration, failures: u32) -> Duration {
    first.saturating_mul(1 << failures.min(6).saturating_sub(1))
}
