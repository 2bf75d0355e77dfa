//! Reads from a JSON-RPC body (JSON-RPC 2.0 §4) what the rules of an MCP server depend on: the
//! method, and the tool, prompt or resources that it names.
//!
//! The service reads the same bytes a second time, with a reader of its own. A body that the two
//! could understand differently is rejected: repeated members, members of an unexpected type, and
//! the names by which `serde_json` marks values of its own.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;

/// Maximum number of messages in a batch. MCP servers of today accept none.
const MAX_BATCH: usize = 100;

/// Maximum number of resources that the messages of one body may subscribe to together.
const MAX_SUBSCRIPTIONS: usize = 1000;

/// Maximum length, in bytes, of an `id` that an error response repeats.
const MAX_ID: usize = 256;

/// With some of its features, `serde_json` reads `{"$serde_json::private::RawValue": "…"}` as the
/// JSON in that string. A service with such a feature would read another message.
const PRIVATE: &str = "$serde_json::private::";

/// The messages of one request body.
#[derive(Debug)]
pub(crate) enum Body<'a> {
    One(Box<Message<'a>>),
    Batch(Vec<Message<'a>>),
}

/// A request, a notification, or a response.
#[derive(Debug, Default)]
pub(crate) struct Message<'a> {
    /// `None` in a response.
    pub(crate) method: Option<Cow<'a, str>>,
    pub(crate) id: Option<Id>,
    params: Option<Params<'a>>,
    version: Option<IgnoredAny>,
}

/// A string, a number, or `null` (JSON-RPC 2.0 §4).
#[derive(Debug, PartialEq)]
pub(crate) struct Id(pub(crate) Value);

/// The members of `params` that name something.
#[derive(Debug, Default)]
struct Params<'a> {
    name: Option<Cow<'a, str>>,
    uri: Option<Cow<'a, str>>,
    task: Option<Cow<'a, str>>,
    /// `completion/complete`.
    reference: Option<Reference<'a>>,
    /// `subscriptions/listen`.
    notifications: Option<Notifications<'a>>,
}

#[derive(Debug, Default)]
struct Reference<'a> {
    name: Option<Cow<'a, str>>,
    uri: Option<Cow<'a, str>>,
}

#[derive(Debug, Default)]
struct Notifications<'a> {
    resources: Option<Subscriptions<'a>>,
}

#[derive(Debug)]
struct Subscriptions<'a>(Vec<Cow<'a, str>>);

