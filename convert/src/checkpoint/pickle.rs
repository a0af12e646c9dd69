//! Pickles as plain data. Nothing in a pickle is ever imported or called: a call is kept as what it
//! names.
//!
//! Objects lie in one list and refer to each other by their place in it. So memory follows the
//! number of opcodes, however often a pickle repeats what it remembers, and nothing recurses.

use std::collections::HashMap;

/// Opcodes that are followed; a dictionary of tensors takes about thirty for each.
const STEPS: usize = 1 << 22;

/// The place of an object in its pickle.
type Id = u32;

#[derive(Debug)]
enum Object<'a> {
    Int(i64),
    Text(&'a str),
    Global(&'a str, &'a str),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Call {
        callable: Id,
        arguments: Id,
    },
    /// What the file around the pickle holds under this description.
    Persistent(Id),
    /// What no tensor is described by: floats, byte strings, sets, long integers, `None`.
    Other,
}

/// A pickle that has been read.
#[derive(Debug)]
pub(super) struct Pickle<'a> {
    objects: Vec<Object<'a>>,
    root: Id,
    /// Bytes that it takes.
    pub length: usize,
}

/// An object of a pickle.
#[derive(Debug, Clone, Copy)]
pub(super) struct Node<'p> {
    objects: &'p [Object<'p>],
    id: Id,
}

impl<'a> Pickle<'a> {
    /// Reads the pickle that these bytes begin with.
    ///
    /// # Errors
    /// If it is malformed, is longer than any list of tensors, or has opcodes that only code needs.
    pub fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let mut machine = Machine {
            rest: bytes,
            ..Machine::default()
        };
        for _ in 0..STEPS {
            let at = bytes.len() - machine.rest.len();
            match machine.step() {
                Ok(None) => {}
                Ok(Some(root)) => {
                    return Ok(Self {
                        objects: machine.objects,
                        root,
                        length: bytes.len() - machine.rest.len(),
                    });
                }
                Err(reason) => return Err(format!("data.pkl: {reason} (at byte {at})")),
            }
        }
        Err(format!("data.pkl: goes on after {STEPS} opcodes"))
    }

    /// What it holds.
    pub fn root(&self) -> Node<'_> {
        Node {
            objects: &self.objects,
            id: self.root,
        }
    }
}

impl<'p> Node<'p> {
    fn object(self) -> &'p Object<'p> {
        // Ids are given out for objects that are there, and none is ever removed.
        &self.objects[self.id as usize]
    }

    fn at(self, id: Id) -> Self {
        Self { id, ..self }
    }

    pub fn text(self) -> Option<&'p str> {
        match self.object() {
            Object::Text(text) => Some(text),
            _ => None,
        }
    }

    /// A number that is not negative.
    pub fn number(self) -> Option<u64> {
        match self.object() {
            Object::Int(value) => (*value).try_into().ok(),
            _ => None,
        }
    }

    /// Module and name of a class, a function or a value.
    pub fn global(self) -> Option<(&'p str, &'p str)> {
        match self.object() {
            Object::Global(module, name) => Some((module, name)),
            _ => None,
        }
    }

    /// The items of a tuple or list.
    pub fn items(self) -> Option<Vec<Self>> {
        match self.object() {
            Object::Tuple(items) | Object::List(items) => {
                Some(items.iter().map(|&id| self.at(id)).collect())
            }
            _ => None,
        }
    }

    /// Keys and values of a dictionary, in its order.
    pub fn entries(self) -> Option<impl Iterator<Item = (Self, Self)>> {
        match self.object() {
            Object::Dict(entries) => Some(
                entries
                    .iter()
                    .map(move |&(key, value)| (self.at(key), self.at(value))),
            ),
            _ => None,
        }
    }

    /// What would be called, and with what.
    pub fn call(self) -> Option<(Self, Self)> {
        match *self.object() {
            Object::Call {
                callable,
                arguments,
            } => Some((self.at(callable), self.at(arguments))),
            _ => None,
        }
    }

    /// The description of something in the file around the pickle.
    pub fn persistent(self) -> Option<Self> {
        match *self.object() {
            Object::Persistent(id) => Some(self.at(id)),
            _ => None,
        }
    }

    /// What it is, for a message.
    pub fn described(self) -> String {
        const NEVER: &str = "code in checkpoints is never run";
        match self.object() {
            Object::Call { callable, .. } => match self.at(*callable).global() {
                Some((module, name)) => format!("a call of {module}.{name}; {NEVER}"),
                None => format!("a call; {NEVER}"),
            },
            Object::Global(module, name) => format!("{module}.{name}; {NEVER}"),
            Object::Dict(_) => "a dictionary, expected a tensor".into(),
            _ => "something that is no tensor".into(),
        }
    }
}

