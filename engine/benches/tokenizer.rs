//! Tokenization speed: mixed text, and texts that defeat algorithms of quadratic time.
//!
//! `GRIST_GOLDEN=… cargo bench -p gristmill-engine --bench tokenizer` prints for every vocabulary
//! megabytes a second on one core, and for each long word the time of 200 kB over that of 100 kB.

#[path = "../../fixtures/golden.rs"]
mod golden;

use std::fs;
use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Instant;

use gristmill_engine::Tokenizer;
use gristmill_gguf::{File, Source as _};

/// Bytes of the mixed text.
const MIXED: usize = 5_000_000;
/// Bytes of the shorter long word.
const LONG: usize = 100_000;

/// Prose, code, digits and several scripts.
const PIECES: [&str; 8] = [
    "The quick brown fox didn't jump over 12,345 lazy dogs; it walked, slowly, to the river. ",
    "fn main() {\n    let x = vec![1u32; 16];\n    println!(\"{x:?}\");\n}\n\n",
    "Съешь же ещё этих мягких французских булок, да выпей чаю. ",
    "我想在apple工作1314151天～ 漢字かな交じり文。",
    "한국어 텍스트와 naïve café Straße. ",
    "https://example.org/a/b?c=d&e=f#g \t<html>&amp;</html>\r\n",
    "हिन्दी में लिखना ภาษาไทย 😀👍🏽 👨\u{200d}👩\u{200d}👧 ",
    "IEEE-754 3.14159265358979 0xdeadbeef v1.2.3-rc4 ____ ---- ==== ",
];

fn tokenizer(packed: &Path) -> Tokenizer {
    let packed = fs::read(packed).expect("the vocabulary is readable");
    let mut bytes = Vec::new();
    flate2::read::GzDecoder::new(packed.as_slice())
        .read_to_end(&mut bytes)
        .expect("the vocabulary is packed by gzip");
    let file = tempfile::NamedTempFile::new().expect("a temporary file");
    fs::write(file.path(), bytes).expect("the vocabulary is written");
    let file = File::open(file.path()).expect("the vocabulary is a GGUF file");
    Tokenizer::from_metadata(file.metadata()).expect("the vocabulary is a tokenizer")
}

/// The least of several times, in seconds.
fn seconds(tokenizer: &Tokenizer, text: &str, rounds: usize) -> f64 {
    let times = (0..rounds).map(|_| {
        let start = Instant::now();
        black_box(tokenizer.encode(black_box(text), false, false));
        start.elapsed().as_secs_f64()
    });
    times.fold(f64::INFINITY, f64::min)
}

fn main() {
    let Some(folder) = golden::golden("vocab") else {
        return;
    };
    let mut mixed = String::with_capacity(MIXED + 100);
    while mixed.len() < MIXED {
        PIECES.iter().for_each(|piece| mixed.push_str(piece));
    }
    let mut state = 1u32;
    let mut letters = |alphabet: &[u8], count: usize| -> String {
        let letter = |_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(alphabet[(state >> 16) as usize % alphabet.len()])
        };
        (0..count).map(letter).collect()
    };
    let long: Vec<(&str, [String; 2])> = [
        ("spaces", &b" "[..]),
        ("one letter", b"a"),
        ("one word", b"abcdefghijklmnopqrstuvwxyz"),
        ("digits", b"0123456789"),
        ("signs", b"=-'"),
        ("newlines", b"\n"),
    ]
    .into_iter()
    .map(|(name, alphabet)| (name, [LONG, 2 * LONG].map(|count| letters(alphabet, count))))
    .collect();

    let names = long.iter().map(|(name, _)| format!("{name:>12}"));
    println!(
        "{:<16}{:>8}{}",
        "vocabulary",
        "MB/s",
        names.collect::<String>()
    );
    let mut files: Vec<PathBuf> = fs::read_dir(&folder)
        .expect("the folder is readable")
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "gz"))
        .collect();
    files.sort();
    for path in files {
        let tokenizer = tokenizer(&path);
        let speed = mixed.len() as f64 / 1e6 / seconds(&tokenizer, &mixed, 2);
        let ratios = long.iter().map(|(_, [short, double])| {
            let ratio = seconds(&tokenizer, double, 5) / seconds(&tokenizer, short, 5);
            format!("{ratio:>12.1}")
        });
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let name = name.trim_end_matches(".gguf.gz");
        println!("{name:<16}{speed:>8.1}{}", ratios.collect::<String>());
    }
}
