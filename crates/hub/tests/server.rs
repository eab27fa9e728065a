//! Pulling from a server in this process: whole, interrupted, damaged, refused, silent and hostile.

use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};
use vlm_hub::{Error, Hub, Request};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

fn sha256(bytes: &[u8]) -> String {
    let digest = Sha256::digest(bytes);
    digest.iter().map(|b| format!("{b:02x}")).collect()
}

/// What a client asked for.
#[derive(Clone, Debug)]
struct Asked {
    method: String,
    path: String,
    headers: BTreeMap<String, String>,
}

impl Asked {
    fn from(&self) -> usize {
        let range = self
            .headers
            .get("range")
            .map(String::as_str)
            .unwrap_or("bytes=0-");
        range
            .trim_start_matches("bytes=")
            .trim_end_matches('-')
            .parse()
            .unwrap()
    }
}

/// A server that answers each connection once, as a function says, and notes what it was asked.
struct Server {
    address: String,
    log: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    fn new(answer: impl Fn(&Asked, usize, &mut TcpStream) + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let log = Arc::new(Mutex::new(Vec::new()));
        let (noted, answer) = (log.clone(), Arc::new(answer));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let (noted, answer) = (noted.clone(), answer.clone());
                thread::spawn(move || {
                    let mut stream = stream.unwrap();
                    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
                    let Some(Ok(first)) = lines.next() else {
                        return;
                    };
                    let mut words = first.split(' ').map(str::to_owned);
                    let (method, path) = (words.next().unwrap(), words.next().unwrap());
                    let headers = lines
                        .map_while(|line| {
                            let line = line.ok()?;
                            let (name, value) = line.split_once(": ")?;
                            Some((name.to_lowercase(), value.to_owned()))
                        })
                        .collect();
                    let asked = Asked {
                        method,
                        path,
                        headers,
                    };
                    let number = {
                        let mut noted = noted.lock().unwrap();
                        noted.push(asked.clone());
                        noted.len()
                    };
                    answer(&asked, number, &mut stream);
                });
            }
        });
        Self { address, log }
    }

    fn log(&self) -> Vec<Asked> {
        self.log.lock().unwrap().clone()
    }

    /// Downloads of a file's contents.
    fn gets(&self, file: &str) -> Vec<Asked> {
        let mut log = self.log();
        log.retain(|asked| asked.method == "GET" && asked.path.ends_with(file));
        log
    }
}

/// The client may hang up first; that is its right.
fn send(stream: &mut TcpStream, bytes: &[u8]) -> bool {
    stream.write_all(bytes).is_ok()
}

fn respond(stream: &mut TcpStream, status: &str, headers: &str, body: &[u8]) {
    let len = body.len();
    let head =
        format!("HTTP/1.1 {status}\r\nContent-Length: {len}\r\nConnection: close\r\n{headers}\r\n");
    send(stream, head.as_bytes());
    send(stream, body);
}

type Files = Vec<(&'static str, Vec<u8>)>;

fn listing(files: &Files) -> String {
    let names = files
        .iter()
        .map(|(name, _)| format!("{{\"rfilename\":\"{name}\"}}"));
    let names = names.collect::<Vec<_>>().join(",");
    format!("{{\"sha\":\"{COMMIT}\",\"siblings\":[{names}]}}")
}

/// Answers as the hub does: a list of files, and each of them, from a byte on if that is asked for.
fn serve(files: &Files, asked: &Asked, stream: &mut TcpStream) {
    if asked.path.starts_with("/api/") {
        return respond(stream, "200 OK", "", listing(files).as_bytes());
    }
    let found = files
        .iter()
        .find(|(name, _)| asked.path.ends_with(&format!("/{name}")));
    let Some((_, body)) = found else {
        return respond(
            stream,
            "404 Not Found",
            "X-Error-Code: EntryNotFound\r\n",
            b"",
        );
    };
    let etag = format!("X-Linked-Etag: \"{}\"\r\n", sha256(body));
    if asked.method == "HEAD" {
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n{etag}Connection: close\r\n\r\n",
            body.len()
        );
        send(stream, head.as_bytes());
        return;
    }
    match asked.from() {
        0 => respond(stream, "200 OK", &etag, body),
        from => {
            let range = format!(
                "Content-Range: bytes {from}-{}/{}\r\n",
                body.len() - 1,
                body.len()
            );
            respond(stream, "206 Partial Content", &range, &body[from..]);
        }
    }
}

