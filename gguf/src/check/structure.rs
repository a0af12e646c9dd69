//! The rules of the format that a reader can live without, and what llama.cpp makes of them.

use bstr::{BString, ByteSlice};

use super::Severity::{Error, Note, Warning};
use super::{Findings, Severity};
use crate::endian::Endian;
use crate::error::{Shown, Subject};
use crate::file::Part;
use crate::header::{Header, TENSOR_NAME_LIMIT};
use crate::schema::keys;
use crate::split;
use crate::value::{Array, Value};

/// Longest key by the specification, in bytes.
const KEY_LIMIT: usize = 65535;

/// Checks one file by itself; `number` of `count` in its set.
pub(super) fn check_part(part: &Part, number: usize, count: usize, findings: &mut Findings<'_>) {
    let header = &part.header;
    check_preamble(header, findings);
    check_keys(header, findings);
    check_split_keys(header, number, count, findings);
    if number == 0 {
        check_required(header, findings);
    }
    check_names(header, findings);
    check_layout(header, &part.map, findings);
}

fn check_preamble(header: &Header, findings: &mut Findings<'_>) {
    if header.endian == Endian::Big {
        findings
            .add(
                Warning,
                "big-endian",
                Subject::File,
                4,
                "the file is big-endian",
            )
            .refused()
            .help("`grist endian` makes it little-endian");
    }
    if header.version == 2 {
        let message = "version 2: expected 3 in files made today";
        findings.add(Note, "version", Subject::File, 4, message);
    }
    let alignment = header.alignment;
    if !alignment.is_multiple_of(8) {
        let message = format!("alignment {alignment}: expected a multiple of 8");
        let subject = Subject::Key(keys::ALIGNMENT.into());
        findings.add(Warning, "alignment-value", subject, None, message);
    } else if !alignment.is_power_of_two() {
        let message = format!("alignment {alignment} is not a power of two");
        let subject = Subject::Key(keys::ALIGNMENT.into());
        findings
            .add(Warning, "alignment-power", subject, None, message)
            .refused();
    }
}

fn check_keys(header: &Header, findings: &mut Findings<'_>) {
    let architecture = keys::architecture(&header.metadata);
    for ((key, value), &offset) in header.metadata.iter().zip(&header.key_offsets) {
        let subject = || Subject::Key(key.to_owned());
        check_key_syntax(header, key, offset, findings);
        check_strings(value, &subject, offset, findings);
        if let Value::Array(Array::Array(_)) = value {
            let message = "array of arrays";
            findings
                .add(Warning, "array-nested", subject(), offset, message)
                .refused();
        }
        if let Some(ty) = keys::type_of(key, architecture)
            && !ty.admits(value)
        {
            let found = match value {
                Value::Array(array) => format!("an array of {}", array.element_type().name()),
                value => value.value_type().name().to_owned(),
            };
            let severity = severity_of_type(key, ty.admits_kind(value));
            findings
                .add(
                    severity,
                    "key-type",
                    subject(),
                    offset,
                    format!("expected type {ty}, found {found}"),
                )
                .llama_cpp_refuses = !is_informational(key);
        }
    }
    for (key, offset, byte) in &header.odd_bools {
        let message = format!("boolean byte {byte}: expected 0 or 1");
        let subject = Subject::Key(key.clone());
        findings.add(Warning, "bool-value", subject, *offset, message);
    }
}

/// Keys that describe a model for people; programs do not read them to run it.
fn is_informational(key: &[u8]) -> bool {
    key.starts_with(b"general.")
        && ![
            keys::ARCHITECTURE,
            keys::ALIGNMENT,
            keys::QUANTIZATION_VERSION,
            keys::FILE_TYPE,
            keys::TYPE,
        ]
        .iter()
        .any(|name| name.as_bytes() == key)
}

fn severity_of_type(key: &[u8], right_kind: bool) -> Severity {
    match right_kind || is_informational(key) {
        true => Warning,
        false => Error,
    }
}

