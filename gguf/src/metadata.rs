//! Ordered key-value metadata.

use std::collections::HashMap;

use bstr::{BStr, BString, ByteSlice};

use crate::value::{Array, Value};

/// The key-value pairs of a model, in file order, each key once.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    entries: Vec<(BString, Value)>,
    index: HashMap<BString, usize>,
}

impl Metadata {
    /// No entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Number of entries.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Entries in file order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&BStr, &Value)> {
        self.entries
            .iter()
            .map(|(key, value)| (key.as_bstr(), value))
    }

    /// The value of a key.
    pub fn get(&self, key: impl AsRef<[u8]>) -> Option<&Value> {
        self.index
            .get(key.as_ref().as_bstr())
            .map(|&at| &self.entries[at].1)
    }

    /// Whether the key is present.
    pub fn contains(&self, key: impl AsRef<[u8]>) -> bool {
        self.index.contains_key(key.as_ref().as_bstr())
    }

    /// Sets a key: in its place if present, else at the end. Returns the former value.
    pub fn set(&mut self, key: impl Into<BString>, value: impl Into<Value>) -> Option<Value> {
        let (key, value) = (key.into(), value.into());
        if let Some(&at) = self.index.get(&key) {
            return Some(std::mem::replace(&mut self.entries[at].1, value));
        }
        self.index.insert(key.clone(), self.entries.len());
        self.entries.push((key, value));
        None
    }

    /// Sets a key and moves it to the end (llama.cpp's way of overriding a key).
    pub fn set_last(&mut self, key: impl Into<BString>, value: impl Into<Value>) {
        let key = key.into();
        self.remove(&key);
        self.set(key, value);
    }

    /// Removes a key; the order of the others stays.
    pub fn remove(&mut self, key: impl AsRef<[u8]>) -> Option<Value> {
        let at = self.index.remove(key.as_ref().as_bstr())?;
        let (_, value) = self.entries.remove(at);
        for position in self.index.values_mut() {
            if *position > at {
                *position -= 1;
            }
        }
        Some(value)
    }

    /// A non-negative integer of any width.
    pub fn u64(&self, key: impl AsRef<[u8]>) -> Option<u64> {
        self.get(key)?.as_u64()
    }

    /// A number.
    pub fn f64(&self, key: impl AsRef<[u8]>) -> Option<f64> {
        self.get(key)?.as_f64()
    }

    /// A boolean.
    pub fn bool(&self, key: impl AsRef<[u8]>) -> Option<bool> {
        self.get(key)?.as_bool()
    }

    /// A UTF-8 string.
    pub fn str(&self, key: impl AsRef<[u8]>) -> Option<&str> {
        self.get(key)?.as_str()
    }

    /// An array.
    pub fn array(&self, key: impl AsRef<[u8]>) -> Option<&Array> {
        self.get(key)?.as_array()
    }
}

impl<K: Into<BString>, V: Into<Value>> FromIterator<(K, V)> for Metadata {
    /// Later entries with the same key replace earlier ones.
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut metadata = Self::new();
        for (key, value) in entries {
            metadata.set(key, value);
        }
        metadata
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_order_and_moves_on_override() {
        let mut m: Metadata = [("a", 1u32), ("b", 2), ("c", 3)].into_iter().collect();
        m.set("b", 5u32);
        m.set_last("a", 7u32);
        let keys: Vec<_> = m.iter().map(|(k, _)| k.to_string()).collect();
        assert_eq!(keys, ["b", "c", "a"]);
        assert_eq!(m.u64("a"), Some(7));
        assert_eq!(m.u64("b"), Some(5));
        assert_eq!(m.remove("b"), Some(Value::U32(5)));
        assert_eq!(m.u64("c"), Some(3));
    }
}
