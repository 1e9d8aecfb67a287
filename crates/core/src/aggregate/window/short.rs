//! Numbers of few digits in few bytes: an f64 with its bytes turned around, so that a mantissa that ends in zeros becomes
//! a small whole number, which a varint keeps short. 5.0 takes three bytes, 0.1 ten.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a field by reference")]
pub(super) fn serialize<S: Serializer>(value: &f64, serializer: S) -> Result<S::Ok, S::Error> {
    value.to_bits().swap_bytes().serialize(serializer)
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    u64::deserialize(deserializer).map(|bits| f64::from_bits(bits.swap_bytes()))
}
