//! The wire and storage formats of Staffetta, generated from `proto/staffetta/*/v1/*.proto`,
//! and the traits through which services call each other (with or without gRPC between them).

macro_rules! generated {
    ($($noun:ident),*) => {$(
        pub mod $noun {
            //! Generated from the `.proto` file of the same name.
            pub mod v1 {
                //! Version 1.
                #![allow(clippy::all, clippy::unwrap_used, clippy::let_underscore_must_use, clippy::allow_attributes_without_reason, reason = "generated code")]
                include!(concat!(env!("OUT_DIR"), "/staffetta.", stringify!($noun), ".v1.rs"));
            }
            pub use v1::*;
        }
    )*};
}

generated!(
    envelope, operation, standing, watch, event, inbound, transcript, spool, journal, dispatch,
    signer, admin
);

mod signal;

#[cfg(feature = "grpc")]
mod calls;
#[cfg(feature = "grpc")]
pub use calls::{Attached, Call, CallError, Dispatch, Sign};
#[cfg(feature = "grpc")]
mod endpoints;
#[cfg(feature = "grpc")]
mod sign_client;
#[cfg(feature = "grpc")]
pub use sign_client::{BatchingSigner, GrpcSigner, MAX_SIGN_CALL_BYTES, MAX_SIGN_REQUESTS};
#[cfg(feature = "grpc")]
mod dispatch_client;
#[cfg(feature = "grpc")]
pub use dispatch_client::{GrpcDispatch, MAX_DISPATCH_FRAME_BYTES};
