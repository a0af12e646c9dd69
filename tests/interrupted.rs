//! What is left when a run is interrupted, killed, or meets a full disk.
#![cfg(unix)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use common::{fixture, grist, stderr, text};

const TYPES: &str = "IQ2_S,IQ3_S,IQ1_M,Q4_K_M,Q6_K,IQ4_XS";

/// A run that takes a second or two: importance is taken from a file that `grist imatrix` made.
fn start(source: &Path, matrix: &Path, out: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_grist"))
        .args(["quantize", text(source), "--types", TYPES])
        .args(["--imatrix", text(matrix), "-o", text(out), "-j", "1"])
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command starts")
}

fn signal(child: &Child, name: &str) {
    let status = Command::new("kill")
        .args([name, &child.id().to_string()])
        .status();
    assert!(status.expect("kill runs").success());
}

/// Waits until the run has begun to write.
fn wait_for_files(out: &Path) {
    let start = Instant::now();
    while fs::read_dir(out).map_or(0, Iterator::count) == 0 {
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "nothing is written"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Files under final names.
fn finished(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = fs::read_dir(folder).expect("the folder");
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| {
            let name = path
                .file_name()
                .expect("a name")
                .to_string_lossy()
                .into_owned();
            (name, fs::read(path).expect("the file"))
        })
        .filter(|(name, _)| !name.starts_with('.'))
        .collect()
}

#[test]
fn a_killed_or_interrupted_run_leaves_nothing_half_done_and_goes_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (base, matrix) = (
        folder.path().join("base.gguf"),
        folder.path().join("m.gguf"),
    );
    let source = fixture();
    let output = grist(["convert", text(&source), "-o", text(&base)]);
    assert!(output.status.success(), "{}", stderr(&output));
    let calibration = source.join("calibration.txt");
    let arguments = [
        "-f",
        text(&calibration),
        "--chunks",
        "4",
        "-o",
        text(&matrix),
    ];
    let output = grist(["imatrix", text(&base)].iter().chain(&arguments));
    assert!(output.status.success(), "{}", stderr(&output));

    let whole = folder.path().join("whole");
    assert!(
        start(&base, &matrix, &whole)
            .wait()
            .expect("an end")
            .success()
    );
    let expected = finished(&whole);
    assert_eq!(expected.len(), TYPES.split(',').count());

    for (name, code) in [("-INT", Some(130)), ("-TERM", Some(130)), ("-KILL", None)] {
        let out = folder.path().join(name);
        let mut child = start(&base, &matrix, &out);
        wait_for_files(&out);
        signal(&child, name);
        let status = child.wait().expect("an end");
        assert_eq!(
            status.code(),
            code,
            "{name}: the run was too short or ended otherwise"
        );
        assert!(
            finished(&out).is_empty(),
            "{name}: {:?}",
            finished(&out).keys()
        );
        assert!(
            start(&base, &matrix, &out)
                .wait()
                .expect("an end")
                .success()
        );
        assert!(finished(&out) == expected, "{name}: other bytes");
        let left = fs::read_dir(&out).expect("the folder").count();
        assert_eq!(left, expected.len(), "{name}: temporary files are left");
    }
}

#[test]
fn a_disk_that_takes_no_more_is_reported_and_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let source = fixture();
    let (command, base) = (env!("CARGO_BIN_EXE_grist"), folder.path().join("base.gguf"));
    let output = grist(["convert", text(&source), "-o", text(&base)]);
    assert!(output.status.success(), "{}", stderr(&output));
    // Files may grow to 2 MB, in blocks of 512 bytes or of 1 kB; writes beyond fail.
    let limited = |arguments: &[&str]| {
        let mut shell = Command::new("sh");
        shell.args([
            "-c",
            "trap '' XFSZ; ulimit -f 2000; exec \"$@\"",
            "sh",
            command,
        ]);
        shell.args(arguments).output().expect("a shell")
    };
    let out = folder.path().join("out");
    let one = folder.path().join("one.gguf");
    for arguments in [
        ["convert", text(&source), "-o", text(&one), "--type", "f16"].as_slice(),
        [
            "quantize",
            text(&base),
            "-o",
            text(&out),
            "--types",
            "Q8_0,Q4_K_M",
        ]
        .as_slice(),
        [
            "release",
            text(&source),
            "-o",
            text(&out),
            "--types",
            "Q8_0",
        ]
        .as_slice(),
    ] {
        let output = limited(arguments);
        let message = stderr(&output);
        assert_eq!(output.status.code(), Some(4), "{arguments:?}: {message}");
        let error = message.lines().find(|line| line.starts_with("error: "));
        assert!(
            error.is_some_and(|line| line.contains(".gguf")),
            "{message}"
        );
        assert!(!one.exists());
        if out.exists() {
            assert!(finished(&out).is_empty(), "{:?}", finished(&out).keys());
        }
    }
}
