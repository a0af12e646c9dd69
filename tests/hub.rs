//! `grist convert ORGANISATION/NAME` and `release` against a hub on this machine.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::{Arc, Mutex};

use assert_cmd::Command;

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const WEIGHTS: &str = "model.safetensors";

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/novelist-6m")
}

/// A hub with one repository, `org/tiny`, whose weights lie on another server as large files do.
struct Hub {
    address: String,
    requests: Arc<Mutex<Vec<Request>>>,
}

#[derive(Debug, Clone)]
struct Request {
    path: String,
    headers: HashMap<String, String>,
}

impl Request {
    fn read(stream: &TcpStream) -> Option<Self> {
        let mut lines = BufReader::new(stream).lines();
        let first = lines.next()?.ok()?;
        let path = first.split(' ').nth(1)?.to_owned();
        let mut headers = HashMap::new();
        for line in lines {
            let line = line.ok()?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        Some(Self { path, headers })
    }

    fn range(&self) -> Option<(usize, Option<usize>)> {
        let (from, to) = self
            .headers
            .get("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        Some((from.parse().ok()?, to.parse().ok()))
    }
}

impl Hub {
    /// Serves the files; the first answer with weights breaks off after `cut` bytes.
    fn start(files: HashMap<String, Vec<u8>>, mut cut: Option<usize>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (log, host) = (Arc::clone(&requests), address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { continue };
                let Some(request) = Request::read(&stream) else {
                    continue;
                };
                log.lock().unwrap().push(request.clone());
                // A client that has heard enough may hang up.
                let _ = answer(&mut stream, &request, &files, &host, &mut cut);
            }
        });
        Self { address, requests }
    }

    fn taken(&self) -> Vec<Request> {
        std::mem::take(&mut self.requests.lock().unwrap())
    }
}

fn answer(
    stream: &mut TcpStream,
    request: &Request,
    files: &HashMap<String, Vec<u8>>,
    host: &str,
    cut: &mut Option<usize>,
) -> std::io::Result<()> {
    let close = "Connection: close\r\n";
    let revision = "/api/models/org/tiny/revision/";
    if let Some(name) = request.path.strip_prefix(revision)
        && ["main", "v1"].contains(&name)
    {
        let siblings = files
            .keys()
            .map(|name| serde_json::json!({"rfilename": name}));
        let info = serde_json::json!({"sha": COMMIT, "siblings": siblings.collect::<Vec<_>>()});
        let body = info.to_string();
        return write!(
            stream,
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{close}\r\n{body}",
            body.len()
        );
    }
    let resolved = request
        .path
        .strip_prefix(&format!("/org/tiny/resolve/{COMMIT}/"));
    let stored = request.path.strip_prefix("/store/");
    let Some((name, body)) = resolved
        .or(stored)
        .and_then(|name| Some((name, files.get(name)?)))
    else {
        return write!(
            stream,
            "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n{close}\r\n"
        );
    };
    let tag = format!("x-repo-commit: {COMMIT}\r\netag: \"of-{name}\"\r\n");
    if resolved.is_some() && name == WEIGHTS {
        return write!(
            stream,
            "HTTP/1.1 302 Found\r\nLocation: {host}/store/{name}\r\n{tag}x-linked-etag: \"of-{name}\"\r\nContent-Length: 0\r\n{close}\r\n"
        );
    }
    let (from, to) = request.range().unwrap_or((0, None));
    let to = to.unwrap_or(body.len() - 1).min(body.len() - 1);
    let part = &body[from.min(to + 1)..=to];
    write!(
        stream,
        "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes {from}-{to}/{}\r\nContent-Length: {}\r\n{tag}{close}\r\n",
        body.len(),
        part.len()
    )?;
    match cut {
        Some(bytes) if name == WEIGHTS && part.len() > *bytes => {
            stream.write_all(&part[..*bytes])?;
            *cut = None;
            Ok(())
        }
        _ => stream.write_all(part),
    }
}

fn files() -> HashMap<String, Vec<u8>> {
    let mut files: HashMap<String, Vec<u8>> = [
        "config.json",
        "generation_config.json",
        WEIGHTS,
        "tokenizer.json",
        "tokenizer_config.json",
    ]
    .into_iter()
    .filter_map(|name| Some((name.to_owned(), fs::read(fixture().join(name)).ok()?)))
    .collect();
    assert!(files.contains_key(WEIGHTS) && files.contains_key("config.json"));
    for unneeded in [
        "onnx/model.onnx",
        "pytorch_model.bin",
        "tf_model.h5",
        ".gitattributes",
    ] {
        files.insert(unneeded.to_owned(), b"not needed".to_vec());
    }
    files
}

struct Run<'a> {
    hub: &'a str,
    home: &'a Path,
    offline: bool,
}

