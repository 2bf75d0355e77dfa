//! The MCP server: tools, resources and a prompt about notes. It knows nothing of scopes: requests
//! that reach it may do what they ask for.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use portcullis::AccessToken;
use rmcp::handler::server::common::Extension;
use rmcp::handler::server::wrapper::Parameters;
use rmcp::model::{
    CompleteRequestParams, CompleteResult, CompletionInfo, ListResourceTemplatesResult,
    ListResourcesResult, PaginatedRequestParams, PromptMessage, ReadResourceRequestParams,
    ReadResourceResponse, ReadResourceResult, Resource, ResourceContents, ResourceTemplate, Role,
    ServerCapabilities, ServerConfig,
};
use rmcp::service::RequestContext;
use rmcp::{
    ErrorData, RoleServer, ServerHandler, prompt, prompt_handler, prompt_router, tool,
    tool_handler, tool_router,
};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::json;

/// Limits on what a client can store.
const MAX_NOTES: usize = 1_000;
const MAX_TEXT: usize = 10_000;

/// The notes of all users: a demo.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<BTreeMap<String, String>>>);

#[derive(Deserialize, JsonSchema)]
struct Note {
    /// The name of the note.
    id: String,
    /// What it says.
    text: String,
}

#[tool_router]
impl Notes {
    #[tool(description = "Who is signed in, and what the token grants")]
    async fn whoami(&self, Extension(parts): Extension<http::request::Parts>) -> String {
        // The layer has put it there, for every request.
        let Some(token) = parts.extensions.get::<AccessToken>() else {
            return json!({ "subject": null }).to_string();
        };
        json!({
            "subject": token.subject(),
            "client": token.client_id(),
            "scope": token.scope().as_str(),
        })
        .to_string()
    }

    #[tool(description = "Write a note. Needs the scope notes:write")]
    async fn write_note(
        &self,
        Parameters(Note { id, text }): Parameters<Note>,
    ) -> Result<String, String> {
        let mut notes = self.lock();
        if id.len() + text.len() > MAX_TEXT || notes.len() >= MAX_NOTES {
            return Err("the notes are full".to_owned());
        }
        notes.insert(id.clone(), text);
        Ok(format!("written: notes://{id}"))
    }

    #[tool(description = "Delete all notes. Needs the role admin")]
    async fn admin(&self) -> String {
        let mut notes = self.lock();
        let count = notes.len();
        notes.clear();
        format!("deleted: {count}")
    }
}

#[prompt_router]
impl Notes {
    #[prompt(description = "Summarise the notes. Needs the scope notes:write")]
    async fn summarise(&self) -> Vec<PromptMessage> {
        let notes: Vec<_> = self.lock().values().cloned().collect();
        let text = format!("Summarise these notes:\n{}", notes.join("\n"));
        vec![PromptMessage::new_text(Role::User, text)]
    }
}

impl Notes {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[tool_handler]
#[prompt_handler(router = Self::prompt_router())]
impl ServerHandler for Notes {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(
            ServerCapabilities::builder()
                .enable_tools()
                .enable_resources()
                .enable_prompts()
                .enable_completions()
                .build(),
        )
    }

    async fn list_resources(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourcesResult, ErrorData> {
        let notes: Vec<_> =
            self.lock().keys().map(|id| Resource::new(format!("notes://{id}"), id)).collect();
        Ok(ListResourcesResult::with_all_items(notes))
    }

    async fn list_resource_templates(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListResourceTemplatesResult, ErrorData> {
        Ok(ListResourceTemplatesResult::with_all_items(vec![
            ResourceTemplate::new("notes://{id}", "notes"),
            ResourceTemplate::new("drafts://{id}", "drafts"),
        ]))
    }

    async fn read_resource(
        &self,
        request: ReadResourceRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<ReadResourceResponse, ErrorData> {
        let text = match request.uri.split_once("://") {
            Some(("notes", id)) => self.lock().get(id).cloned(),
            Some(("drafts", id)) => Some(format!("draft of {id}")),
            _ => None,
        };
        let text = text.ok_or_else(|| ErrorData::resource_not_found("no such note", None))?;
        Ok(ReadResourceResult::new(vec![ResourceContents::text(text, request.uri)]).into())
    }

    async fn complete(
        &self,
        _: CompleteRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CompleteResult, ErrorData> {
        let ids = self.lock().keys().take(CompletionInfo::MAX_VALUES).cloned().collect();
        let completion =
            CompletionInfo::new(ids).map_err(|error| ErrorData::internal_error(error, None))?;
        Ok(CompleteResult::new(completion))
    }
}

/// A request that calls a tool without arguments, for curl.
pub(crate) fn call(tool: &str) -> String {
    json!({
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {
            "name": tool,
            "arguments": {},
            "_meta": {
                "io.modelcontextprotocol/protocolVersion": "2026-07-28",
                "io.modelcontextprotocol/clientInfo": { "name": "curl", "version": "1" },
                "io.modelcontextprotocol/clientCapabilities": {},
            },
        },
    })
    .to_string()
}