/// The stack machine that a pickle is a program for.
#[derive(Default)]
struct Machine<'a> {
    rest: &'a [u8],
    objects: Vec<Object<'a>>,
    stack: Vec<Id>,
    /// Heights of the stack that later opcodes take everything above of.
    marks: Vec<usize>,
    memo: HashMap<u32, Id>,
}

const EMPTY: &str = "takes more from the stack than it holds";

impl<'a> Machine<'a> {
    /// Follows an opcode; the result of the pickle at its end.
    fn step(&mut self) -> Result<Option<Id>, String> {
        match self.byte()? {
            // Protocol and frame tell nothing that is needed.
            0x80 => drop(self.take(1)?),
            0x95 => drop(self.take(8)?),
            b'.' => return self.pop().map(Some),
            b'(' => self.marks.push(self.stack.len()),
            b'0' => drop(self.pop()?),
            b'1' => drop(self.pop_to_mark()?),
            b'2' => {
                let top = *self.stack.last().ok_or(EMPTY)?;
                self.stack.push(top);
            }
            b'N' => self.push(Object::Other),
            0x88 => self.push(Object::Int(1)),
            0x89 => self.push(Object::Int(0)),
            b'K' => {
                let value = self.byte()?;
                self.push(Object::Int(value.into()));
            }
            b'M' => {
                let value = u16::from_le_bytes(*self.array()?);
                self.push(Object::Int(value.into()));
            }
            b'J' => {
                let value = i32::from_le_bytes(*self.array()?);
                self.push(Object::Int(value.into()));
            }
            0x8a => {
                let length = self.byte()?;
                self.integer(length.into())?;
            }
            0x8b => {
                let length = self.length(4)?;
                self.integer(length)?;
            }
            b'G' => {
                self.take(8)?;
                self.push(Object::Other);
            }
            0x8c | b'U' => self.text(1)?,
            b'X' | b'T' => self.text(4)?,
            0x8d => self.text(8)?,
            b'C' => self.skip(1)?,
            b'B' => self.skip(4)?,
            0x8e | 0x96 => self.skip(8)?,
            b'c' => {
                let (module, name) = (self.line()?, self.line()?);
                self.push(Object::Global(module, name));
            }
            0x93 => {
                let (name, module) = (self.pop()?, self.pop()?);
                let (Object::Text(module), Object::Text(name)) =
                    (&self.objects[module as usize], &self.objects[name as usize])
                else {
                    return Err("names something by what is no text".into());
                };
                let global = Object::Global(module, name);
                self.push(global);
            }
            b')' => self.push(Object::Tuple(Vec::new())),
            code @ 0x85..=0x87 => {
                let at = self.stack.len().checked_sub(usize::from(code - 0x84));
                let items = self.stack.split_off(at.ok_or(EMPTY)?);
                self.push(Object::Tuple(items));
            }
            b't' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Tuple(items));
            }
            b']' => self.push(Object::List(Vec::new())),
            b'l' => {
                let items = self.pop_to_mark()?;
                self.push(Object::List(items));
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' => {
                let items = self.pop_to_mark()?;
                self.append(items)?;
            }
            b'}' => self.push(Object::Dict(Vec::new())),
            b'd' => {
                let items = self.pop_to_mark()?;
                self.push(Object::Dict(Vec::new()));
                self.set(&items)?;
            }
            b's' => {
                let (value, key) = (self.pop()?, self.pop()?);
                self.set(&[key, value])?;
            }
            b'u' => {
                let items = self.pop_to_mark()?;
                self.set(&items)?;
            }
            // Sets, the last of them frozen.
            0x8f => self.push(Object::Other),
            0x90 => drop(self.pop_to_mark()?),
            0x91 => {
                self.pop_to_mark()?;
                self.push(Object::Other);
            }
            b'R' | 0x81 => {
                let (arguments, callable) = (self.pop()?, self.pop()?);
                self.call(callable, arguments);
            }
            0x92 => {
                let (_keywords, arguments, callable) = (self.pop()?, self.pop()?, self.pop()?);
                self.call(callable, arguments);
            }
            // The state of an object: of a dictionary of tensors, notes on versions.
            b'b' => drop(self.pop()?),
            b'Q' => {
                let description = self.pop()?;
                self.push(Object::Persistent(description));
            }
            b'q' => {
                let key = self.byte()?;
                self.remember(key.into())?;
            }
            b'r' => {
                let key = u32::from_le_bytes(*self.array()?);
                self.remember(key)?;
            }
            0x94 => {
                let key = u32::try_from(self.memo.len()).map_err(|_| EMPTY)?;
                self.remember(key)?;
            }
            b'h' => {
                let key = self.byte()?;
                self.recall(key.into())?;
            }
            b'j' => {
                let key = u32::from_le_bytes(*self.array()?);
                self.recall(key)?;
            }
            code => return Err(format!("opcode {code:#04x} is none of a list of tensors")),
        }
        Ok(None)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or("breaks off")?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, String> {
        Ok(self.array::<1>()?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<&'a [u8; N], String> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or("breaks off")?;
        self.rest = rest;
        Ok(taken)
    }

    /// A length of so many bytes.
    fn length(&mut self, bytes: usize) -> Result<usize, String> {
        let mut wide = [0; 8];
        wide[..bytes].copy_from_slice(self.take(bytes)?);
        usize::try_from(u64::from_le_bytes(wide)).map_err(|_| "breaks off".into())
    }

    /// An integer of any length, little-endian in two's complement.
    fn integer(&mut self, length: usize) -> Result<(), String> {
        let bytes = self.take(length)?;
        let negative = bytes.last().is_some_and(|last| last & 0x80 != 0);
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        self.push(match wide.get_mut(..length) {
            Some(low) => {
                low.copy_from_slice(bytes);
                Object::Int(i64::from_le_bytes(wide))
            }
            None => Object::Other,
        });
        Ok(())
    }

    fn text(&mut self, bytes: usize) -> Result<(), String> {
        let length = self.length(bytes)?;
        let text = std::str::from_utf8(self.take(length)?);
        self.push(Object::Text(
            text.map_err(|_| "holds text that is not UTF-8")?,
        ));
        Ok(())
    }

    /// A byte string.
    fn skip(&mut self, bytes: usize) -> Result<(), String> {
        let length = self.length(bytes)?;
        self.take(length)?;
        self.push(Object::Other);
        Ok(())
    }

    fn line(&mut self) -> Result<&'a str, String> {
        let length = self.rest.iter().position(|&byte| byte == b'\n');
        let line = self.take(length.ok_or("breaks off")?)?;
        self.take(1)?;
        std::str::from_utf8(line).map_err(|_| "holds a name that is not UTF-8".into())
    }

    fn push(&mut self, object: Object<'a>) {
        // Opcodes are fewer than ids.
        self.stack.push(self.objects.len() as Id);
        self.objects.push(object);
    }

    fn pop(&mut self) -> Result<Id, String> {
        self.stack.pop().ok_or_else(|| EMPTY.into())
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, String> {
        let mark = self.marks.pop().filter(|&mark| mark <= self.stack.len());
        Ok(self.stack.split_off(mark.ok_or(EMPTY)?))
    }

    fn top(&mut self) -> Result<&mut Object<'a>, String> {
        let top = *self.stack.last().ok_or(EMPTY)?;
        Ok(&mut self.objects[top as usize])
    }

    fn append(&mut self, items: Vec<Id>) -> Result<(), String> {
        match self.top()? {
            Object::List(list) => list.extend(items),
            _ => return Err(self.no_container()),
        }
        Ok(())
    }

    /// Puts keys and values, one after another, into the dictionary on top.
    fn set(&mut self, items: &[Id]) -> Result<(), String> {
        let (pairs, []) = items.as_chunks::<2>() else {
            return Err("has a key without a value".into());
        };
        match self.top()? {
            Object::Dict(entries) => {
                entries.extend(pairs.iter().map(|&[key, value]| (key, value)));
            }
            _ => return Err(self.no_container()),
        }
        Ok(())
    }

    fn no_container(&self) -> String {
        let top = self.stack.last().map(|&id| Node {
            objects: &self.objects,
            id,
        });
        format!(
            "puts items into {}",
            top.map(Node::described).unwrap_or_default()
        )
    }

    /// A call as data, but for ordered dictionaries, which are dictionaries.
    fn call(&mut self, callable: Id, arguments: Id) {
        let node = |id| Node {
            objects: &self.objects,
            id,
        };
        let object = if node(callable).global() == Some(("collections", "OrderedDict")) {
            // Python 2 gives the entries as pairs.
            let arguments = node(arguments).items().unwrap_or_default();
            let pairs = arguments.first().and_then(|list| list.items());
            let entries = pairs.unwrap_or_default().into_iter().filter_map(|pair| {
                let [key, value] = pair.items()?[..] else {
                    return None;
                };
                Some((key.id, value.id))
            });
            Object::Dict(entries.collect())
        } else {
            Object::Call {
                callable,
                arguments,
            }
        };
        self.push(object);
    }

    fn remember(&mut self, key: u32) -> Result<(), String> {
        let top = *self.stack.last().ok_or(EMPTY)?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn recall(&mut self, key: u32) -> Result<(), String> {
        let known = self.memo.get(&key);
        self.stack
            .push(*known.ok_or("recalls what it has not remembered")?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn repetition_takes_no_memory() {
        // Each round remembers a pair of what the last one remembered: 2^60 objects when copied.
        let mut laughs = b"\x80\x02Nq\x00".to_vec();
        for _ in 0..60 {
            laughs.extend(b"h\x00\x86q\x00");
        }
        laughs.push(b'.');
        let pickle = Pickle::read(&laughs).unwrap();
        assert_eq!(pickle.objects.len(), 61);
        let mut nested = b"N".to_vec();
        nested.extend([0x85; 1_000_000]);
        nested.push(b'.');
        let pickle = Pickle::read(&nested).unwrap();
        assert_eq!(pickle.root().items().unwrap().len(), 1);
    }

    #[test]
    fn what_breaks_off_or_asks_for_code_is_refused() {
        for (pickle, word) in [
            (&b"\x80\x02}X\x10\x00\x00\x00w"[..], "breaks off"),
            (b"\x80\x02}", "breaks off"),
            (b"0.", "stack"),
            (b"(NNu.", "stack"),
            (b"}(Nu.", "without a value"),
            (b"h\x07.", "not remembered"),
            (b"i.", "0x69"),
            (b"cposix\nsystem\n)R(NNu.", "posix.system"),
        ] {
            let error = Pickle::read(pickle).unwrap_err();
            assert!(error.contains(word), "{error}");
        }
        let endless = vec![b'N'; STEPS + 1];
        assert!(Pickle::read(&endless).unwrap_err().contains("goes on"));
    }

    #[test]
    fn protocols_give_the_same() {
        // {"w": 258} by protocol 2 and by protocol 4, and as an ordered dictionary.
        for pickle in [
            &b"\x80\x02}q\x00X\x01\x00\x00\x00wq\x01M\x02\x01s."[..],
            b"\x80\x04\x95\x0b\x00\x00\x00\x00\x00\x00\x00}\x94\x8c\x01w\x94M\x02\x01s.",
            b"\x80\x02ccollections\nOrderedDict\nq\x00)Rq\x01(U\x01wq\x02\x8a\x02\x02\x01u}b.",
            b"\x80\x04\x8c\x0bcollections\x8c\x0bOrderedDict\x93)R\x8c\x01wM\x02\x01s.",
        ] {
            let pickle = Pickle::read(pickle).unwrap();
            let [(key, value)] = pickle.root().entries().unwrap().collect::<Vec<_>>()[..] else {
                panic!("{pickle:?}")
            };
            assert_eq!((key.text(), value.number()), (Some("w"), Some(258)));
        }
    }
}
