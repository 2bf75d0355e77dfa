//! RFC 8259, read strictly: the JSON of a JOSE header or a claims set.
//!
//! A member name that stands twice means two things to two readers (RFC 7515 §4, RFC 7519 §4, RFC 8725 §3), so it is
//! refused at every depth; depth itself is bounded, because a stranger chose it.
//!
//! `serde_json` has no such rule, and asking it for every name cost 4 % of an RSA signature more (DESIGN.md). So the text is
//! walked here, once; escapes, and numbers that are no integers, are left to it.

use std::borrow::Cow;

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

/// The text is not one JSON object that follows the rules above. It says nothing more, because a stranger wrote it.
#[derive(Debug, PartialEq)]
pub(crate) struct NotAnObject;

/// Reads `json`, which must be one object: the values of the `wanted` members, in that order. All others are checked, too.
pub(crate) fn read_object<'a, const N: usize>(
    json: &'a str,
    wanted: &[&str; N],
) -> Result<[Option<Value<'a>>; N], NotAnObject> {
    let mut reader = Reader { text: json, at: 0, names: Vec::new() };
    let mut values = [const { None }; N];
    reader.white_space();
    reader.expect(b'{')?;
    reader.white_space();
    if !reader.is_next(b'}') {
        loop {
            let name = reader.name()?;
            let place = wanted
                .iter()
                .position(|one| one.as_bytes().first() == name.as_bytes().first() && *one == name);
            let value = reader.value(MAX_DEPTH, place.is_some())?;
            match place.and_then(|place| values.get_mut(place)) {
                // It stands there twice.
                Some(Some(_)) => return Err(NotAnObject),
                Some(none) => *none = Some(value),
                None => reader.names.push(name),
            }
            if !reader.another(b'}')? {
                break;
            }
        }
        check_names(&mut reader.names)?;
    }
    reader.white_space();
    match reader.at == json.len() {
        true => Ok(values),
        false => Err(NotAnObject),
    }
}

struct Reader<'a> {
    text: &'a str,
    /// How far it was read, in bytes.
    at: usize,
    /// The names of the members of the objects that are open, one object's after the other's.
    names: Vec<Cow<'a, str>>,
}

