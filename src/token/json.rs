//! RFC 8259, parsed strictly: the JSON of a JOSE header or of the claims.
//!
//! Duplicate member names are rejected at every depth, because two parsers may read different
//! values (RFC 7515 §4, RFC 7519 §4, RFC 8725 §3). The depth is limited, because the input is
//! untrusted.
//!
//! `serde_json` has no such rule, and checking every name with it added 4 % of the time of an RSA
//! verification (DESIGN.md). The text is therefore parsed here, in one pass. Escapes, and numbers
//! that are not integers, are left to `serde_json`.

use std::borrow::Cow;

/// Maximum nesting, including the outermost object. Real tokens stay under 6.
const MAX_DEPTH: u8 = 16;

/// The value of a member, as far as the rules need it.
#[derive(Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Text(Cow<'a, str>),
    Number(f64),
    /// An array that contains only strings.
    Texts(Vec<Cow<'a, str>>),
    /// An object, as its text.
    Object(&'a str),
    Bool(bool),
    Null,
    /// Any other value. It was checked to be well-formed, but is not stored.
    Other,
}

/// The text is not one JSON object that follows the rules above. There are no details, because the
/// input is untrusted.
#[derive(Debug, PartialEq)]
pub(crate) struct NotAnObject;

/// Parses `json`, which must be one object. Returns the values of the `wanted` members, in that
/// order. All other members are checked as well.
///
/// Inlined, so that the compiler knows the names: it then tells most of them by their length.
#[inline(always)]
pub(crate) fn read_object<'a, const N: usize>(
    json: &'a str,
    wanted: &[&str; N],
) -> Result<[Option<Value<'a>>; N], NotAnObject> {
    let mut reader = Reader { text: json, at: 0, names: Vec::new() };
    let mut values = [const { None }; N];
    reader.white_space();
    reader.expect(b'{')?;
    reader.white_space();
    if !reader.eat(b'}') {
        loop {
            let name = reader.name()?;
            let index = wanted.iter().position(|one| *one == name);
            let strings = if index.is_some() { Strings::Read } else { Strings::Skip };
            let value = reader.value(MAX_DEPTH, strings)?;
            match index.and_then(|index| values.get_mut(index)) {
                // A duplicate member.
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
    if reader.at == json.len() { Ok(values) } else { Err(NotAnObject) }
}

/// The names of the members of an object that [`read_object`] has returned, without their escapes.
pub(crate) fn names(object: &str) -> impl Iterator<Item = Cow<'_, str>> {
    let mut reader = Reader { text: object, at: 0, names: Vec::new() };
    reader.eat(b'{');
    reader.white_space();
    std::iter::from_fn(move || {
        // No name follows the last member: the text ends.
        let name = reader.name().ok()?;
        reader.value(MAX_DEPTH, Strings::Skip).ok()?;
        let _ = reader.another(b'}');
        Some(name)
    })
}

struct Reader<'a> {
    text: &'a str,
    /// The current position, in bytes.
    at: usize,
    /// The member names of all open objects, those of the outermost object first.
    names: Vec<Cow<'a, str>>,
}

/// Whether the strings of an array are returned, or only checked.
#[derive(Clone, Copy, PartialEq)]
enum Strings {
    Read,
    Skip,
}

impl<'a> Reader<'a> {
    #[inline]
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    #[inline]
    fn eat(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    #[inline]
    fn expect(&mut self, byte: u8) -> Result<(), NotAnObject> {
        self.eat(byte).then_some(()).ok_or(NotAnObject)
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

    /// Whether another member or item follows. If not, `end` must follow.
    #[inline]
    fn another(&mut self, end: u8) -> Result<bool, NotAnObject> {
        self.white_space();
        if self.eat(b',') {
            self.white_space();
            return Ok(true);
        }
        self.expect(end).map(|()| false)
    }

    /// A value. `depth`: how many levels may be open here, including the enclosing one. `strings`:
    /// whether the strings of an array are needed.
    #[inline]
    fn value(&mut self, depth: u8, strings: Strings) -> Result<Value<'a>, NotAnObject> {
        self.white_space();
        match self.peek().ok_or(NotAnObject)? {
            b'"' => {
                self.at += 1;
                self.string().map(Value::Text)
            }
            b'0'..=b'9' | b'-' => self.number().map(Value::Number),
            _ => self.other_value(depth, strings),
        }
    }

    fn other_value(&mut self, depth: u8, strings: Strings) -> Result<Value<'a>, NotAnObject> {
        match self.peek() {
            Some(b'[') => self.items(depth - 1, strings),
            Some(b'{') => {
                let start = self.at;
                self.members(depth - 1)?;
                self.text.get(start..self.at).map(Value::Object).ok_or(NotAnObject)
            }
            Some(b't') => self.word("true", Value::Bool(true)),
            Some(b'f') => self.word("false", Value::Bool(false)),
            Some(b'n') => self.word("null", Value::Null),
            _ => Err(NotAnObject),
        }
    }

    fn members(&mut self, depth: u8) -> Result<(), NotAnObject> {
        if depth == 0 {
            return Err(NotAnObject);
        }
        self.at += 1;
        let first = self.names.len();
        self.white_space();
        if !self.eat(b'}') {
            loop {
                let name = self.name()?;
                self.names.push(name);
                self.value(depth, Strings::Skip)?;
                if !self.another(b'}')? {
                    break;
                }
            }
            check_names(self.names.get_mut(first..).unwrap_or_default())?;
            self.names.truncate(first);
        }
        Ok(())
    }

    fn items(&mut self, depth: u8, strings: Strings) -> Result<Value<'a>, NotAnObject> {
        if depth == 0 {
            return Err(NotAnObject);
        }
        self.at += 1;
        let mut texts = (strings == Strings::Read).then(Vec::new);
        self.white_space();
        if !self.eat(b']') {
            loop {
                match (&mut texts, self.value(depth, Strings::Skip)?) {
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

    /// A string, after its opening quotation mark.
    #[inline]
    fn string(&mut self) -> Result<Cow<'a, str>, NotAnObject> {
        let start = self.at;
        let end = plain_bytes(self.text.as_bytes(), start);
        self.at = end;
        match self.peek() {
            Some(b'"') => {
                self.at = end + 1;
                self.text.get(start..end).map(Cow::Borrowed).ok_or(NotAnObject)
            }
            Some(b'\\') => self.escaped_string(start).map(Cow::Owned),
            _ => Err(NotAnObject),
        }
    }

    /// The rest of a string, from its first backslash on. Returns the whole string.
    #[cold]
    fn escaped_string(&mut self, start: usize) -> Result<String, NotAnObject> {
        while !self.eat(b'"') {
            self.at += if self.peek().ok_or(NotAnObject)? == b'\\' { 2 } else { 1 };
        }
        let quoted = self.text.get(start.saturating_sub(1)..self.at).ok_or(NotAnObject)?;
        serde_json::from_str(quoted).map_err(|_| NotAnObject)
    }

    fn number(&mut self) -> Result<f64, NotAnObject> {
        let start = self.at;
        self.eat(b'-');
        // No leading zeros.
        if !self.eat(b'0') {
            self.digits();
        }
        if self.eat(b'.') {
            self.digits();
        }
        if self.eat(b'e') || self.eat(b'E') {
            let _ = self.eat(b'+') || self.eat(b'-');
            self.digits();
        }
        let text = self.text.get(start..self.at).unwrap_or_default();
        // Dates are integers, which `i64` parses faster. All other numbers are parsed by
        // `serde_json`, as when the claims are read for the application: if only one parser
        // accepted a number, the token would have two meanings. Also, `str::parse` is exact at any
        // cost: a payload of numbers halfway between two floats took 5 ms.
        match text.parse::<i64>() {
            Ok(integer) => Ok(integer as f64),
            Err(_) => serde_json::from_str(text).map_err(|_| NotAnObject),
        }
    }

    /// Skips digits. If they are missing, `serde_json` rejects the number.
    fn digits(&mut self) {
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
    }
}

/// The position of the next byte, from `at` on, that is special in a string: a quotation mark, a
/// backslash or a control character. Checks eight bytes at a time, because strings are most of a
/// payload.
#[inline]
fn plain_bytes(bytes: &[u8], mut at: usize) -> usize {
    const ONES: u64 = u64::MAX / 0xff;
    // Sets the highest bit of each byte that is less than `than`. This is exact up to the first
    // such byte, and only that one is used.
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

/// Checks the member names of one object for duplicates. They are sorted once at the end: comparing
/// each with all others would take milliseconds for 16 KiB of short names.
fn check_names(names: &mut [Cow<'_, str>]) -> Result<(), NotAnObject> {
    // Names that `serde_json` reserves. It would find another value there when the claims are read
    // for the application.
    if names.iter().any(|name| name.starts_with("$serde_json::private::")) {
        return Err(NotAnObject);
    }
    names.sort_unstable();
    if names.windows(2).any(|pair| pair.first() == pair.last()) { Err(NotAnObject) } else { Ok(()) }
}

/// Upper bound of the memory that claims take once they are read, in bytes, as a `serde_json` tree.
/// Types of the application are bounded by it as well.
///
/// An object's members are in nodes of a B-tree with 11 slots, of which at least 5 are used if
/// there are more than 11 members. An array has up to twice the slots that it needs, and at
/// least 4. The punctuation between values is counted, also within strings: that is cheap, and
/// never too low.
pub(crate) fn most_bytes_read(payload: &str) -> usize {
    const VALUE: usize = size_of::<serde_json::Value>();
    const NODE: usize = 11 * (VALUE + size_of::<String>()) + 12 * size_of::<usize>() + 16;
    /// What an allocator adds to a small allocation.
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
        let cases: [(&str, String, bool); 38] = [
            ("empty object", "{}".into(), true),
            ("surrounding white space", " {\"a\":1}\n".into(), true),
            ("escaped names", r#"{"\u0061":1,"b":2}"#.into(), true),
            ("arrays, maximum depth", deep(15), true),
            ("arrays, one level deeper", deep(16), false),
            ("arrays, far too deep", deep(5000), false),
            ("duplicate name", r#"{"a":1,"a":1}"#.into(), false),
            ("duplicate, one escaped", r#"{"a":1,"\u0061":1}"#.into(), false),
            ("duplicate, not adjacent", r#"{"a":1,"b":2,"a":3}"#.into(), false),
            ("duplicate that is not wanted", r#"{"b":1,"a":2,"c":3,"b":3}"#.into(), false),
            ("duplicate that is not wanted, one escaped", r#"{"b":1,"\u0062":3}"#.into(), false),
            ("duplicate, nested", r#"{"a":{"b":1,"b":2}}"#.into(), false),
            ("duplicate, in an array", r#"{"a":[{"b":1,"b":2}]}"#.into(), false),
            ("an array", "[]".into(), false),
            ("a string", "\"{}\"".into(), false),
            ("two objects", "{}{}".into(), false),
            ("byte order mark", "\u{feff}{}".into(), false),
            (
                "a name that serde_json reserves",
                r#"{"a":{"$serde_json::private::RawValue":"x"}}"#.into(),
                false,
            ),
            ("another such name", r#"{"a":{"$serde_json::private::Number":"1.25"}}"#.into(), false),
            ("such a name, outside", r#"{"$serde_json::private::RawValue":"x"}"#.into(), false),
            ("a number with all of its parts", r#"{"b":-1.5e+3}"#.into(), true),
            ("a sign without digits", r#"{"b":-}"#.into(), false),
            ("a fraction without digits", r#"{"b":1.}"#.into(), false),
            ("a fraction without digits, and an exponent", r#"{"b":1.e3}"#.into(), false),
            ("an exponent without digits", r#"{"b":1e}"#.into(), false),
            ("an exponent with a sign alone", r#"{"b":1e+}"#.into(), false),
            ("a number that begins with a point", r#"{"b":.5}"#.into(), false),
            ("a number that begins with zero", r#"{"b":01}"#.into(), false),
            ("a number too large for a float", r#"{"a":1e400}"#.into(), false),
            (
                "the largest float, rounded up, which serde_json rejects",
                r#"{"b":1.7976931348623158e308}"#.into(),
                false,
            ),
            ("objects, maximum depth", objects(16), true),
            ("objects, one level deeper", objects(17), false),
            ("objects, far too deep", objects(4000), false),
            ("a line feed in a short string", "{\"a\":\"\n\"}".into(), false),
            ("another control character in a short string", "{\"a\":\"\u{1f}\"}".into(), false),
            ("a form feed as white space", "{\u{c}\"a\":1}".into(), false),
            ("a vertical tab as white space", "{\"a\":\u{b}1}".into(), false),
            ("empty text", String::new(), false),
        ];
        for (name, json, ok) in cases {
            assert_eq!(read_object(&json, &["a"]).is_ok(), ok, "{name}");
        }
    }

    #[test]
    fn the_names_of_members_are_those_of_the_outermost_object() {
        for (object, expected) in [
            ("{}", &[][..]),
            ("{ }", &[]),
            (r#"{"a":1}"#, &["a"]),
            (r#"{ "\u0061\"" : {"b":1} , "c":["d"], "e":"}" }"#, &["a\"", "c", "e"]),
        ] {
            assert!(read_object(object, &[]).is_ok(), "{object}");
            assert_eq!(names(object).collect::<Vec<_>>(), expected, "{object}");
        }
    }

    /// Whether this is enough is measured in tests/memory.rs.
    #[test]
    fn the_bound_of_the_memory_counts_objects_arrays_and_strings() {
        let value = size_of::<serde_json::Value>();
        let node = 11 * (value + size_of::<String>()) + 12 * size_of::<usize>() + 16;
        for (payload, expected) in [
            ("", 0),
            ("7", 1),
            ("\"a\"", 32 + 3),
            ("[]", 4 * value + 32 + 2),
            ("[1,2]", 6 * value + 32 + 5),
            ("{\"a\":1}", node + 32 + 7),
            (r#"{"a":1,"b":2,"c":3,"d":4,"e":5}"#, 2 * node + 8 * value + 5 * 32 + 31),
            ("[[\"a\"],{}]", node + 10 * value + 3 * 32 + 10),
        ] {
            assert_eq!(most_bytes_read(payload), expected, "{payload}");
        }
    }

    #[test]
    fn names_are_those_of_the_members_without_escapes() {
        for (object, expected) in [
            ("{}", &[][..]),
            ("{ }", &[]),
            (r#"{"a":1}"#, &["a"]),
            (r#"{ "a\u002eb" : {"c":[{"d":0}]} , "" : "e" }"#, &["a.b", ""]),
            (r#"{"\ud83d\ude00":null,"\"":[]}"#, &["\u{1f600}", "\""]),
        ] {
            assert!(names(object).eq(expected.iter().copied()), "{object}");
        }
    }

    #[test]
    fn values_are_distinguished_by_type() {
        let json = r#"{"a":"x","b":["x","y"],"c":["x",1],"d":{"e":"x"},"f":null,"g":-1.5,"h":[],"i":true,"no":"x"}"#;
        let wanted = ["i", "h", "g", "f", "d", "c", "b", "a", "none"];
        let expected = [
            Some(Value::Bool(true)),
            Some(Value::Texts(vec![])),
            Some(Value::Number(-1.5)),
            Some(Value::Null),
            Some(Value::Object(r#"{"e":"x"}"#)),
            Some(Value::Other),
            Some(Value::Texts(vec!["x".into(), "y".into()])),
            Some(Value::Text("x".into())),
            None,
        ];
        assert_eq!(read_object(json, &wanted), Ok(expected));
    }

    /// Accepts exactly what `serde_json` accepts, except for the additional rules: an object, 16
    /// levels, no duplicate names.
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
        // Each byte of each text is removed, doubled, or replaced by one with a special meaning.
        let texts = [
            r#" { "a" : "x\u00e9\n\"y" , "b":[1, -2.5e+3,0.1 ,"z", [ ] , {}], "c":{"d":null,"e":true}} "#,
            r#"{"a":"longer than eight bytes","b":"twelve bytes\\","é":"ü\ud83d\ude00","c":false,"":-0,"d":10E-2}"#,
            r#"{"a":12345678901234567890,"b":-9223372036854775808,"c":1e308,"e":[[[[[[[[[[[[[[["x"]]]]]]]]]]]]]]]}"#,
        ];
        let (mut read, mut refused) = (0, 0);
        let mut check = |text: String| {
            let own = read_object(&text, &["a"]);
            let theirs = serde_json::from_str::<serde_json::Value>(&text);
            // Duplicate names are lost in a tree.
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