fn check_key_syntax(header: &Header, key: &bstr::BStr, offset: u64, findings: &mut Findings<'_>) {
    let subject = || Subject::Key(key.to_owned());
    if key.len() > KEY_LIMIT {
        let message = format!("{} bytes: expected at most {KEY_LIMIT}", key.len());
        findings.add(Warning, "key-length", subject(), offset, message);
    }
    if let Some(end) = key.find_byte(0) {
        let message = "NUL byte: C programs see a shorter key";
        findings.add(Warning, "key-nul", subject(), offset, message);
        let seen = &key[..end];
        if header.metadata.contains(seen) {
            let message = format!("C programs take it for the key `{}`", Shown(seen));
            findings.add(Error, "key-alias", subject(), offset, message);
        }
    } else if !key.is_ascii() {
        let message = "expected ASCII";
        findings.add(Warning, "key-not-ascii", subject(), offset, message);
    } else {
        // A hyphen is not in the specification, but in the names of many architectures.
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-';
        let segments = key.split_str(".");
        let good = |segment: &[u8]| !segment.is_empty() && segment.iter().all(|&b| plain(b));
        // The last segment of a template's key is a name that its author chose.
        let named = key.starts_with(b"tokenizer.chat_template.");
        if !named && !segments.into_iter().all(good) {
            let message = "expected segments of lower-case letters, digits and `_`, joined by dots";
            findings.add(Warning, "key-syntax", subject(), offset, message);
        }
    }
}

fn check_strings(
    value: &Value,
    subject: &dyn Fn() -> Subject,
    offset: u64,
    findings: &mut Findings<'_>,
) {
    let message = match value {
        Value::String(text) if !text.is_utf8() => "the text is not UTF-8".to_owned(),
        Value::Array(array) => match first_not_utf8(array) {
            Some((index, text)) => format!("element {index}, `{}`, is not UTF-8", Shown(&text)),
            None => return,
        },
        _ => return,
    };
    findings.add(Warning, "value-utf8", subject(), offset, message);
}

/// The first string that is not UTF-8, and its index in the outermost array.
fn first_not_utf8(array: &Array) -> Option<(usize, BString)> {
    match array {
        Array::String(texts) => {
            let index = texts.iter().position(|text| !text.is_utf8())?;
            Some((index, texts[index].clone()))
        }
        Array::Array(arrays) => arrays
            .iter()
            .enumerate()
            .find_map(|(index, array)| Some((index, first_not_utf8(array)?.1))),
        _ => None,
    }
}

fn check_split_keys(header: &Header, number: usize, count: usize, findings: &mut Findings<'_>) {
    if count <= 1 {
        return;
    }
    let found = header.metadata.u64(split::COUNT);
    if found != Some(count as u64) {
        let message = match found {
            Some(found) => format!("the set has {count} parts, this one says {found}"),
            None => format!("missing; the set has {count} parts"),
        };
        let subject = Subject::Key(split::COUNT.into());
        findings.add(Warning, "split-count", subject, None, message);
    }
    if number == 0 {
        return;
    }
    let strange = header.metadata.iter().find(|(key, _)| {
        !split::KEYS.iter().any(|own| own == key) && *key != keys::ALIGNMENT.as_bytes()
    });
    if let Some((key, _)) = strange {
        let subject = Subject::Key(key.to_owned());
        let message = "only the first part's metadata are read";
        findings.add(Note, "split-metadata", subject, None, message);
    }
}

fn check_required(header: &Header, findings: &mut Findings<'_>) {
    let metadata = &header.metadata;
    if !metadata.contains(keys::ARCHITECTURE) {
        let subject = Subject::Key(keys::ARCHITECTURE.into());
        // Importance matrices are written without it.
        if metadata.str(keys::TYPE) == Some("imatrix") {
            findings.add(Warning, "arch-missing", subject, None, "missing");
        } else {
            findings
                .add(Error, "arch-missing", subject, None, "missing")
                .refused()
                .help("`grist meta` can set it");
        }
    }
    let quantized = header
        .tensors
        .iter()
        .find(|info| info.ty.is_quantized() && info.elements() > 0);
    if let Some(info) = quantized
        && !metadata.contains(keys::QUANTIZATION_VERSION)
    {
        let message = format!(
            "missing, although tensor `{}` is quantized ({})",
            Shown(&info.name),
            info.ty
        );
        let subject = Subject::Key(keys::QUANTIZATION_VERSION.into());
        findings
            .add(Warning, "quantization-version", subject, None, message)
            .help("`grist meta` can set it; every current file has 2");
    }
}