impl<'a> Reader<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn is_next(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), NotAnObject> {
        self.is_next(byte).then_some(()).ok_or(NotAnObject)
    }

    #[inline]
    fn white_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// A member's name, and the colon after it.
    #[inline]
    fn name(&mut self) -> Result<Cow<'a, str>, NotAnObject> {
        self.expect(b'"')?;
        let name = self.string()?;
        self.white_space();
        self.expect(b':')?;
        Ok(name)
    }

    /// Whether another member or item follows, and not the `end`.
    #[inline]
    fn another(&mut self, end: u8) -> Result<bool, NotAnObject> {
        self.white_space();
        if self.is_next(b',') {
            self.white_space();
            return Ok(true);
        }
        self.expect(end).map(|()| false)
    }

    /// A value. `depth`: how many levels may be open here, the one around it included. `keep`: whether an array's strings are
    /// wanted.
    #[inline]
    fn value(&mut self, depth: u8, keep: bool) -> Result<Value<'a>, NotAnObject> {
        self.white_space();
        match self.peek().ok_or(NotAnObject)? {
            b'"' => {
                self.at += 1;
                self.string().map(Value::Text)
            }
            b'0'..=b'9' | b'-' => self.number().map(Value::Number),
            _ => self.other_value(depth, keep),
        }
    }

    fn other_value(&mut self, depth: u8, keep: bool) -> Result<Value<'a>, NotAnObject> {
        match self.peek() {
            Some(b'[') => self.items(depth - 1, keep),
            Some(b'{') => self.members(depth - 1),
            Some(b't') => self.word("true", Value::Other),
            Some(b'f') => self.word("false", Value::Other),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(NotAnObject),
        }
    }

    fn members(&mut self, depth: u8) -> Result<Value<'a>, NotAnObject> {
        if depth == 0 {
            return Err(NotAnObject);
        }
        self.at += 1;
        let first = self.names.len();
        self.white_space();
        if !self.is_next(b'}') {
            loop {
                let name = self.name()?;
                self.names.push(name);
                self.value(depth, false)?;
                if !self.another(b'}')? {
                    break;
                }
            }
            check_names(self.names.get_mut(first..).unwrap_or_default())?;
            self.names.truncate(first);
        }
        Ok(Value::Other)
    }

    fn items(&mut self, depth: u8, keep: bool) -> Result<Value<'a>, NotAnObject> {
        if depth == 0 {
            return Err(NotAnObject);
        }
        self.at += 1;
        let mut texts = keep.then(Vec::new);
        self.white_space();
        if !self.is_next(b']') {
            loop {
                match (&mut texts, self.value(depth, false)?) {
                    (Some(list), Value::Text(text)) => list.push(text),
                    (_, _) => texts = None,
                }
                if !self.another(b']')? {
                    break;
                }
            }
        }
        Ok(texts.map_or(Value::Other, Value::Texts))
    }

    fn word(&mut self, word: &str, value: Value<'a>) -> Result<Value<'a>, NotAnObject> {
        let rest = self.text.as_bytes().get(self.at..).unwrap_or_default();
        self.at += word.len();
        rest.starts_with(word.as_bytes()).then_some(value).ok_or(NotAnObject)
    }

    /// What follows a quotation mark, up to the next one.
    #[inline]
    fn string(&mut self) -> Result<Cow<'a, str>, NotAnObject> {
        let start = self.at;
        let end = plain_bytes(self.text.as_bytes(), start);
        self.at = end + 1;
        match self.text.as_bytes().get(end) {
            Some(b'"') => self.text.get(start..end).map(Cow::Borrowed).ok_or(NotAnObject),
            Some(b'\\') => self.escaped_string(start).map(Cow::Owned),
            _ => Err(NotAnObject),
        }
    }

    #[cold]
    fn escaped_string(&mut self, start: usize) -> Result<String, NotAnObject> {
        // What was seen last is a backslash.
        self.at += 1;
        while !self.is_next(b'"') {
            self.at += if self.peek().ok_or(NotAnObject)? == b'\\' { 2 } else { 1 };
        }
        let quoted = self.text.get(start.saturating_sub(1)..self.at).ok_or(NotAnObject)?;
        serde_json::from_str(quoted).map_err(|_| NotAnObject)
    }

    fn number(&mut self) -> Result<f64, NotAnObject> {
        let start = self.at;
        self.is_next(b'-');
        // No zero in front of other digits.
        if !self.is_next(b'0') {
            self.digits()?;
        }
        if self.is_next(b'.') {
            self.digits()?;
        }
        if self.is_next(b'e') || self.is_next(b'E') {
            let _ = self.is_next(b'+') || self.is_next(b'-');
            self.digits()?;
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        // Dates are integers, which are read sooner. All else as whoever reads the claims for the application does: a number that
        // one of us takes and the other does not would be two texts in one. And `str::parse` is exact at any price: a payload
        // of numbers that lie halfway between two floats took it 5 milliseconds.
        match text.parse::<i64>() {
            Ok(integer) => Ok(integer as f64),
            Err(_) => serde_json::from_str(text).map_err(|_| NotAnObject),
        }
    }

    /// At least one.
    fn digits(&mut self) -> Result<(), NotAnObject> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(()).ok_or(NotAnObject)
    }
}

/// Where the first byte after `at` is that means something in a string: a quotation mark, a backslash or a control
/// character. Looks at eight at a time, because strings are most of a payload.
#[inline]
fn plain_bytes(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    // The highest bit of each byte: whether that byte is less than `than`. Right up to the first such byte, which is all
    // that is asked for.
    let less = |word: u64, than: u8| word.wrapping_sub(ONES * u64::from(than)) & !word;
    while let Some(word) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*word);
        let same = |byte: u8| less(word ^ (ONES * u64::from(byte)), 1);
        let special = (less(word, b' ') | same(b'"') | same(b'\\')) & (ONES * 0x80);
        if special != 0 {
            return at + special.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    while bytes.get(at).is_some_and(|byte| !matches!(byte, ..b' ' | b'"' | b'\\')) {
        at += 1;
    }
    at
}