/// Something that a rule may be registered for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Name<'a> {
    Tool(&'a str),
    Prompt(&'a str),
    Resource(&'a str),
}

/// Why a body is rejected.
#[derive(Debug, PartialEq)]
pub(crate) enum ReadError {
    /// Not JSON, or not in UTF-8.
    NotJson,
    /// JSON, but not messages that can be understood in one way only. Where it was found.
    Invalid { line: usize, column: usize },
}

impl<'a> Body<'a> {
    pub(crate) fn read(bytes: &'a [u8]) -> Result<Self, ReadError> {
        serde_json::from_slice(bytes).map_err(|error| match error.classify() {
            // Without the text of the error, which quotes the body.
            Category::Data => ReadError::Invalid { line: error.line(), column: error.column() },
            Category::Io | Category::Syntax | Category::Eof => ReadError::NotJson,
        })
    }

    pub(crate) fn messages(&self) -> &[Message<'a>] {
        match self {
            Self::One(message) => std::slice::from_ref(message),
            Self::Batch(messages) => messages,
        }
    }
}

impl<'a> Message<'a> {
    fn subscriptions(&self) -> &[Cow<'a, str>] {
        let notifications = self.params.as_ref().and_then(|params| params.notifications.as_ref());
        let resources = notifications.and_then(|notifications| notifications.resources.as_ref());
        resources.map_or(&[], |all| &all.0)
    }
}

impl Message<'_> {
    /// Calls `each` for everything that the message names. For methods that are not known, a name
    /// counts as that of a tool and of a prompt: a new way to reach them must not be without rules.
    pub(crate) fn names<'s>(&'s self, mut each: impl FnMut(Name<'s>)) {
        let (Some(method), Some(params)) = (&self.method, &self.params) else { return };
        if let Some(name) = params.name.as_deref() {
            if &**method != "prompts/get" {
                each(Name::Tool(name));
            }
            if &**method != "tools/call" {
                each(Name::Prompt(name));
            }
        }
        if let Some(uri) = params.uri.as_deref() {
            each(Name::Resource(uri));
        }
        if let Some(Reference { name, uri }) = &params.reference {
            if let Some(name) = name.as_deref() {
                each(Name::Prompt(name));
            }
            if let Some(uri) = uri.as_deref() {
                each(Name::Resource(uri));
            }
        }
        for uri in self.subscriptions() {
            each(Name::Resource(uri));
        }
    }

    /// What the header `Mcp-Name` of this message must say, if the method has one.
    pub(crate) fn header_name(&self) -> Option<&str> {
        let params = self.params.as_ref()?;
        match self.method.as_deref()? {
            "tools/call" | "prompts/get" => params.name.as_deref(),
            "tasks/get" | "tasks/update" | "tasks/cancel" => params.task.as_deref(),
            "resources/read"
            | "resources/subscribe"
            | "resources/unsubscribe"
            | "resources/directory/read"
            | "skills/get" => params.uri.as_deref(),
            _ => None,
        }
    }
}

impl<'de> Deserialize<'de> for Body<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Messages;

        impl<'de> Visitor<'de> for Messages {
            type Value = Body<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a JSON-RPC message or an array of messages")
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<Body<'de>, M::Error> {
                read_members(map).map(|message| Body::One(Box::new(message)))
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut items: S) -> Result<Body<'de>, S::Error> {
                let mut messages: Vec<Message<'de>> = Vec::new();
                let mut subscriptions = 0;
                while let Some(Object(message)) = items.next_element::<Object<Message<'de>>>()? {
                    subscriptions += message.subscriptions().len();
                    if subscriptions > MAX_SUBSCRIPTIONS {
                        return Err(S::Error::custom(format!(
                            "expected at most {MAX_SUBSCRIPTIONS} subscriptions"
                        )));
                    }
                    if messages.len() == MAX_BATCH {
                        return Err(S::Error::custom(format!(
                            "expected at most {MAX_BATCH} messages"
                        )));
                    }
                    messages.push(message);
                }
                Ok(Body::Batch(messages))
            }
        }

        deserializer.deserialize_any(Messages)
    }
}

/// An object of which some members are read. `null` is an object without members. Nothing else is
/// accepted in its place: serde also reads a struct from an array of its values.
trait Members<'de>: Default {
    const EXPECTED: &'static str;

    /// Reads the value of the member `name`, or returns `false` if it is not needed.
    fn read<M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<bool, M::Error>;
}

fn read_members<'de, M: MapAccess<'de>, T: Members<'de>>(mut map: M) -> Result<T, M::Error> {
    let mut members = T::default();
    while let Some(Text(name)) = map.next_key()? {
        if name.starts_with(PRIVATE) {
            return Err(M::Error::custom("unexpected member name"));
        }
        if !members.read(&name, &mut map)? {
            map.next_value::<IgnoredAny>()?;
        }
    }
    Ok(members)
}

/// Reads the value of a member that must not be repeated.
fn once<'de, M: MapAccess<'de>, T: Deserialize<'de>>(
    slot: &mut Option<T>,
    name: &str,
    map: &mut M,
) -> Result<bool, M::Error> {
    if slot.is_some() {
        return Err(M::Error::custom(format!("expected one member {name:?}")));
    }
    *slot = Some(map.next_value()?);
    Ok(true)
}

/// As [`once`], for a text.
fn text_once<'de, M: MapAccess<'de>>(
    slot: &mut Option<Cow<'de, str>>,
    name: &str,
    map: &mut M,
) -> Result<bool, M::Error> {
    let mut text = slot.take().map(Text);
    once(&mut text, name, map)?;
    *slot = text.map(|Text(text)| text);
    Ok(true)
}

fn object_once<'de, M: MapAccess<'de>, T: Members<'de>>(
    slot: &mut Option<T>,
    name: &str,
    map: &mut M,
) -> Result<bool, M::Error> {
    let mut object = slot.take().map(Object);
    once(&mut object, name, map)?;
    *slot = object.map(|Object(object)| object);
    Ok(true)
}

