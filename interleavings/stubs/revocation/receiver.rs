//! Nothing is received.