fn check_names(header: &Header, findings: &mut Findings<'_>) {
    for (info, &offset) in header.tensors.iter().zip(&header.info_offsets) {
        let name = &info.name;
        let subject = || Subject::Tensor(name.clone());
        if name.is_empty() {
            let message = "empty name: the tensor cannot be looked up";
            findings.add(Warning, "tensor-name-empty", subject(), offset, message);
        }
        if name.len() as u64 == TENSOR_NAME_LIMIT {
            let message = format!("name of {TENSOR_NAME_LIMIT} bytes");
            findings
                .add(Warning, "tensor-name-length", subject(), offset, message)
                .refused();
        }
        if !name.is_utf8() {
            let message = "the name is not UTF-8";
            findings.add(Warning, "tensor-name-utf8", subject(), offset, message);
        }
        if name.contains(&0) {
            let message = "NUL byte in the name: C programs see a shorter one";
            findings.add(Warning, "tensor-name-nul", subject(), offset, message);
        }
        if info.shape.contains(&0) {
            let rest = info.shape.iter().filter(|&&dim| dim > 0);
            let fits = rest.copied().try_fold(1u64, u64::checked_mul);
            match fits.filter(|&product| product <= i64::MAX as u64) {
                Some(_) => {
                    let message = format!("no elements: shape {:?}", info.shape);
                    findings.add(Note, "dims-zero", subject(), offset, message);
                }
                None => {
                    let message = format!(
                        "no elements, but the other dimensions of {:?} overflow 63 bits",
                        info.shape
                    );
                    findings.add(Warning, "dims-zero-overflow", subject(), offset, message);
                }
            }
        }
    }
}

/// Order and gaps of the tensors' data, padding, and what follows the last of them.
fn check_layout(header: &Header, file: &[u8], findings: &mut Findings<'_>) {
    let length = file.len() as u64;
    if header.tensors.is_empty() {
        let end = header.end.next_multiple_of(header.alignment).min(length);
        check_zeros(file, header.end, end, Subject::File, findings);
        check_trailing(end, length, findings);
        return;
    }
    check_zeros(file, header.end, header.data_start, Subject::File, findings);
    let mut expected = header.data_start;
    let mut end = header.data_start;
    for (index, info) in header.tensors.iter().enumerate() {
        let data = &header.data[index];
        if data.start != expected {
            let message = format!(
                "data at offset {}: expected {}, right after the tensor described before",
                data.start - header.data_start,
                expected - header.data_start,
            );
            let subject = Subject::Tensor(info.name.clone());
            findings
                .add(
                    Warning,
                    "offset-layout",
                    subject,
                    header.info_offsets[index],
                    message,
                )
                .refused()
                .help("any command of grist that writes the file anew closes the gaps");
        }
        expected = padded(header, data.end);
        end = end.max(data.end);
        let subject = Subject::Tensor(info.name.clone());
        check_zeros(file, data.end, expected.min(length), subject, findings);
    }
    let section_end = padded(header, end);
    if section_end > length {
        let message = format!(
            "the padding after the last tensor is missing: {} bytes",
            section_end - length
        );
        findings
            .add(Warning, "padding-missing", Subject::File, end, message)
            .llama_cpp_refuses = true;
        if let Some(finding) = findings.list.last_mut() {
            finding.help(
                "llama.cpp maps such a file, but refuses it when it reads the data into memory",
            );
        }
    }
    check_trailing(section_end, length, findings);
}

/// A place in the data section, rounded up to the alignment.
fn padded(header: &Header, place: u64) -> u64 {
    header.data_start + (place - header.data_start).next_multiple_of(header.alignment)
}

fn check_zeros(file: &[u8], start: u64, end: u64, subject: Subject, findings: &mut Findings<'_>) {
    // Both ends are inside the file, so inside the address space.
    let padding = file.get(start as usize..end as usize).unwrap_or_default();
    if let Some(at) = padding.iter().position(|&byte| byte != 0) {
        let message = match subject {
            Subject::File => {
                "bytes that are not zero between header and data: is the tensor count too low?"
            }
            _ => "bytes that are not zero in the padding after the data",
        };
        findings.add(
            Warning,
            "padding-nonzero",
            subject,
            start + at as u64,
            message,
        );
    }
}

fn check_trailing(end: u64, length: u64, findings: &mut Findings<'_>) {
    if length > end {
        let message = format!("{} bytes after the last tensor", length - end);
        findings.add(Warning, "trailing-bytes", Subject::File, end, message);
    }
}
