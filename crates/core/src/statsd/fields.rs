//! The fields that may follow a type, an event's text or a check's status; their prefix determines their kind.

/// The identity that the client claims. For display only; the origin is determined by the socket.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ClientIdentity<'a> {
    container: &'a [u8],
    external: &'a [u8],
    cardinality: &'a [u8],
    given: bool,
}

/// An `e:` field: data that an orchestrator's admission hook gave to the client (DogStatsD v1.5).
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct ExternalData<'a> {
    /// `cn-`: the container's name.
    pub container_name: Option<&'a [u8]>,
    /// `it-`: whether it is an init container.
    pub init: Option<bool>,
    /// `pu-`: the pod's uid.
    pub pod_uid: Option<&'a [u8]>,
}

impl<'a> ClientIdentity<'a> {
    /// Nothing said.
    pub const NONE: Self = Self { container: &[], external: &[], cardinality: &[], given: false };

    /// Takes the field if it is one of `c:`, `e:` and `card:`. The last of a kind wins.
    #[inline]
    pub(super) fn apply_field(&mut self, field: &'a [u8]) {
        self.given |= Self::is_field(field);
        match field {
            [b'c', b':', id @ ..] => self.container = id,
            [b'e', b':', data @ ..] => self.external = data,
            [b'c', b'a', b'r', b'd', b':', level @ ..] => self.cardinality = level,
            _ => {}
        }
    }

    /// Whether a field is part of the client's identity.
    #[inline]
    pub(super) const fn is_field(field: &[u8]) -> bool {
        matches!(field, [b'c' | b'e', b':', ..] | [b'c', b'a', b'r', b'd', b':', ..])
    }

    /// Whether the line had such a field, even an empty one.
    #[inline]
    #[must_use]
    pub const fn is_given(&self) -> bool {
        self.given
    }

    /// The container ID of a `c:` field, without `ci-` or `cid-`. An inode (`in-`) is not a container ID.
    #[must_use]
    pub fn container_id(&self) -> Option<&'a [u8]> {
        self.container
            .split(|&byte| byte == b',')
            .find(|part| !part.is_empty() && !part.starts_with(b"in-"))
            .map(|part| part.strip_prefix(b"ci-").or_else(|| part.strip_prefix(b"cid-")).unwrap_or(part))
    }

    /// The data of an `e:` field; `None` if there is none or it contains nothing known.
    #[must_use]
    pub fn external_data(&self) -> Option<ExternalData<'a>> {
        let mut data = ExternalData { container_name: None, init: None, pod_uid: None };
        for part in self.external.split(|&byte| byte == b',') {
            match part {
                [b'c', b'n', b'-', name @ ..] => data.container_name = Some(name),
                [b'p', b'u', b'-', uid @ ..] => data.pod_uid = Some(uid),
                b"it-true" => data.init = Some(true),
                b"it-false" => data.init = Some(false),
                _ => {}
            }
        }
        let known = data.container_name.is_some() || data.init.is_some() || data.pod_uid.is_some();
        known.then_some(data)
    }

    /// The level of a `card:` field, as written.
    #[must_use]
    pub fn cardinality_level(&self) -> Option<&'a [u8]> {
        (!self.cardinality.is_empty()).then_some(self.cardinality)
    }
}

/// Calls `take` with each field of `rest`, which is empty or starts with `|`.
///
/// # Errors
/// The first error that `take` returns.
#[inline]
pub(super) fn for_each_field<'a, E>(
    mut rest: &'a [u8],
    mut take: impl FnMut(&'a [u8]) -> Result<(), E>,
) -> Result<(), E> {
    while let [b'|', after @ ..] = rest {
        let end = memchr::memchr(b'|', after).unwrap_or(after.len());
        let (field, next) = after.split_at_checked(end).unwrap_or((after, &[]));
        take(field)?;
        rest = next;
    }
    Ok(())
}

/// Whole seconds since 1970, as `T` and `d:` fields carry them; at least 1.
pub(super) fn parse_seconds(text: &[u8]) -> Option<i64> {
    if text.is_empty() || text.len() > 19 {
        return None;
    }
    let mut seconds = 0_i64;
    for &byte in text {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        seconds = seconds.checked_mul(10)?.checked_add(i64::from(digit))?;
    }
    (seconds > 0).then_some(seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(field: &'static [u8]) -> ClientIdentity<'static> {
        let mut identity = ClientIdentity::NONE;
        identity.apply_field(field);
        identity
    }

    #[test]
    fn a_container_field_loses_its_prefix_and_an_inode_is_ignored() {
        for (field, id) in [
            (b"c:abc".as_slice(), Some(b"abc".as_slice())),
            (b"c:ci-abc,in-12", Some(b"abc")),
            (b"c:in-12,ci-abc", Some(b"abc")),
            (b"c:cid-abc", Some(b"abc")),
            (b"c:in-12", None),
            (b"c:", None),
            (b"c", None),
        ] {
            assert_eq!(identity(field).container_id(), id);
        }
    }

    #[test]
    fn external_data_is_read_in_any_order_and_unknown_parts_are_ignored() {
        let data = identity(b"e:pu-u,it-false,zz-1,cn-web").external_data().unwrap();
        assert_eq!(
            (data.container_name, data.init, data.pod_uid),
            (Some(b"web".as_slice()), Some(false), Some(b"u".as_slice()))
        );
        assert_eq!(identity(b"e:unknown").external_data(), None);
    }

    #[test]
    fn seconds_are_positive_decimal_digits() {
        assert_eq!(parse_seconds(b"1656581400"), Some(1_656_581_400));
        for text in [
            b"".as_slice(),
            b"0",
            b"-5",
            b"+5",
            b"1.5",
            b"99999999999999999999",
            b"9999999999999999999",
            b"1 ",
        ] {
            assert_eq!(parse_seconds(text), None);
        }
    }
}
