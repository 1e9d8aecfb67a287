//! What a receiver answers.

use prost::Message as _;

/// The answer to a request that was accepted, at least in part.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct OtlpAnswer {
    /// How many data points the receiver refused.
    pub rejected: u64,
    /// Why, or a warning if none was refused.
    pub message: String,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ExportMetricsServiceResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<ExportMetricsPartialSuccess>,
}

#[derive(Clone, PartialEq, Eq, prost::Message)]
struct ExportMetricsPartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_data_points: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// Decodes the body of an answer with status 200. An empty body means that everything was accepted.
///
/// # Errors
/// When it is no such message, which then comes from something that does not understand the protocol.
pub fn decode_answer(body: &[u8]) -> Result<OtlpAnswer, prost::DecodeError> {
    let partial = ExportMetricsServiceResponse::decode(body)?.partial_success.unwrap_or_default();
    let rejected = u64::try_from(partial.rejected_data_points).unwrap_or_default();
    Ok(OtlpAnswer { rejected, message: partial.error_message })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_how_many_points_were_refused_and_why() {
        assert_eq!(decode_answer(b""), Ok(OtlpAnswer::default()));
        assert_eq!(decode_answer(b"\x0a\x00"), Ok(OtlpAnswer::default()));
        let refused = decode_answer(b"\x0a\x07\x08\x03\x12\x03old");
        assert_eq!(refused, Ok(OtlpAnswer { rejected: 3, message: "old".to_owned() }));
        let negative = b"\x0a\x0b\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01";
        assert_eq!(decode_answer(negative), Ok(OtlpAnswer::default()));
        assert!(decode_answer(b"<html>").is_err() && decode_answer(b"\x0a\x07\x08").is_err());
    }
}