impl Run<'_> {
    fn convert(&self, arguments: &[&str]) -> Output {
        self.grist("convert", arguments)
    }

    fn grist(&self, subcommand: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_grist"));
        command
            .current_dir(self.home)
            .env("HF_ENDPOINT", self.hub)
            .env("HF_HOME", self.home)
            .env("HF_TOKEN", "hf_secret")
            .env_remove("HF_HUB_OFFLINE")
            .arg(subcommand)
            .args(arguments);
        if self.offline {
            command.env("HF_HUB_OFFLINE", "1");
        }
        command.output().unwrap()
    }
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_repository_converts_and_stays_in_the_cache() {
    let home = tempfile::tempdir().unwrap();
    let local = home.path().join("local.gguf");
    let fetched = home.path().join("fetched.gguf");
    let hub = Hub::start(files(), None);
    let run = |offline| Run {
        hub: &hub.address,
        home: home.path(),
        offline,
    };
    let path = |path: &Path| path.to_str().unwrap().to_owned();

    let output = run(false).convert(&["org/tiny", "--revision", "v1", "-o", &path(&fetched)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let requests = hub.taken();
    let asked = |name: &str| requests.iter().filter(|r| r.path.ends_with(name)).count();
    assert_eq!(asked("/revision/v1"), 1);
    assert!(asked("/config.json") > 0 && asked(&format!("/store/{WEIGHTS}")) > 0);
    for unneeded in ["onnx", "pytorch", "tf_model", ".gitattributes"] {
        assert!(
            !requests.iter().any(|r| r.path.contains(unneeded)),
            "{unneeded}"
        );
    }
    let token = |r: &Request| {
        r.headers.get("authorization").map(String::as_str) == Some("Bearer hf_secret")
    };
    assert!(
        requests
            .iter()
            .filter(|r| r.path.starts_with("/api/"))
            .all(token)
    );

    // The weights are those of the folder.
    let output = run(false).convert(&[&path(&fixture()), "-o", &path(&local)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let tensors = |file: &Path| {
        let hash = Command::new(env!("CARGO_BIN_EXE_grist"))
            .arg("hash")
            .arg(file)
            .arg("--json")
            .output()
            .unwrap();
        let json: serde_json::Value = serde_json::from_slice(&hash.stdout).unwrap();
        json["tensors"].clone()
    };
    assert_eq!(tensors(&local), tensors(&fetched));

    // A second time nothing but the list of files is asked for; offline not even that.
    let again = run(false).convert(&["org/tiny", "--revision", "v1", "--dry-run"]);
    assert!(again.status.success(), "{}", stderr(&again));
    assert_eq!(hub.taken().len(), 1);
    let offline = run(true).convert(&["org/tiny", "--revision", "v1", "--dry-run"]);
    assert!(offline.status.success(), "{}", stderr(&offline));
    let other = run(true).convert(&["org/tiny", "--dry-run"]);
    assert_eq!(other.status.code(), Some(4), "{}", stderr(&other));
    assert!(
        stderr(&other).contains("HF_HUB_OFFLINE"),
        "{}",
        stderr(&other)
    );
    assert!(hub.taken().is_empty());
}

#[test]
fn a_repository_is_released_under_its_name() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(files(), None);
    let run = Run {
        hub: &hub.address,
        home: home.path(),
        offline: false,
    };
    let text = fixture().join("heldout.txt");
    let output = run.grist(
        "release",
        &[
            "org/tiny",
            "--types",
            "Q8_0",
            "-o",
            "out",
            "--text",
            text.to_str().unwrap(),
            "--chunks",
            "1",
            "--no-imatrix",
        ],
    );
    assert!(output.status.success(), "{}", stderr(&output));
    for name in [
        "tiny-BF16.gguf",
        "tiny-Q8_0.gguf",
        "report.json",
        "README.md",
    ] {
        assert!(home.path().join("out").join(name).exists(), "{name}");
    }
}

#[test]
fn a_download_that_breaks_off_goes_on() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(files(), Some(1000));
    let run = Run {
        hub: &hub.address,
        home: home.path(),
        offline: false,
    };
    let output = run.convert(&["org/tiny", "--dry-run"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let ranges: Vec<_> = hub
        .taken()
        .iter()
        .filter(|request| request.path == format!("/store/{WEIGHTS}"))
        .map(|request| request.range().unwrap())
        .collect();
    assert_eq!(ranges, [(0, Some(0)), (0, None), (1000, None)]);
}

#[test]
fn what_the_hub_lacks_is_said_in_one_line() {
    let home = tempfile::tempdir().unwrap();
    let hub = Hub::start(files(), None);
    let run = Run {
        hub: &hub.address,
        home: home.path(),
        offline: false,
    };
    for arguments in [&["org/absent"][..], &["org/tiny", "--revision", "v9"]] {
        let output = run.convert(arguments);
        assert_eq!(output.status.code(), Some(3), "{}", stderr(&output));
        let text = stderr(&output);
        assert!(text.contains("404") && text.contains("help: "), "{text}");
        assert_eq!(
            text.lines()
                .filter(|line| line.starts_with("error: "))
                .count(),
            1
        );
    }
    let gguf = fs::read_dir(home.path()).unwrap();
    let mut names = gguf.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    assert!(!names.any(|name| name.ends_with(".gguf")));
}
