//! Writes protobuf fields straight into a buffer.
//!
//! A request has some ten thousand labels, and messages as structs would hold a copy of each. Messages are written in
//! order here, and tests decode them with structs (`proto/*.proto` describes both).

/// A message being written. Fields with the default value of proto3 are left out, unless a function says otherwise.
#[derive(Clone, Default, Debug)]
pub(super) struct ProtoWriter {
    out: Vec<u8>,
}

/// How a field is encoded.
#[derive(Copy, Clone)]
enum WireType {
    Varint = 0,
    Fixed64 = 1,
    Delimited = 2,
}

impl ProtoWriter {
    pub(super) fn len(&self) -> usize {
        self.out.len()
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        &self.out
    }

    /// Forgets everything after the first `len` bytes.
    pub(super) fn truncate_to(&mut self, len: usize) {
        self.out.truncate(len);
    }

    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.out
    }

    /// Appends fields that were written elsewhere.
    pub(super) fn append_fields(&mut self, fields: &[u8]) {
        self.out.extend_from_slice(fields);
    }

    pub(super) fn write_uint(&mut self, tag: u32, value: u64) {
        if value != 0 {
            self.write_present_uint(tag, value);
        }
    }

    /// A number that is there even if it is 0.
    pub(super) fn write_present_uint(&mut self, tag: u32, value: u64) {
        self.write_key(tag, WireType::Varint);
        self.write_varint(value);
    }

    /// An `int32` or `int64`.
    pub(super) fn write_int(&mut self, tag: u32, value: i64) {
        self.write_uint(tag, value.cast_unsigned());
    }

    /// A `sint32` or `sint64`.
    pub(super) fn write_sint(&mut self, tag: u32, value: i64) {
        self.write_uint(tag, zigzag(value));
    }

    pub(super) fn write_fixed64(&mut self, tag: u32, value: u64) {
        if value != 0 {
            self.write_key(tag, WireType::Fixed64);
            self.out.extend_from_slice(&value.to_le_bytes());
        }
    }

    pub(super) fn write_double(&mut self, tag: u32, value: f64) {
        // −0 is not the default.
        self.write_fixed64(tag, value.to_bits());
    }

    /// A number that is there even if it is 0.
    pub(super) fn write_present_double(&mut self, tag: u32, value: f64) {
        self.write_key(tag, WireType::Fixed64);
        self.out.extend_from_slice(&value.to_le_bytes());
    }

    pub(super) fn write_string(&mut self, tag: u32, text: &str) {
        if !text.is_empty() {
            self.write_element(tag, text);
        }
    }

    /// An element of a list, which is there even if it is empty.
    pub(super) fn write_element(&mut self, tag: u32, text: &str) {
        self.write_key(tag, WireType::Delimited);
        self.write_varint(text.len() as u64);
        self.out.extend_from_slice(text.as_bytes());
    }

    /// A message, written by `fill`. It is there even if it is empty.
    pub(super) fn write_message(&mut self, tag: u32, fill: impl FnOnce(&mut Self)) {
        self.write_key(tag, WireType::Delimited);
        let start = self.out.len();
        // Most messages have less than 128 bytes, so that one is enough for the length.
        self.out.push(0);
        fill(self);
        let length = self.out.len() - start - 1;
        let prefix = varint_length(length as u64);
        self.out.resize(self.out.len() + prefix - 1, 0);
        let Some(message) = self.out.get_mut(start..) else { return };
        if prefix > 1 {
            message.copy_within(1..=length, prefix);
        }
        let (mut rest, last) = (length as u64, prefix - 1);
        for (place, byte) in message.iter_mut().take(prefix).enumerate() {
            *byte = low_byte(rest) & 0x7f | if place < last { 0x80 } else { 0 };
            rest >>= 7;
        }
    }

    pub(super) fn write_packed_uints(&mut self, tag: u32, values: impl IntoIterator<Item = u64>) {
        self.write_list(tag, |list| values.into_iter().for_each(|value| list.write_varint(value)));
    }

    /// A packed list of `sint32` or `sint64`.
    pub(super) fn write_packed_sints(&mut self, tag: u32, values: impl IntoIterator<Item = i64>) {
        self.write_packed_uints(tag, values.into_iter().map(zigzag));
    }

    pub(super) fn write_packed_doubles(&mut self, tag: u32, values: impl IntoIterator<Item = f64>) {
        self.write_list(tag, |list| {
            values.into_iter().for_each(|value| list.out.extend_from_slice(&value.to_le_bytes()));
        });
    }

    /// A packed list, which is left out if it is empty.
    fn write_list(&mut self, tag: u32, fill: impl FnOnce(&mut Self)) {
        let start = self.out.len();
        self.write_message(tag, fill);
        let nothing = start + key_length(tag) + varint_length(0);
        if self.out.len() == nothing {
            self.out.truncate(start);
        }
    }

    fn write_key(&mut self, tag: u32, wire: WireType) {
        self.write_varint((u64::from(tag) << 3) | wire as u64);
    }

    fn write_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.push(low_byte(value) | 0x80);
            value >>= 7;
        }
        self.out.push(low_byte(value));
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the other bits follow in the next byte")]
const fn low_byte(value: u64) -> u8 {
    value as u8
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

const fn key_length(tag: u32) -> usize {
    varint_length((tag as u64) << 3)
}

/// The bytes of a number in variable length.
pub(super) const fn varint_length(value: u64) -> usize {
    (70 - (value | 1).leading_zeros() as usize) / 7
}

#[cfg(test)]
pub(super) mod described;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use prost::Message as _;

    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Everything {
        #[prost(uint64, optional, tag = "1")]
        present: Option<u64>,
        #[prost(int64, tag = "2")]
        int: i64,
        #[prost(sint64, tag = "3")]
        sint: i64,
        #[prost(double, tag = "4")]
        double: f64,
        #[prost(string, repeated, tag = "5")]
        elements: Vec<String>,
        #[prost(uint64, repeated, tag = "16")]
        uints: Vec<u64>,
        #[prost(sint64, repeated, tag = "17")]
        sints: Vec<i64>,
        #[prost(double, repeated, tag = "18")]
        doubles: Vec<f64>,
        #[prost(message, optional, boxed, tag = "100")]
        inner: Option<Box<Everything>>,
    }

    fn write(message: &Everything, out: &mut ProtoWriter) {
        if let Some(present) = message.present {
            out.write_present_uint(1, present);
        }
        out.write_int(2, message.int);
        out.write_sint(3, message.sint);
        out.write_double(4, message.double);
        message.elements.iter().for_each(|element| out.write_element(5, element));
        out.write_packed_uints(16, message.uints.iter().copied());
        out.write_packed_sints(17, message.sints.iter().copied());
        out.write_packed_doubles(18, message.doubles.iter().copied());
        if let Some(inner) = &message.inner {
            out.write_message(100, |out| write(inner, out));
        }
    }

    #[test]
    fn an_empty_list_is_not_written_and_a_list_of_one_zero_is() {
        let mut out = ProtoWriter::default();
        out.write_packed_uints(16, []);
        assert!(out.as_bytes().is_empty());
        out.write_packed_uints(16, [0]);
        assert_eq!(out.as_bytes(), [0x82, 0x01, 1, 0]);
    }

    prop_compose! {
        fn flat()(
            present in any::<Option<u64>>(),
            int in any::<i64>(),
            sint in any::<i64>(),
            double in prop::num::f64::NORMAL | prop::num::f64::ZERO,
            elements in prop::collection::vec(".{0,90}", 0..4),
            uints in prop::collection::vec(any::<u64>(), 0..200),
            sints in prop::collection::vec(any::<i64>(), 0..9),
            doubles in prop::collection::vec(prop::num::f64::NORMAL, 0..9),
        ) -> Everything {
            Everything { present, int, sint, double, elements, uints, sints, doubles, inner: None }
        }
    }

    proptest! {
        #[test]
        fn property_fields_are_those_that_another_encoder_writes(outer in flat(), inner in flat()) {
            let message = Everything { inner: Some(Box::new(inner)), ..outer };
            let mut out = ProtoWriter::default();
            write(&message, &mut out);
            prop_assert_eq!(out.as_bytes(), message.encode_to_vec());
        }

        #[test]
        fn property_the_length_of_a_number_is_known(value in any::<u64>(), shift in 0..64_u32) {
            let mut out = ProtoWriter::default();
            out.write_varint(value >> shift);
            prop_assert_eq!(out.len(), varint_length(value >> shift));
        }
    }
}