fn model() -> Files {
    let weights = (0..100_000u32).flat_map(u32::to_le_bytes).collect();
    vec![
        ("README.md", b"not needed".to_vec()),
        ("config.json", b"{}".to_vec()),
        ("model.safetensors", weights),
        ("tokenizer.json", b"{\"a\":1}".to_vec()),
    ]
}

/// A client of a server, with a cache of its own.
fn hub(server: &str, cache: &Path) -> Hub {
    Hub {
        endpoint: server.to_owned(),
        cache: cache.to_owned(),
        token: Some("secret".to_owned()),
        offline: false,
        timeout: Duration::from_secs(5),
        retries: (2, Duration::from_millis(1)),
    }
}

fn request() -> Request {
    Request::new("owner/name").unwrap()
}

fn pull(hub: &Hub) -> Result<PathBuf, Error> {
    hub.pull(&request(), &mut |_| {})
}

/// Every file below a directory, links not followed.
fn tree(directory: &Path) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.is_symlink() {
            found.extend(tree(&path));
        } else {
            found.push(path.file_name().unwrap().to_string_lossy().into_owned());
        }
    }
    found.sort();
    found
}

fn root(cache: &Path) -> PathBuf {
    cache.join("models--owner--name")
}

#[test]
fn a_model_is_downloaded_once_into_the_layout_of_the_hubs_cache() {
    let server = Server::new(|asked, _, stream| serve(&model(), asked, stream));
    let cache = tempfile::tempdir().unwrap();
    let mut hub = hub(&server.address, cache.path());
    let mut seen = Vec::new();
    let directory = hub
        .pull(&request(), &mut |p| {
            seen.push((p.file.to_owned(), p.number, p.files, p.done, p.total));
        })
        .unwrap();
    assert_eq!(directory, root(cache.path()).join("snapshots").join(COMMIT));
    for (name, bytes) in model().iter().skip(1) {
        assert_eq!(
            &std::fs::read(directory.join(name)).unwrap(),
            bytes,
            "{name}"
        );
        let link = std::fs::read_link(directory.join(name)).unwrap();
        assert_eq!(link, Path::new("../../blobs").join(sha256(bytes)), "{name}");
    }
    assert!(!directory.join("README.md").exists());
    let reference = root(cache.path()).join("refs/main");
    assert_eq!(std::fs::read_to_string(reference).unwrap(), COMMIT);
    assert_eq!(seen[0], ("config.json".to_owned(), 1, 3, 0, Some(2)));
    let size = model()[2].1.len() as u64;
    assert_eq!(
        seen.last().unwrap(),
        &("model.safetensors".to_owned(), 3, 3, size, Some(size))
    );

    // what is there is not downloaded again, and is found without a server
    assert_eq!(pull(&hub).unwrap(), directory);
    assert_eq!(server.gets("model.safetensors").len(), 1);
    assert_eq!(hub.cached(&request()).unwrap(), directory);
    hub.offline = true;
    hub.endpoint = "http://127.0.0.1:9".to_owned();
    assert_eq!(pull(&hub).unwrap(), directory);
    // the same by its commit
    let by_commit = Request::new(&format!("owner/name@{COMMIT}")).unwrap();
    assert_eq!(hub.cached(&by_commit).unwrap(), directory);
}

#[test]
fn a_cut_download_goes_on_where_it_stopped_in_the_same_pull_and_in_the_next() {
    const HALF: usize = 150_000;
    let cut = |asked: &Asked, stream: &mut TcpStream| {
        let body = &model()[2].1;
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len());
        send(stream, head.as_bytes());
        assert_eq!(asked.from(), 0);
        send(stream, &body[..HALF]);
    };
    let is_first = |asked: &Asked| {
        asked.method == "GET" && asked.path.ends_with("model.safetensors") && asked.from() == 0
    };
    let cache = tempfile::tempdir().unwrap();
    let server = Server::new(move |asked, _, stream| match is_first(asked) {
        true => cut(asked, stream),
        false => serve(&model(), asked, stream),
    });
    let directory = pull(&hub(&server.address, cache.path())).unwrap();
    assert_eq!(
        std::fs::read(directory.join("model.safetensors")).unwrap(),
        model()[2].1
    );
    let from: Vec<usize> = server
        .gets("model.safetensors")
        .iter()
        .map(Asked::from)
        .collect();
    assert_eq!(from, [0, HALF]);

    // a server that breaks off each time, then a good one
    let cache = tempfile::tempdir().unwrap();
    let bad = Server::new(move |asked, _, stream| {
        if is_first(asked) {
            cut(asked, stream);
        } else if asked.from() == 0 {
            serve(&model(), asked, stream);
        }
    });
    let error = pull(&hub(&bad.address, cache.path())).unwrap_err();
    assert!(matches!(error, Error::Network { .. }), "{error}");
    assert!(hub(&bad.address, cache.path()).cached(&request()).is_err());
    let good = Server::new(|asked, _, stream| serve(&model(), asked, stream));
    pull(&hub(&good.address, cache.path())).unwrap();
    let from: Vec<usize> = good
        .gets("model.safetensors")
        .iter()
        .map(Asked::from)
        .collect();
    assert_eq!(from, [HALF]);
}

