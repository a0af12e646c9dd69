//! The part of the zip format that PyTorch files use: stored (not compressed) entries, ZIP64
//! included. Every offset is checked against the file.

use std::collections::HashMap;
use std::ops::Range;

/// Entries by name: where their bytes are.
pub(super) fn entries(file: &[u8]) -> Result<HashMap<String, Range<usize>>, String> {
    let (count, mut at) = directory(file)?;
    let mut entries = HashMap::new();
    for _ in 0..count {
        let header = record(file, at, b"PK\x01\x02", 46)?;
        let method = u16_at(header, 10);
        let mut sizes = [
            u64::from(u32_at(header, 20)),
            u64::from(u32_at(header, 24)),
            u64::from(u32_at(header, 42)),
        ];
        let lengths = [28, 30, 32].map(|place| usize::from(u16_at(header, place)));
        let name_at = at + 46;
        let name = slice(file, name_at, lengths[0])?;
        let extra = slice(file, name_at + lengths[0], lengths[1])?;
        widen(extra, &mut sizes);
        at = name_at + lengths.iter().sum::<usize>();
        let name = String::from_utf8(name.to_vec())
            .map_err(|_| "has an entry whose name is not UTF-8".to_owned())?;
        let [packed, size, local] = sizes;
        if method != 0 || packed != size {
            return Err(format!("entry `{name}` is compressed"));
        }
        let local = usize::try_from(local).map_err(|_| outside(&name))?;
        let header = record(file, local, b"PK\x03\x04", 30)?;
        let skipped = 30 + usize::from(u16_at(header, 26)) + usize::from(u16_at(header, 28));
        let start = local.checked_add(skipped).ok_or_else(|| outside(&name))?;
        let end = usize::try_from(size)
            .ok()
            .and_then(|size| start.checked_add(size))
            .filter(|&end| end <= file.len())
            .ok_or_else(|| outside(&name))?;
        entries.insert(name, start..end);
    }
    Ok(entries)
}

/// Number of entries, and where the central directory begins.
fn directory(file: &[u8]) -> Result<(u64, usize), String> {
    const END: usize = 22;
    let no_zip = || "is no file that PyTorch writes".to_owned();
    let last = file.len().checked_sub(END).ok_or_else(no_zip)?;
    // A comment of up to 64 KiB may follow the record.
    let first = last.saturating_sub(usize::from(u16::MAX));
    let end = (first..=last)
        .rev()
        .find(|&at| file[at..].starts_with(b"PK\x05\x06"))
        .ok_or_else(no_zip)?;
    let record_bytes = slice(file, end, END)?;
    let mut count = u64::from(u16_at(record_bytes, 10));
    let mut offset = u64::from(u32_at(record_bytes, 16));
    if let Some(locator) = end.checked_sub(20)
        && file[locator..].starts_with(b"PK\x06\x07")
    {
        let place = u64_at(slice(file, locator, 20)?, 8);
        let place = usize::try_from(place).map_err(|_| outside("directory"))?;
        let wide = record(file, place, b"PK\x06\x06", 56)?;
        count = u64_at(wide, 32);
        offset = u64_at(wide, 48);
    }
    let offset = usize::try_from(offset).map_err(|_| outside("directory"))?;
    Ok((count, offset))
}

/// Sizes that do not fit 32 bits stand in an extra field, those that do not, in order.
fn widen(mut extra: &[u8], sizes: &mut [u64; 3]) {
    while extra.len() >= 4 {
        let (id, length) = (u16_at(extra, 0), usize::from(u16_at(extra, 2)));
        let Some(body) = extra.get(4..4 + length) else {
            return;
        };
        if id == 1 {
            let mut values = body.chunks_exact(8).map(|bytes| u64_at(bytes, 0));
            // The field lists the unpacked size first.
            for place in [1, 0, 2] {
                if sizes[place] == u64::from(u32::MAX)
                    && let Some(value) = values.next()
                {
                    sizes[place] = value;
                }
            }
        }
        extra = &extra[4 + length..];
    }
}

fn outside(name: &str) -> String {
    format!("`{name}` reaches beyond the end of the file")
}

fn slice(file: &[u8], at: usize, length: usize) -> Result<&[u8], String> {
    let end = at.checked_add(length);
    end.and_then(|end| file.get(at..end))
        .ok_or_else(|| outside("zip directory"))
}

fn record<'a>(
    file: &'a [u8],
    at: usize,
    magic: &[u8; 4],
    length: usize,
) -> Result<&'a [u8], String> {
    let record = slice(file, at, length)?;
    if record.starts_with(magic) {
        Ok(record)
    } else {
        Err(format!("has a damaged zip directory (at byte {at})"))
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([bytes[at], bytes[at + 1]])
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from(u16_at(bytes, at)) | u32::from(u16_at(bytes, at + 2)) << 16
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
