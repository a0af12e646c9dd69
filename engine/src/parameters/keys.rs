//! Typed access to a file's metadata.

use gristmill_gguf::{Array, Metadata, Value};

use crate::error::Error;

/// No key may ask for more of anything than this.
const LIMIT: u64 = 1 << 31;

/// The keys of one architecture: `{architecture}.{name}`.
pub(crate) struct Keys<'a> {
    metadata: &'a Metadata,
    prefix: &'a str,
}

impl<'a> Keys<'a> {
    pub fn new(metadata: &'a Metadata, prefix: &'a str) -> Self {
        Self { metadata, prefix }
    }

    pub fn get(&self, name: &str) -> Option<&'a Value> {
        self.metadata.get(format!("{}.{name}", self.prefix))
    }

    pub fn wrong(&self, name: &str, problem: impl Into<String>) -> Error {
        Error::Key {
            key: format!("{}.{name}", self.prefix),
            problem: problem.into(),
        }
    }

    /// A count or size.
    pub fn count(&self, name: &str) -> Result<Option<usize>, Error> {
        self.get(name).map(|v| self.as_count(name, v)).transpose()
    }

    fn as_count(&self, name: &str, value: &Value) -> Result<usize, Error> {
        match value.as_u64() {
            Some(v) if v < LIMIT => Ok(v as usize),
            Some(v) => Err(self.wrong(name, format!("{v} is out of range"))),
            None => Err(self.wrong(name, "is not a non-negative integer")),
        }
    }

    /// A count or size that must be there and not be zero.
    pub fn positive(&self, name: &str) -> Result<usize, Error> {
        match self.count(name)? {
            Some(0) => Err(self.wrong(name, "is zero")),
            Some(v) => Ok(v),
            None => Err(self.wrong(name, "is missing")),
        }
    }

    /// One count for all layers, or an array with one for each.
    pub fn per_layer(&self, name: &str, layers: usize) -> Result<Option<Vec<usize>>, Error> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let Some(array) = value.as_array() else {
            return Ok(Some(vec![self.as_count(name, value)?; layers]));
        };
        if array.len() < layers {
            let problem = format!("has {} entries for {layers} layers", array.len());
            return Err(self.wrong(name, problem));
        }
        let entry = |i| match array.get(i) {
            Some(Value::Bool(flag)) => Ok(usize::from(flag)),
            Some(v) => self.as_count(name, &v),
            None => Ok(0),
        };
        (0..layers).map(entry).collect::<Result<_, _>>().map(Some)
    }

    /// A finite number.
    pub fn float(&self, name: &str) -> Result<Option<f32>, Error> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        match value.as_f64() {
            Some(v) if v.is_finite() => Ok(Some(v as f32)),
            Some(v) => Err(self.wrong(name, format!("is {v}"))),
            None => Err(self.wrong(name, "is not a number")),
        }
    }

    /// A truth value.
    pub fn flag(&self, name: &str) -> Result<Option<bool>, Error> {
        self.get(name)
            .map(|v| {
                v.as_bool()
                    .ok_or_else(|| self.wrong(name, "is not a boolean"))
            })
            .transpose()
    }

    /// An array of numbers.
    pub fn floats(&self, name: &str) -> Option<Vec<f32>> {
        floats(self.metadata, &format!("{}.{name}", self.prefix))
    }

    pub fn str(&self, name: &str) -> Option<&'a str> {
        self.get(name)?.as_str()
    }
}

/// An array of f32 under a full key.
pub(crate) fn floats(metadata: &Metadata, key: &str) -> Option<Vec<f32>> {
    match metadata.array(key)? {
        Array::F32(values) => Some(values.clone()),
        _ => None,
    }
}