#[test]
fn a_server_without_ranges_and_a_partial_file_of_something_else_start_again() {
    for ranges in [false, true] {
        let server = Server::new(move |asked, _, stream| {
            let mut asked = asked.clone();
            if !ranges {
                asked.headers.remove("range");
            }
            serve(&model(), &asked, stream);
        });
        let cache = tempfile::tempdir().unwrap();
        let blobs = root(cache.path()).join("blobs");
        std::fs::create_dir_all(&blobs).unwrap();
        let partial = blobs.join(format!("{}.incomplete", sha256(&model()[2].1)));
        std::fs::write(partial, b"something else").unwrap();
        let directory = pull(&hub(&server.address, cache.path())).unwrap();
        let found = std::fs::read(directory.join("model.safetensors")).unwrap();
        assert!(found == model()[2].1);
        assert!(tree(&blobs).iter().all(|name| !name.contains("incomplete")));
    }
}

#[test]
fn contents_with_another_checksum_are_deleted_and_never_appear() {
    for etag in [sha256(b"others"), "a".repeat(40)] {
        let server = Server::new(move |asked, _, stream| {
            if asked.method == "HEAD" && asked.path.ends_with("model.safetensors") {
                let head = format!(
                    "HTTP/1.1 200 OK\r\nContent-Length: 400000\r\nETag: \"{etag}\"\r\n\r\n"
                );
                send(stream, head.as_bytes());
                return;
            }
            serve(&model(), asked, stream);
        });
        let cache = tempfile::tempdir().unwrap();
        let hub = hub(&server.address, cache.path());
        let error = pull(&hub).unwrap_err();
        assert!(matches!(error, Error::Checksum { .. }), "{error}");
        assert!(
            error.to_string().starts_with("model.safetensors: expected"),
            "{error}"
        );
        let found = tree(&root(cache.path()).join("blobs"));
        let mut good = [sha256(b"{\"a\":1}"), sha256(b"{}")];
        good.sort();
        assert_eq!(found, good);
        let error = hub.cached(&request()).unwrap_err().to_string();
        assert!(
            error.contains("refs/main") && error.contains("vlm pull"),
            "{error}"
        );
    }
}

#[test]
fn a_small_file_is_checked_by_gits_checksum() {
    // `git hash-object` of a file of two bytes, "{}"
    let etag = "9e26dfeeb6e641a33dae4961196235bdb965b21b";
    let server = Server::new(move |asked, _, stream| {
        if asked.method == "HEAD" {
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Length: 2\r\nETag: W/\"{etag}\"\r\n\r\n");
            send(stream, head.as_bytes());
            return;
        }
        serve(&model(), asked, stream);
    });
    let cache = tempfile::tempdir().unwrap();
    let only = Request {
        files: vec!["config.json".to_owned()],
        ..request()
    };
    let directory = hub(&server.address, cache.path())
        .pull(&only, &mut |_| {})
        .unwrap();
    assert_eq!(std::fs::read(directory.join("config.json")).unwrap(), b"{}");
}

