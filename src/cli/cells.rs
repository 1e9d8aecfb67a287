//! Widths of text in the cells of a terminal.

use std::borrow::Cow;

use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::UnicodeWidthStr;

/// The cells that a text takes: two for a wide character or an emoji, none for a combining mark.
///
/// The widths of grapheme clusters are added up. The width of the string as a whole would count ligatures such as Arabic lam
/// with alef once, which terminals show in two cells.
pub(super) fn count_cells(text: &str) -> usize {
    match text.is_ascii() {
        true => text.len(),
        false => text.graphemes(true).map(UnicodeWidthStr::width).sum(),
    }
}

/// The text if it fits into `width` cells; otherwise its start with `…` after it. Never cuts inside a grapheme cluster, so the
/// result may be one cell narrower.
pub(super) fn truncate_to_cells(text: &str, width: usize) -> Cow<'_, str> {
    if count_cells(text) <= width {
        return Cow::Borrowed(text);
    }
    let mut left = width.saturating_sub(1);
    let mut kept = String::new();
    for cluster in text.graphemes(true) {
        let cells = cluster.width();
        if cells > left {
            break;
        }
        left -= cells;
        kept.push_str(cluster);
    }
    kept.push('…');
    Cow::Owned(kept)
}

/// Whether a text has characters of scripts that are written from right to left.
pub(super) fn is_right_to_left(text: &str) -> bool {
    text.chars().any(|c| {
        matches!(c,
            '\u{590}'..='\u{8ff}'
                | '\u{fb1d}'..='\u{fdff}'
                | '\u{fe70}'..='\u{fefe}'
                | '\u{10800}'..='\u{10fff}'
                | '\u{1e800}'..='\u{1efff}'
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_characters_take_two_cells_and_combining_marks_none() {
        for (text, cells) in [
            ("latency", 7),
            ("応答時間", 8),
            ("ｌａｔ", 6),
            ("e\u{301}te\u{301}", 3),
            ("👩\u{200d}🚒", 2),
            ("🇨🇭", 2),
            ("שלום", 4),
            ("\u{644}\u{627}", 2),
            ("", 0),
        ] {
            assert_eq!(count_cells(text), cells, "{text}");
        }
    }

    #[test]
    fn text_is_cut_between_grapheme_clusters() {
        for (text, width, cut) in [
            ("latency", 7, "latency"),
            ("latency", 6, "laten…"),
            ("応答時間", 8, "応答時間"),
            ("応答時間", 7, "応答時…"),
            ("応答時間", 6, "応答…"),
            ("e\u{301}te\u{301}s", 3, "e\u{301}t…"),
            ("👩\u{200d}🚒👩\u{200d}🚒", 3, "👩\u{200d}🚒…"),
            ("ab", 1, "…"),
        ] {
            let shown = truncate_to_cells(text, width);
            assert_eq!(shown, cut, "{text} in {width}");
            assert!(count_cells(&shown) <= width, "{text} in {width}");
        }
    }

    #[test]
    fn scripts_from_right_to_left_are_told_from_others() {
        assert!(is_right_to_left("a.שלום") && is_right_to_left("زمن"));
        assert!(!is_right_to_left("latency é 応答 👩\u{200d}🚒"));
    }
}