impl<'de> Members<'de> for Message<'de> {
    const EXPECTED: &'static str = "a JSON-RPC message";

    fn read<M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<bool, M::Error> {
        match name {
            "jsonrpc" => once(&mut self.version, name, map),
            "method" => text_once(&mut self.method, name, map),
            "id" => once(&mut self.id, name, map),
            "params" => object_once(&mut self.params, name, map),
            _ => Ok(false),
        }
    }
}

impl<'de> Members<'de> for Params<'de> {
    const EXPECTED: &'static str = "an object as `params`";

    fn read<M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<bool, M::Error> {
        match name {
            "name" => text_once(&mut self.name, name, map),
            "uri" => text_once(&mut self.uri, name, map),
            "taskId" => text_once(&mut self.task, name, map),
            "ref" => object_once(&mut self.reference, name, map),
            "notifications" => object_once(&mut self.notifications, name, map),
            _ => Ok(false),
        }
    }
}

impl<'de> Members<'de> for Reference<'de> {
    const EXPECTED: &'static str = "an object as `ref`";

    fn read<M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<bool, M::Error> {
        match name {
            "name" => text_once(&mut self.name, name, map),
            "uri" => text_once(&mut self.uri, name, map),
            _ => Ok(false),
        }
    }
}

impl<'de> Members<'de> for Notifications<'de> {
    const EXPECTED: &'static str = "an object as `notifications`";

    fn read<M: MapAccess<'de>>(&mut self, name: &str, map: &mut M) -> Result<bool, M::Error> {
        match name {
            "resourceSubscriptions" => once(&mut self.resources, name, map),
            _ => Ok(false),
        }
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct IdVisitor;

        impl Visitor<'_> for IdVisitor {
            type Value = Id;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string or a number as `id`")
            }

            fn visit_unit<E: Error>(self) -> Result<Id, E> {
                Ok(Id(Value::Null))
            }

            fn visit_i64<E: Error>(self, id: i64) -> Result<Id, E> {
                Ok(Id(id.into()))
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<Id, E> {
                Ok(Id(id.into()))
            }

            fn visit_f64<E: Error>(self, id: f64) -> Result<Id, E> {
                Ok(Id(id.into()))
            }

            fn visit_str<E: Error>(self, id: &str) -> Result<Id, E> {
                // Only for an error response. A long one is not worth its memory.
                Ok(Id(if id.len() <= MAX_ID { id.into() } else { Value::Null }))
            }
        }

        deserializer.deserialize_any(IdVisitor)
    }
}

struct Object<T>(T);

impl<'de, T: Members<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ObjectVisitor<T>(PhantomData<T>);

        impl<'de, T: Members<'de>> Visitor<'de> for ObjectVisitor<T> {
            type Value = T;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(T::EXPECTED)
            }

            fn visit_map<M: MapAccess<'de>>(self, map: M) -> Result<T, M::Error> {
                read_members(map)
            }

            fn visit_unit<E: Error>(self) -> Result<T, E> {
                Ok(T::default())
            }
        }

        deserializer.deserialize_any(ObjectVisitor(PhantomData)).map(Object)
    }
}

impl<'de> Deserialize<'de> for Subscriptions<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Uris;

        impl<'de> Visitor<'de> for Uris {
            type Value = Subscriptions<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an array of URIs as `resourceSubscriptions`")
            }

            fn visit_unit<E: Error>(self) -> Result<Subscriptions<'de>, E> {
                Ok(Subscriptions(Vec::new()))
            }

            fn visit_seq<S: SeqAccess<'de>>(
                self,
                mut items: S,
            ) -> Result<Subscriptions<'de>, S::Error> {
                let mut uris = Vec::new();
                while let Some(Text(uri)) = items.next_element()? {
                    if uris.len() == MAX_SUBSCRIPTIONS {
                        return Err(S::Error::custom(format!(
                            "expected at most {MAX_SUBSCRIPTIONS} subscriptions"
                        )));
                    }
                    uris.push(uri);
                }
                Ok(Subscriptions(uris))
            }
        }

        deserializer.deserialize_any(Uris)
    }
}

/// A string, borrowed from the body unless it has escapes. No other type is read as a string.
struct Text<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Text<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextVisitor;

        impl<'de> Visitor<'de> for TextVisitor {
            type Value = Text<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Borrowed(text)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(Cow::Owned(text.to_owned())))
            }
        }

        deserializer.deserialize_str(TextVisitor)
    }
}

#[cfg(test)]
mod tests;
