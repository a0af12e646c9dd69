//! Metadata values, as the user writes and reads them.

use gristmill_gguf::value::ValueType;
use gristmill_gguf::{Array, Value};
use serde_json::{Value as Json, json};

/// Elements of an array, and characters of a text, that are printed.
const SHOWN_ELEMENTS: usize = 6;
const SHOWN_TEXT: usize = 100;

/// A value as JSON; what JSON has no number for is `null`.
pub fn to_json(value: &Value) -> Json {
    match value {
        Value::U8(v) => json!(v),
        Value::I8(v) => json!(v),
        Value::U16(v) => json!(v),
        Value::I16(v) => json!(v),
        Value::U32(v) => json!(v),
        Value::I32(v) => json!(v),
        Value::U64(v) => json!(v),
        Value::I64(v) => json!(v),
        Value::F32(v) => json!(v),
        Value::F64(v) => json!(v),
        Value::Bool(v) => json!(v),
        Value::String(v) => json!(v.to_string()),
        Value::Array(array) => (0..array.len())
            .filter_map(|index| array.get(index))
            .map(|value| to_json(&value))
            .collect(),
    }
}

/// A value's type, with that of an array's elements.
pub fn type_name(value: &Value) -> String {
    match value {
        Value::Array(array) => format!("arr[{}]", array.element_type().name()),
        value => value.value_type().name().to_owned(),
    }
}

/// A value on one line, abridged and escaped.
pub fn show(value: &Value) -> String {
    match value {
        Value::Array(array) => {
            let elements = (0..array.len().min(SHOWN_ELEMENTS)).filter_map(|at| array.get(at));
            let mut parts: Vec<String> = elements.map(|value| show(&value)).collect();
            if array.len() > SHOWN_ELEMENTS {
                parts.push(format!("… {} in all", array.len()));
            }
            format!("[{}]", parts.join(", "))
        }
        Value::String(text) => {
            let text = String::from_utf8_lossy(text);
            let mut short: String = text.chars().take(SHOWN_TEXT).collect();
            if short.len() < text.len() {
                short.push('…');
            }
            // Quoted and escaped: a file's text must not control the terminal.
            format!("{short:?}")
        }
        // JSON has no infinities.
        Value::F32(value) => format!("{value:?}"),
        Value::F64(value) => format!("{value:?}"),
        value => to_json(value).to_string(),
    }
}

/// A value of the given type from what the user wrote: texts as they are, the rest as JSON.
/// `element` is the type of an array's elements.
pub fn parse(text: &str, ty: ValueType, element: Option<ValueType>) -> Result<Value, String> {
    if ty == ValueType::String {
        return Ok(text.into());
    }
    let json: Json =
        serde_json::from_str(text).map_err(|_| format!("`{text}` is no {}", ty.name()))?;
    let wrong = || format!("`{text}` is no {}", ty.name());
    if ty != ValueType::Array {
        return scalar(&json, ty).ok_or_else(wrong);
    }
    let items = json.as_array().ok_or_else(wrong)?;
    let element = element
        .or_else(|| items.first().map(guess))
        .unwrap_or(ValueType::String);
    array(items, element)
        .map(Value::Array)
        .ok_or_else(|| format!("`{text}` is no array of {}", element.name()))
}

/// The type that the reference converter gives a value of unknown type.
fn guess(json: &Json) -> ValueType {
    match json {
        Json::Bool(_) => ValueType::Bool,
        Json::Number(number) if number.is_f64() => ValueType::F32,
        Json::Number(_) => ValueType::I32,
        _ => ValueType::String,
    }
}

fn scalar(json: &Json, ty: ValueType) -> Option<Value> {
    let unsigned = || json.as_u64();
    let signed = || json.as_i64();
    Some(match ty {
        ValueType::U8 => Value::U8(unsigned()?.try_into().ok()?),
        ValueType::I8 => Value::I8(signed()?.try_into().ok()?),
        ValueType::U16 => Value::U16(unsigned()?.try_into().ok()?),
        ValueType::I16 => Value::I16(signed()?.try_into().ok()?),
        ValueType::U32 => Value::U32(unsigned()?.try_into().ok()?),
        ValueType::I32 => Value::I32(signed()?.try_into().ok()?),
        ValueType::U64 => Value::U64(unsigned()?),
        ValueType::I64 => Value::I64(signed()?),
        ValueType::F32 => Value::F32(json.as_f64()? as f32),
        ValueType::F64 => Value::F64(json.as_f64()?),
        ValueType::Bool => Value::Bool(json.as_bool()?),
        ValueType::String => json.as_str()?.into(),
        ValueType::Array => return None,
    })
}

fn array(items: &[Json], element: ValueType) -> Option<Array> {
    let unsigned = || items.iter().map(Json::as_u64);
    let signed = || items.iter().map(Json::as_i64);
    let float = || items.iter().map(Json::as_f64);
    Some(match element {
        ValueType::U8 => Array::U8(
            unsigned()
                .map(|v| v?.try_into().ok())
                .collect::<Option<_>>()?,
        ),
        ValueType::I8 => Array::I8(
            signed()
                .map(|v| v?.try_into().ok())
                .collect::<Option<_>>()?,
        ),
        ValueType::U16 => Array::U16(
            unsigned()
                .map(|v| v?.try_into().ok())
                .collect::<Option<_>>()?,
        ),
        ValueType::I16 => Array::I16(
            signed()
                .map(|v| v?.try_into().ok())
                .collect::<Option<_>>()?,
        ),
        ValueType::U32 => Array::U32(
            unsigned()
                .map(|v| v?.try_into().ok())
                .collect::<Option<_>>()?,
        ),
        ValueType::I32 => Array::I32(
            signed()
                .map(|v| v?.try_into().ok())
                .collect::<Option<_>>()?,
        ),
        ValueType::U64 => Array::U64(unsigned().collect::<Option<_>>()?),
        ValueType::I64 => Array::I64(signed().collect::<Option<_>>()?),
        ValueType::F32 => Array::F32(float().map(|v| Some(v? as f32)).collect::<Option<_>>()?),
        ValueType::F64 => Array::F64(float().collect::<Option<_>>()?),
        ValueType::Bool => Array::Bool(items.iter().map(Json::as_bool).collect::<Option<_>>()?),
        ValueType::String => Array::String(
            items
                .iter()
                .map(|v| Some(v.as_str()?.into()))
                .collect::<Option<_>>()?,
        ),
        ValueType::Array => Array::Array(
            items
                .iter()
                .map(|v| {
                    let inner = v.as_array()?;
                    array(inner, inner.first().map_or(ValueType::String, guess))
                })
                .collect::<Option<_>>()?,
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_by_their_type() {
        let parse = |text: &str, ty| parse(text, ty, None);
        assert_eq!(parse("7", ValueType::U32), Ok(Value::U32(7)));
        assert_eq!(parse("7", ValueType::String), Ok("7".into()));
        assert_eq!(parse("-0.5", ValueType::F32), Ok(Value::F32(-0.5)));
        assert_eq!(parse("[1, 2]", ValueType::Array), Ok(vec![1i32, 2].into()));
        let texts = parse("[\"a\"]", ValueType::Array).unwrap();
        assert_eq!(show(&texts), "[\"a\"]");
        for (text, ty) in [
            ("256", ValueType::U8),
            ("-1", ValueType::U64),
            ("1.5", ValueType::I32),
            ("yes", ValueType::Bool),
            ("1", ValueType::Array),
            ("[1, true]", ValueType::Array),
        ] {
            assert!(parse(text, ty).is_err(), "{text}");
        }
    }
}
