//! `McpLayer`: which requests reach an MCP server, by what their bodies name.

mod bodies;
mod client;
mod headers;
mod layer;
mod sessions;
mod support;
