//! RFC 8259, read strictly: the JSON of a JOSE header or a claims set.
//!
//! A member name that stands twice means two things to two readers (RFC 7515 §4, RFC 7519 §4, RFC 8725 §3), so it is
//! refused at every depth; depth itself is bounded, because a stranger chose it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};

/// Deepest nesting accepted, the outermost object included. Real tokens stay under 6.
const MAX_DEPTH: u8 = 16;

/// A member's value, as far as any rule of ours looks into one.
#[derive(Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    /// An array with nothing but strings in it.
    Texts(Vec<Cow<'a, str>>),
    Null,
    /// Anything else. Read to its end and found well-formed, but not kept.
    Other,
}

/// The text is not one JSON object that follows the rules above.
///
/// It says nothing more, because the parser's own sentence quotes the input.
#[derive(Debug, PartialEq)]
pub(crate) struct NotAnObject;

/// Reads `json`, which must be one object, and hands `each` member over in the order of the text.
///
/// Only members that `wanted` asks for have their strings kept; all are checked.
pub(crate) fn read_object<'a>(
    json: &'a str,
    wanted: impl Fn(&str) -> bool,
    each: impl FnMut(&str, Value<'a>),
) -> Result<(), NotAnObject> {
    let mut deserializer = serde_json::Deserializer::from_str(json);
    Members { wanted, each }.deserialize(&mut deserializer).map_err(|_| NotAnObject)?;
    deserializer.end().map_err(|_| NotAnObject)
}

struct Members<W, E> {
    wanted: W,
    each: E,
}

impl<'de, W: Fn(&str) -> bool, E: FnMut(&str, Value<'de>)> DeserializeSeed<'de> for Members<W, E> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de, W: Fn(&str) -> bool, E: FnMut(&str, Value<'de>)> Visitor<'de> for Members<W, E> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut map: A) -> Result<(), A::Error> {
        // As many as real tokens have, so that the list need not grow.
        let mut names = Names(Vec::with_capacity(16));
        while let Some(Name(name)) = map.next_key()? {
            let keep = (self.wanted)(&name);
            let value = map.next_value_seed(Member { depth: MAX_DEPTH - 1, keep })?;
            if keep {
                (self.each)(&name, value);
            }
            names.0.push(name);
        }
        names.check()
    }
}

/// The names of one object's members. Sorted once at the end: comparing each with all the others would let 16 KiB of
/// short names cost milliseconds.
#[derive(Default)]
struct Names<'a>(Vec<Cow<'a, str>>);

impl Names<'_> {
    fn check<E: de::Error>(mut self) -> Result<(), E> {
        // What serde_json calls its own: other readers of the same bytes would see something else there.
        if self.0.iter().any(|name| name.starts_with("$serde_json::private::")) {
            return Err(E::custom("a member name that is the parser's own"));
        }
        self.0.sort_unstable();
        if self.0.windows(2).any(|pair| pair.first() == pair.last()) {
            return Err(E::custom("a member name stands twice"));
        }
        Ok(())
    }
}

struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Borrow;
        impl<'de> Visitor<'de> for Borrow {
            type Value = Name<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a member name")
            }

            fn visit_borrowed_str<E>(self, name: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(name)))
            }

            fn visit_str<E>(self, name: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(name.to_owned())))
            }
        }
        deserializer.deserialize_str(Borrow)
    }
}

/// Reads one member's value.
#[derive(Clone, Copy)]
struct Member {
    /// Levels that may still be opened.
    depth: u8,
    /// Whether strings are kept or only passed over.
    keep: bool,
}

