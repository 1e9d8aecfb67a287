//! Converts aggregates to documents. Deterministic: the same input gives the same bytes.
#![cfg_attr(test, allow(clippy::float_cmp, reason = "tests compare numbers that are exact by construction"))]

pub mod exposition;
pub mod hdr;
pub mod number;
pub mod parsed;
pub mod prometheus;
pub mod publish;
pub mod record;
