//! Lenient readings of JSON values, as the original server and its foreign clients need them.
//!
//! Strings are taken for booleans and numbers, unparsable ones count as `false` or as absent, and an unfitting type never makes a whole message unreadable.

use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A boolean; texts other than `true` (in any case) and numbers count as `false`, as Gson's `getAsBoolean` has it.
pub fn to_bool(value: &Value) -> bool {
    match value {
        Value::Bool(b) => *b,
        Value::String(s) => s.trim().eq_ignore_ascii_case("true"),
        _ => false,
    }
}

/// A number given as number or text; fractions are cut, out-of-range and unparsable ones are `None`.
pub fn to_i64(value: &Value) -> Option<i64> {
    match value {
        Value::Number(n) => n.as_i64().or_else(|| n.as_f64().and_then(f64_to_i64)),
        Value::String(s) => {
            let s = s.trim();
            s.parse::<i64>().ok().or_else(|| s.parse::<f64>().ok().and_then(f64_to_i64))
        }
        _ => None,
    }
}

/// The same for an unsigned 64-bit number.
pub fn to_u64(value: &Value) -> Option<u64> {
    to_i64(value).and_then(|n| u64::try_from(n).ok())
}

/// The same for an unsigned 32-bit number.
pub fn to_u32(value: &Value) -> Option<u32> {
    to_i64(value).and_then(|n| u32::try_from(n).ok())
}

fn f64_to_i64(f: f64) -> Option<i64> {
    (f.is_finite() && f.abs() < 9.0e15).then_some(f as i64)
}

/// A text; numbers and booleans give their JSON text, everything else is `None`.
pub fn to_text(value: &Value) -> Option<String> {
    match value {
        Value::String(s) => Some(s.clone()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        _ => None,
    }
}

/// `value` without any `null` member, at any depth, since RPC messages carry none. Elements of arrays stay.
pub fn drop_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            Value::Object(map.into_iter().filter(|(_, v)| !v.is_null()).map(|(k, v)| (k, drop_nulls(v))).collect())
        }
        Value::Array(list) => Value::Array(list.into_iter().map(drop_nulls).collect()),
        other => other,
    }
}

/// Serde helper: text or `""`.
pub fn string<'de, D: Deserializer<'de>>(d: D) -> Result<String, D::Error> {
    Ok(to_text(&Value::deserialize(d)?).unwrap_or_default())
}

/// Serde helper: text if there is one.
pub fn opt_string<'de, D: Deserializer<'de>>(d: D) -> Result<Option<String>, D::Error> {
    Ok(to_text(&Value::deserialize(d)?))
}

/// Serde helper: boolean or `false`.
pub fn boolean<'de, D: Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
    Ok(to_bool(&Value::deserialize(d)?))
}

/// Serde helper: boolean if there is any value.
pub fn opt_bool<'de, D: Deserializer<'de>>(d: D) -> Result<Option<bool>, D::Error> {
    let value = Value::deserialize(d)?;
    Ok((!value.is_null()).then(|| to_bool(&value)))
}

/// Serde helper: number or 0.
pub fn u64<'de, D: Deserializer<'de>>(d: D) -> Result<u64, D::Error> {
    Ok(to_u64(&Value::deserialize(d)?).unwrap_or_default())
}

/// Serde helper: number or 0.
pub fn u32<'de, D: Deserializer<'de>>(d: D) -> Result<u32, D::Error> {
    Ok(to_u32(&Value::deserialize(d)?).unwrap_or_default())
}

/// Serde helper: number if there is one.
pub fn opt_i64<'de, D: Deserializer<'de>>(d: D) -> Result<Option<i64>, D::Error> {
    Ok(to_i64(&Value::deserialize(d)?))
}

/// Serde helper: number if there is one in range.
pub fn opt_u16<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u16>, D::Error> {
    Ok(to_i64(&Value::deserialize(d)?).and_then(|n| u16::try_from(n).ok()))
}

/// Serde helper: number if there is one in range.
pub fn opt_i32<'de, D: Deserializer<'de>>(d: D) -> Result<Option<i32>, D::Error> {
    Ok(to_i64(&Value::deserialize(d)?).and_then(|n| i32::try_from(n).ok()))
}

/// Serde helper: the readable elements of an array, nothing for anything else.
pub fn list<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned>(d: D) -> Result<Vec<T>, D::Error> {
    Ok(match Value::deserialize(d)? {
        Value::Array(list) => list.into_iter().filter_map(|v| serde_json::from_value(v).ok()).collect(),
        _ => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn strings_count_as_what_they_say() {
        assert!(to_bool(&json!("true")) && to_bool(&json!(true)));
        assert!(!to_bool(&json!("maybe")) && !to_bool(&json!(1)) && !to_bool(&json!(null)));
        assert_eq!(to_i64(&json!("30")), Some(30));
        assert_eq!(to_i64(&json!(29.97)), Some(29));
        assert_eq!(to_i64(&json!("-1")), Some(-1));
        assert_eq!(to_i64(&json!(1e300)), None);
        assert_eq!(to_i64(&json!("x")), None);
        assert_eq!(to_text(&json!(5)), Some("5".into()));
        assert_eq!(to_text(&json!({})), None);
    }

    #[test]
    fn nulls_vanish_at_any_depth() {
        assert_eq!(drop_nulls(json!({"a":null,"b":{"c":null,"d":[null,{"e":null}]}})), json!({"b":{"d":[null,{}]}}));
    }
}