#[test]
fn what_is_not_there_or_not_for_everyone_says_so() {
    for (status, code, expected) in [
        (
            "404 Not Found",
            "RevisionNotFound",
            "not there (404, RevisionNotFound)",
        ),
        (
            "401 Unauthorized",
            "RepoNotFound",
            "refused (401, RepoNotFound)",
        ),
        ("403 Forbidden", "GatedRepo", "HF_TOKEN"),
        (
            "418 I'm a teapot",
            "Tea",
            "expected HTTP status 200, found 418",
        ),
    ] {
        let headers = format!("X-Error-Code: {code}\r\n");
        let server = Server::new(move |_, _, stream| respond(stream, status, &headers, b"no"));
        let cache = tempfile::tempdir().unwrap();
        let error = pull(&hub(&server.address, cache.path()))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
        assert!(
            error.contains("/api/models/owner/name/revision/main"),
            "{error}"
        );
        assert_eq!(server.log().len(), 1, "asked again for {status}");
        assert_eq!(tree(cache.path()), [""; 0]);
    }
    // listed and yet not there
    let server = Server::new(|asked, _, stream| {
        let mut files = model();
        if !asked.path.starts_with("/api/") {
            files.remove(2);
        }
        serve(&files, asked, stream);
    });
    let cache = tempfile::tempdir().unwrap();
    let error = pull(&hub(&server.address, cache.path()))
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("model.safetensors: not there (404, EntryNotFound)"),
        "{error}"
    );
    // no weights at all
    let server = Server::new(|asked, _, stream| serve(&model()[..2].to_vec(), asked, stream));
    let error = pull(&hub(&server.address, cache.path()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("none of model.safetensors, "), "{error}");
}

#[test]
fn a_busy_server_is_asked_again() {
    let server = Server::new(|asked, number, stream| match number % 2 {
        1 => respond(stream, "503 Service Unavailable", "", b""),
        _ => serve(&model(), asked, stream),
    });
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server.address, cache.path());
    // the list of files is asked for once
    let error = pull(&hub).unwrap_err().to_string();
    assert!(error.contains("found 503"), "{error}");
    pull(&hub).unwrap();
}

#[test]
fn redirects_are_followed_and_the_token_stays_at_home() {
    let other = Server::new(|asked, _, stream| serve(&model(), asked, stream));
    let elsewhere = other.address.clone();
    let server = Server::new(move |asked, _, stream| {
        let file = model()
            .into_iter()
            .find(|(name, _)| asked.path.ends_with(name));
        match file {
            // large files are elsewhere, with their checksum in the answer that says so
            Some(("model.safetensors", bytes)) => {
                let headers = format!(
                    "Location: {elsewhere}/cdn/model.safetensors\r\nX-Linked-Etag: \"{}\"\r\nX-Linked-Size: {}\r\n",
                    sha256(&bytes),
                    bytes.len()
                );
                respond(stream, "302 Found", &headers, b"");
            }
            Some((name, _)) if !asked.path.starts_with("/moved") => {
                respond(
                    stream,
                    "307 Temporary Redirect",
                    &format!("Location: /moved/{name}\r\n"),
                    b"",
                );
            }
            _ => serve(&model(), asked, stream),
        }
    });
    let cache = tempfile::tempdir().unwrap();
    let directory = pull(&hub(&server.address, cache.path())).unwrap();
    assert!(std::fs::read(directory.join("model.safetensors")).unwrap() == model()[2].1);
    let token = |asked: &Asked| asked.headers.get("authorization").cloned();
    assert!(
        server
            .log()
            .iter()
            .all(|a| token(a).as_deref() == Some("Bearer secret"))
    );
    assert!(other.log().iter().all(|a| token(a).is_none()));
    assert_eq!(other.log().len(), 1);
}

#[test]
fn redirects_without_end_or_sense_are_refused() {
    for location in [
        "/x/model.safetensors",
        "ftp://127.0.0.1/x",
        "",
        "//evil/x",
        "x",
    ] {
        let server = Server::new(
            move |asked, _, stream| match asked.path.starts_with("/api/") {
                true => serve(&model(), asked, stream),
                false => respond(
                    stream,
                    "302 Found",
                    &format!("Location: {location}\r\n"),
                    b"",
                ),
            },
        );
        let cache = tempfile::tempdir().unwrap();
        let error = pull(&hub(&server.address, cache.path())).unwrap_err();
        assert!(matches!(error, Error::Answer { .. }), "{location}: {error}");
        assert!(server.log().len() < 20);
    }
}