/// The names of one object's members. Sorted once at the end: comparing each with all the others would let 16 KiB of
/// short names cost milliseconds.
fn check_names(names: &mut [Cow<'_, str>]) -> Result<(), NotAnObject> {
    // What serde_json calls its own: it would see something else there when it reads the claims for the application.
    if names.iter().any(|name| name.starts_with("$serde_json::private::")) {
        return Err(NotAnObject);
    }
    names.sort_unstable();
    match names.windows(2).any(|pair| pair.first() == pair.last()) {
        true => Err(NotAnObject),
        false => Ok(()),
    }
}

/// The most memory that claims take once they are read, in bytes: as a tree, of which own types are a part. An object's members
/// are in nodes of a B-tree with 11 slots, of which at least 5 are used once there are more than 11; an array has up to twice
/// the slots that it needs, and at least 4. Counted by the signs between them, those within strings too, so it is never too
/// little, and cheap.
pub(crate) fn most_bytes_read(payload: &str) -> usize {
    const VALUE: usize = size_of::<serde_json::Value>();
    const NODE: usize = 11 * (VALUE + size_of::<String>()) + 12 * size_of::<usize>() + 16;
    /// What an allocator adds to a small piece of memory.
    const ALLOCATION: usize = 32;
    let count = |sign: u8| payload.bytes().filter(|byte| *byte == sign).count();
    let nodes = count(b'{') + count(b':') / 5;
    let items = 2 * count(b',') + 4 * count(b'[');
    nodes * NODE + items * VALUE + (count(b'"') / 2 + count(b'[')) * ALLOCATION + payload.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_one_strict_object_is_read() {
        let deep =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        let objects =
            |levels: usize| format!("{}1{}", "{\"a\":".repeat(levels), "}".repeat(levels));
        let cases: [(&str, String, bool); 30] = [
            ("empty object", "{}".into(), true),
            ("white space around", " {\"a\":1}\n".into(), true),
            ("escaped names", r#"{"\u0061":1,"b":2}"#.into(), true),
            ("as deep as allowed", deep(15), true),
            ("one level deeper", deep(16), false),
            ("far too deep", deep(5000), false),
            ("twice the same name", r#"{"a":1,"a":1}"#.into(), false),
            ("twice, once escaped", r#"{"a":1,"\u0061":1}"#.into(), false),
            ("twice, apart", r#"{"a":1,"b":2,"a":3}"#.into(), false),
            ("twice, of no interest", r#"{"b":1,"a":2,"c":3,"b":3}"#.into(), false),
            ("twice, of no interest, once escaped", r#"{"b":1,"\u0062":3}"#.into(), false),
            ("twice, nested", r#"{"a":{"b":1,"b":2}}"#.into(), false),
            ("twice, in a list", r#"{"a":[{"b":1,"b":2}]}"#.into(), false),
            ("a list", "[]".into(), false),
            ("a string", "\"{}\"".into(), false),
            ("two objects", "{}{}".into(), false),
            ("byte order mark", "\u{feff}{}".into(), false),
            (
                "a name of the parser's own",
                r#"{"a":{"$serde_json::private::RawValue":"x"}}"#.into(),
                false,
            ),
            ("another", r#"{"a":{"$serde_json::private::Number":"1.25"}}"#.into(), false),
            ("the same, outside", r#"{"$serde_json::private::RawValue":"x"}"#.into(), false),
            ("a number no float holds", r#"{"a":1e400}"#.into(), false),
            (
                "the largest float, rounded up, which serde_json refuses",
                r#"{"b":1.7976931348623158e308}"#.into(),
                false,
            ),
            ("objects, as deep as allowed", objects(16), true),
            ("objects, one level deeper", objects(17), false),
            ("objects, far too deep", objects(4000), false),
            ("a line feed in a short string", "{\"a\":\"\n\"}".into(), false),
            ("another control character there", "{\"a\":\"\u{1f}\"}".into(), false),
            ("a form feed around", "{\u{c}\"a\":1}".into(), false),
            ("a vertical tab around", "{\"a\":\u{b}1}".into(), false),
            ("nothing", String::new(), false),
        ];
        for (name, json, ok) in cases {
            assert_eq!(read_object(&json, &["a"]).is_ok(), ok, "{name}");
        }
    }

    #[test]
    fn values_are_told_apart() {
        let json = r#"{"a":"x","b":["x","y"],"c":["x",1],"d":{"e":"x"},"f":null,"g":-1.5,"h":[],"i":true,"no":"x"}"#;
        let wanted = ["i", "h", "g", "f", "d", "c", "b", "a", "none"];
        let expected = [
            Some(Value::Other),
            Some(Value::Texts(vec![])),
            Some(Value::Number(-1.5)),
            Some(Value::Null),
            Some(Value::Other),
            Some(Value::Other),
            Some(Value::Texts(vec!["x".into(), "y".into()])),
            Some(Value::Text("x".into())),
            None,
        ];
        assert_eq!(read_object(json, &wanted), Ok(expected));
    }

    /// What `serde_json` reads is read, and nothing else, but for our own rules: an object, 16 levels, no name twice.
    #[test]
    fn it_agrees_with_serde_json() {
        fn is_strict(value: &serde_json::Value, depth: u8) -> bool {
            match value {
                serde_json::Value::Array(items) => {
                    depth > 0 && items.iter().all(|item| is_strict(item, depth - 1))
                }
                serde_json::Value::Object(members) => {
                    depth > 0 && members.values().all(|member| is_strict(member, depth - 1))
                }
                _ => true,
            }
        }
        // Every byte of each text left out, doubled, or replaced by one that means something.
        let texts = [
            r#" { "a" : "x\u00e9\n\"y" , "b":[1, -2.5e+3,0.1 ,"z", [ ] , {}], "c":{"d":null,"e":true}} "#,
            r#"{"a":"longer than eight bytes","b":"twelve bytes\\","é":"ü\ud83d\ude00","c":false,"":-0,"d":10E-2}"#,
            r#"{"a":12345678901234567890,"b":-9223372036854775808,"c":1e308,"e":[[[[[[[[[[[[[[["x"]]]]]]]]]]]]]]]}"#,
        ];
        let (mut read, mut refused) = (0, 0);
        let mut check = |text: String| {
            let own = read_object(&text, &["a"]);
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            // A name twice is gone from a tree.
            let names_of_tree =
                |value: &serde_json::Value| value.to_string().matches("\":").count();
            let is_same = match &theirs {
                Ok(tree) if tree.is_object() && is_strict(tree, MAX_DEPTH) => {
                    own.is_ok() || names_of_tree(tree) < text.matches([':']).count()
                }
                _ => own.is_err(),
            };
            assert!(is_same, "{text}: {own:?}, {theirs:?}");
            if let (Ok([Some(Value::Text(own))]), Ok(tree)) = (&own, &theirs) {
                assert_eq!(Some(&**own), tree.get("a").and_then(|a| a.as_str()), "{text}");
            }
            if let (Ok([Some(Value::Number(own))]), Ok(tree)) = (&own, &theirs) {
                assert_eq!(Some(*own), tree.get("a").and_then(serde_json::Value::as_f64), "{text}");
            }
            *(if own.is_ok() { &mut read } else { &mut refused }) += 1;
        };
        for text in texts {
            let ends: Vec<_> =
                text.char_indices().map(|(at, one)| (at, at + one.len_utf8())).collect();
            for (start, end) in ends {
                let (before, one, after) = (&text[..start], &text[start..end], &text[end..]);
                check(format!("{before}{after}"));
                check(format!("{before}{one}{one}{after}"));
                for other in "\"\\{}[]:,0159-+.eEutnx \t\n\u{0}\u{1f}\u{7f}é".chars() {
                    check(format!("{before}{other}{after}"));
                    check(format!("{before}{other}{one}{after}"));
                }
            }
        }
        assert!(read > 3000 && refused > 3000, "{read} read, {refused} refused");
    }
}
