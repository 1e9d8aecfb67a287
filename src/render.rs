//! From aggregates to documents. Pure: the same input gives the same bytes.

pub mod exposition;
pub mod number;
pub mod parsed;
pub mod prometheus;
pub mod record;
