//! Bounds on what a pickle makes its reader build. The reader copies what the pickle remembers and
//! drops nested objects recursively, so that a few bytes could ask for any amount of memory or
//! stack; the opcodes are therefore counted through first, without building anything.

use std::collections::HashMap;

/// How deep objects may be nested: a tensor's description is six deep.
const DEPTH: u32 = 64;

/// Objects, copies included, for each byte of the pickle; a list of tensors takes less than one.
const OBJECTS_PER_BYTE: u64 = 2;

/// Text counts as an object for so many bytes.
const TEXT: usize = 64;

/// What an object takes.
#[derive(Debug, Clone, Copy)]
struct Extent {
    objects: u64,
    depth: u32,
    mark: bool,
}

impl Extent {
    const ONE: Self = Self {
        objects: 1,
        depth: 1,
        mark: false,
    };

    fn text(length: usize) -> Self {
        Self {
            objects: 1 + (length / TEXT) as u64,
            ..Self::ONE
        }
    }

    /// Takes another object in.
    fn hold(&mut self, other: Self) {
        self.objects = self.objects.saturating_add(other.objects);
        self.depth = self.depth.max(other.depth + 1);
    }
}

/// Checks a pickle and finds its length; `None` where it is malformed and its reader stops.
///
/// # Errors
/// If it asks for more than its size warrants.
pub(super) fn check(pickle: &[u8]) -> Result<Option<usize>, String> {
    let mut counter = Counter {
        rest: pickle,
        stack: Vec::new(),
        memo: HashMap::new(),
        objects: 0,
        limit: pickle.len() as u64 * OBJECTS_PER_BYTE + 64,
    };
    let mut goes_on = counter.step();
    while let Some(true) = goes_on {
        if counter.objects > counter.limit {
            return Err("data.pkl copies itself beyond any list of tensors".into());
        }
        if counter.stack.last().is_some_and(|top| top.depth > DEPTH) {
            return Err(format!("data.pkl nests objects deeper than {DEPTH}"));
        }
        goes_on = counter.step();
    }
    Ok(goes_on.map(|_| pickle.len() - counter.rest.len()))
}

struct Counter<'a> {
    rest: &'a [u8],
    stack: Vec<Extent>,
    memo: HashMap<u32, Extent>,
    /// All objects that were built so far.
    objects: u64,
    limit: u64,
}

impl<'a> Counter<'a> {
    /// Reads an opcode. `None` where the pickle is malformed, `false` at its end.
    fn step(&mut self) -> Option<bool> {
        match self.take(1)?[0] {
            // Version of the protocol.
            0x80 => drop(self.take(1)?),
            b'c' => {
                let length = self.line()? + self.line()?;
                self.push(Extent::text(length));
            }
            b'X' => {
                let length = self.u32()? as usize;
                self.take(length)?;
                self.push(Extent::text(length));
            }
            // Integers and floats by their size, one with its size in front.
            b'K' => self.number(1)?,
            b'M' => self.number(2)?,
            b'J' => self.number(4)?,
            b'G' => self.number(8)?,
            0x8a => {
                let length = self.take(1)?[0];
                self.number(length.into())?;
            }
            b'N' | b')' | b'}' | b'd' | b']' | 0x88 | 0x89 => self.push(Extent::ONE),
            b'(' => self.push(Extent {
                mark: true,
                ..Extent::ONE
            }),
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(items);
            }
            0x85 | b'Q' => self.join(1)?,
            0x86 | b'R' | b'b' | 0x81 => self.join(2)?,
            0x87 => self.join(3)?,
            b'a' => self.add(1)?,
            b's' => self.add(2)?,
            b'e' | b'u' => {
                let items = self.pop_to_mark()?;
                self.stack.last_mut()?.hold(items);
            }
            b'q' => {
                let id = self.take(1)?[0];
                self.remember(id.into())?;
            }
            b'r' => {
                let id = self.u32()?;
                self.remember(id)?;
            }
            b'h' => {
                let id = self.take(1)?[0];
                self.recall(id.into())?;
            }
            b'j' => {
                let id = self.u32()?;
                self.recall(id)?;
            }
            b'.' => return Some(false),
            _ => return None,
        }
        Some(true)
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take(4)?.try_into().ok().map(u32::from_le_bytes)
    }

    /// Goes past a line and returns its length.
    fn line(&mut self) -> Option<usize> {
        let length = self.rest.iter().position(|&byte| byte == b'\n')?;
        self.take(length + 1)?;
        Some(length)
    }

    fn number(&mut self, size: usize) -> Option<()> {
        self.take(size)?;
        self.push(Extent::ONE);
        Some(())
    }

    fn push(&mut self, extent: Extent) {
        self.objects = self.objects.saturating_add(extent.objects);
        self.stack.push(extent);
    }

    /// One object of the last few.
    fn join(&mut self, count: usize) -> Option<()> {
        let mut whole = Extent::ONE;
        for _ in 0..count {
            whole.hold(self.stack.pop()?);
        }
        self.objects += 1;
        self.stack.push(whole);
        Some(())
    }

    /// Puts the last few into the one before them.
    fn add(&mut self, count: usize) -> Option<()> {
        let at = self.stack.len().checked_sub(count)?;
        let items = self.stack.split_off(at);
        let into = self.stack.last_mut()?;
        items.into_iter().for_each(|item| into.hold(item));
        Some(())
    }

    /// Everything since the last mark, as one.
    fn pop_to_mark(&mut self) -> Option<Extent> {
        let mut whole = Extent::ONE;
        loop {
            let item = self.stack.pop()?;
            if item.mark {
                return Some(whole);
            }
            whole.hold(item);
        }
    }

    fn remember(&mut self, id: u32) -> Option<()> {
        let copy = *self.stack.last()?;
        self.objects = self.objects.saturating_add(copy.objects);
        self.memo.insert(id, copy);
        Some(())
    }

    fn recall(&mut self, id: u32) -> Option<()> {
        let copy = *self.memo.get(&id)?;
        self.push(copy);
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hostile_pickles_are_refused() {
        // Each round remembers a pair of what the last one remembered.
        let mut laughs = b"\x80\x02N".to_vec();
        for _ in 0..60 {
            laughs.extend(b"q\x00h\x00\x86");
        }
        assert!(check(&laughs).unwrap_err().contains("copies itself"));
        let mut nested = b"N".to_vec();
        nested.extend([0x85; 100_000]);
        assert!(check(&nested).unwrap_err().contains("nests"));
    }

    #[test]
    fn lists_of_tensors_pass() {
        let mut pickle = b"\x80\x02}q\x00(".to_vec();
        for layer in 0..1000u32 {
            let name = format!("model.layers.{layer}.mlp.down_proj.weight");
            pickle.push(b'X');
            pickle.extend((name.len() as u32).to_le_bytes());
            pickle.extend(name.as_bytes());
            pickle.extend(b"r");
            pickle.extend((layer * 4 + 1).to_le_bytes());
            pickle.extend(b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storage");
            pickle.extend(b"ctorch\nBFloat16Storage\nX\x02\x00\x00\x0042X\x03\x00\x00\x00cpu");
            pickle.extend(b"J\x00\x10\x00\x00tr");
            pickle.extend((layer * 4 + 2).to_le_bytes());
            pickle.extend(b"QK\x00K\x08K\x10\x86K\x10K\x01\x86\x89}tr");
            pickle.extend((layer * 4 + 3).to_le_bytes());
            pickle.extend(b"Rr");
            pickle.extend((layer * 4 + 4).to_le_bytes());
        }
        pickle.extend(b"u.");
        check(&pickle).unwrap();
    }
}
