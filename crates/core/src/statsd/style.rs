//! Tags inside the name, as three older clients write them. Off by default, since `,`, `#` and `[` are ordinary
//! characters of a name otherwise.

/// Which tag styles are read.
#[derive(Copy, Clone, PartialEq, Eq, Default, Debug)]
pub struct TagStyles(u8);

impl TagStyles {
    /// None: the name is all name.
    pub const NONE: Self = Self(0);
    /// `name,key=value,key=value`.
    pub const INFLUX: Self = Self(1);
    /// `name#key=value,key=value`.
    pub const LIBRATO: Self = Self(2);
    /// `name[key=value,key=value]`, the brackets anywhere.
    pub const SIGNALFX: Self = Self(4);
    /// All three.
    pub const ALL: Self = Self(7);

    /// The names by which configuration and command line know them.
    pub const NAMES: [(&'static str, Self); 3] =
        [("influx", Self::INFLUX), ("librato", Self::LIBRATO), ("signalfx", Self::SIGNALFX)];

    /// Whether none is on.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Whether `other` is on.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    /// These and `other`.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Where tags are in a name.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum NameStyle {
    /// Nowhere.
    Plain,
    /// After the byte at this position.
    Behind(usize),
    /// Between brackets.
    SignalFx {
        /// Where `[` is.
        open: usize,
        /// Where the first `]` behind it is.
        close: usize,
    },
}

impl NameStyle {
    pub(super) fn from_name(name: &[u8], styles: TagStyles) -> Self {
        if styles.intersects(TagStyles::SIGNALFX)
            && let Some(open) = memchr::memchr(b'[', name)
        {
            let close = name.get(open..).and_then(|rest| memchr::memchr(b']', rest));
            // An unclosed bracket is not a tag; the name stays unchanged.
            return close.map_or(Self::Plain, |length| Self::SignalFx { open, close: open + length });
        }
        let begins = |byte: u8| {
            byte == b',' && styles.intersects(TagStyles::INFLUX)
                || byte == b'#' && styles.intersects(TagStyles::LIBRATO)
        };
        name.iter().position(|&byte| begins(byte)).map_or(Self::Plain, Self::Behind)
    }

    /// The name without its tags, in two parts to be concatenated.
    #[must_use]
    pub fn name<'a>(&self, name: &'a [u8]) -> (&'a [u8], &'a [u8]) {
        let (head, tail) = match *self {
            Self::Plain => (Some(name), None),
            Self::Behind(at) => (name.get(..at), None),
            Self::SignalFx { open, close } => (name.get(..open), name.get(close + 1..)),
        };
        (head.unwrap_or_default(), tail.unwrap_or_default())
    }

    pub(super) fn name_is_empty(&self, name: &[u8]) -> bool {
        matches!(self.name(name), ([], []))
    }

    /// Key and value of each tag in the name; a tag without `=` has an empty value, as after `|#`. Only empty tags are
    /// skipped: skipping others would merge series that differ in them.
    pub fn tag_pairs<'a>(&self, name: &'a [u8]) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a> {
        let text = match *self {
            Self::Plain => None,
            Self::Behind(at) => name.get(at + 1..),
            Self::SignalFx { open, close } => name.get(open + 1..close),
        };
        let tags = text.unwrap_or_default().split(|&byte| byte == b',');
        let pair = |tag: &'a [u8]| match memchr::memchr(b'=', tag).and_then(|at| tag.split_at_checked(at)) {
            Some((key, value)) => (key, value.get(1..).unwrap_or_default()),
            None => (tag, &[][..]),
        };
        tags.map(pair).filter(|pair| !matches!(pair, ([], [])))
    }
}

/// A key as these clients' servers store it: characters outside `[A-Za-z0-9_]` become `_`, and a leading digit gets
/// one in front.
#[must_use]
pub fn escaped_key(key: &[u8]) -> String {
    let text = String::from_utf8_lossy(key);
    let digit = text.starts_with(|first: char| first.is_ascii_digit());
    let plain = text.chars().map(|c| if c.is_ascii_alphanumeric() || c == '_' { c } else { '_' });
    digit.then_some('_').into_iter().chain(plain).collect()
}

/// The styles named in `names`, where `all` stands for every one.
///
/// # Errors
/// The first name that is not a style.
pub fn read<'a>(names: impl IntoIterator<Item = &'a str>) -> Result<TagStyles, &'a str> {
    let mut styles = TagStyles::NONE;
    for name in names.into_iter().map(str::trim).filter(|name| !name.is_empty()) {
        let found = TagStyles::NAMES.iter().find(|(known, _)| *known == name).map(|(_, style)| *style);
        styles = styles.union(match found {
            Some(style) => style,
            None if name == "all" => TagStyles::ALL,
            None => return Err(name),
        });
    }
    Ok(styles)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_name(name: &str, styles: TagStyles) -> (String, Vec<(String, String)>) {
        let style = NameStyle::from_name(name.as_bytes(), styles);
        let (head, tail) = style.name(name.as_bytes());
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let pairs =
            style.tag_pairs(name.as_bytes()).map(|(key, value)| (escaped_key(key), text(value))).collect();
        (text(head) + &text(tail), pairs)
    }

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn each_style_has_its_own_mark() {
        let tags = pairs(&[("a", "1"), ("b", "2")]);
        for name in ["foo,a=1,b=2", "foo#a=1,b=2", "f[a=1,b=2]oo", "[a=1,b=2]foo", "foo[a=1,b=2]"] {
            assert_eq!(read_name(name, TagStyles::ALL), ("foo".to_owned(), tags.clone()), "{name}");
            assert_eq!(read_name(name, TagStyles::NONE), (name.to_owned(), vec![]), "{name}");
        }
        assert_eq!(read_name("foo#a=1,b=2", TagStyles::INFLUX), ("foo#a=1".to_owned(), pairs(&[("b", "2")])));
    }

    #[test]
    fn keys_are_escaped_and_only_empty_tags_are_skipped() {
        assert_eq!(
            read_name("foo,09digits=0,tag.with.dots=1,bare,=x,y=,,=", TagStyles::ALL).1,
            pairs(&[("_09digits", "0"), ("tag_with_dots", "1"), ("bare", ""), ("", "x"), ("y", "")])
        );
    }

    #[test]
    fn a_bracket_that_never_closes_is_part_of_the_name() {
        assert_eq!(read_name("[a=1,b=2foo", TagStyles::ALL), ("[a=1,b=2foo".to_owned(), vec![]));
    }

    #[test]
    fn styles_are_known_by_name() {
        assert_eq!(read(["all"]), Ok(TagStyles::ALL));
        assert_eq!(read(["influx", " librato"]), Ok(TagStyles::INFLUX.union(TagStyles::LIBRATO)));
        assert_eq!(read(["graphite"]), Err("graphite"));
    }
}
