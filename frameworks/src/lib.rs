//! portcullis in frameworks that are not built on tower: one module per framework, each with what a
//! service needs of it. `ProtectLayer::verify_request` has the verdict, and each module translates
//! the request and the rejection.

pub mod actix;
pub mod lambda;
pub mod poem;
pub mod salvo;
pub mod tonic;