#[test]
fn lists_that_make_no_sense_or_lead_out_of_the_cache_are_refused() {
    let one = |name: &str| {
        format!("{{\"sha\":\"{COMMIT}\",\"siblings\":[{{\"rfilename\":\"{name}\"}}]}}")
    };
    for (list, expected) in [
        ("garbage".to_owned(), "list of files"),
        ("{}".to_owned(), "list of files"),
        ("\u{0}\u{1}".to_owned(), "list of files"),
        ("[".repeat(100_000), "list of files"),
        (one("../../model.safetensors"), "names of files"),
        (one("/etc/model.safetensors"), "names of files"),
        (one("a\\\\..\\\\model.safetensors"), "names of files"),
        (one("x").replace(COMMIT, "../../main"), "a commit"),
        (one("x").replace(COMMIT, ""), "a commit"),
    ] {
        let server =
            Server::new(move |_, _, stream| respond(stream, "200 OK", "", list.as_bytes()));
        let cache = tempfile::tempdir().unwrap();
        let error = pull(&hub(&server.address, cache.path()))
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
        assert_eq!(tree(cache.path()), [""; 0]);
    }
}

#[test]
fn contents_without_a_usable_name_are_refused() {
    for etag in [
        "",
        "ETag: \"../../x\"\r\n",
        "ETag: \"\"\r\n",
        "ETag: \"a b\"\r\n",
    ] {
        let server = Server::new(move |asked, _, stream| match asked.method.as_str() {
            "HEAD" => respond(stream, "200 OK", etag, b""),
            _ => serve(&model(), asked, stream),
        });
        let cache = tempfile::tempdir().unwrap();
        let error = pull(&hub(&server.address, cache.path()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("an ETag that names the contents"), "{error}");
    }
}

#[test]
fn what_is_no_http_is_refused() {
    let answers: [&[u8]; 4] = [
        b"",
        b"\0\x01\x02garbage\r\n\r\n",
        b"HTTP/9.9 ok\r\n\r\n",
        b"SSH-2.0-x\r\n",
    ];
    for answer in answers {
        let server = Server::new(move |_, _, stream| {
            send(stream, answer);
        });
        let cache = tempfile::tempdir().unwrap();
        let error = pull(&hub(&server.address, cache.path()))
            .unwrap_err()
            .to_string();
        assert!(error.contains("cannot be reached"), "{error}");
    }
}

#[test]
fn endless_answers_end_at_the_limits() {
    // a list, headers and contents without an end, with and without a size announced
    let endless = |stream: &mut TcpStream, head: &str, piece: &[u8]| {
        send(stream, head.as_bytes());
        while send(stream, piece) {}
    };
    let block = vec![b'['; 1 << 16];
    for case in 0..4 {
        let block = block.clone();
        let server = Server::new(move |asked, _, stream| {
            let list = asked.path.starts_with("/api/");
            match (case, asked.method.as_str()) {
                (0, _) => endless(stream, "HTTP/1.1 200 OK\r\n\r\n", &block),
                (1, _) => endless(stream, "HTTP/1.1 200 OK\r\n", b"X-A: b\r\n"),
                (_, "GET") if list => serve(&model(), asked, stream),
                (2, "HEAD") => respond(stream, "200 OK", "ETag: \"abc\"\r\n", b"12"),
                (_, "HEAD") => {
                    send(
                        stream,
                        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nETag: \"abc\"\r\n\r\n",
                    );
                }
                _ => endless(stream, "HTTP/1.1 200 OK\r\n\r\n", &block),
            }
        });
        let cache = tempfile::tempdir().unwrap();
        let limited = Request {
            max_file_bytes: 1 << 20,
            ..request()
        };
        let error = hub(&server.address, cache.path()).pull(&limited, &mut |_| {});
        let error = error.unwrap_err().to_string();
        let expected = [
            "33554432",
            "cannot be reached",
            "at most 2 bytes",
            "at most 1048576 bytes",
        ];
        assert!(error.contains(expected[case]), "{case}: {error}");
        let blobs = root(cache.path()).join("blobs");
        let sizes = tree(&blobs)
            .iter()
            .map(|n| blobs.join(n).metadata().unwrap().len())
            .sum::<u64>();
        assert!(sizes <= 1 << 20, "{sizes}");
    }
}

#[test]
fn a_file_larger_than_allowed_is_not_begun() {
    let server = Server::new(|asked, _, stream| serve(&model(), asked, stream));
    let cache = tempfile::tempdir().unwrap();
    let limited = Request {
        max_file_bytes: 1000,
        ..request()
    };
    let error = hub(&server.address, cache.path())
        .pull(&limited, &mut |_| {})
        .unwrap_err();
    let expected = "model.safetensors: expected at most 1000 bytes, found 400000";
    assert_eq!(error.to_string(), expected);
    assert_eq!(server.gets("model.safetensors").len(), 0);
}

#[test]
fn a_silent_or_absent_server_is_an_error_soon() {
    let server = Server::new(|_, _, stream| {
        let _ = stream.read(&mut [0]);
        thread::sleep(Duration::from_secs(60));
    });
    let closed = TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    for address in [server.address.clone(), format!("http://{closed}")] {
        let cache = tempfile::tempdir().unwrap();
        let mut hub = hub(&address, cache.path());
        hub.timeout = Duration::from_millis(200);
        let begun = Instant::now();
        let error = pull(&hub).unwrap_err().to_string();
        assert!(
            error.contains("cannot be reached") && error.contains("HF_ENDPOINT"),
            "{error}"
        );
        assert!(begun.elapsed() < Duration::from_secs(20));
    }
}

#[test]
fn without_a_network_the_error_says_what_was_looked_for_and_how_to_get_it() {
    let cache = tempfile::tempdir().unwrap();
    let mut hub = hub("http://127.0.0.1:9", cache.path());
    let error = hub.cached(&request()).unwrap_err().to_string();
    let reference = root(cache.path()).join("refs/main");
    assert!(error.contains(&reference.display().to_string()), "{error}");
    assert!(error.contains("`vlm pull`"), "{error}");
    hub.offline = true;
    let error = pull(&hub).unwrap_err().to_string();
    assert!(error.contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
fn shards_are_downloaded_as_their_index_says_and_all_must_be_there() {
    let files: Files = vec![
        ("config.json", b"{}".to_vec()),
        (
            "model.safetensors.index.json",
            br#"{"weight_map":{"a":"one.safetensors","b":"two.safetensors","c":"one.safetensors"}}"#.to_vec(),
        ),
        ("one.safetensors", b"1".to_vec()),
        ("two.safetensors", b"2".to_vec()),
    ];
    let all = files.clone();
    let server = Server::new(move |asked, _, stream| serve(&all, asked, stream));
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server.address, cache.path());
    let directory = pull(&hub).unwrap();
    for (name, bytes) in &files {
        assert_eq!(&std::fs::read(directory.join(name)).unwrap(), bytes);
    }
    std::fs::remove_file(directory.join("two.safetensors")).unwrap();
    let error = hub.cached(&request()).unwrap_err().to_string();
    assert!(error.contains("lacks two.safetensors"), "{error}");
    // a blob that lost bytes is downloaded again
    let blob = root(cache.path()).join("blobs").join(sha256(b"1"));
    std::fs::write(blob, b"").unwrap();
    pull(&hub).unwrap();
    assert_eq!(
        std::fs::read(directory.join("one.safetensors")).unwrap(),
        b"1"
    );

    let hostile: Files = vec![(
        "model.safetensors.index.json",
        br#"{"weight_map":{"a":"../../../x"}}"#.to_vec(),
    )];
    let server = Server::new(move |asked, _, stream| serve(&hostile, asked, stream));
    let error = pull(&self::hub(&server.address, cache.path()))
        .unwrap_err()
        .to_string();
    assert!(error.contains("names of files beside it"), "{error}");
}

#[test]
fn two_pulls_at_once_download_once() {
    let server = Server::new(|asked, _, stream| {
        if asked.method == "GET" && asked.path.ends_with("model.safetensors") {
            thread::sleep(Duration::from_millis(100));
        }
        serve(&model(), asked, stream);
    });
    let cache = tempfile::tempdir().unwrap();
    let hub = hub(&server.address, cache.path());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| pull(&hub).unwrap());
        }
    });
    assert_eq!(server.gets("model.safetensors").len(), 1);
}

#[test]
fn names_of_models_are_told_from_other_text() {
    for (id, expected) in [
        (
            "openai/clip-vit-base-patch32",
            Some(("openai/clip-vit-base-patch32", "main")),
        ),
        ("gpt2", Some(("gpt2", "main"))),
        ("a/b@v1.0", Some(("a/b", "v1.0"))),
        ("a/b@refs/pr/1", Some(("a/b", "refs/pr/1"))),
        ("a/b/c", None),
        ("../b", None),
        ("a/..", None),
        ("/b", None),
        ("a/", None),
        ("", None),
        ("a b/c", None),
        ("a/b@", None),
        ("a/b@../x", None),
        ("a/b?x", None),
    ] {
        let found = Request::new(id).ok();
        let found = found.as_ref().map(|r| (r.id.as_str(), r.revision.as_str()));
        assert_eq!(found, expected, "{id}");
    }
}