impl Member {
    fn inner<E: de::Error>(self) -> Result<Self, E> {
        match self.depth.checked_sub(1) {
            Some(depth) => Ok(Self { depth, ..self }),
            None => Err(E::custom("nested too deeply")),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Member {
    type Value = Value<'de>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value<'de>, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Member {
    type Value = Value<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Value<'de>, E> {
        Ok(Value::Other)
    }

    fn visit_unit<E>(self) -> Result<Value<'de>, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number as f64))
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value<'de>, E> {
        Ok(Value::Number(number))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Value<'de>, E> {
        Ok(Value::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value<'de>, E> {
        Ok(if self.keep { Value::Text(Cow::Owned(text.to_owned())) } else { Value::Other })
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value<'de>, A::Error> {
        let inner = self.inner()?;
        let mut texts = self.keep.then(Vec::new);
        while let Some(item) = items.next_element_seed(inner)? {
            match (&mut texts, item) {
                (Some(list), Value::Text(text)) => list.push(text),
                (_, _) => texts = None,
            }
        }
        Ok(texts.map_or(Value::Other, Value::Texts))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value<'de>, A::Error> {
        let inner = Self { keep: false, ..self.inner()? };
        let mut names = Names::default();
        // What numbers look like where somebody turned serde_json's feature `arbitrary_precision` on.
        const NUMBER: &str = "$serde_json::private::Number";
        while let Some(Name(name)) = map.next_key()? {
            if name == NUMBER && names.0.is_empty() {
                let number: String = map.next_value()?;
                return match number.parse::<f64>() {
                    Ok(number) if number.is_finite() => Ok(Value::Number(number)),
                    _ => Err(de::Error::custom("a number that no float holds")),
                };
            }
            map.next_value_seed(inner)?;
            names.0.push(name);
        }
        names.check()?;
        Ok(Value::Other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_strict_object_is_read() {
        let deep = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        let cases: [(&str, String, bool); 19] = [
            ("empty object", "{}".into(), true),
            ("white space around", " {\"a\":1}\n".into(), true),
            ("escaped names", r#"{"\u0061":1,"b":2}"#.into(), true),
            ("as deep as allowed", deep(15), true),
            ("one level deeper", deep(16), false),
            ("far too deep", deep(5000), false),
            ("twice the same name", r#"{"a":1,"a":1}"#.into(), false),
            ("twice, once escaped", r#"{"a":1,"\u0061":1}"#.into(), false),
            ("twice, apart", r#"{"a":1,"b":2,"a":3}"#.into(), false),
            ("twice, nested", r#"{"a":{"b":1,"b":2}}"#.into(), false),
            ("twice, in a list", r#"{"a":[{"b":1,"b":2}]}"#.into(), false),
            ("a list", "[]".into(), false),
            ("a string", "\"{}\"".into(), false),
            ("two objects", "{}{}".into(), false),
            ("byte order mark", "\u{feff}{}".into(), false),
            ("a name of the parser's own", r#"{"a":{"$serde_json::private::RawValue":"x"}}"#.into(), false),
            ("the same, outside", r#"{"$serde_json::private::RawValue":"x"}"#.into(), false),
            ("a number no float holds", r#"{"a":1e400}"#.into(), false),
            ("nothing", String::new(), false),
        ];
        for (name, json, ok) in cases {
            assert_eq!(read_object(&json, |_| true, |_, _| ()).is_ok(), ok, "{name}");
        }
    }

    #[test]
    fn values_are_told_apart() {
        let json = r#"{"a":"x","b":["x","y"],"c":["x",1],"d":{"e":"x"},"f":null,"g":-1.5,"h":[],"i":true,"no":"x",
            "j":{"$serde_json::private::Number":"1.25"}}"#;
        let mut seen = Vec::new();
        read_object(json, |name| name != "no", |name, value| seen.push((name.to_owned(), value))).unwrap();
        let expected = [
            ("a", Value::Text("x".into())),
            ("b", Value::Texts(vec!["x".into(), "y".into()])),
            ("c", Value::Other),
            ("d", Value::Other),
            ("f", Value::Null),
            ("g", Value::Number(-1.5)),
            ("h", Value::Texts(vec![])),
            ("i", Value::Other),
            ("j", Value::Number(1.25)),
        ];
        assert_eq!(seen, expected.map(|(name, value)| (name.to_owned(), value)));
    }
}
