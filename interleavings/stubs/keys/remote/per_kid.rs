//! Not explored: part of a fetch.
