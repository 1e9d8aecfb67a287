//! The `tallyport` program.
fn main() {}
